"""Config `custom` from videos: their features, and the settings in features.json."""

import contextlib
import json
import pathlib

import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.portability.prism_runner import PrismRunner

from avsdn_tf.backbones import IMAGENET, Backbones
from avsdn_tf.data import cross_modality, dataset
from avsdn_tf.features import extractor as features
from avsdn_tf.features.extractor import Extractor
from avsdn_tf.features.store import read_source
from tests.small_datasets import (
    VIDEO_COLUMNS,
    build,
    examples,
    make_custom_videos,
    write_manifest,
)
from tests.small_videos import Brightness, Loudness, write_clip
from tfds_ave import DatasetError, extraction
from tfds_ave.configs import CUSTOM


@pytest.fixture
def loaded(monkeypatch):
    """Replace `build_extractor`; return the list of its arguments."""
    asked = []

    def build_extractor(empty=None, **fields):
        asked.append((Backbones(**fields), empty))
        return Extractor(Loudness(), Brightness(), empty)

    monkeypatch.setattr(extraction, "build_extractor", build_extractor)
    return asked


def refusal(folder, data_dir):
    """Return the error message of a build, which must fail."""
    with pytest.raises(DatasetError) as error:
        build(folder, data_dir, "custom")
    return str(error.value)


def loudness(builder, split):
    return [clip["audio"][-1, 0] for clip in examples(builder, split).values()]


def write_settings(folder, content):
    (folder / "features.json").write_text(json.dumps(content))


def test_a_data_set_of_videos_records_its_backbones(tmp_path, loaded):
    make_custom_videos(tmp_path / "own")
    build(tmp_path / "own", tmp_path / "data", "custom")
    opened = dataset.open_dataset("tfds_ave/custom", str(tmp_path / "data"))
    assert opened.backbones.is_complete
    counts = {"train": 1, "validation": 1, "test": 1}
    assert cross_modality.count_clips(opened).items() >= counts.items()


def test_features_of_replaced_and_changed_videos_are_extracted_again(tmp_path, loaded):
    folder = tmp_path / "own"
    rows = make_custom_videos(folder)
    build(folder, tmp_path / "data", "custom")
    kept = folder / "features" / "c2.audio.npy"
    before = kept.stat().st_mtime_ns
    # The manifest names another video for c0, and the file of c1 changes.
    quiet = write_clip(tmp_path / "quiet.mp4", 2, tail_s=1)
    (folder / "quiet.mp4").write_bytes(quiet.read_bytes())
    (folder / "1.mp4").write_bytes(quiet.read_bytes())
    rows[0][5] = "quiet.mp4"
    write_manifest(folder, rows, VIDEO_COLUMNS)
    builder = build(folder, tmp_path / "data2", "custom")
    assert builder.info.metadata["visual_shape"] == [3]
    assert examples(builder, "train")[0]["segment_labels"].tolist() == [1, 0, 0]
    assert loudness(builder, "train") == loudness(builder, "validation")
    assert loudness(builder, "train")[0] < 0.1 < loudness(builder, "test")[0]
    assert kept.stat().st_mtime_ns == before
    loaded.clear()
    build(folder, tmp_path / "data3", "custom")
    assert loaded == []


def test_an_unloadable_module_leaves_no_features_folder(tmp_path):
    folder = tmp_path / "own"
    make_custom_videos(folder)
    (folder / "no module").mkdir()
    write_settings(folder, {"vggish": "no module"})
    message = refusal(folder, tmp_path / "data")
    for part in (folder / "features.json", "vggish", folder / "no module"):
        assert str(part) in message
    assert "--vggish" not in message
    assert not (folder / "features").exists()


def test_the_error_about_invalid_weights_names_features_json(tmp_path, monkeypatch):
    folder = tmp_path / "own"
    make_custom_videos(folder)
    monkeypatch.setattr(features, "AudioNetwork", lambda *_: Loudness())
    (folder / "mine.weights.h5").write_text("no weights")
    write_settings(folder, {"visual_weights": "mine.weights.h5"})
    message = refusal(folder, tmp_path / "data")
    for part in (folder / "features.json", "visual_weights", folder / "mine.weights"):
        assert str(part) in message
    assert "--" not in message
    assert not (folder / "features").exists()


def test_a_key_too_long_for_a_file_name_has_no_features(tmp_path):
    assert read_source(tmp_path, "\u3042" * 300) is None


def test_a_folders_name_may_be_a_glob_pattern(tmp_path, loaded):
    folder = tmp_path / "own [1080p]"
    make_custom_videos(folder)
    broken = folder / "0.mp4"
    content = broken.read_bytes()
    broken.write_bytes(b"no video")
    message = refusal(folder, tmp_path / "data")
    assert "1 of 3 videos failed" in message
    assert str(broken) in message
    broken.write_bytes(content)
    build(folder, tmp_path / "data", "custom")


def test_settings_may_change_after_a_failed_pipeline(tmp_path, loaded, monkeypatch):
    folder = tmp_path / "own"
    make_custom_videos(folder)
    with monkeypatch.context() as patch:
        patch.setattr(Loudness, "__call__", lambda self, seconds: 1 / 0)
        with pytest.raises(Exception, match="division by zero"):
            build(folder, tmp_path / "data", "custom")
    assert [path.name for path in (folder / "features").iterdir()] == ["extract.json"]
    write_settings(folder, {"visual_network": "vgg19"})
    build(folder, tmp_path / "data", "custom")
    # Features of two networks don't mix.
    (folder / "features.json").unlink()
    assert "vgg19" in refusal(folder, tmp_path / "data2")


def test_the_local_runner_is_the_default(tmp_path, loaded, monkeypatch):
    folder = tmp_path / "own"
    make_custom_videos(folder)
    tried = []
    run_here = FnApiRunner.run_pipeline

    class OwnRunner(FnApiRunner):
        def run_pipeline(self, *args):
            tried.append("own")
            return run_here(self, *args)

    def record(name, then):
        def run_pipeline(*args):
            tried.append(name)
            return then(*args)

        return run_pipeline

    def refuse(*args):
        raise OSError("no network in tests")

    monkeypatch.setattr(FnApiRunner, "run_pipeline", record("here", run_here))
    monkeypatch.setattr(PrismRunner, "run_pipeline", record("prism", refuse))
    for index, (beam, expected) in enumerate(
        (
            ({}, ["here"]),
            ({"beam_runner": OwnRunner()}, ["own"]),
            ({"beam_options": PipelineOptions(["--runner=PrismRunner"])}, ["prism"]),
            ({"beam_options": PipelineOptions(["--direct_num_workers=1"])}, ["here"]),
        )
    ):
        tried.clear()
        (folder / "features" / "c0.audio.npy").unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            build(folder, tmp_path / f"data{index}", "custom", **beam)
        assert tried == expected


@pytest.mark.parametrize("empty", ["audio", "visual"])
def test_a_clip_without_sound_or_picture_is_accepted_on_request(
    tmp_path, loaded, empty
):
    folder = tmp_path / "own"
    make_custom_videos(folder)
    write_clip(folder / "0.mp4", 3, sound=empty != "audio", picture=empty != "visual")
    message = refusal(folder, tmp_path / "data")
    for part in ("c0: ", "empty", empty, "1 of 3 videos", folder / "features.json"):
        assert str(part) in message
    assert "--" not in message
    # The features of the other videos stay: they come from the same networks.
    write_settings(folder, {"empty": empty})
    builder = build(folder, tmp_path / "data", "custom")
    assert not examples(builder, "train")[0][empty].any()
    assert examples(builder, "test")[2][empty].any()


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ({"empty": "sound"}, ["empty", "'sound'"]),
        ({"visual_network": "alexnet"}, ["visual_network", "'alexnet'"]),
        ({"visual_precision": "half"}, ["visual_precision", "mixed_bfloat16"]),
        ({"vggish": 1}, ["vggish"]),
        ({"vggish": None}, ["vggish"]),
        ({"vgish": "a"}, ["vgish"]),
        (["vggish"], ["JSON object"]),
        ({"vggish": "gone"}, ["vggish", "own/gone does not exist"]),
        ({"vggish": "imagenet"}, ["vggish", "own/imagenet does not exist"]),
        ({"visual_weights": "/gone"}, ["visual_weights", "/gone does not exist"]),
    ],
)
def test_wrong_settings_are_named(tmp_path, loaded, content, parts):
    folder = tmp_path / "own"
    make_custom_videos(folder)
    write_settings(folder, content)
    message = refusal(folder, tmp_path / "data")
    for part in ("features.json", *parts):
        assert part in message
    assert loaded == []
    assert not (folder / "features").exists()


def test_paths_in_the_settings_are_relative_to_their_folder(
    tmp_path, loaded, monkeypatch
):
    folder = tmp_path / "own"
    make_custom_videos(folder)
    (folder / "module").mkdir()
    (tmp_path / "weights.h5").touch()
    expected = Backbones(
        audio_network="vggish",
        audio_weights=str(folder / "module"),
        visual_network="resnet152",
        visual_weights=str(tmp_path / "weights.h5"),
        visual_precision="mixed_bfloat16",
    )
    write_settings(
        folder,
        {
            "vggish": "module",
            "visual_weights": expected.visual_weights,
            "visual_precision": expected.visual_precision,
        },
    )
    monkeypatch.chdir(tmp_path)
    build(pathlib.Path("own"), tmp_path / "data", "custom")
    assert loaded == [(expected, None)]
    # Runs get the backbones for new videos from the data set.
    opened = dataset.open_dataset("tfds_ave/custom", str(tmp_path / "data"))
    assert opened.backbones == expected
    # Relative and absolute paths of a folder give the same backbones.
    monkeypatch.chdir(folder)
    build(folder, tmp_path / "data2", "custom")
    write_settings(
        folder, {"vggish": "https://example.org/1", "visual_weights": IMAGENET}
    )
    (folder / "features" / "c0.audio.npy").unlink()
    assert "https://example.org/1" in refusal(folder, tmp_path / "data3")
    ((backbones, _),) = loaded[1:]
    assert backbones.audio_weights == "https://example.org/1"
    assert backbones.visual_weights == IMAGENET


def test_a_parent_path_works_in_a_folder_named_like_a_glob_pattern(tmp_path):
    folder = tmp_path / "own [1]"
    folder.mkdir()
    (tmp_path / "vggish").mkdir()
    write_settings(folder, {"vggish": "../vggish"})
    backbones, _ = extraction._read_settings(folder, CUSTOM)
    assert backbones.audio_weights == str(tmp_path / "vggish")


def test_videos_keep_their_lengths(tmp_path, loaded):
    folder = tmp_path / "own"
    rows = make_custom_videos(folder, (3, 2, 4, 3))
    rows[2][3:5] = (2, 3.5)
    write_manifest(folder, rows, VIDEO_COLUMNS)
    builder = build(folder, tmp_path / "data", "custom")
    assert builder.info.metadata["lengths"] == [2, 3, 4]
    # The clip ends at 2 s: its event from 1 to 3 s is cut.
    (short,) = examples(builder, "validation").values()
    assert short["segment_labels"].tolist() == [1, 0]
    assert (short["start_s"], short["end_s"]) == (1, 2)
    long = examples(builder, "test")[2]
    assert long["audio"].shape == (4, 3)
    assert long["segment_labels"].tolist() == [1, 1, 0, 1]
    assert (long["start_s"], long["end_s"]) == (2, 3.5)
    for times_s in ((4.6, 5), (2, 5.2)):
        rows[2][3:5] = times_s
        write_manifest(folder, rows, VIDEO_COLUMNS)
        message = refusal(folder, tmp_path / "data2")
        assert "line 4: clip 'c2'" in message
        assert "4 segments" in message
