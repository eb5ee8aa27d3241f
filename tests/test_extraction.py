"""Features of a data set's videos: features.json, and the pipeline."""

import json
import pathlib

import numpy as np
import pytest

from avsdn_tf.backbones import VGGISH
from avsdn_tf.features import extractor as extractor_module
from avsdn_tf.features.extractor import Extractor
from tests.small_videos import Brightness, Loudness, write_clip
from tfds_ave import DatasetError, extraction
from tfds_ave.configs import CONFIGS
from tfds_ave.videos import Video

(CONFIG,) = (config for config in CONFIGS if config.name == "custom")


@pytest.fixture
def loaded(monkeypatch):
    """Replace the backbones; return a list of the arguments of each load."""
    calls = []

    def build_extractor(**given):
        calls.append(given)
        return Extractor(Loudness(), Brightness(), given["empty"])

    monkeypatch.setattr(extraction, "build_extractor", build_extractor)
    return calls


@pytest.fixture
def folder(tmp_path):
    """Return a manual folder with three videos; its name is a glob pattern."""
    path = tmp_path / "own [1]"
    path.mkdir()
    for index in range(3):
        write_clip(path / f"{index}.mp4", 2)
    return path


def extract(folder, download_config=None):
    videos = [Video(f"c{index}", folder / f"{index}.mp4") for index in range(3)]
    return extraction.extract_videos(videos, folder, CONFIG, download_config)


def write_settings(folder, **members):
    (folder / "features.json").write_text(json.dumps(members))


def test_features_and_their_backbones_are_returned(folder, loaded):
    paths, backbones = extract(folder)
    assert list(paths) == ["c0", "c1", "c2"]
    for audio, visual in paths.values():
        assert np.load(audio).shape == np.load(visual).shape == (2, 3)
    expected = {
        "audio_network": "vggish",
        "audio_weights": VGGISH,
        "visual_network": "resnet152",
        "visual_weights": "imagenet",
        "visual_precision": "float32",
    }
    assert backbones == expected
    assert loaded == [{**expected, "empty": None}]


def test_features_of_replaced_and_changed_videos_are_extracted_again(folder, loaded):
    before = extract(folder)[0]
    kept = before["c2"][0].stat().st_mtime_ns
    (folder / "1.mp4").write_bytes((folder / "0.mp4").read_bytes())
    write_clip(folder / "0.mp4", 4)
    paths, _ = extract(folder)
    assert [len(np.load(audio)) for audio, _ in paths.values()] == [4, 2, 2]
    assert paths["c2"][0].stat().st_mtime_ns == kept
    # If no video has changed, no backbone is loaded.
    loaded.clear()
    extract(folder)
    assert loaded == []


def test_a_failed_video_is_named_and_other_features_are_kept(folder, loaded):
    whole = (folder / "0.mp4").read_bytes()
    (folder / "0.mp4").write_bytes(b"no video")
    with pytest.raises(DatasetError, match="1 of 3 videos failed") as error:
        extract(folder)
    assert str(folder / "0.mp4") in str(error.value)
    assert (folder / "features" / "c1.audio.npy").is_file()
    assert not list((folder / "features").glob(".failures*"))
    (folder / "0.mp4").write_bytes(whole)
    extract(folder)


def test_a_failed_pipeline_leaves_no_files(folder, loaded, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Loudness, "__call__", lambda self, seconds: 1 / 0)
        with pytest.raises(Exception, match="division by zero"):
            extract(folder)
    assert [path.name for path in (folder / "features").iterdir()] == ["extract.json"]
    write_settings(folder, visual_network="vgg19")
    extract(folder)
    (folder / "features.json").unlink()
    with pytest.raises(DatasetError, match=r"expected visual_network 'vgg19', receiv"):
        extract(folder)


@pytest.mark.parametrize(
    ("member", "module", "value"),
    [("vggish", None, "mine"), ("visual_weights", Loudness, "mine")],
)
def test_unloadable_backbones_in_features_json_fail_with_one_message(
    folder, monkeypatch, member, module, value
):
    if module:
        monkeypatch.setattr(extractor_module, "AudioNetwork", lambda *_: module())
    (folder / value).write_text("no weights")
    write_settings(folder, **{member: value})
    with pytest.raises(DatasetError) as error:
        extract(folder)
    message = str(error.value)
    assert message.startswith(f'{folder / "features.json"}: "{member}": ')
    assert str(folder / value) in message
    # Offline, the other backbone's error and a hint follow.
    assert len(message.splitlines()) <= 3
    # Without backbones, no folder of features is created.
    assert not (folder / "features").exists()


@pytest.mark.parametrize("empty", ["audio", "visual"])
def test_a_clip_without_sound_or_picture_is_accepted_on_request(folder, loaded, empty):
    write_clip(folder / "0.mp4", 2, sound=empty != "audio", picture=empty != "visual")
    with pytest.raises(DatasetError, match=f'empty="{empty}".*\n1 of 3 videos'):
        extract(folder)
    # `empty` doesn't change the recorded backbones.
    write_settings(folder, empty=empty)
    paths, backbones = extract(folder)
    assert "empty" not in backbones
    index = ["audio", "visual"].index(empty)
    assert not np.load(paths["c0"][index]).any()
    assert np.load(paths["c1"][index]).any()


@pytest.mark.parametrize(
    ("content", "member"),
    [
        ({"empty": "sound"}, "empty"),
        ({"empty": None}, None),
        ({"visual_network": "alexnet"}, "visual_network"),
        ({"visual_precision": "half"}, "visual_precision"),
        ({"vggish": 1}, None),
        ({"vgish": "a"}, None),
        (["vggish"], None),
        ({"vggish": "gone"}, "vggish"),
        ({"vggish": "imagenet"}, "vggish"),
        ({"visual_weights": "/gone"}, "visual_weights"),
    ],
)
def test_invalid_members_of_features_json_are_named(folder, loaded, content, member):
    (folder / "features.json").write_text(json.dumps(content))
    with pytest.raises(DatasetError) as error:
        extract(folder)
    start = f"{folder / 'features.json'}: "
    start += f'"{member}": ' if member else "expected a JSON object with some of"
    assert str(error.value).startswith(start)
    assert loaded == []
    assert not (folder / "features").exists()


def test_paths_in_features_json_are_relative_to_its_folder(
    folder, loaded, tmp_path, monkeypatch
):
    for path in (tmp_path / "vggish", folder / "weights.h5"):
        path.mkdir()
    content = {"vggish": "../vggish", "visual_weights": "weights.h5"}
    write_settings(folder, visual_precision="mixed_bfloat16", **content)
    monkeypatch.chdir(tmp_path)
    _, backbones = extract(pathlib.Path(folder.name))
    assert backbones == {
        "audio_network": "vggish",
        "audio_weights": str(tmp_path / "vggish"),
        "visual_network": "resnet152",
        "visual_weights": str(folder / "weights.h5"),
        "visual_precision": "mixed_bfloat16",
    }
    assert loaded == [{**backbones, "empty": None}]
    # Relative and absolute paths of the folder give the same backbones.
    monkeypatch.chdir(folder)
    extract(folder)
    write_settings(folder, vggish="https://example.org/1", visual_weights="imagenet")
    with pytest.raises(DatasetError, match=r"received 'https://example\.org/1'"):
        extract(folder)
