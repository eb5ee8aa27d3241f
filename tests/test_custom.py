"""Anyone's own data: the manifest, its errors, and training on it."""

import csv
import json
import pathlib
import textwrap

import numpy as np
import pytest
import tensorflow_datasets as tfds
from rich.console import Console

from avsdn_tf import commands, data
from avsdn_tf.config import Config
from avsdn_tf.errors import UserError
from tests.test_tfds_ave import build, examples
from tfds_ave import DatasetError
from tfds_ave.tfds_ave_dataset_builder import Builder

README = pathlib.Path(__file__).resolve().parents[1] / "README.md"
COLUMNS = ("key", "split", "category", "start_s", "end_s", "audio", "visual")


def write_manifest(folder, rows, columns=COLUMNS):
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)


def make_custom(folder, visual_shape=(6,), num_segments=4):
    """Nine clips of 4 s with two categories and 5 wide sounds, three a split."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    (folder / "categories.txt").write_text("# ours\nDoor, slamming\nKettle\n")
    rows = []
    for index in range(9):
        key = f"clip {index}"
        np.save(folder / f"{key}.a.npy", rng.normal(size=(num_segments, 5)))
        np.save(
            folder / f"{key}.v.npy",
            rng.random((num_segments, *visual_shape), np.float32),
        )
        category = ("Door, slamming", "Kettle", "Background")[index % 3]
        times = ("", "") if category == "Background" else (0.5, 2)
        split = ("train", "validation", "test")[index // 3]
        rows.append([key, split, category, *times, f"{key}.a.npy", f"{key}.v.npy"])
    write_manifest(folder, rows)
    return rows


@pytest.mark.parametrize("visual_shape", [(6,), (2, 3, 4)])
def test_categories_and_shapes_come_from_the_data(tmp_path, visual_shape):
    rows = make_custom(tmp_path / "own", visual_shape)
    builder = build(tmp_path / "own", tmp_path / "data", "custom")
    dataset = data.open_dataset("tfds_ave/custom", str(tmp_path / "data"))
    assert dataset.categories == ("Door, slamming", "Kettle")
    assert (dataset.audio_width, dataset.visual_shape) == (5, visual_shape)
    assert dataset.num_segments == 4
    assert dataset.notice is None
    found = examples(builder, "train")
    assert {e["video_id"].decode() for e in found.values()} == {r[0] for r in rows[:3]}
    # From 0.5 to 2: the middles of segments 0 and 1 lie within.
    assert found[0]["segment_labels"].tolist() == [0, 0, 2, 2]
    assert found[1]["segment_labels"].tolist() == [1, 1, 2, 2]
    assert found[2]["segment_labels"].tolist() == [2, 2, 2, 2]
    batch = next(iter(data.training_batches(dataset, Config(batch_size=3))))
    assert batch["visual"].shape == (3, 4, *visual_shape)
    for row, visual in zip(batch["row"].numpy(), batch["visual"], strict=True):
        stored = np.load(tmp_path / "own" / f"clip {row}.v.npy")
        np.testing.assert_array_equal(visual, stored)


def test_a_clip_may_have_several_events(tmp_path):
    rows = make_custom(tmp_path / "own")
    again = list(rows[0])
    again[3:5] = (2.25, 3.25)
    # A line of the same clip may stand anywhere.
    write_manifest(tmp_path / "own", [*rows, again])
    builder = build(tmp_path / "own", tmp_path / "data", "custom")
    clip = examples(builder, "train")[0]
    assert clip["segment_labels"].tolist() == [0, 0, 0, 2]
    assert (clip["start_s"], clip["end_s"]) == (0.5, 3.25)
    assert clip["segment_label_mean"].tolist() == [0.75, 0, 0.25]
    assert sum(builder.info.splits[s].num_examples for s in builder.info.splits) == 9


def test_several_events_are_matched_and_not_scored(tmp_path):
    rows = make_custom(tmp_path / "own")
    again = [list(rows[index]) for index in (0, 3, 6)]
    for row in again:
        row[3:5] = (3, 4)
    write_manifest(tmp_path / "own", [*rows, *again])
    build(tmp_path / "own", tmp_path / "data", "custom")
    config = Config(
        mode="cross_modal",
        model="cross_modal",
        dataset="tfds_ave/custom",
        data_dir=str(tmp_path / "data"),
        epochs=1,
    )
    commands.train(config, str(tmp_path / "run"), Console(quiet=True))
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    # Of a split's three clips, one has two events and one has none.
    assert (report["num_clips"], report["num_clips_left_out"]) == (1, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({3: "1.5", 4: "3"}, r"line 11: overlapping times.*1.5 to 3.0.*0.5 to 2.0"),
        ({3: "0", 4: "4"}, r"line 11: overlapping times"),
        ({1: "test"}, r"line 11: key 'clip 0' stands in line 2 .*another split"),
        ({2: "Kettle"}, r"line 11: key 'clip 0' .*several categories into clips"),
        ({5: "clip 1.a.npy"}, r"line 11: key 'clip 0' .*another split, category or f"),
        ({3: "", 4: ""}, r"line 11: key 'clip 0' .*Expected times in each line"),
    ],
)
def test_what_no_second_event_can_be_is_named(tmp_path, change, message):
    rows = make_custom(tmp_path / "own")
    again = list(rows[0])
    again[3:5] = ("2", "3")
    for column, value in change.items():
        again[column] = value
    write_manifest(tmp_path / "own", [*rows, again])
    with pytest.raises(DatasetError, match=message):
        build(tmp_path / "own", tmp_path / "data", "custom")


@pytest.mark.parametrize("mode", ["supervised", "weak"])
def test_a_network_of_these_shapes_trains_and_is_evaluated(tmp_path, mode):
    make_custom(tmp_path / "own")
    build(tmp_path / "own", tmp_path / "data", "custom")
    config = Config(
        mode=mode,
        dataset="tfds_ave/custom",
        data_dir=str(tmp_path / "data"),
        epochs=1,
        units=4,
    )
    run = tmp_path / "run"
    commands.train(config, str(run), Console(quiet=True))
    commands.evaluate(str(run), None, Console(quiet=True))
    assert "not AVE" not in (run / "report.html").read_text()


def test_a_clip_without_times_is_learnt_from_its_category_alone(tmp_path):
    rows = make_custom(tmp_path / "own")
    rows[0][3:5] = ["", ""]
    write_manifest(tmp_path / "own", rows)
    build(tmp_path / "own", tmp_path / "data", "custom")
    common = {
        "dataset": "tfds_ave/custom",
        "data_dir": str(tmp_path / "data"),
        "units": 4,
        "epochs": 1,
    }
    for refused in ({"mode": "supervised"}, {"mode": "weak"}):
        with pytest.raises(UserError, match=r"without start and end.*weak_label=mil"):
            commands.train(
                Config(**common, **refused), str(tmp_path / "no"), Console(quiet=True)
            )
    assert not (tmp_path / "no").exists()
    commands.train(
        Config(mode="weak", weak_label="mil", **common),
        str(tmp_path / "run"),
        Console(quiet=True),
    )


def test_load_gives_what_was_built(tmp_path):
    make_custom(tmp_path / "own")
    build(tmp_path / "own", tmp_path / "data", "custom")
    dataset, info = tfds.load(
        "tfds_ave/custom",
        split="test",
        data_dir=tmp_path / "data",
        download=False,
        with_info=True,
    )
    assert len(dataset) == 3
    assert info.features["clip_label"].names[-1] == "Background"
    assert info.metadata["visual_shape"] == [6]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: {1: "dev"}}, r"line 2: unknown split.*'dev'"),
        ({1: {2: "Dog"}}, r"line 3: unknown category.*'Dog'"),
        ({0: {3: "3", 4: "1"}}, r"line 2: bad times.*start_s='3'"),
        ({0: {3: "x"}}, r"line 2: bad times.*start_s='x'"),
        ({0: {4: "9"}}, r"Clip 'clip 0': its event ends at 9.0 s.* 4 segments"),
        ({3: {3: "", 4: ""}}, r"line 5: expected start_s and end_s.*weak"),
        ({2: {3: "0", 4: "1"}}, r"line 4: expected no times for Background"),
        ({1: {0: "clip 0"}}, r"line 3: key 'clip 0' stands in line 2 already"),
        ({1: {5: "gone.npy"}}, r"line 3: .*gone.npy is missing"),
        ({1: {5: ""}}, r"line 3: expected a video, or both feature files"),
        ({1: {0: "a/b"}}, r"line 3: expected a key that can name a file"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_left(tmp_path, change, message):
    rows = make_custom(tmp_path / "own")
    for row, values in change.items():
        for column, value in values.items():
            rows[row][column] = value
    write_manifest(tmp_path / "own", rows)
    with pytest.raises(DatasetError, match=message):
        build(tmp_path / "own", tmp_path / "data", "custom")
    assert not (tmp_path / "data").exists()


def test_all_wrong_lines_are_named_at_once(tmp_path):
    rows = make_custom(tmp_path / "own")
    rows[0][1] = rows[4][1] = "dev"
    write_manifest(tmp_path / "own", rows)
    with pytest.raises(DatasetError, match=r"(?s)line 2: .*line 6: "):
        build(tmp_path / "own", tmp_path / "data", "custom")


def test_broken_files_are_one_message(tmp_path):
    folder = tmp_path / "own"
    rows = make_custom(folder)

    def message():
        with pytest.raises(DatasetError) as error:
            build(folder, tmp_path / "data", "custom")
        return str(error.value)

    good = (folder / "clip 1.a.npy").read_bytes()
    (folder / "clip 1.a.npy").write_bytes(good[:50])
    assert "clip 1.a.npy: damaged" in message()
    np.save(folder / "clip 1.a.npy", np.zeros((3, 5)))
    assert "same number of segments" in message()
    np.save(folder / "clip 1.a.npy", np.zeros((4, 6)))
    assert "'clip 1': expected features of the first clip's shapes" in message()
    np.save(folder / "clip 1.a.npy", np.zeros((4, 5), int))
    assert "floating point" in message()
    np.save(folder / "clip 1.a.npy", np.full((4, 5), np.nan))
    assert "NaN" in message()
    (folder / "clip 1.a.npy").write_bytes(good)
    write_manifest(folder, rows[:6])
    assert "no clip of split 'test'" in message()
    write_manifest(folder, rows, columns=("name", *COLUMNS[1:]))
    assert "wrong columns" in message()
    write_manifest(folder, rows)
    (folder / "categories.txt").write_text("Kettle\nKettle\n")
    assert "each once" in message()
    (folder / "categories.txt").unlink()
    assert "categories.txt: missing" in message()
    assert not Builder(data_dir=tmp_path / "data", config="custom").is_prepared()


def test_the_example_of_the_readme_is_built_and_trained(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = README.read_text()
    block = text[text.index("    import csv, pathlib") : text.index("\nand then\n")]
    exec(textwrap.dedent(block), {})
    build(tmp_path / "mydata", tmp_path / "data", "custom")
    config = Config(
        dataset="tfds_ave/custom",
        data_dir=str(tmp_path / "data"),
        epochs=3,
        units=8,
    )
    assert "--dataset=tfds_ave/custom --epochs=3 --units=8" in text
    commands.train(config, "run", Console(quiet=True))
    assert (tmp_path / "run" / "report.html").is_file()
