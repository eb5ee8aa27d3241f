"""Config `videos`: AVE built from its videos, in a folder or in the archive."""

import json
import zipfile

import numpy as np
import pytest

from avsdn_tf.features.extractor import Extractor
from avsdn_tf.features.video import VideoError
from tests.small_datasets import ORDERS, ROWS, build, examples, make_ave
from tests.small_videos import Brightness, Loudness, write_clip
from tfds_ave import DatasetError, extraction
from tfds_ave.tfds_ave_dataset_builder import Builder
from tfds_ave.videos import Video


class WideLoudness(Loudness):
    """Loudness at the width of VGGish's features."""

    width = 128

    def __call__(self, seconds):
        return np.repeat(super().__call__(seconds)[:, :1], self.width, axis=1)


class WideBrightness(Brightness):
    """Brightness at the width of ResNet-152's features."""

    shape = (2048,)

    def __call__(self, frames):
        return np.repeat(super().__call__(frames)[:, :1], *self.shape, axis=1)


@pytest.fixture
def loaded(monkeypatch):
    """Replace `build_extractor`; return the list of requested visual networks."""
    names = []

    def build_extractor(visual_network, **_):
        names.append(visual_network)
        return Extractor(WideLoudness(), WideBrightness())

    monkeypatch.setattr(extraction, "build_extractor", build_extractor)
    return names


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Return the bytes of a clip of 10 s."""
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", 10).read_bytes()


@pytest.fixture
def ave(tmp_path):
    """Return a folder of AVE's small files, without videos or features."""
    folder = make_ave(tmp_path / "ave", noisy=False)
    for name in ("audio_feature.h5", "visual_feature_vec.h5"):
        (folder / name).unlink()
    return folder


@pytest.fixture
def ave_folder(ave, clip):
    """Return the folder of `ave` with videos in its subfolder AVE."""
    (ave / "AVE").mkdir()
    for row in range(ROWS):
        (ave / "AVE" / f"-id{row:08d}.mp4").write_bytes(clip)
    return ave


@pytest.fixture
def ave_archive(ave, clip):
    """Return the folder of `ave` with videos in AVE_Dataset.zip."""
    write_archive(ave, [clip] * ROWS)
    return ave


def write_archive(folder, clips):
    path = folder / "AVE_Dataset.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("AVE_Dataset/Annotations.txt", "not read")
        archive.writestr("__MACOSX/AVE_Dataset/AVE/._-id00000003.mp4", b"not read")
        for row, clip in enumerate(clips):
            archive.writestr(f"AVE_Dataset/AVE/-id{row:08d}.mp4", clip)


def refusal(folder, data_dir):
    """Return the error message of a build that must fail."""
    with pytest.raises(DatasetError) as error:
        build(folder, data_dir, "videos")
    assert not Builder(data_dir=data_dir, config="videos").is_prepared()
    return str(error.value)


def test_missing_videos_are_named(tmp_path, ave_folder, loaded):
    (ave_folder / "AVE" / "-id00000007.mp4").unlink()
    assert "1 of 30" in (message := refusal(ave_folder, tmp_path / "data"))
    assert "-id00000007" in message
    for path in (ave_folder / "AVE").iterdir():
        path.unlink()
    (ave_folder / "AVE").rmdir()
    assert "AVE_Dataset.zip" in refusal(ave_folder, tmp_path / "data")
    assert loaded == []


def test_a_damaged_video_is_named_and_other_features_are_kept(
    tmp_path, ave_folder, loaded, clip
):
    broken = ave_folder / "AVE" / "-id00000003.mp4"
    broken.write_bytes(clip[:2000])
    message = refusal(ave_folder, tmp_path / "data")
    assert "-id00000003: " in message
    assert "1 of 30 videos failed" in message
    kept = ave_folder / "features" / "-id00000004.audio.npy"
    before = kept.stat().st_mtime_ns
    broken.write_bytes(clip)
    builder = build(ave_folder, tmp_path / "data", "videos")
    assert kept.stat().st_mtime_ns == before
    assert set(builder.info.splits) == {"train", "validation", "test"}
    example = examples(builder, "test")[21]
    assert example["audio"].shape == (10, 128)
    np.testing.assert_allclose(example["visual"][:, 0], 10 * np.arange(10), atol=6)
    assert example["clip_label"] == 21


def test_damaged_features_are_named(tmp_path, ave_folder, loaded):
    build(ave_folder, tmp_path / "data", "videos")
    for kind in ("visual", "audio"):
        file = ave_folder / "features" / f"-id00000004.{kind}.npy"
        whole = file.read_bytes()
        file.write_bytes(whole[:-100])
        assert f"{file}: damaged" in refusal(ave_folder, tmp_path / "data2")
        file.write_bytes(whole)
    # Weights of another network can result in NaN.
    np.save(file, np.full_like(np.load(file), np.nan))
    assert f"{file}: NaN" in refusal(ave_folder, tmp_path / "data2")


def test_videos_of_the_wrong_length_are_named(tmp_path, ave_folder, loaded):
    write_clip(ave_folder / "AVE" / "-id00000021.mp4", 8)
    message = refusal(ave_folder, tmp_path / "data")
    assert "1 of 30" in message
    assert "-id00000021.mp4 8" in message


def test_metadata_record_the_backbones(tmp_path, ave_archive, loaded):
    build(ave_archive, tmp_path / "data", "videos")
    metadata = Builder(data_dir=tmp_path / "data", config="videos").info.metadata
    assert metadata["visual_shape"] == [2048]
    assert metadata["disclaimer"] is None
    backbones = metadata["backbones"]
    assert backbones["visual_network"] == "resnet152"
    assert None not in (backbones["audio_weights"], backbones["visual_weights"])


def test_only_new_videos_of_an_archive_are_unpacked(
    tmp_path, ave_archive, loaded, monkeypatch, clip
):
    builder = build(ave_archive, tmp_path / "data", "videos")
    found = examples(builder, "test")
    assert sorted(found) == sorted(ORDERS["test"])
    np.testing.assert_allclose(found[21]["visual"][:, 0], 10 * np.arange(10), atol=6)
    assert loaded == ["resnet152"]
    unpacked = []
    extract = zipfile.ZipFile.extract

    def record(self, member, *args):
        unpacked.append(member)
        return extract(self, member, *args)

    monkeypatch.setattr(zipfile.ZipFile, "extract", record)
    build(ave_archive, tmp_path / "data2", "videos")
    assert unpacked == []
    clips = [clip] * ROWS
    clips[21] = write_clip(tmp_path / "other.mp4", 9).read_bytes()
    write_archive(ave_archive, clips)
    builder = build(ave_archive, tmp_path / "data3", "videos")
    assert unpacked == ["AVE_Dataset/AVE/-id00000021.mp4"]
    visual = examples(builder, "test")[21]["visual"][:, 0]
    assert visual[9] == visual[8]


def test_damaged_archives_and_members_are_named(tmp_path, ave_archive, loaded):
    path = ave_archive / "AVE_Dataset.zip"
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("AVE_Dataset/AVE/-id00000004.mp4").header_offset
    content[start + 500 : start + 600] = bytes(100)
    path.write_bytes(content)
    message = refusal(ave_archive, tmp_path / "data")
    assert "-id00000004.mp4 can't be unpacked" in message
    assert "1 of 30 videos failed" in message
    path.write_bytes(content[:-100])
    assert f"{path}: damaged" in refusal(ave_archive, tmp_path / "data")


def test_an_encrypted_video_fails_with_one_message(tmp_path):
    path = tmp_path / "AVE_Dataset.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.mp4", b"no matter what")
    content = bytearray(path.read_bytes())
    # Set the encryption flag, in the member's header and in the directory.
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1
    path.write_bytes(content)
    with (
        pytest.raises(VideoError, match=r"a\.mp4 can't be unpacked .*encrypted"),
        extraction._as_file(Video("a", path, "a.mp4")),
    ):
        pass


@pytest.mark.parametrize(
    ("network", "shape"), [("vgg19", "(7, 7, 512)"), ("resnet152_maps", "(7, 7, 2048)")]
)
def test_a_network_of_another_shape_is_refused_before_extraction(
    tmp_path, ave_archive, loaded, network, shape
):
    (ave_archive / "features.json").write_text(json.dumps({"visual_network": network}))
    message = refusal(ave_archive, tmp_path / "data")
    for part in ("features.json", "visual_network", network, shape, "(2048,)"):
        assert part in message
    assert loaded == []
    assert not (ave_archive / "features").exists()


def test_a_vggish_of_another_width_is_refused(
    tmp_path, ave_archive, loaded, monkeypatch
):
    monkeypatch.setattr(WideLoudness, "width", 64)
    message = refusal(ave_archive, tmp_path / "data")
    for part in ("audio_network", "vggish", "64", "128"):
        assert part in message
    assert not (ave_archive / "features").exists()
