"""Clips of any length with overlapping events: examples, batches and limits."""

import csv
import itertools

import numpy as np
import pytest

from avsdn_tf.data import batches, cross_modality
from avsdn_tf.data.dataset import open_dataset
from avsdn_tf.errors import UserError
from tests.commands import avsdn
from tests.small_datasets import (
    FEATURE_COLUMNS,
    build,
    examples,
    make_custom,
    write_manifest,
)
from tfds_ave import DatasetError, custom_files
from tfds_ave.segments import cut_windows, to_segments
from tfds_ave.tfds_ave_dataset_builder import Builder

CATEGORIES = ("Bark", "Flute", "Rain")
LENGTHS = {
    "train": (1, 7, 10, 23, 159),
    "validation": (2, 159, 31),
    "test": (1, 12, 64, 5),
}
WINDOW, HOP = 10, 7


def draw_events(rng, length):
    """Return random whole-second events; different categories may overlap."""
    events = []
    for category in rng.permutation(len(CATEGORIES)):
        bounds = np.unique(rng.integers(0, length + 1, 4))
        pairs = list(itertools.pairwise(bounds))[::2]
        events += [(int(category), int(a), int(b)) for a, b in pairs]
    return events


def make_recordings(folder):
    """Write recordings of 1 to 159 rows; return split, features and events of each."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    (folder / "categories.txt").write_text("\n".join(CATEGORIES))
    clips, rows = [], []
    for split, lengths in LENGTHS.items():
        for length in lengths:
            key = f"clip{len(clips)}"
            # Every second clip has an audio row too many.
            audio = rng.random((length + len(clips) % 2, 5), np.float32)
            visual = rng.random((length, 6), np.float32)
            names = [f"{key}.a.npy", f"{key}.v.npy"]
            for name, values in zip(names, (audio, visual), strict=True):
                np.save(folder / name, values)
            events = draw_events(rng, length) if len(clips) != 3 else []
            clips.append((split, audio[:length], visual, events))
            for category, start, end in events:
                rows.append([key, split, CATEGORIES[category], start, end, *names])
            if not events:
                rows.append([key, split, "Background", "", "", *names])
    write_manifest(folder, rows)
    # The `row` of an example is the position of its clip in the manifest.
    with (folder / "manifest.csv").open() as file:
        keys = list(dict.fromkeys(row["key"] for row in csv.DictReader(file)))
    assert keys == [f"clip{row}" for row in range(len(clips))]
    return clips


def multi_hot(events, length):
    labels = np.zeros((length, len(CATEGORIES)), np.int8)
    for category, start, end in events:
        labels[start:end, category] = 1
    return labels


def classes(events, length):
    """Return one class per segment: the event that starts last wins."""
    labels = np.full(length, len(CATEGORIES))
    for category, start, end in sorted(events, key=lambda event: event[1]):
        labels[start:end] = category
    return labels


def padded(values, length):
    """Pad values with zeros to a number of segments."""
    return np.pad(values, [(0, length - len(values)), *[(0, 0)] * (values.ndim - 1)])


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Return the clips, and the data set built from them."""
    folder = tmp_path_factory.mktemp("recordings")
    clips = make_recordings(folder / "own")
    build(folder / "own", folder / "data", "custom", (WINDOW, HOP))
    return clips, open_dataset("tfds_ave/custom", str(folder / "data"))


def windows(clips):
    """Return the windows of the training clips: row, audio, visual and labels."""
    found = []
    for row, (split, audio, visual, events) in enumerate(clips):
        length = len(visual)
        labels = (multi_hot(events, length), classes(events, length))
        starts = [*range(0, max(1, length - WINDOW + 1), HOP)]
        if starts[-1] + WINDOW < length:
            starts.append(length - WINDOW)
        for start in starts * (split == "train"):
            part = slice(start, start + WINDOW)
            found.append((row, *(v[part] for v in (audio, visual, *labels))))
    return found


def test_metadata_describe_lengths_and_windows(recordings):
    clips, dataset = recordings
    assert dataset.is_padded
    assert dataset.multi_label
    assert (dataset.num_segments, dataset.train_segments) == (WINDOW, WINDOW)
    assert dataset.longest_segments == 159
    metadata = dataset.builder.info.metadata
    assert metadata["lengths"] == [1, 11, 159]
    assert metadata["num_clips"] == {"train": 5, "validation": 3, "test": 4}
    assert (metadata["window_s"], metadata["hop_s"]) == (WINDOW, HOP)
    assert dataset.num_clips("train") == len(windows(clips))
    assert "12 clips" in dataset.describe_source()


def expected_target(label, multi_label, many, one):
    if label == "clip_label":
        active = many.any(0)
        background = [] if multi_label else [not active.any()]
        return np.append(active / (1 if multi_label else active.sum() or 1), background)
    target = many if multi_label else np.eye(len(CATEGORIES) + 1)[one]
    return padded(target, WINDOW) if label == "segment_labels" else target.mean(0)


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize(
    "label", ["segment_labels", "segment_label_mean", "clip_label"]
)
def test_training_batches_contain_every_window_padded(recordings, label, multi_label):
    clips, dataset = recordings
    expected = {window[2].tobytes(): window for window in windows(clips)}
    found = batches.training_batches(
        dataset, ["train"], label, batch_size=4, seed=0, multi_label=multi_label
    )
    num_columns = len(CATEGORIES) + (not multi_label)
    steps = (WINDOW,) * (label == "segment_labels")
    assert found.element_spec["target"].shape == (4, *steps, num_columns)
    assert found.element_spec["audio"].shape == (4, WINDOW, 5)
    for batch in found.as_numpy_iterator():
        for index, length in enumerate(batch["length"]):
            if not batch["weight"][index]:
                assert length == 0
                assert not batch["audio"][index].any()
                continue
            key = batch["visual"][index, :length].tobytes()
            row, audio, visual, *labels = expected.pop(key)
            assert batch["row"][index] == row
            for name, values in (("audio", audio), ("visual", visual)):
                np.testing.assert_array_equal(
                    batch[name][index], padded(values, WINDOW)
                )
            np.testing.assert_allclose(
                batch["target"][index],
                expected_target(label, multi_label, *labels),
                atol=1e-6,
            )
    assert not expected


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("split", ["validation", "test"])
def test_scoring_batches_contain_whole_clips_padded(recordings, split, multi_label):
    clips, dataset = recordings
    rows = []
    for batch in batches.scoring_batches(
        dataset, split, 3, multi_label=multi_label
    ).as_numpy_iterator():
        longest = batch["length"].max()
        assert batch["segment_labels"].shape[1] == longest
        for index, (row, length) in enumerate(
            zip(batch["row"], batch["length"], strict=True)
        ):
            clip_split, audio, visual, events = clips[row]
            assert (clip_split, length) == (split, len(visual))
            for name, values in (("audio", audio), ("visual", visual)):
                np.testing.assert_array_equal(
                    batch[name][index], padded(values, longest)
                )
            labels = (multi_hot if multi_label else classes)(events, length)
            stored = batch["segment_labels"][index]
            np.testing.assert_array_equal(stored[:length], labels)
            assert (stored[length:] == -1).all()
        rows += batch["row"].tolist()
    assert sorted(rows) == [r for r, clip in enumerate(clips) if clip[0] == split]


def test_batches_of_long_clips_are_small(recordings, monkeypatch):
    _, dataset = recordings
    three_clips = 3 * 159 * (5 + 6) * 4
    monkeypatch.setattr(batches, "_BATCH_BYTES", three_clips)
    for multi_label, most in ((False, 3), (True, 2)):
        sizes = [
            len(batch["row"])
            for batch in batches.scoring_batches(
                dataset, "test", multi_label=multi_label
            )
        ]
        assert max(sizes) == most


def test_cross_modality_localization_needs_clips_of_equal_length(recordings):
    _, dataset = recordings
    for read in (cross_modality.segment_pairs, cross_modality.scoring_clips):
        with pytest.raises(UserError, match="one length") as error:
            read(dataset, "train")
        assert error.value.field == "dataset"


def test_a_build_with_other_windows_is_refused(recordings, tmp_path):
    _, dataset = recordings
    data_dir = dataset.builder.data_dir_root
    source = dataset.source.folder
    build(source, data_dir, "custom")
    with pytest.raises(DatasetError, match=r"window_s=10, not 5.*--overwrite"):
        build(source, data_dir, "custom", (5, None))
    with pytest.raises(DatasetError, match="window_s=10, hop_s=11"):
        build(source, tmp_path, "custom", (None, 11))
    assert not Builder(data_dir=tmp_path, config="custom").is_prepared()


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (3, [(0, 3)]),
        (4, [(0, 4)]),
        (5, [(0, 4), (1, 5)]),
        (9, [(0, 4), (3, 7), (5, 9)]),
        (10, [(0, 4), (3, 7), (6, 10)]),
    ],
)
def test_windows_end_with_the_clip(length, expected):
    assert cut_windows(length, 4, 3) == expected


def test_rows_are_resampled_to_segments():
    rows = np.arange(8, dtype=np.float32)[:, None]
    # A segment is the mean of the rows whose middle is in it, or else the nearest row.
    assert to_segments(rows, 0.5, 4)[:, 0].tolist() == [0.5, 2.5, 4.5, 6.5]
    assert to_segments(rows[:2], 2, 4)[:, 0].tolist() == [0, 0, 1, 1]
    assert to_segments(rows[:4], 0.7, 3)[:, 0].tolist() == [0, 1.5, 3]
    assert to_segments(rows, 1, 7) is not rows
    assert len(to_segments(rows, 1, 7)) == 7


def test_audio_hop_s_affects_length_and_features(tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "categories.txt").write_text("Bark")
    rng = np.random.default_rng(0)
    rows = []
    for split, hop_s, num_rows in (
        ("train", 0.96, 5),
        ("validation", 0.1, 101),
        ("test", 2, 3),
    ):
        length = {"train": 5, "validation": 10, "test": 6}[split]
        np.save(folder / f"{split}.a.npy", rng.random((num_rows, 3), np.float32))
        np.save(folder / f"{split}.v.npy", rng.random((length, 2), np.float32))
        files = (f"{split}.a.npy", f"{split}.v.npy")
        rows.append([split, split, "Bark", 0, 1, *files, hop_s, ""])
    columns = (*FEATURE_COLUMNS, "audio_hop_s", "tolerance_s")
    write_manifest(folder, rows, columns)
    builder = build(folder, tmp_path / "data", "custom")
    assert builder.info.metadata["lengths"] == [5, 6, 10]
    (clip,) = examples(builder, "validation").values()
    stored = np.load(folder / "validation.a.npy")
    np.testing.assert_allclose(
        clip["audio"], stored[:100].reshape(10, 10, 3).mean(1), atol=1e-6
    )
    rows[0][8] = "0.1"
    write_manifest(folder, rows, columns)
    with pytest.raises(DatasetError, match=r"line 2: .* 4\.8 s, .* 5 s\. .*=0\.1\. "):
        build(folder, tmp_path / "data2", "custom")
    assert not (tmp_path / "data2/tfds_ave/custom/1.3.0").exists()


def test_all_wrong_lines_are_named_before_the_build(tmp_path):
    make_recordings(tmp_path / "own")
    path = tmp_path / "own" / "manifest.csv"
    header, first, second, *rest = path.read_text().splitlines()
    # The clip lasts 1 s. One event ends at 1000 s, the other starts at 5 s.
    first, second = (line.split(",") for line in (first, second))
    first[4], second[3:5] = "1000", ("5", "8")
    path.write_text("\n".join([header, *map(",".join, (first, second)), *rest]))
    with pytest.raises(DatasetError) as error:
        build(tmp_path / "own", tmp_path / "data", "custom")
    messages = str(error.value).splitlines()
    for number, message in enumerate(messages, 2):
        assert f"manifest.csv, line {number}: clip 'clip0'" in message
    assert len(messages) == 2
    assert not (tmp_path / "data/tfds_ave/custom/1.3.0").exists()


def test_an_example_too_large_for_a_file_is_named(tmp_path, monkeypatch):
    make_recordings(tmp_path / "own")
    # The size of 64 segments, the length of clip10. Training clips are cut into
    # smaller windows.
    monkeypatch.setattr(custom_files, "_MAX_EXAMPLE_BYTES", 64 * (5 + 6) * 4)
    with pytest.raises(DatasetError) as error:
        build(tmp_path / "own", tmp_path / "data", "custom")
    messages = str(error.value).splitlines()
    assert ["clip6" in messages[0], "clip10" in messages[1]] == [True, True]
    assert len(messages) == 2


def test_overlapping_events_in_clips_of_equal_length_need_no_padding(tmp_path):
    rows = make_custom(tmp_path / "own")
    rows.append([*rows[0][:2], "Kettle", 1, 3, *rows[0][5:]])
    write_manifest(tmp_path / "own", rows)
    build(tmp_path / "own", tmp_path / "data", "custom")
    dataset = open_dataset("tfds_ave/custom", str(tmp_path / "data"))
    assert (dataset.is_padded, dataset.multi_label) == (False, True)
    # The first category lasts from 0.5 to 2 s, the second from 1 to 3 s.
    many = [[1, 0], [1, 1], [0, 1], [0, 0]]
    expected = {
        ("segment_labels", True): many,
        ("segment_labels", False): np.eye(3)[[0, 1, 1, 2]],
        ("segment_label_mean", True): [0.5, 0.5],
        ("clip_label", True): [1, 1],
        ("clip_label", False): [0.5, 0.5, 0],
    }
    for (label, multi_label), target in expected.items():
        (batch,) = batches.training_batches(
            dataset, ["train"], label, batch_size=3, seed=0, multi_label=multi_label
        ).as_numpy_iterator()
        assert "length" not in batch
        index = batch["row"].tolist().index(0)
        np.testing.assert_array_equal(batch["target"][index], target)
    (batch,) = batches.scoring_batches(
        dataset, "train", multi_label=True
    ).as_numpy_iterator()
    labels = batch["segment_labels"][batch["row"].tolist().index(0)]
    np.testing.assert_array_equal(labels, many)
    assert labels.dtype == np.int8


def test_a_window_longer_than_all_clips_is_a_warning(tmp_path):
    make_recordings(tmp_path / "own")
    build(tmp_path / "own", tmp_path / "data", "custom", (200, None))
    dataset = open_dataset("tfds_ave/custom", str(tmp_path / "data"))
    assert (dataset.num_segments, dataset.train_segments) == (159, 159)
    assert dataset.num_clips("train") == len(LENGTHS["train"])
    assert any("longer than every clip" in text for text in dataset.source.warnings)


def test_options_are_checked_before_a_manifest_is_built(tmp_path):
    make_recordings(tmp_path / "own")
    with pytest.raises(UserError, match="no such option"):
        avsdn("train", f"--manifest={tmp_path / 'own'}", "--model=cmran", "--units=4")
    assert not (tmp_path / "own" / "tensorflow_datasets").exists()
