"""Build data sets by TFDS and `tfds build`, and read examples and metadata back."""

import dataclasses
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from tests.small_datasets import (
    MATCH_ORDERS,
    ORDERS,
    SHAPES,
    VISUAL,
    build,
    examples,
    make_ave,
    make_custom,
    read,
    row_times,
    set_value,
    write,
    write_manifest,
)
from tfds_ave import DatasetError, errors
from tfds_ave.configs import AVE_CATEGORIES, CONFIGS, SIMULATED, STAND_IN
from tfds_ave.tfds_ave_dataset_builder import Builder

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("visual_dtype", [np.float32, np.float64])
def test_resnet152_examples_equal_the_source_files(tmp_path, visual_dtype):
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


def test_background_clips_are_read_from_the_noisy_files(tmp_path):
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


def test_the_default_config_is_synthetic_and_is_read_back(tmp_path):
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
    assert set(builder.info.metadata) >= METADATA
    assert builder.info.metadata["disclaimer"] == SIMULATED
    example = next(iter(tfds.as_numpy(builder.as_dataset(split="test[:1]"))))
    assert example["audio"].shape == (10, 128)
    assert example["visual"].shape == (10, 2048)
    np.testing.assert_allclose(example["segment_label_mean"].sum(), 1, rtol=1e-6)


def test_only_synthetic_is_listed_and_every_config_opens_by_name(tmp_path):
    assert [config.name for config in Builder.BUILDER_CONFIGS] == ["synthetic"]
    for config in CONFIGS:
        builder = tfds.builder(f"tfds_ave/{config.name}", data_dir=tmp_path)
        assert isinstance(builder, Builder)
        assert builder.builder_config is config
        assert pickle.loads(pickle.dumps(builder)).builder_config is config


# TFDS asks protobuf for a field's deprecated `label` when it reads a dataset_info.json.
@pytest.mark.filterwarnings("ignore:label.. is deprecated:DeprecationWarning")
def test_load_opens_a_data_set_by_config_and_version(tmp_path):
    build(make_ave(tmp_path / "ave", noisy=False), tmp_path / "data")
    for name in ("tfds_ave/resnet152", f"tfds_ave/resnet152:{Builder.VERSION}"):
        dataset, info = tfds.load(
            name,
            split="test",
            data_dir=tmp_path / "data",
            download=False,
            with_info=True,
        )
        assert len(dataset) == 5
        assert info.features["clip_label"].names[-1] == "Background"


def test_the_error_of_an_unknown_config_lists_the_known_configs(tmp_path):
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


METADATA = {
    "num_segments",
    "segment_s",
    "audio_width",
    "visual_shape",
    "has_times",
    "backbones",
    "disclaimer",
}


@pytest.mark.parametrize("config", SHAPES)
def test_metadata_and_features_of_every_config(tmp_path, config):
    folder = make_ave(tmp_path / "ave", config, noisy=False)
    build(folder, tmp_path / "data", config)
    # Read the metadata from disk.
    builder = Builder(data_dir=tmp_path / "data", config=config)
    assert dict(builder.info.metadata) == {
        "num_segments": 10,
        "segment_s": 1.0,
        "audio_width": 128,
        "visual_shape": list(SHAPES[config]),
        "has_times": True,
        "backbones": {"audio_network": "vggish", "visual_network": config},
        "disclaimer": None,
    }
    # Maps are stored as float16.
    dtype = np.float32 if config == "resnet152" else np.float16
    visual = read(folder / f"{VISUAL[config]}.h5")
    found = examples(builder, "validation")
    assert sorted(found) == ORDERS["validation"]
    for row, example in found.items():
        assert example["visual"].dtype == dtype
        np.testing.assert_array_equal(example["visual"], visual[row].astype(dtype))


@pytest.mark.parametrize("split", ["train", "background"])
def test_negative_audio_features_mark_a_stand_in(tmp_path, split):
    folder = make_ave(tmp_path / "ave")
    name = "audio_feature.h5" if split == "train" else "audio_feature_noisy.h5"
    set_value(folder / name, (2, 3, 4), -0.5)
    build(folder, tmp_path / "data")
    builder = Builder(data_dir=tmp_path / "data", config="resnet152")
    assert builder.info.metadata["disclaimer"] == STAND_IN


def test_a_stand_in_does_not_mark_the_next_build(tmp_path):
    folder = make_ave(tmp_path / "ave", "vgg19", noisy=False)
    audio = read(folder / "audio_feature.h5")
    for sign, disclaimer in ((-1, STAND_IN), (1, None)):
        write(folder / "audio_feature.h5", sign * audio)
        builder = build(folder, tmp_path / f"data{sign}", "vgg19")
        assert builder.info.metadata["disclaimer"] == disclaimer
        assert builder.info.metadata["backbones"]["visual_network"] == "vgg19"


def test_metadata_of_custom_data_contain_a_hash_of_the_labels(tmp_path):
    make_custom(tmp_path / "own", (2, 3, 4))
    build(tmp_path / "own", tmp_path / "data", "custom")
    builder = Builder(data_dir=tmp_path / "data", config="custom")
    metadata = dict(builder.info.metadata)
    own = {"labels_hash", "window_s", "hop_s", "is_padded", "train_segments"}
    own |= {"longest_segments", "lengths", "num_clips", "multi_label", "overlapping"}
    assert set(metadata) == {*METADATA, *own}
    assert (metadata["num_segments"], metadata["audio_width"]) == (4, 5)
    assert metadata["visual_shape"] == [2, 3, 4]
    assert metadata["has_times"] is True
    assert metadata["disclaimer"] is None
    # Feature files don't record their network.
    assert metadata["backbones"] == {"audio_network": None, "visual_network": None}


def test_feature_shapes_follow_the_config(tmp_path, monkeypatch):
    """The shapes come from the config alone, not from constants for AVE."""
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


def test_tfds_build_builds_only_the_synthetic_config(tmp_path):
    done = tfds_command("build", "tfds_ave", f"--data_dir={tmp_path}", cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    built = [path.name for path in (tmp_path / "tfds_ave").iterdir()]
    assert sorted(built) == [".config", "synthetic"]


def test_tfds_build_elsewhere_shows_an_error_as_one_message(tmp_path):
    rows = make_custom(tmp_path / "own")
    rows[1][1] = "dev"
    write_manifest(tmp_path / "own", rows)
    done = tfds_command(
        *("build", "tfds_ave", "--imports=tfds_ave", "--config=custom"),
        *("--manual_dir=own", "--data_dir=data"),
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    message = done.stderr[done.stderr.index("tfds_ave: ") :]
    assert f"{tmp_path / 'own' / 'manifest.csv'}, line 3" in message
    assert len(message.splitlines()) == 1


def test_uncaught_errors_of_other_types_keep_their_traceback(capsys, monkeypatch):
    passed_on = []
    monkeypatch.setattr(sys, "excepthook", lambda *args: passed_on.append(args))
    errors.install_excepthook()
    sys.excepthook(DatasetError, DatasetError("bad row"), None)
    assert "bad row" in capsys.readouterr().err
    assert passed_on == []
    other = KeyError("x")
    sys.excepthook(KeyError, other, None)
    assert passed_on == [(KeyError, other, None)]
