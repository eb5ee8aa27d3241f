"""The builder: its examples and metadata read back, and it explains bad input."""

import dataclasses
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import requests
import tensorflow_datasets as tfds

from tests.small_datasets import (
    MATCH_ORDERS,
    ORDERS,
    ROWS,
    SHAPES,
    VISUAL,
    build,
    examples,
    make_ave,
    make_custom,
    read,
    row_times,
    write,
    write_manifest,
)
from tfds_ave import DatasetError, errors, sources
from tfds_ave.configs import AVE_CATEGORIES, CONFIGS, SIMULATED, STAND_IN
from tfds_ave.tfds_ave_dataset_builder import Builder

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """No test of this file may depend on a network."""

    def refuse(url, **kwargs):
        raise requests.ConnectionError(f"no network in tests: {url}")

    monkeypatch.setattr(requests, "head", refuse)


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
    assert set(builder.info.metadata) >= METADATA
    assert builder.info.metadata["disclaimer"] == SIMULATED
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


# Each damage changes good files; the message must name what is with it.


def with_value(name, index, value):
    def damage(folder):
        with h5py.File(folder / name, "r+") as file:
            file["avadataset"][index] = value

    return damage


def changed(name, change):
    return lambda folder: write(folder / name, change(read(folder / name)))


def with_order(name, rows):
    return lambda folder: write(folder / name, np.array(rows), "order")


def without(*names):
    def damage(folder):
        for name in names:
            (folder / name).unlink()

    return damage


def wrong_category(folder):
    path = folder / "Annotations.txt"
    path.write_text(path.read_text().replace("Bark&", "Barking&", 1))


def truncated(folder):
    path = folder / "visual_feature_vec.h5"
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def not_hdf5(folder):
    (folder / "train_order.h5").write_text("<html>quota exceeded</html>")


def other_key(folder):
    path = folder / "audio_feature.h5"
    write(path, read(path), "dataset")


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


AUDIO, VEC = "audio_feature.h5", "visual_feature_vec.h5"
NOISY, MATCH = "visual_feature_vec_noisy.h5", "test_order_match.h5"
DAMAGES = {
    "category": (wrong_category, ["Annotations.txt, line 3", "'Barking'"]),
    "audio rows": (changed(AUDIO, lambda a: a[:-1]), [AUDIO, "30", "29"]),
    "noisy rows": (changed(NOISY, lambda a: a[:-1]), [NOISY, "4", "3"]),
    "width": (changed(VEC, lambda a: a[..., :512]), [VEC, "10, 2048", "10, 512"]),
    "row beyond": (
        with_order("val_order.h5", [20, ROWS]),
        ["val_order.h5", "entry 1", "0 to 29", "received 30"],
    ),
    "row below": (
        with_order("val_order.h5", [-1, 20]),
        ["val_order.h5", "entry 0", "received -1"],
    ),
    "row twice": (
        with_order("test_order.h5", [21, 23, 21]),
        ["test_order.h5", "entry 2", "row 21"],
    ),
    "row in two splits": (
        with_order("test_order.h5", [21, 5]),
        ["test_order.h5", "entry 1", "row 5", "train_order.h5"],
    ),
    "order of floats": (
        with_order("test_order.h5", [21.0, 23.0]),
        ["test_order.h5", "float64"],
    ),
    "match row beyond": (
        with_order("val_order_match.h5", [*MATCH_ORDERS["validation"], ROWS]),
        ["val_order_match.h5", "entry 5", "received 30"],
    ),
    "match row missing": (
        with_order(MATCH, MATCH_ORDERS["test"][:-1]),
        [MATCH, "row 27", "test_order.h5"],
    ),
    "match row in two splits": (
        with_order(MATCH, [*MATCH_ORDERS["test"], 24]),
        [MATCH, "entry 5", "row 24", "val_order_match.h5"],
    ),
    "match missing": (without(MATCH), [MATCH, "raw.githubusercontent"]),
    "audio NaN": (
        with_value(AUDIO, (22, 4, 9), np.nan),
        [AUDIO, "row 22, segment 4", "nan"],
    ),
    "visual inf": (with_value(VEC, (3, 0, 5), np.inf), [VEC, "row 3, segment 0"]),
    "noisy NaN": (with_value(NOISY, (2, 9, 0), np.nan), [NOISY, "row 2, segment 9"]),
    "truncated": (truncated, [VEC, "truncated"]),
    "not HDF5": (not_hdf5, ["train_order.h5"]),
    "key": (other_key, [AUDIO, "'avadataset'", "['dataset']"]),
    "visual missing": (without(VEC), [VEC, "never released", "--manual_dir"]),
    "two missing": (without(VEC, AUDIO), [VEC, AUDIO, "drive.google"]),
    "order missing": (
        without("train_order.h5"),
        ["train_order.h5", "raw.githubusercontent", "no network"],
    ),
    "folder missing": (shutil.rmtree, ["lacks 9", "Annotations.txt", VEC]),
    "segment label": (other_segment_label, ["labels.h5", "row 11"]),
    "clip label": (other_clip_label, ["mil_labels.h5", "row 7"]),
    "closs label": (other_closs_label, ["labels_closs.h5", "row 7"]),
    "labels shape": (short_labels, ["labels.h5", "(30, 10, 29)", "(29, 10, 29)"]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_bad_input_is_explained_and_builds_nothing(tmp_path, damage):
    folder = make_ave(tmp_path / "ave")
    change, parts = DAMAGES[damage]
    change(folder)
    with pytest.raises(DatasetError) as error:
        build(folder, tmp_path / "data")
    for part in (*parts, str(folder)):
        assert part in str(error.value)
    assert not Builder(data_dir=tmp_path / "data", config="resnet152").is_prepared()
    assert not list((tmp_path / "data").rglob("*.tfrecord*"))


def test_a_feature_beyond_float16_is_explained(tmp_path):
    folder = make_ave(tmp_path / "ave", "vgg19", noisy=False)
    with_value("visual_feature.h5", (19, 3, 6, 6, 511), 70000)(folder)
    with pytest.raises(DatasetError, match=r"row 19, segment 3.*float16.*70000"):
        build(folder, tmp_path / "data", "vgg19")


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
    before = {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}
    with pytest.raises(DatasetError):
        build(tmp_path / "nowhere", data, "vgg19")
    assert {path: path.read_bytes() for path in before} == before


@pytest.fixture
def downloads(tmp_path, monkeypatch):
    """Downloads by copying from a folder; TFDS checks size and checksum itself."""
    origin = tmp_path / "origin"
    origin.mkdir()

    def copy(self, urls):
        return {name: origin / name for name in urls}

    monkeypatch.setattr(requests, "head", lambda url, **kwargs: None)
    monkeypatch.setattr(tfds.download.DownloadManager, "download", copy)
    return origin


def test_missing_files_are_downloaded(tmp_path, downloads):
    folder = make_ave(tmp_path / "ave", noisy=False)
    for name in ("train_order.h5", "audio_feature.h5"):
        (folder / name).rename(downloads / name)
    assert build(folder, tmp_path / "data").is_prepared()


def test_background_comes_along_with_a_downloaded_visual_file(tmp_path, downloads):
    folder = make_ave(tmp_path / "ave", "vgg19")
    for name in ("visual_feature.h5", "visual_feature_noisy.h5"):
        (folder / name).rename(downloads / name)
    builder = build(folder, tmp_path / "data", "vgg19")
    assert builder.info.splits["background"].num_examples == 4


def test_a_failing_download_is_explained(tmp_path, monkeypatch):
    folder = make_ave(tmp_path / "ave", noisy=False)
    (folder / "train_order.h5").unlink()
    monkeypatch.setattr(requests, "head", lambda url, **kwargs: None)

    def break_off(self, *args, **kwargs):
        raise requests.ConnectionError("the line went dead")

    monkeypatch.setattr(requests.Session, "get", break_off)
    with pytest.raises(DatasetError, match="the line went dead") as error:
        build(folder, tmp_path / "data")
    assert sources.URLS["train_order.h5"] in str(error.value)


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
    # As a reader finds them on disk.
    builder = Builder(data_dir=tmp_path / "data", config=config)
    assert dict(builder.info.metadata) == {
        "num_segments": 10,
        "segment_s": 1.0,
        "audio_width": 128,
        "visual_shape": list(SHAPES[config]),
        "has_times": True,
        "backbones": {"visual_network": config},
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
def test_audio_below_zero_makes_a_stand_in(tmp_path, split):
    folder = make_ave(tmp_path / "ave")
    name = "audio_feature.h5" if split == "train" else "audio_feature_noisy.h5"
    with_value(name, (2, 3, 4), -0.5)(folder)
    build(folder, tmp_path / "data")
    builder = Builder(data_dir=tmp_path / "data", config="resnet152")
    assert builder.info.metadata["disclaimer"] == STAND_IN


def test_a_stand_in_of_one_build_does_not_mark_the_next(tmp_path):
    folder = make_ave(tmp_path / "ave", "vgg19", noisy=False)
    audio = read(folder / "audio_feature.h5")
    for sign, disclaimer in ((-1, STAND_IN), (1, None)):
        write(folder / "audio_feature.h5", sign * audio)
        builder = build(folder, tmp_path / f"data{sign}", "vgg19")
        assert builder.info.metadata["disclaimer"] == disclaimer
        assert builder.info.metadata["backbones"]["visual_network"] == "vgg19"


def test_metadata_of_custom_data_hold_a_hash_of_the_labels(tmp_path):
    make_custom(tmp_path / "own", (2, 3, 4))
    build(tmp_path / "own", tmp_path / "data", "custom")
    builder = Builder(data_dir=tmp_path / "data", config="custom")
    metadata = dict(builder.info.metadata)
    assert set(metadata) == {*METADATA, "labels_hash"}
    assert (metadata["num_segments"], metadata["audio_width"]) == (4, 5)
    assert metadata["visual_shape"] == [2, 3, 4]
    assert metadata["has_times"] is True
    assert metadata["disclaimer"] is None
    # Feature files don't record their network.
    assert metadata["backbones"] == {"visual_network": None}


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


def test_tfds_build_builds_the_synthetic_config_alone(tmp_path):
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
