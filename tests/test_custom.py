"""Config `custom` from feature files: its examples, and training on them."""

import json
import pathlib

import numpy as np
import pytest
import tensorflow_datasets as tfds

import avsdn_tf
from avsdn_tf.data import batches, dataset
from avsdn_tf.errors import UserError
from avsdn_tf.training.config import Config
from tests import commands
from tests.small_datasets import build, examples, make_custom, write_manifest
from tfds_ave import DatasetError
from tfds_ave.segments import make_span
from tfds_ave.tfds_ave_dataset_builder import Builder

EXAMPLE = pathlib.Path(__file__).resolve().parents[1] / "docs/examples/own_data.py"


def build_own(folder, data_dir):
    """Build config `custom`, and open it as training does."""
    build(folder, data_dir, "custom")
    return dataset.open_dataset("tfds_ave/custom", str(data_dir))


def settings(data_dir, **others):
    return {
        "dataset": "tfds_ave/custom",
        "data_dir": str(data_dir),
        "epochs": 1,
        "units": 4,
        **others,
    }


@pytest.mark.parametrize("visual_shape", [(6,), (2, 3, 4)])
def test_categories_and_shapes_are_read_from_the_data(tmp_path, visual_shape):
    rows = make_custom(tmp_path / "own", visual_shape)
    opened = build_own(tmp_path / "own", tmp_path / "data")
    assert opened.categories == ("Door, slamming", "Kettle")
    assert (opened.audio_width, opened.visual_shape) == (5, visual_shape)
    assert opened.num_segments == 4
    assert opened.disclaimer is None
    found = examples(opened.builder, "train")
    assert {e["video_id"].decode() for e in found.values()} == {r[0] for r in rows[:3]}
    # The event from 0.5 to 2 s covers the middles of segments 0 and 1.
    assert found[0]["segment_labels"].tolist() == [0, 0, 2, 2]
    assert found[1]["segment_labels"].tolist() == [1, 1, 2, 2]
    assert found[2]["segment_labels"].tolist() == [2, 2, 2, 2]
    batch = next(
        iter(
            batches.training_batches(
                opened, ["train"], "segment_labels", batch_size=3, seed=0
            )
        )
    )
    assert batch["visual"].shape == (3, 4, *visual_shape)
    for row, visual in zip(batch["row"].numpy(), batch["visual"], strict=True):
        stored = np.load(tmp_path / "own" / f"clip {row}.v.npy")
        np.testing.assert_array_equal(visual, stored)


def test_changed_labels_change_the_hash_of_the_data_set(tmp_path):
    rows = make_custom(tmp_path / "own")
    hashes = []
    for start_s in (0.5, 0.5, 1.5):
        rows[0][3] = start_s
        write_manifest(tmp_path / "own", rows)
        opened = build_own(tmp_path / "own", tmp_path / str(len(hashes)))
        hashes.append(opened.content_hash())
    assert hashes[0] == hashes[1] != hashes[2]


def test_load_returns_the_built_data_set(tmp_path):
    make_custom(tmp_path / "own")
    build(tmp_path / "own", tmp_path / "data", "custom")
    loaded, info = tfds.load(
        "tfds_ave/custom",
        split="test",
        data_dir=tmp_path / "data",
        download=False,
        with_info=True,
    )
    assert len(loaded) == 3
    assert info.features["clip_label"].names[-1] == "Background"
    assert info.metadata["visual_shape"] == [6]


def test_a_clip_may_have_several_events(tmp_path):
    rows = make_custom(tmp_path / "own")
    again = [*rows[0][:3], 2.25, 3.25, *rows[0][5:]]
    write_manifest(tmp_path / "own", [*rows, again])
    builder = build(tmp_path / "own", tmp_path / "data", "custom")
    clip = examples(builder, "train")[0]
    assert clip["segment_labels"].tolist() == [0, 0, 0, 2]
    assert (clip["start_s"], clip["end_s"]) == (0.5, 3.25)
    assert clip["segment_label_mean"].tolist() == [0.75, 0, 0.25]
    assert sum(split.num_examples for split in builder.info.splits.values()) == 9


@pytest.mark.parametrize(
    ("start_s", "end_s", "covered"),
    [
        (0.5, 1.5, [0]),
        (0.6, 2.4, [1]),
        (0.6, 1.4, [0]),
        (0.9, 1.1, [0]),
        (2.95, 3.05, [2]),
        (0.7, 1.4, [1]),
        (3.6, 3.9, [3]),
        (2.5, 2.6, [2]),
        # The event ends after the clip.
        (3.8, 4.4, [3]),
    ],
)
def test_every_event_covers_a_segment(start_s, end_s, covered):
    span = make_span(0, start_s, end_s, 4)
    assert [*range(span.first, span.end)] == covered


def test_broken_feature_files_raise_a_dataset_error(tmp_path):
    folder = tmp_path / "own"
    make_custom(folder)
    audio, visual = folder / "clip 1.a.npy", folder / "clip 1.v.npy"

    def message():
        with pytest.raises(DatasetError) as error:
            build(folder, tmp_path / "data", "custom")
        return str(error.value)

    for content in (audio.read_bytes()[:50], b""):
        audio.write_bytes(content)
        assert f"{audio}: damaged" in message()
    np.savez(folder / "archive", np.zeros((4, 5)))
    (folder / "archive.npz").rename(audio)
    assert f"{audio}: damaged" in message()
    np.save(audio, np.zeros((2, 5)))
    assert "manifest.csv, line 3: clip 'clip 1': its audio lasts 2 s" in message()
    for path in (audio, visual):
        np.save(path, np.zeros((0, 5)))
    assert "at least 1" in message()
    np.save(visual, np.zeros((4, 6)))
    np.save(audio, np.zeros((4, 6)))
    assert "'clip 1'" in message()
    np.save(audio, np.zeros((4, 5), int))
    assert "floating point" in message()
    np.save(audio, np.full((4, 5), np.nan))
    assert f"{audio}: NaN" in message()
    assert not Builder(data_dir=tmp_path / "data", config="custom").is_prepared()


def test_the_error_of_an_event_outside_its_clip_names_the_clip(tmp_path):
    rows = make_custom(tmp_path / "own")
    rows[0][4] = 9
    write_manifest(tmp_path / "own", rows)
    with pytest.raises(DatasetError, match=r"'clip 0'.*9\.0 s.* 4 segments"):
        build(tmp_path / "own", tmp_path / "data", "custom")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return a folder with a data set, `own`, and a run trained on it, `run`."""
    folder = tmp_path_factory.mktemp("trained")
    make_custom(folder / "own")
    build(folder / "own", folder / "data", "custom")
    commands.train(Config(**settings(folder / "data")), folder / "run")
    return folder


def test_a_run_on_custom_shapes_is_evaluated(trained):
    commands.evaluate(trained / "run")
    report = json.loads((trained / "run" / "report.json").read_text())
    assert report["disclaimer"] is None
    # The model records the length of the clips.
    assert avsdn_tf.load(trained / "run").num_segments == 4


@pytest.mark.parametrize("field", ["categories", "audio_width"])
def test_evaluation_refuses_other_categories_and_shapes(trained, tmp_path, field):
    rows = make_custom(tmp_path / "own")
    if field == "categories":  # Swap the two categories.
        (tmp_path / "own" / "categories.txt").write_text("Kettle\nDoor, slamming\n")
    else:
        for row in rows:
            np.save(tmp_path / "own" / row[5], np.zeros((4, 3)))
    build(tmp_path / "own", tmp_path / "data", "custom")
    report = (trained / "run" / "report.json").read_text()
    words = (f"--run={trained / 'run'}", f"--data_dir={tmp_path / 'data'}")
    with pytest.raises(UserError, match=field) as error:
        commands.avsdn("evaluate", *words)
    assert error.value.field == "dataset"
    assert (trained / "run" / "report.json").read_text() == report


def test_a_clip_without_times_is_trained_on_its_category(tmp_path):
    rows = make_custom(tmp_path / "own")
    rows[0][3:5] = ["", ""]
    write_manifest(tmp_path / "own", rows)
    assert not build_own(tmp_path / "own", tmp_path / "data").has_times
    for refused in (
        {"mode": "supervised"},
        {"mode": "weak"},
        {"mode": "cross_modal", "units": 128},
    ):
        with pytest.raises(UserError, match="weak_label") as error:
            commands.train(
                Config(**settings(tmp_path / "data", **refused)), tmp_path / "no"
            )
        assert error.value.field == "dataset"
    assert not (tmp_path / "no").exists()
    weak = settings(tmp_path / "data", mode="weak", weak_label="mil")
    commands.train(Config(**weak), tmp_path / "run")


def test_cross_modality_scores_exclude_clips_of_several_events(tmp_path):
    rows = make_custom(tmp_path / "own")
    again = [[*rows[index][:3], 3, 4, *rows[index][5:]] for index in (0, 3, 6)]
    write_manifest(tmp_path / "own", [*rows, *again])
    build(tmp_path / "own", tmp_path / "data", "custom")
    cross_modal = settings(tmp_path / "data", mode="cross_modal", units=128)
    commands.train(Config(**cross_modal), tmp_path / "run")
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    # Of a split's three clips, one has two events and one has none.
    assert (report["num_clips"], report["num_clips_left_out"]) == (1, 2)


def test_the_example_on_the_page_is_built_and_trained(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(EXAMPLE.read_text(), {})
    build(tmp_path / "mydata", tmp_path / "data", "custom")
    commands.train(Config(**settings(tmp_path / "data")), "run")
    assert (tmp_path / "run" / "report.html").is_file()
    commands.avsdn(
        *("build", "mydata", "--window_s=4", "--hop_s=1", "--overwrite"),
        "--data_dir=data",
    )
    opened = dataset.open_dataset("tfds_ave/custom", "data")
    assert (opened.num_clips("train"), opened.is_padded) == (6, True)
