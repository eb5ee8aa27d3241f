"""The builder: what it writes reads back, and what it refuses leaves no trace."""

import dataclasses
import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import requests
import tensorflow_datasets as tfds

import tfds_ave
from avsdn_tf.features.extractor import Extractor
from avsdn_tf.features.video.reader import VideoError
from tests.small_videos import Brightness, Loudness, write_clip
from tfds_ave import DatasetError, errors, extraction, sources
from tfds_ave.configs import AVE_CATEGORIES, CONFIGS
from tfds_ave.tfds_ave_dataset_builder import Builder
from tfds_ave.videos import Video

ROOT = Path(__file__).resolve().parents[1]
ROWS = 30
ORDERS = {
    "train": [*range(0, 20)][::-1],
    "validation": [20, 22, 24, 26, 28],
    "test": [21, 23, 25, 27, 29],
}
# Other splits of the same rows.
MATCH_ORDERS = {
    "train": [row for row in range(ROWS) if row % 3],
    "validation": [0, 6, 12, 18, 24],
    "test": [3, 9, 15, 21, 27],
}
SHAPES = {
    "resnet152": (2048,),
    "vgg19": (7, 7, 512),
    "resnet152_maps": (7, 7, 2048),
}
VISUAL = {
    "resnet152": "visual_feature_vec",
    "vgg19": "visual_feature",
    "resnet152_maps": "visual_feature_resnet152",
}


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """No test of this file may depend on a network."""

    def refuse(url, **kwargs):
        raise requests.ConnectionError(f"no network in tests: {url}")

    monkeypatch.setattr(requests, "head", refuse)


def write(path, array, key="avadataset"):
    with h5py.File(path, "w") as file:
        file[key] = array


def read(path, key="avadataset"):
    with h5py.File(path) as file:
        return file[key][...]


def row_times(row):
    return (0, 0) if row == 7 else (row % 4, 10 - row % 3)


def make_ave(folder, config="resnet152", visual_dtype=np.float32, noisy=True):
    """Writes small files in AVE's layout."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    lines = []
    for row in range(ROWS):
        start, end = row_times(row)
        category = AVE_CATEGORIES[row % 28]
        lines.append(f"{category}&-id{row:08d}&good&{start}&{end}\n")
    (folder / "Annotations.txt").write_text("".join(lines))
    for split, name in sources.ORDERS.items():
        write(folder / name, np.array(ORDERS[split], np.int64), "order")
    for split, name in sources.MATCH_ORDERS.items():
        write(folder / name, np.array(MATCH_ORDERS[split], np.int64), "order")
    visual = rng.random((ROWS, 10, *SHAPES[config]), np.float32).astype(visual_dtype)
    write(folder / "audio_feature.h5", rng.random((ROWS, 10, 128)))
    write(folder / f"{VISUAL[config]}.h5", visual)
    if noisy:
        write(folder / "audio_feature_noisy.h5", rng.random((4, 10, 128)))
        write(folder / f"{VISUAL[config]}_noisy.h5", visual[:4] + 1)
    return folder


def build(folder, data_dir, config="resnet152"):
    builder = Builder(data_dir=data_dir, config=config)
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir=folder)
    )
    return builder


def examples(builder, split):
    return {int(e["row"]): e for e in tfds.as_numpy(builder.as_dataset(split=split))}


@pytest.mark.parametrize("visual_dtype", [np.float32, np.float64])
def test_resnet152_reads_back_what_the_files_hold(tmp_path, visual_dtype):
    folder = make_ave(tmp_path / "ave", visual_dtype=visual_dtype)
    builder = build(folder, tmp_path / "data")
    names = builder.info.features["clip_label"].names
    assert names == [*AVE_CATEGORIES, "Background"]
    audio = read(folder / "audio_feature.h5")
    visual = read(folder / "visual_feature_vec.h5")
    for split, rows in ORDERS.items():
        found = examples(builder, split)
        assert sorted(found) == sorted(rows)
        for row, example in found.items():
            start, end = row_times(row)
            labels = [row % 28 if start <= t < end else 28 for t in range(10)]
            np.testing.assert_array_equal(
                example["audio"], audio[row].astype(np.float32)
            )
            np.testing.assert_array_equal(example["visual"], visual[row])
            assert example["visual"].dtype == np.float32
            assert example["segment_labels"].dtype == np.int64
            assert example["segment_labels"].tolist() == labels
            assert example["clip_label"] == row % 28
            assert example["video_id"] == f"-id{row:08d}".encode()
            assert (example["start_s"], example["end_s"]) == (start, end)
            mean = np.zeros(29)
            for label in labels:
                mean[label] += 0.1
            np.testing.assert_allclose(example["segment_label_mean"], mean, atol=1e-6)
            match_split = list(MATCH_ORDERS)[example["match_split"]]
            assert row in MATCH_ORDERS[match_split]
    assert builder.info.features["match_split"].names == list(MATCH_ORDERS)


def test_background_clips_come_from_the_noisy_files(tmp_path):
    folder = make_ave(tmp_path / "ave")
    builder = build(folder, tmp_path / "data")
    audio = read(folder / "audio_feature_noisy.h5").astype(np.float32)
    visual = read(folder / "visual_feature_vec_noisy.h5")
    found = examples(builder, "background")
    assert sorted(found) == [0, 1, 2, 3]
    for row, example in found.items():
        np.testing.assert_array_equal(example["audio"], audio[row])
        np.testing.assert_array_equal(example["visual"], visual[row])
        assert example["clip_label"] == 28
        assert example["segment_labels"].tolist() == [28] * 10
        assert example["segment_label_mean"].tolist() == [0] * 28 + [1]
        assert example["video_id"] == f"background_{row:03d}".encode()
        assert example["match_split"] == 0


@pytest.mark.parametrize(
    "missing", ["audio_feature_noisy.h5", "visual_feature_vec_noisy.h5"]
)
def test_without_both_noisy_files_there_is_no_background_split(tmp_path, missing):
    folder = make_ave(tmp_path / "ave")
    (folder / missing).unlink()
    builder = build(folder, tmp_path / "data")
    assert set(builder.info.splits) == {"train", "validation", "test"}


@pytest.mark.parametrize("config", ["vgg19", "resnet152_maps"])
def test_maps_are_stored_as_float16(tmp_path, config):
    folder = make_ave(tmp_path / "ave", config, noisy=False)
    builder = build(folder, tmp_path / "data", config)
    visual = read(folder / f"{VISUAL[config]}.h5")
    found = examples(builder, "validation")
    assert sorted(found) == ORDERS["validation"]
    for row, example in found.items():
        assert example["visual"].dtype == np.float16
        np.testing.assert_array_equal(example["visual"], visual[row].astype(np.float16))


def test_synthetic_is_the_default_and_reads_back(tmp_path):
    builder = Builder(data_dir=tmp_path)
    builder.download_and_prepare()
    assert builder.builder_config.name == "synthetic"
    assert "SIMULATED" in builder.builder_config.description
    assert {name: s.num_examples for name, s in builder.info.splits.items()} == {
        "train": 480,
        "validation": 96,
        "test": 96,
        "background": 32,
    }
    for index, split in enumerate(("train", "validation", "test")):
        found = examples(builder, split).values()
        assert {int(example["match_split"]) for example in found} == {index}
    example = next(iter(tfds.as_numpy(builder.as_dataset(split="test[:1]"))))
    assert example["audio"].shape == (10, 128)
    assert example["visual"].shape == (10, 2048)
    np.testing.assert_allclose(example["segment_label_mean"].sum(), 1, rtol=1e-6)


def test_only_the_default_is_built_unasked_and_all_can_be_had_by_name(tmp_path):
    assert [config.name for config in Builder.BUILDER_CONFIGS] == ["synthetic"]
    for config in CONFIGS:
        builder = tfds.builder(f"tfds_ave/{config.name}", data_dir=tmp_path)
        assert isinstance(builder, Builder)
        assert builder.builder_config is config
        assert pickle.loads(pickle.dumps(builder)).builder_config is config


# TFDS asks protobuf for a field's deprecated `label` when it reads a dataset_info.json.
@pytest.mark.filterwarnings("ignore:label.. is deprecated:DeprecationWarning")
def test_load_finds_what_was_built_by_config_and_version(tmp_path):
    build(make_ave(tmp_path / "ave", noisy=False), tmp_path / "data")
    for name in ("tfds_ave/resnet152", "tfds_ave/resnet152:1.1.0"):
        dataset, info = tfds.load(
            name,
            split="test",
            data_dir=tmp_path / "data",
            download=False,
            with_info=True,
        )
        assert len(dataset) == 5
        assert info.features["clip_label"].names[-1] == "Background"


def test_an_unknown_config_is_one_line_with_the_known_ones(tmp_path):
    for make in (
        lambda: Builder(config="resnet", data_dir=tmp_path),
        lambda: tfds.builder("tfds_ave/resnet", data_dir=tmp_path),
    ):
        with pytest.raises(DatasetError) as error:
            make()
        message = str(error.value)
        assert "\n" not in message
        assert "'resnet'" in message
        assert all(config.name in message for config in CONFIGS)
    assert not any(tmp_path.iterdir())


# Each damage changes good files; the message must hold all that is named with it.


def wrong_category(folder):
    path = folder / "Annotations.txt"
    path.write_text(path.read_text().replace("Bark&", "Barking&", 1))


def too_few_audio_rows(folder):
    path = folder / "audio_feature.h5"
    write(path, read(path)[:-1])


def too_few_noisy_rows(folder):
    path = folder / "visual_feature_vec_noisy.h5"
    write(path, read(path)[:-1])


def other_width(folder):
    path = folder / "visual_feature_vec.h5"
    write(path, read(path)[..., :512])


def order_out_of_range(folder):
    write(folder / "val_order.h5", np.array([20, ROWS]), "order")


def order_negative(folder):
    write(folder / "val_order.h5", np.array([-1, 20]), "order")


def order_repeats(folder):
    write(folder / "test_order.h5", np.array([21, 23, 21]), "order")


def order_crosses(folder):
    write(folder / "test_order.h5", np.array([21, 5]), "order")


def order_of_floats(folder):
    write(folder / "test_order.h5", np.array([21.0, 23.0]), "order")


def match_out_of_range(folder):
    path = folder / "val_order_match.h5"
    write(path, np.array([*MATCH_ORDERS["validation"], ROWS]), "order")


def match_lacks_a_row(folder):
    path = folder / "test_order_match.h5"
    write(path, np.array(MATCH_ORDERS["test"][:-1]), "order")


def match_crosses(folder):
    path = folder / "test_order_match.h5"
    write(path, np.array([*MATCH_ORDERS["test"], 24]), "order")


def missing_match(folder):
    (folder / "test_order_match.h5").unlink()


def audio_nan(folder):
    with h5py.File(folder / "audio_feature.h5", "r+") as file:
        file["avadataset"][22, 4, 9] = np.nan


def visual_inf(folder):
    with h5py.File(folder / "visual_feature_vec.h5", "r+") as file:
        file["avadataset"][3, 0, 5] = np.inf


def noisy_nan(folder):
    with h5py.File(folder / "visual_feature_vec_noisy.h5", "r+") as file:
        file["avadataset"][2, 9, 0] = np.nan


def truncated(folder):
    path = folder / "visual_feature_vec.h5"
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def not_hdf5(folder):
    (folder / "train_order.h5").write_text("<html>quota exceeded</html>")


def other_key(folder):
    path = folder / "audio_feature.h5"
    write(path, read(path), "dataset")


def missing_visual(folder):
    (folder / "visual_feature_vec.h5").unlink()


def missing_two(folder):
    (folder / "visual_feature_vec.h5").unlink()
    (folder / "audio_feature.h5").unlink()


def missing_order(folder):
    (folder / "train_order.h5").unlink()


def missing_folder(folder):
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def official_labels():
    labels = np.full((ROWS, 10), 28)
    for row in range(ROWS):
        start, end = row_times(row)
        labels[row, start:end] = row % 28
    return np.eye(29, dtype=np.float32)[labels]


def other_segment_label(folder):
    labels = official_labels()
    labels[11, 9] = labels[11, 9][::-1]
    write(folder / "labels.h5", labels)


def other_clip_label(folder):
    labels = np.eye(29, dtype=np.float32)[np.arange(ROWS) % 28]
    labels[7] = labels[8]  # The row without a segment of its event.
    write(folder / "mil_labels.h5", labels)


def other_closs_label(folder):
    labels = 1 - official_labels()[..., 28]
    labels[7, 0] = 1
    write(folder / "labels_closs.h5", labels)


def short_labels(folder):
    write(folder / "labels.h5", official_labels()[:-1])


@pytest.mark.parametrize(
    ("damage", "parts"),
    [
        (wrong_category, ["Annotations.txt, line 3", "'Barking'", "Correct the line"]),
        (too_few_audio_rows, ["audio_feature.h5", "Expected 30", "received 29"]),
        (too_few_noisy_rows, ["vec_noisy.h5", "Expected 4", "received 3"]),
        (other_width, ["visual_feature_vec.h5", "10, 2048", "10, 512"]),
        (order_out_of_range, ["val_order.h5", "entry 1", "0 to 29", "received 30"]),
        (order_negative, ["val_order.h5", "entry 0", "received -1"]),
        (order_repeats, ["test_order.h5", "entry 2", "row 21"]),
        (order_crosses, ["test_order.h5", "entry 1", "row 5", "train_order.h5"]),
        (order_of_floats, ["test_order.h5", "float64"]),
        (match_out_of_range, ["val_order_match.h5", "entry 5", "received 30"]),
        (match_lacks_a_row, ["test_order_match.h5", "row 27", "each row of test_"]),
        (match_crosses, ["test_order_match.h5", "entry 5", "row 24", "val_order_m"]),
        (missing_match, ["test_order_match.h5", "raw.githubusercontent"]),
        (audio_nan, ["audio_feature.h5", "row 22, segment 4", "nan", "again"]),
        (visual_inf, ["visual_feature_vec.h5", "row 3, segment 0", "inf"]),
        (noisy_nan, ["vec_noisy.h5", "row 2, segment 9", "nan"]),
        (truncated, ["visual_feature_vec.h5", "truncated", "complete copy"]),
        (not_hdf5, ["train_order.h5", "complete copy"]),
        (other_key, ["audio_feature.h5", "'avadataset'", "['dataset']"]),
        (missing_visual, ["visual_feature_vec.h5", "never released", "--manual_dir"]),
        (missing_two, ["visual_feature_vec.h5", "audio_feature.h5", "drive.google"]),
        (missing_order, ["train_order.h5", "raw.githubusercontent", "no network"]),
        (missing_folder, ["lacks 9", "Annotations.txt", "visual_feature_vec.h5"]),
        (other_segment_label, ["labels.h5", "row 11", "remove the label file"]),
        (other_clip_label, ["mil_labels.h5", "row 7"]),
        (other_closs_label, ["labels_closs.h5", "row 7"]),
        (short_labels, ["labels.h5", "(30, 10, 29)", "(29, 10, 29)"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_bad_input_is_explained_and_leaves_nothing_behind(tmp_path, damage, parts):
    folder = make_ave(tmp_path / "ave")
    damage(folder)
    with pytest.raises(DatasetError) as error:
        build(folder, tmp_path / "data")
    message = str(error.value)
    for part in (*parts, str(folder), "xpected", "received"):
        assert part in message
    assert not (tmp_path / "data").exists()


def test_a_feature_beyond_float16_is_explained(tmp_path):
    folder = make_ave(tmp_path / "ave", "vgg19", noisy=False)
    with h5py.File(folder / "visual_feature.h5", "r+") as file:
        file["avadataset"][19, 3, 6, 6, 511] = 70000
    with pytest.raises(DatasetError, match=r"row 19, segment 3.*float16.*70000"):
        build(folder, tmp_path / "data", "vgg19")
    assert not (tmp_path / "data").exists()


def test_agreeing_label_files_are_accepted(tmp_path):
    folder = make_ave(tmp_path / "ave", noisy=False)
    labels = official_labels()
    write(folder / "labels.h5", labels)
    write(folder / "labels_closs.h5", 1 - labels[..., 28])
    write(folder / "mil_labels.h5", np.eye(29)[np.arange(ROWS) % 28])
    assert build(folder, tmp_path / "data").is_prepared()


def test_an_error_leaves_other_configs_and_foreign_files_alone(tmp_path):
    data = tmp_path / "data"
    build(make_ave(tmp_path / "ave", noisy=False), data)
    (data / "mine.txt").write_text("mine")
    before = sorted(data.rglob("*"))
    with pytest.raises(DatasetError):
        build(tmp_path / "nowhere", data, "vgg19")
    assert sorted(data.rglob("*")) == before


def test_what_is_missing_can_be_downloaded(tmp_path, monkeypatch):
    """Downloads by copying; TFDS itself checks size and checksum of what arrives."""
    folder = make_ave(tmp_path / "ave", noisy=False)
    origin = tmp_path / "origin"
    origin.mkdir()
    for name in ("train_order.h5", "audio_feature.h5"):
        (folder / name).rename(origin / name)
    asked = []

    def copy(self, urls):
        asked.extend(urls.values())
        return {name: origin / name for name in urls}

    monkeypatch.setattr(requests, "head", lambda url, **kwargs: None)
    monkeypatch.setattr(tfds.download.DownloadManager, "download", copy)
    assert build(folder, tmp_path / "data").is_prepared()
    assert asked == [sources.URLS["train_order.h5"], sources.URLS["audio_feature.h5"]]


def test_background_comes_along_with_a_downloaded_visual_file(tmp_path, monkeypatch):
    folder = make_ave(tmp_path / "ave", "vgg19")
    origin = tmp_path / "origin"
    origin.mkdir()
    for name in ("visual_feature.h5", "visual_feature_noisy.h5"):
        (folder / name).rename(origin / name)

    def copy(self, urls):
        return {name: origin / name for name in urls}

    monkeypatch.setattr(requests, "head", lambda url, **kwargs: None)
    monkeypatch.setattr(tfds.download.DownloadManager, "download", copy)
    builder = build(folder, tmp_path / "data", "vgg19")
    assert builder.info.splits["background"].num_examples == 4


def test_a_failing_download_leaves_no_unfinished_file(tmp_path, monkeypatch):
    folder = make_ave(tmp_path / "ave", noisy=False)
    (folder / "train_order.h5").unlink()
    monkeypatch.setattr(requests, "head", lambda url, **kwargs: None)

    def break_off(self, *args, **kwargs):
        raise requests.ConnectionError("the line went dead")

    monkeypatch.setattr(requests.Session, "get", break_off)
    with pytest.raises(DatasetError, match="the line went dead"):
        build(folder, tmp_path / "data")
    assert not (tmp_path / "data").exists()


class WideLoudness(Loudness):
    """As wide as VGGish's features."""

    width = 128

    def __call__(self, seconds):
        return np.repeat(super().__call__(seconds)[:, :1], self.width, axis=1)


class WideBrightness(Brightness):
    """As wide as ResNet-152's features."""

    shape = (2048,)

    def __call__(self, frames):
        return np.repeat(super().__call__(frames)[:, :1], *self.shape, axis=1)


@pytest.fixture
def loaded(monkeypatch):
    """Networks of no work; gives which were loaded."""
    names = []

    def build_extractor(network, *_):
        names.append(network)
        return Extractor(WideLoudness(), WideBrightness())

    monkeypatch.setattr(extraction, "build_extractor", build_extractor)
    return names


def make_ave_without_features(folder):
    make_ave(folder, noisy=False)
    for name in ("audio_feature.h5", "visual_feature_vec.h5"):
        (folder / name).unlink()
    return folder


def test_ave_is_made_from_its_videos(tmp_path, loaded):
    folder = make_ave_without_features(tmp_path / "ave")
    with pytest.raises(DatasetError, match=r"lacks AVE's videos.*AVE_Dataset.zip"):
        build(folder, tmp_path / "data", "videos")
    clip = write_clip(tmp_path / "clip.mp4", 10).read_bytes()
    (folder / "AVE").mkdir()
    for row in range(ROWS):
        (folder / "AVE" / f"-id{row:08d}.mp4").write_bytes(clip)
    broken = folder / "AVE" / "-id00000003.mp4"
    broken.write_bytes(clip[:2000])
    with pytest.raises(DatasetError, match=r"-id00000003: .*\n1 of 30 videos failed"):
        build(folder, tmp_path / "data", "videos")
    assert not (tmp_path / "data").exists()
    # The others are safe: only the mended one is made.
    kept = folder / "features" / "-id00000004.audio.npy"
    before = kept.stat().st_mtime_ns
    broken.write_bytes(clip)
    builder = build(folder, tmp_path / "data", "videos")
    assert kept.stat().st_mtime_ns == before
    assert set(builder.info.splits) == {"train", "validation", "test"}
    example = examples(builder, "test")[21]
    assert example["audio"].shape == (10, 128)
    np.testing.assert_allclose(example["visual"][:, 0], 10 * np.arange(10), atol=6)
    assert example["clip_label"] == 21
    # As weights that belong to another network make them.
    (tmp_path / "data").rename(tmp_path / "before")
    values = np.load(kept)
    np.save(kept, np.full_like(values, np.nan))
    with pytest.raises(DatasetError, match=r"-id00000004.audio.npy: NaN or infinite"):
        build(folder, tmp_path / "data", "videos")
    for kind in ("visual", "audio"):
        file = kept.with_name(f"-id00000004.{kind}.npy")
        whole = file.read_bytes()
        file.write_bytes(whole[:-100])
        with pytest.raises(DatasetError, match=rf"4.{kind}.npy: damaged.*build again"):
            build(folder, tmp_path / "data", "videos")
        file.write_bytes(whole)
    np.save(kept, values)
    (folder / "AVE" / "-id00000021.mp4").write_bytes(
        write_clip(tmp_path / "short.mp4", 8).read_bytes()
    )
    with pytest.raises(
        DatasetError, match=r"1 of 30 videos .*Expected 10 s.*-id00000021\.mp4 8 s\."
    ):
        build(folder, tmp_path / "data2", "videos")


@pytest.fixture
def zipped_ave(tmp_path):
    """AVE's small files, and its videos in an archive as it was released."""
    folder = make_ave_without_features(tmp_path / "ave")
    clip = write_clip(tmp_path / "clip.mp4", 10).read_bytes()
    write_archive(folder, [clip] * ROWS)
    return folder


def write_archive(folder, clips):
    path = folder / "AVE_Dataset.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("AVE_Dataset/Annotations.txt", "not read")
        archive.writestr("__MACOSX/AVE_Dataset/AVE/._-id00000003.mp4", b"not read")
        for row, clip in enumerate(clips):
            archive.writestr(f"AVE_Dataset/AVE/-id{row:08d}.mp4", clip)


def test_an_encrypted_video_is_one_message(tmp_path):
    path = tmp_path / "AVE_Dataset.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.mp4", b"no matter what")
    content = bytearray(path.read_bytes())
    # The first of the flags, in the header of the member and in the directory.
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1
    path.write_bytes(content)
    with (
        pytest.raises(VideoError, match=r"a\.mp4 can't be unpacked .*encrypted"),
        extraction._as_file(Video("a", path, "a.mp4")),
    ):
        pass


def test_videos_are_read_from_the_archive(tmp_path, zipped_ave, loaded, monkeypatch):
    builder = build(zipped_ave, tmp_path / "data", "videos")
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
    # Nothing is unpacked to see that all is there, and of what changed only that.
    build(zipped_ave, tmp_path / "data2", "videos")
    assert unpacked == []
    clips = [(tmp_path / "clip.mp4").read_bytes()] * ROWS
    clips[21] = write_clip(tmp_path / "other.mp4", 9).read_bytes()
    write_archive(zipped_ave, clips)
    builder = build(zipped_ave, tmp_path / "data3", "videos")
    assert unpacked == ["AVE_Dataset/AVE/-id00000021.mp4"]
    visual = examples(builder, "test")[21]["visual"][:, 0]
    assert visual[9] == visual[8]


def test_a_damaged_archive_is_told_video_by_video(tmp_path, zipped_ave, loaded):
    path = zipped_ave / "AVE_Dataset.zip"
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("AVE_Dataset/AVE/-id00000004.mp4").header_offset
    content[start + 500 : start + 600] = bytes(100)
    path.write_bytes(content)
    with pytest.raises(
        DatasetError, match=r"id00000004.mp4 can't be unpacked.*\n1 of 30 videos failed"
    ):
        build(zipped_ave, tmp_path / "data", "videos")
    path.write_bytes(content[:-100])
    with pytest.raises(DatasetError, match=r"AVE_Dataset.zip: damaged or truncated"):
        build(zipped_ave, tmp_path / "data", "videos")


def test_networks_of_other_shapes_are_refused_before_any_work(
    tmp_path, zipped_ave, loaded, monkeypatch
):
    settings = zipped_ave / "features.json"
    for network, shape in (("vgg19", "7, 7, 512"), ("resnet152_maps", "7, 7, 2048")):
        settings.write_text(json.dumps({"visual_network": network}))
        with pytest.raises(
            DatasetError,
            match=rf"features.json: visual_network '{network}' .*\({shape}\)\. "
            r"Expected \(2048,\).*'videos'",
        ):
            build(zipped_ave, tmp_path / "data", "videos")
    assert loaded == []
    settings.unlink()
    monkeypatch.setattr(WideLoudness, "width", 64)
    with pytest.raises(DatasetError, match=r"vggish .*width 64\. Expected 128"):
        build(zipped_ave, tmp_path / "data", "videos")
    assert not (zipped_ave / "features").exists()


def test_shapes_follow_the_config(tmp_path, monkeypatch):
    """Nothing but the configs knows AVE's numbers."""
    config = dataclasses.replace(
        CONFIGS[0],
        name="tiny",
        categories=("Bark", "Clock"),
        num_segments=4,
        audio_width=3,
        visual_shape=(2, 2, 5),
    )
    builder = Builder(config=config, data_dir=tmp_path)
    builder.download_and_prepare()
    example = next(iter(tfds.as_numpy(builder.as_dataset(split="train"))))
    assert example["audio"].shape == (4, 3)
    assert example["visual"].shape == (4, 2, 2, 5)
    assert example["segment_label_mean"].shape == (3,)
    assert builder.info.features["clip_label"].names == ["Bark", "Clock", "Background"]


def test_metadata_is_found_and_valid():
    metadata = Builder.get_metadata()
    assert "simulated" in metadata.description
    assert "tian2018ave" in metadata.citation
    assert metadata.tags
    valid = Path(tfds.__file__).parent / "core" / "valid_tags.txt"
    tags = {line.split(" #")[0].strip() for line in valid.read_text().splitlines()}
    assert set(metadata.tags) <= tags


def test_the_hook_shows_dataset_errors_only(capsys, monkeypatch):
    passed_on = []
    monkeypatch.setattr(sys, "excepthook", lambda *args: passed_on.append(args))
    errors.install_excepthook()
    sys.excepthook(DatasetError, DatasetError("bad row"), None)
    assert capsys.readouterr().err == "tfds_ave: bad row\n"
    assert passed_on == []
    other = KeyError("x")
    sys.excepthook(KeyError, other, None)
    assert passed_on == [(KeyError, other, None)]
    assert issubclass(tfds_ave.DatasetError, ValueError)


def tfds_command(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "tensorflow_datasets.scripts.cli.main", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT) if cwd != ROOT else ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_tfds_build_makes_the_synthetic_config_alone(tmp_path):
    done = tfds_command("build", "tfds_ave", f"--data_dir={tmp_path}", cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    built = [path.name for path in (tmp_path / "tfds_ave").iterdir()]
    assert sorted(built) == [".config", "synthetic"]


def test_tfds_build_works_elsewhere_with_imports(tmp_path):
    done = tfds_command(
        *("build", "tfds_ave", "--imports=tfds_ave", f"--data_dir={tmp_path / 'data'}"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "data" / "tfds_ave" / "synthetic" / "1.1.0").is_dir()


def refused_by_tfds(config, folder, data_dir):
    """Returns the one message with which `tfds build` refuses a manual folder."""
    done = tfds_command(
        *("build", "tfds_ave", f"--config={config}", f"--manual_dir={folder}"),
        f"--data_dir={data_dir}",
        cwd=ROOT,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.count("tfds_ave: ") == 1
    return done.stderr[done.stderr.index("tfds_ave: ") :]


def test_tfds_build_shows_an_error_as_one_message(tmp_path):
    folder = make_ave(tmp_path / "ave")
    audio_nan(folder)
    message = refused_by_tfds("resnet152", folder, tmp_path / "data")
    assert "row 22, segment 4" in message
    assert not (tmp_path / "data").exists()
