"""Annotations.txt and the labels that follow from it."""

import hashlib
from pathlib import Path

import h5py
import numpy as np
import pytest

from tfds_ave import DatasetError
from tfds_ave.annotations import Annotation, read_annotations, segment_labels
from tfds_ave.configs import AVE_CATEGORIES
from tfds_ave.sources import URLS

OFFICIAL = Path(__file__).resolve().parents[2] / "shared" / "ave_official"
needs_official = pytest.mark.skipif(
    not OFFICIAL.is_dir(), reason="AVE's annotations are not in shared/ave_official"
)
HEADER = "Category&VideoID&Quality&StartTime&EndTime"
LINES = (
    "Church bell&RUhOCu3LNXM&good&0&10",
    "Male speech, man speaking&-nPxVrMPEd4&good&2&5",
    "Frying (food)&VWi2ENBuTbw&good&0&0",
)


def read(path):
    return read_annotations(path, AVE_CATEGORIES, num_segments=10)


def one_hot(indices, depth=29):
    return np.eye(depth, dtype=np.float32)[indices]


def official_array(name, key="avadataset"):
    with h5py.File(OFFICIAL / name) as file:
        return file[key][...]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("last_newline", [True, False])
def test_every_variant_of_the_file_is_read(tmp_path, newline, header, last_newline):
    lines = ((HEADER,) if header else ()) + LINES
    path = tmp_path / "Annotations.txt"
    path.write_bytes((newline.join(lines) + (newline if last_newline else "")).encode())
    assert read(path) == [
        Annotation("Church bell", "RUhOCu3LNXM", "good", 0, 10),
        Annotation("Male speech, man speaking", "-nPxVrMPEd4", "good", 2, 5),
        Annotation("Frying (food)", "VWi2ENBuTbw", "good", 0, 0),
    ]


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("Church bells&RUhOCu3LNXM&good&0&10", "category"),
        ("Background&RUhOCu3LNXM&good&0&10", "category"),
        ("Bark&RUhOCu3LNXM&good&0", "fields"),
        ("Bark&RUhOCu3LNXM&good&0&10&1", "fields"),
        ("Bark&&good&0&10", "fields"),
        ("", "fields"),
        ("Bark&RUhOCu3LNXM&good&5&3", "times"),
        ("Bark&RUhOCu3LNXM&good&5&5", "times"),
        ("Bark&RUhOCu3LNXM&good&0&11", "times"),
        ("Bark&RUhOCu3LNXM&good&-1&5", "times"),
        ("Bark&RUhOCu3LNXM&good&1.5&5", "times"),
        ("Bark&RUhOCu3LNXM&good&&5", "times"),
    ],
)
@pytest.mark.parametrize("header", [True, False])
def test_a_wrong_line_is_named(tmp_path, line, named, header):
    path = tmp_path / "Annotations.txt"
    lines = [HEADER] * header + [LINES[0], line, LINES[1]]
    path.write_text("\n".join(lines))
    with pytest.raises(DatasetError) as error:
        read(path)
    assert f"{path}, line {3 if header else 2}: " in str(error.value)
    assert named in str(error.value)


@pytest.mark.parametrize("content", [b"", HEADER.encode(), b"\x89HDF\r\n\xff\xfe"])
def test_a_file_without_rows_is_refused(tmp_path, content):
    path = tmp_path / "Annotations.txt"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"Annotations\.txt"):
        read(path)


@pytest.mark.parametrize(
    ("start_s", "end_s", "expected"),
    [
        (0, 10, [3] * 10),
        (2, 5, [28, 28, 3, 3, 3, 28, 28, 28, 28, 28]),
        (8, 10, [28] * 8 + [3, 3]),
        (0, 0, [28] * 10),
    ],
)
def test_an_event_covers_segments_from_start_to_before_end(start_s, end_s, expected):
    labels = segment_labels(3, start_s, end_s, num_segments=10, background=28)
    assert labels.dtype == np.int64
    assert labels.tolist() == expected


@needs_official
def test_the_official_annotations_give_the_released_labels():
    rows = read(OFFICIAL / "Annotations.txt")
    assert len(rows) == 4143
    assert tuple(dict.fromkeys(row.category for row in rows)) == AVE_CATEGORIES
    category = [AVE_CATEGORIES.index(row.category) for row in rows]
    labels = np.stack(
        [
            segment_labels(k, row.start_s, row.end_s, 10, 28)
            for k, row in zip(category, rows, strict=True)
        ]
    )
    np.testing.assert_array_equal(one_hot(labels), official_array("labels.h5"))
    np.testing.assert_array_equal(one_hot(category), official_array("mil_labels.h5"))
    np.testing.assert_array_equal(labels != 28, official_array("labels_closs.h5"))
    # A zero-length event labels its clip, but no segment.
    assert rows[26].category == "Church bell"
    assert labels[26].tolist() == [28] * 10
    background = {
        split: int((labels[official_array(f"{split}_order.h5", "order")] == 28).sum())
        for split in ("train", "val", "test")
    }
    assert background == {"train": 5631, "val": 732, "test": 715}


@needs_official
def test_repeated_ids_equal_the_data_card():
    rows = read(OFFICIAL / "Annotations.txt")
    splits = {
        split: {rows[i].video_id for i in official_array(f"{split}_order.h5", "order")}
        for split in ("train", "val", "test")
    }
    assert len({row.video_id for row in rows}) == 4097
    assert len(splits["train"] & splits["val"]) == 10
    assert len(splits["train"] & splits["test"]) == 8
    assert not splits["val"] & splits["test"]


@needs_official
def test_checksums_equal_the_checksums_of_the_official_files():
    path = Path(__file__).parents[1] / "tfds_ave" / "checksums.tsv"
    lines = [line.split("\t") for line in path.read_text().splitlines()]
    assert {url for url, *_ in lines} == {u for u in URLS.values() if "github" in u}
    for url, size, checksum, name in lines:
        content = (OFFICIAL / name).read_bytes()
        assert url == URLS[name]
        assert int(size) == len(content)
        assert checksum == hashlib.sha256(content).hexdigest()
