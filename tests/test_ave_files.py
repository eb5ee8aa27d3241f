"""AVE's files: missing files are downloaded, and invalid files are explained."""

import shutil

import numpy as np
import pytest
import requests
import tensorflow_datasets as tfds

from tests.small_datasets import (
    MATCH_ORDERS,
    ROWS,
    build,
    make_ave,
    read,
    row_times,
    set_value,
    write,
)
from tfds_ave import DatasetError, sources
from tfds_ave.tfds_ave_dataset_builder import Builder


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Refuse access to the network."""

    def refuse(url, **kwargs):
        raise requests.ConnectionError(f"no network in tests: {url}")

    monkeypatch.setattr(requests, "head", refuse)


# The following functions damage valid files. `DAMAGES` lists the texts that the error
# message of each damage must contain.


def with_value(name, index, value):
    return lambda folder: set_value(folder / name, index, value)


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
    labels[7] = labels[8]  # Row 7 has no event segments.
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
        ["train_order.h5", "raw.githubusercontent.com can't be reached"],
    ),
    "folder missing": (shutil.rmtree, ["lacks 9", "Annotations.txt", VEC]),
    "segment label": (other_segment_label, ["labels.h5", "row 11"]),
    "clip label": (other_clip_label, ["mil_labels.h5", "row 7"]),
    "closs label": (other_closs_label, ["labels_closs.h5", "row 7"]),
    "labels shape": (short_labels, ["labels.h5", "(30, 10, 29)", "(29, 10, 29)"]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_invalid_input_is_explained_and_not_built(tmp_path, damage):
    folder = make_ave(tmp_path / "ave")
    change, parts = DAMAGES[damage]
    change(folder)
    with pytest.raises(DatasetError) as error:
        build(folder, tmp_path / "data")
    for part in (*parts, str(folder)):
        assert part in str(error.value)
    assert not Builder(data_dir=tmp_path / "data", config="resnet152").is_prepared()
    assert not list((tmp_path / "data").rglob("*.tfrecord*"))


def test_a_feature_beyond_the_float16_range_is_explained(tmp_path):
    folder = make_ave(tmp_path / "ave", "vgg19", noisy=False)
    set_value(folder / "visual_feature.h5", (19, 3, 6, 6, 511), 70000)
    with pytest.raises(DatasetError, match=r"row 19, segment 3.*float16.*70000"):
        build(folder, tmp_path / "data", "vgg19")


def test_agreeing_label_files_are_accepted(tmp_path):
    folder = make_ave(tmp_path / "ave", noisy=False)
    labels = official_labels()
    write(folder / "labels.h5", labels)
    write(folder / "labels_closs.h5", 1 - labels[..., 28])
    write(folder / "mil_labels.h5", np.eye(29)[np.arange(ROWS) % 28])
    assert build(folder, tmp_path / "data").is_prepared()


def test_a_failed_build_keeps_other_configs_and_foreign_files(tmp_path):
    data = tmp_path / "data"
    build(make_ave(tmp_path / "ave", noisy=False), data)
    (data / "mine.txt").write_text("mine")
    before = {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}
    with pytest.raises(DatasetError):
        build(tmp_path / "nowhere", data, "vgg19")
    assert {path: path.read_bytes() for path in before} == before


@pytest.fixture
def downloads(tmp_path, monkeypatch):
    """Replace downloads by copies from a folder; return the folder."""
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


def test_background_is_built_from_a_downloaded_visual_file(tmp_path, downloads):
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
