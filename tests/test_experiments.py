import csv
import dataclasses
import json
import os
import pathlib
import re
import shlex
import signal
import time
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl import flags
from absl.testing import flagsaver

# Defines the flags.
import avsdn_tf.main  # noqa: F401
from avsdn_tf import data
from avsdn_tf.training import loop as training
from avsdn_tf.training.config import Config
from avsdn_tf.cross_modality import Distances, right_starts
from avsdn_tf.errors import UserError
from avsdn_tf.evaluation import Predictions
from avsdn_tf.run_folder import RunFolder
from experiments import compare, published, run, runs, summary, tables
from experiments.published import (
    CHANGES,
    LABELS,
    PUBLISHED_TABLES,
    TITLES,
    best_changes,
    load_row,
    load_table,
)
from tests import processes
from tfds_ave.configs import CONFIGS

ROWS = [row for table in PUBLISHED_TABLES for row in load_table(table)]


def parse_as_the_program(words):
    """The settings and the folder that the program's own flags make of words."""
    with flagsaver.flagsaver():
        flags.FLAGS.unparse_flags()
        assert flags.FLAGS(["avsdn", *words]) == ["avsdn"]
        names = [field.name for field in dataclasses.fields(Config)]
        config = Config(**{name: getattr(flags.FLAGS, name) for name in names})
        return config, flags.FLAGS.run


def plan_one(row, *words):
    """The run of a row's first seed, on the features that it names."""
    dataset = f"tfds_ave/{row.dataset_config or 'resnet152'}"
    args = run.parse([row.table, "--seeds=1", f"--dataset={dataset}", *words])
    (planned,) = runs.plan(row, args)
    return planned


@pytest.mark.parametrize("recipe", published.RECIPES)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_row_is_a_command_that_the_program_takes(row, recipe):
    planned = plan_one(dataclasses.replace(row, recipe=recipe))
    assert planned.command()[:3] == ["python", "-m", "avsdn_tf.main"]
    parsed = parse_as_the_program(planned.command()[3:])
    assert parsed == (planned.config, str(planned.folder))


def test_a_flag_that_the_program_lacks_is_seen():
    with pytest.raises(flags.UnrecognizedFlagError):
        parse_as_the_program(["--no_such_flag=1"])


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_published_files_hold_the_command_of_the_papers_recipe(row):
    file = pathlib.Path(published.__file__).parent / "published" / f"{row.name}.json"
    command = json.loads(file.read_text())["command"]
    assert shlex.split(command) == plan_one(row).command()


def test_tables_hold_the_published_rows(capsys):
    assert [row.paper for row in load_table("table3")] == [70.2, 70.9, 72.6, 74.2]
    assert [row.order for row in load_table("table1")] == list(range(1, 9))
    assert load_table("table1")[-1].model == "avsdn"
    assert [row.paper for row in load_table("tian")] == [73.1, 44.8, 35.6, 75.4]
    with pytest.raises(SystemExit):
        run.main(["table9"])
    assert "table1" in capsys.readouterr().err


SHAPES = {config.name: config.visual_shape for config in CONFIGS}


def list_networks():
    """Every row with every recipe, by what it trains: some rows are the same run."""
    networks = {}
    for row in (*ROWS, *load_table(LABELS)):
        for recipe in published.RECIPES:
            planned = plan_one(dataclasses.replace(row, recipe=recipe))
            # Which data set of a shape, and whose encoders, is no matter of building.
            config = dataclasses.replace(
                planned.config, dataset=Config().dataset, encoders=None
            )
            shape = SHAPES[row.dataset_config or "resnet152"]
            networks.setdefault((config, shape), []).append((row, recipe))
    return networks


NETWORKS = list_networks()


def test_no_row_is_left_out_of_building():
    built = [(row.name, recipe) for same in NETWORKS.values() for row, recipe in same]
    for row in ROWS:
        assert (row.name, "paper") in built
        assert (row.name, "best") in built
    modes = {config.mode for config, _ in NETWORKS}
    assert modes == {"supervised", "weak", "cross_modal"}


@pytest.mark.parametrize(
    ("config", "shape"),
    NETWORKS,
    ids=[f"{same[0][0].name}-{same[0][1]}" for same in NETWORKS.values()],
)
def test_every_row_trains_a_step_is_saved_and_loaded(config, shape, rng, tmp_path):
    dataset = data.Dataset(None, ("Bark", "Flute"), 128, shape, 10, None)
    task = training.build_task(config, dataset)
    per_clip = (2,) if config.mode == "cross_modal" else (2, 10)
    batch = {
        "audio": rng.random((*per_clip, 128), np.float32),
        "visual": rng.random((*per_clip, *shape), np.float32),
        "target": np.eye(3, dtype="f")[rng.integers(0, 3, per_clip)],
        "weight": np.ones(2, np.float32),
    }
    if config.mode == "weak":
        batch["target"] = batch["target"].mean(axis=1)
    if config.mode == "cross_modal":
        batch["target"] = np.array([0, 1], np.float32)
    batch = {name: tf.constant(values) for name, values in batch.items()}
    variables = task.model.trainable_variables
    with tf.GradientTape() as tape:
        losses, _ = task.score_batch(batch)
        loss = tf.reduce_mean(losses)
    before = [variable.numpy() for variable in variables]
    optimizer = training.build_optimizer(config)
    optimizer.apply(tape.gradient(loss, variables), variables)
    assert np.isfinite(float(loss))
    assert any((v.numpy() != b).any() for v, b in zip(variables, before, strict=True))
    task.model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    inputs = {name: batch[name] for name in ("audio", "visual")}
    np.testing.assert_array_equal(loaded(inputs), task.model(inputs))


def test_rows_of_the_same_training_share_its_run():
    fusion, avsdn = load_row("table3_fusion"), load_row("table2_avsdn")
    args = run.parse(["table3", "--seeds=2"])
    assert runs.plan(fusion, args) == runs.plan(avsdn, args)
    table1 = load_table("table1")
    pooled = [row for row in table1 if row.dataset_config in (None, "resnet152")]
    folders = {r.folder for row in pooled for r in runs.plan(row, args)}
    assert len(folders) == 2 * len(pooled)


def test_changes_lead_from_the_papers_recipe_to_the_best():
    for table in CHANGES:
        rows = load_table(table)
        mode = rows[0].mode
        best = {k: v for change in best_changes(mode) for k, v in change.items()}
        assert len(rows) == 1 + len(best_changes(mode))
        args = run.parse([table, "--seeds=1"])
        avsdn = load_row("table1_avsdn" if mode == "supervised" else "table2_avsdn")
        for row, recipe in ((rows[0], "paper"), (rows[-1], "best")):
            assert runs.plan(row, args) == runs.plan(
                dataclasses.replace(avsdn, recipe=recipe),
                run.parse([avsdn.table, "--seeds=1"]),
            )
        (last,) = runs.plan(rows[-1], args)
        assert best.items() <= last.config.to_dict().items()
        # What lies between them is neither.
        steps = ["step"] * (len(rows) - 2)
        assert [row.recipe for row in rows] == ["paper", *steps, "best"]


def test_dmrn_starts_from_the_run_of_the_same_seed():
    args = run.parse(["tian", "--seeds=2", "--dataset=tfds_ave/vgg19"])
    sources = runs.plan(load_row("table1_avel_att_vgg19"), args)
    planned = runs.plan(load_row("tian_dmrn"), args)
    assert [p.config.encoders for p in planned] == [str(s.folder) for s in sources]


def names_that_fit(table, dataset):
    return {row.name for row in load_table(table) if row.fits(dataset)}


def test_rows_fit_data_sets_with_their_features():
    assert names_that_fit("table1", "tfds_ave/vgg19") == {
        "table1_avel_audio",
        "table1_avel_visual_vgg19",
        "table1_avel_vgg19",
        "table1_avel_att_vgg19",
    }
    pooled = names_that_fit("table1", "tfds_ave/resnet152")
    assert "table1_avsdn" in pooled
    assert "table1_avel_att_resnet152" not in pooled
    # The same features of other sources, and a version.
    for dataset in ("synthetic", "videos", "resnet152:1.1.0", "videos:1.1.0"):
        assert names_that_fit("table1", f"tfds_ave/{dataset}") == pooled


def test_a_version_keeps_its_runs_apart():
    row = load_row("table1_avsdn")
    folder = plan_one(row, "--dataset=tfds_ave/resnet152:1.1.0").folder
    assert folder.parent.name == "resnet152-1.1.0"
    assert plan_one(row).folder.parent.name == "resnet152"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["table1", "--jobs=0"], "argument --jobs: expected 1 or more. Received: 0"),
        (["table1", "--seeds=0"], "argument --seeds: expected 1 or more"),
        (["table1", "--epochs=0"], "argument --epochs: expected 1 or more"),
        (["table1", "--patience=-1"], "argument --patience: expected 1 or more"),
        (["table1", "--dataset=tfds_ave/custom"], "has AVE's classes: synthetic"),
        (["table1", "--dataset=tfds_ave/nope"], "has AVE's classes: synthetic"),
        (["table1", "--dataset=mnist"], "expected tfds_ave/CONFIG"),
        (
            ["tian", "--dataset=tfds_ave/resnet152_maps"],
            "of tian: tfds_ave/resnet152, vgg19",
        ),
        (
            ["table3", "--dataset=tfds_ave/resnet152,tfds_ave/vgg19"],
            "--dataset=tfds_ave/vgg19: expected a data set with the features of a row "
            "of table3 that no other has: tfds_ave/resnet152",
        ),
        (["table1", "--data_dir=/nowhere", "--runs=/nowhere"], "not built yet"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_can_not_be_filled_is_one_message(words, message, capsys):
    with pytest.raises(SystemExit) as stop:
        run.main(words)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


NOTICE = "these are not AVE results"


def write_run(folder, wrong, config=None, clips=(3, 1, 2, 0), notice=NOTICE):
    """A finished run in each of whose clips the first `wrong` segments are wrong."""
    labels = np.zeros((len(clips), 10), int)
    predicted = labels.copy()
    predicted[:, :wrong] = 1
    folder.mkdir(parents=True)
    Predictions(
        np.array(clips), np.eye(3)[predicted], labels, np.zeros(len(clips), int)
    ).save(folder / "predictions.npz")
    report = {
        "accuracy": 1 - wrong / 10,
        "validation_accuracy": 0.5,
        "partial_clip_accuracy": 0.31,
        "background_recall": 0.32,
        "event_f1": None if wrong == 4 else 0.33,
        "seconds": 1 / 3,
        "notice": notice,
        "trivial": {"always_background": 0.1},
    }
    (folder / "report.json").write_text(json.dumps(report))
    config = (config or Config()).to_dict()
    versions = {"tensorflow": "2.0", "keras": "3.0", "avsdn_tf": "0.0", "numpy": "1.0"}
    (folder / "config.json").write_text(
        json.dumps({"config": config, "versions": versions})
    )


class FakeTrainings(list):
    """The configurations that were trained; runs of `failing` models fail."""

    failing = ("avel_visual",)


class FakeProcess:
    """A training that ends when it is first looked at."""

    def __init__(self, code):
        self._code = code

    def poll(self):
        return self._code


@pytest.fixture
def fake_training(monkeypatch):
    """Runs that are right in 8 (AVSDN) or 6 of 10 segments."""
    trained = FakeTrainings()

    def start(self, origin):
        assert origin["threads"] >= 1
        trained.append(self.config)
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        if self.config.model in trained.failing:
            self.log.write_text("starting\navsdn_tf: no luck\n")
            return FakeProcess(2)
        write_run(self.folder, 2 if self.config.model == "avsdn" else 4, self.config)
        return FakeProcess(0)

    monkeypatch.setattr(runs.Run, "start", start)
    return trained


@pytest.fixture
def fill(tmp_path, data_dir):
    """Fills a table; returns its Markdown."""

    def fill(table, *words):
        run.main(
            [
                table,
                "--seeds=2",
                "--dataset=tfds_ave/synthetic",
                f"--data_dir={data_dir}",
                f"--runs={tmp_path / 'runs'}",
                f"--results={tmp_path / 'results'}",
                *words,
            ]
        )
        return read_table(tmp_path, table)

    return fill


def read_table(tmp_path, table="table1", suffix="md"):
    (path,) = (tmp_path / "results").glob(f"{table}-*.{suffix}")
    return path.read_text()


def read_lines(tmp_path, table="table1"):
    return list(csv.DictReader(read_table(tmp_path, table, "csv").splitlines()))


def test_table_shows_failures_resumes_and_says_what_it_is(
    tmp_path, fake_training, fill, capsys
):
    with pytest.raises(SystemExit, match=r"2 run\(s\) failed"):
        fill("table1", "--recipe=paper", "--jobs=2")
    # Four rows fit the data set, two seeds each.
    assert len(fake_training) == 8
    results = {path.name for path in (tmp_path / "results").iterdir()}
    stem = "table1-synthetic-simulated-not-ave"
    assert results == {f"{stem}.md", f"{stem}.csv", f"{stem}.png"}
    text = read_table(tmp_path)
    title = "# Table 1, supervised, on tfds_ave/synthetic (simulated, not AVE)"
    assert text.splitlines()[0] == title
    assert re.search(
        r"\| AVEL visual only \| ResNet-152 \| paper \| 65.0 \| failed", text
    )
    assert "seed=0: exit code 2, avsdn_tf: no luck (see " in text
    assert "not run: needs tfds_ave/vgg19" in text
    assert re.search(r"\| AVSDN \| ResNet-152 \| paper \| 75.4 \| 80.0 ± 0.0", text)
    assert "mean and standard deviation over the seeds" in text
    # 80 % against 60 %, in every clip alike: the interval has no width.
    assert "+20.0 (20.0 to 20.0)" in text
    assert re.search(r"always background [| ]+ 10\.0 ", text)
    lines = read_lines(tmp_path)
    accuracies = [line["accuracy"] for line in lines]
    assert accuracies == ["0.6", "", "", "", "", "0.6", "", "0.8"]
    assert "no luck" in lines[4]["note"]
    # Every training is told of as it starts and as it ends.
    printed = capsys.readouterr().out.splitlines()
    assert printed.count("training supervised,avsdn,seed=1") == 1
    (line,) = [line for line in printed if "done supervised,avsdn,seed=1, 0:0" in line]
    assert re.match(r"\d/8 ", line)

    fake_training.clear()
    with pytest.raises(SystemExit, match="failed"):
        fill("table1", "--recipe=paper")
    # What is done is not trained again; what failed is.
    assert {config.model for config in fake_training} == {"avel_visual"}


def test_rows_show_more_than_accuracy(tmp_path, fake_training, fill):
    fake_training.failing = ()
    text = fill("table1", "--recipe=paper", "--seeds=1")
    assert "| partial clips | background recall | event F1 | validation |" in text
    assert "80.0 | 80.0 to 80.0 |  | 31.0 | 32.0 | 33.0 | 50.0 | 1 | 0 |" in text
    assert "one seed" in text
    assert "standard deviation" not in text
    line = read_lines(tmp_path)[-1]
    # What a run leaves undefined is left out; no number has more than four digits.
    assert read_lines(tmp_path)[0]["event_f1"] == ""
    assert line["event_f1"] == "0.33"
    assert line["partial_clip_accuracy"] == "0.31"
    assert line["background_recall"] == "0.32"
    assert line["seconds"] == "0.3333"
    assert line["training_labels"] == ""


def test_table_says_how_its_figures_came_about(tmp_path, fake_training, fill):
    fake_training.failing = ()
    text = fill("table1", "--recipe=paper", "--epochs=7", "--patience=3")
    assert "At most 7 epochs a run, fewer where 3 bring no better" in text
    assert "trains up to 300" in text
    packages = "TensorFlow 2.0, Keras 3.0, avsdn_tf 0.0"
    assert f"- Trained by an unrecorded commit, {packages}.\n" in text
    assert re.search(r"^- Written by (commit [0-9a-f]{7}|code outside)", text, re.M)
    (line, *_) = read_lines(tmp_path)
    assert (line["epochs"], line["patience"]) == ("7", "3")


def test_weak_tables_tell_the_training_labels(fake_training, fill):
    fake_training.failing = ()
    text = fill("table2", "--recipe=paper")
    assert "| AVEL audio only | VGGish | mil_background | paper |" in text
    assert "| AVSDN | ResNet-152 | average | paper |" in text
    assert "AVSDN is compared on unequal labels here" in text
    # Those of table 3 are all alike.
    text = fill("table3", "--recipe=paper")
    assert "| average | paper |" in text
    assert "unequal" not in text


def test_labels_compares_both_systems_on_equal_ones(tmp_path, fake_training, fill):
    fake_training.failing = ()
    text = fill("labels")
    lines = read_lines(tmp_path, "labels")
    avel, same, own = lines[:3]
    assert [line["model"] for line in lines] == ["avel", "avsdn", "avsdn"] * 2
    assert avel["training_labels"] == same["training_labels"] == "mil_background"
    assert own["training_labels"] == "average"
    # Each against the row before: first the system, then the labels.
    assert [line["gain"] for line in (avel, same, own)] == ["", "0.2", "0.0"]
    assert [line["gain"] for line in lines[3:]] == ["", "0.2", "0.0"]
    assert "Gain: over the row before, on the same clips." in text
    assert "unequal" not in text
    weak = {(config.model, config.weak_label) for config in fake_training}
    assert weak == {
        ("avel", "mil_background"),
        ("avsdn", "mil_background"),
        ("avsdn", "average"),
    }
    # What table 2 has trained is not trained again.
    fake_training.clear()
    fill("table2")
    assert {config.model for config in fake_training} == {"avel_audio", "avel_visual"}


def test_what_is_wrong_with_a_run_costs_its_row_alone(
    tmp_path, fake_training, fill, capsys
):
    fake_training.failing = ()
    fill("table1", "--recipe=paper")
    fake_training.clear()
    folders = {
        (config["model"], config["seed"]): path.parent
        for path in (tmp_path / "runs").glob("*/*/config.json")
        for config in [json.loads(path.read_text())["config"]]
    }
    truncated = folders["avel_audio", 0] / "predictions.npz"
    truncated.write_bytes(truncated.read_bytes()[:100])
    (folders["avel_visual", 0] / "report.json").write_text("[1")
    (folders["avel_visual", 1] / "config.json").write_text('{"config": 3}')
    other = json.loads((folders["avel", 0] / "config.json").read_text())
    other["config"]["epochs"] = 7
    (folders["avel", 0] / "config.json").write_text(json.dumps(other))
    report = folders["avel", 1] / "report.json"
    report.write_text(json.dumps({"accuracy": 0.5}))
    with pytest.raises(SystemExit, match=r"5 run\(s\) failed"):
        fill("table1", "--recipe=paper")
    assert not fake_training
    text, printed = read_table(tmp_path), capsys.readouterr()
    assert "Traceback" not in printed.err
    for where in (text, printed.out):
        assert f"in {truncated}. Received: " in where
        assert f"{folders['avel_visual', 0] / 'report.json'}: expected the" in where
        assert f"{folders['avel_visual', 1] / 'config.json'}: expected what" in where
        assert f"{folders['avel', 0]}: holds a run with epochs 7, not 60" in where
        assert f"{report}: expected the report of a finished run." in where
    assert re.search(r"\| AVEL audio only .* 60.0 \|.* 1 \(failed: 0\) ", text)
    assert "| AVEL audio+visual | ResNet-152 | paper | 74.0 | failed |" in text
    assert re.search(r"\| AVSDN \| ResNet-152 \| paper \| 75.4 \| 80.0 ± 0.0", text)


def test_a_run_on_other_clips_is_not_compared(fake_training, fill, tmp_path):
    fake_training.failing = ()
    fill("table1", "--recipe=paper")
    folder = tmp_path / "runs" / "synthetic" / "supervised,avsdn,seed=1"
    config = Config.from_dict(
        json.loads((folder / "config.json").read_text())["config"]
    )
    folder.rename(tmp_path / "aside")
    write_run(folder, 0, config, clips=(1, 2, 3))
    with pytest.raises(SystemExit, match=r"1 run\(s\) failed"):
        fill("table1", "--recipe=paper")
    assert "scored on other test clips" in read_table(tmp_path)


def test_runs_on_other_data_are_not_mixed(fake_training, fill, tmp_path):
    # AVE's own features were built where the stand-in's had been: the clips are alike.
    fake_training.failing = ()
    fill("table1", "--recipe=paper", "--seeds=1")
    report = tmp_path / "runs/synthetic/supervised,avsdn,seed=0/report.json"
    report.write_text(json.dumps({**json.loads(report.read_text()), "notice": None}))
    with pytest.raises(SystemExit, match=r"1 run\(s\) failed"):
        fill("table1", "--recipe=paper", "--seeds=1")
    text = read_table(tmp_path)
    assert "Received another: none, as on AVE." in text
    assert "simulated, not AVE" in text.splitlines()[0]


@pytest.mark.parametrize("learnt", [True, False])
def test_runs_on_a_data_set_of_before_and_after_it_was_built_anew_are_not_mixed(
    fake_training, fill, tmp_path, learnt
):
    fake_training.failing = ()
    fill("table1", "--recipe=paper")
    for seed, digest in ((0, "first"), (1, "second")):
        folder = tmp_path / f"runs/synthetic/supervised,avsdn,seed={seed}"
        for name in ("config.json", "report.json"):
            content = json.loads((folder / name).read_text())
            # Or it is the first one that was scored on another.
            has_it = digest if learnt or name == "report.json" else "second"
            content["dataset_digest"] = has_it
            (folder / name).write_text(json.dumps(content))
    with pytest.raises(SystemExit, match=r"1 run\(s\) failed"):
        fill("table1", "--recipe=paper")
    wanted = "one that was built from something else" if learnt else "scored on another"
    assert wanted in read_table(tmp_path)


def test_a_table_takes_each_row_from_the_first_data_set_that_has_its_features(
    tmp_path, fake_training, fill, monkeypatch
):
    fake_training.failing = ()
    # Only what is missing is opened, and vgg19 can't be built here.
    opened = []

    def open_dataset(name, _):
        opened.append(name)
        return types.SimpleNamespace(notice="Simulated")

    monkeypatch.setattr(run.data, "open_dataset", open_dataset)
    both = "--dataset=tfds_ave/synthetic,tfds_ave/vgg19"
    text = fill("table1", "--recipe=paper", "--seeds=1", both)
    assert opened == ["tfds_ave/synthetic", "tfds_ave/vgg19"]
    assert [config.dataset for config in fake_training] == [
        "tfds_ave/synthetic",
        *["tfds_ave/vgg19"] * 3,
        *["tfds_ave/synthetic"] * 3,
    ]
    title = "on tfds_ave/synthetic and tfds_ave/vgg19 (simulated, not AVE)"
    assert text.splitlines()[0].endswith(title)
    assert "--dataset=tfds_ave/synthetic,tfds_ave/vgg19 " in text
    names = {path.name for path in (tmp_path / "results").iterdir()}
    assert "table1-synthetic+vgg19-simulated-not-ave.csv" in names
    # AVSDN is compared with rows of both.
    assert text.count("+20.0 (20.0 to 20.0)") == 6
    assert text.count("not run: needs tfds_ave/resnet152_maps") == 1


def test_data_of_two_kinds_do_not_fill_one_table(fake_training, capsys, monkeypatch):
    notices = {"tfds_ave/resnet152": "Stand-in", "tfds_ave/vgg19": None}
    monkeypatch.setattr(
        run.data,
        "open_dataset",
        lambda name, _: types.SimpleNamespace(notice=notices[name]),
    )
    with pytest.raises(SystemExit) as stop:
        run.main(["table1", f"--dataset={','.join(notices)}"])
    assert stop.value.code == 2
    told = "tfds_ave/resnet152: Stand-in; tfds_ave/vgg19: AVE. Fill a table of each."
    assert told in capsys.readouterr().err
    assert not fake_training


def test_changes_have_no_recipe(fake_training, capsys):
    with pytest.raises(SystemExit) as stop:
        run.main(["changes_weak", "--recipe=best"])
    assert stop.value.code == 2
    assert "--recipe=best: expected none with changes_weak" in capsys.readouterr().err
    assert not fake_training


def test_a_run_fails_with_the_one_whose_encoders_it_needs(
    tmp_path, fake_training, fill, monkeypatch
):
    fake_training.failing = ()
    dataset = types.SimpleNamespace(notice=None)
    monkeypatch.setattr(run.data, "open_dataset", lambda *_: dataset)
    words = ("--recipe=paper", "--seeds=1", "--dataset=tfds_ave/vgg19")
    (source,) = runs.plan(
        load_row("table1_avel_att_vgg19"),
        run.parse(["table1", *words, f"--runs={tmp_path / 'runs'}"]),
    )
    write_run(source.folder, 4, dataclasses.replace(source.config, epochs=5))
    rows = [load_row("tian_dmrn")]
    monkeypatch.setattr(run, "load_table", lambda _: rows)
    # Both for one reason.
    with pytest.raises(SystemExit, match=r"2 run\(s\) failed"):
        fill("tian", *words)
    assert not fake_training
    assert "holds a run with epochs 5, not 60" in read_table(tmp_path, "tian")


def test_a_run_whose_encoders_were_trained_anew_since_has_failed(tmp_path):
    args = run.parse(
        ["tian", "--seeds=1", "--dataset=tfds_ave/vgg19", f"--runs={tmp_path}"]
    )
    (planned,) = runs.plan(load_row("tian_dmrn"), args)
    checksums = RunFolder(planned.source).checksums
    planned.source.mkdir(parents=True)
    checksums.write_text("abc  model.keras\n")
    process = planned.start({"threads": 1})
    process.kill()
    process.wait()
    planned.check_source()
    checksums.write_text("def  model.keras\n")
    with pytest.raises(UserError, match="trained anew"):
        planned.check_source()
    # Where it goes on, it goes on from the encoders that it began with.
    planned.folder.mkdir()
    RunFolder(planned.folder).config.touch()
    process = planned.start({"threads": 1})
    process.kill()
    process.wait()
    with pytest.raises(UserError, match="trained anew"):
        planned.check_source()


def test_where_the_data_lie_does_not_matter(fake_training, fill):
    fake_training.failing = ()
    fill("table1", "--recipe=paper")
    fake_training.clear()
    fill("table1", "--recipe=paper", "--data_dir=/somewhere/else")
    assert not fake_training


def test_where_everything_fails_there_still_is_a_table(tmp_path, fake_training, fill):
    fake_training.failing = ("avel_audio", "avel_visual", "avel", "avsdn")
    with pytest.raises(SystemExit, match=r"8 run\(s\) failed"):
        fill("table1", "--recipe=paper")
    text = read_table(tmp_path)
    assert text.count("| failed |") == 4
    assert "simulated, not AVE" in text


@pytest.fixture
def heard_signals():
    """Hears the signals that a test in the background, or under nohup, ignores."""
    before = {number: signal.getsignal(number) for number in runs._SIGNALS}
    for number in before:
        signal.signal(number, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)],
)
def test_a_signal_ends_all_trainings(
    number, code, monkeypatch, fill, capsys, heard_signals
):
    class Endless(FakeProcess):
        asked = ended = 0

        def poll(self):
            Endless.asked += 1
            if Endless.asked == 1:
                os.kill(os.getpid(), number)
            assert Endless.asked < 100

        def terminate(self):
            Endless.ended += 1

        def wait(self):
            assert Endless.ended == 2

    monkeypatch.setattr(runs.Run, "start", lambda self, origin: Endless(None))
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as stop:
        fill("table1", "--recipe=paper", "--jobs=2")
    assert stop.value.code == code
    error = capsys.readouterr().err
    assert error == "experiments.run: interrupted; the same command goes on\n"
    assert signal.getsignal(number) == before


def test_a_killed_table_goes_on(tmp_path, data_dir):
    words = [
        "table1",
        "--recipe=paper",
        "--seeds=1",
        "--epochs=5",
        "--patience=5",
        "--dataset=tfds_ave/synthetic",
        f"--data_dir={data_dir}",
        f"--runs={tmp_path / 'runs'}",
    ]
    # All but one row are done; that one is trained in earnest.
    dataset = data.open_dataset("tfds_ave/synthetic", data_dir)
    clips = [int(clip["row"]) for clip in dataset.builder.as_dataset(split="test")]
    args = run.parse(words)
    for row in run.load_rows(args):
        for planned in runs.plan(row, args):
            if row.model == "avel_audio":
                trained = planned
            else:
                write_run(planned.folder, 4, planned.config, clips, dataset.notice)

    with processes.started(*words, module="experiments.run") as process:
        deadline = time.monotonic() + processes.TIMEOUT_S
        while not RunFolder(trained.folder).metrics.is_file():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        code, output, _ = processes.finish(process)
    assert code == 143
    assert f"training {trained.folder.name}" in output
    last = "experiments.run: interrupted; the same command goes on"
    assert output.splitlines()[-1] == last
    assert "Traceback" not in output
    assert "Stopped by SIGTERM" in trained.log.read_text()
    # No training is left that holds it.
    with RunFolder(trained.folder).hold():
        assert not trained.is_done()

    code, output = processes.run(*words, module="experiments.run")
    assert code == 0, output
    assert "going on in " in trained.log.read_text()
    assert f"1/1 done {trained.folder.name}" in output
    assert "As a trial, it leaves experiments/results as it is" in output
    assert trained.is_done()
    # A trial leaves the tables of the repository as they are.
    (table,) = (tmp_path / "runs" / "tables").glob("*.md")
    text = table.read_text()
    assert re.search(r"\| AVEL audio only \| VGGish \| paper \| 59.5 \| \d", text)
    origin = (
        rf"threads a run: {len(os.sched_getaffinity(0))}, TensorFlow {tf.__version__}"
    )
    assert re.search(rf"- 1 of 4 runs trained by .* cores, .*{re.escape(origin)}", text)


def test_trials_do_not_replace_a_table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def folder(*words):
        args = run.parse(["table1", *words])
        return run._results_folder(args, "table1-x.md")

    results, trials = pathlib.Path("experiments/results"), pathlib.Path("r/tables")
    assert folder("--runs=r", "--jobs=2", "--data_dir=d") == results
    for words in (
        ["--seeds=1"],
        ["--epochs=2"],
        ["--patience=2"],
        ["--recipe=paper"],
    ):
        assert folder("--runs=r", *words) == trials
    assert folder("--seeds=1", "--results=mine") == pathlib.Path("mine")

    # The command that made a table makes it again.
    results.mkdir(parents=True)
    command = "python -m experiments.run table1 --seeds=1 --recipe=paper"
    (results / "table1-x.md").write_text(f"# Title\n\n    {command}\n\n| a |\n")
    again = ["--runs=r", "--recipe", "paper", "--seed", "1"]
    assert folder(*again) == results
    assert folder(*again, "--jobs=2") == results
    assert folder(*again, "--epochs=2") == trials
    assert folder("--runs=r", "--seeds=1") == trials


RESULTS = pathlib.Path(run.__file__).parent / "results"
CHECKED_IN = [
    path
    for table in (*PUBLISHED_TABLES, *CHANGES, LABELS)
    for path in RESULTS.glob(f"{table}-*.md")
]


@pytest.mark.parametrize("path", CHECKED_IN, ids=lambda path: path.stem)
def test_commands_of_the_results_make_them_again(path, monkeypatch):
    monkeypatch.chdir(RESULTS.parents[1])
    (command,) = re.findall(
        "^    python -m experiments.run (.*)$", path.read_text(), re.M
    )
    args = run.parse(command.split())
    names = "+".join(name.split("/")[-1] for name in args.dataset)
    assert path.name.startswith(f"{args.table}-{names}-")
    assert run._results_folder(args, path.name) == pathlib.Path("experiments/results")
    trained = {
        planned[0].config.dataset
        for row in run.load_rows(args)
        if (planned := runs.plan(row, args))
    }
    assert trained == set(args.dataset)


def test_best_recipe_departs_only_where_a_model_has_the_option(fake_training, fill):
    fake_training.failing = ()
    text = fill("table1", "--seeds=1")
    best = [config for config in fake_training if config.ema]
    assert len(fake_training) == 2 * len(best) == 8
    for config in best:
        assert config.bidirectional == (config.model == "avsdn")
        assert config.dropout
    # Both recipes are equally right here: no gain, and AVSDN 20 points ahead in both.
    assert text.count("+0.0 (0.0 to 0.0)") == 4
    assert text.count("+20.0 (20.0 to 20.0)") == 6


def test_changes_are_compared_with_the_row_before(fake_training, fill):
    text = fill("changes_weak", "--seeds=1")
    assert len(fake_training) == 1 + len(best_changes("weak"))
    assert text.count("+0.0 (0.0 to 0.0)") == len(best_changes("weak"))
    assert "AVSDN minus it" not in text
    assert "over the row before" in text
    assert text.count("| step |") == len(best_changes("weak")) - 1


def test_scores_of_the_cross_modality_task_fill_a_row(tmp_path):
    labels = np.array([[1, 1, 0], [0, 1, 1]])
    distances = np.ones((2, 3, 3))
    # The sound of clip 7 is near the right pictures, its picture near no sound.
    distances[0, 0, 0] = distances[0, 1, 1] = 0
    folder = tmp_path / "run"
    folder.mkdir()
    Distances(np.array([9, 7]), distances[::-1], labels[::-1]).save(
        folder / "predictions.npz"
    )
    correct = {
        name: summary.read_correct(load_row(f"tian_avdln_{name}"), RunFolder(folder))
        for name in ("a2v", "v2a")
    }
    # In the order of rows: 7, 9.
    assert correct["a2v"][0].tolist() == [7, 9]
    assert correct["a2v"][1].shape == (2, 1)
    wanted = Distances(np.array([7, 9]), distances, labels)
    for name, right in zip(("a2v", "v2a"), right_starts(wanted), strict=True):
        np.testing.assert_array_equal(correct[name][1][:, 0], right)


def write_lines():
    """The lines of a table of two tasks, of which one row has failed."""
    dmrn, a2v, v2a, avsdn = (
        dataclasses.replace(row, settings={}) for row in load_table("tian")
    )
    scores = {"accuracy": 0.7, "validation_accuracy": 0.6, "seconds": 1.0}
    scores |= dict.fromkeys(summary.SEGMENT_SCORES, 0.5)
    outcomes = {
        row.name: summary.Outcome(
            scores | {row.metric: 0.7},
            trivial,
            None,
            None,
            np.arange(2),
            np.ones((2, 1)),
        )
        for row, trivial in (
            (dmrn, {"always_background": 0.2}),
            (a2v, {"random_window": 0.3, "always_at_end": 0.4}),
            (avsdn, {"always_background": 0.2}),
        )
    }
    results = [
        summary.Result(dmrn, [plan_one(dmrn)], [outcomes[dmrn.name]], {}),
        summary.Result(a2v, [plan_one(a2v, "--epochs=20")], [outcomes[a2v.name]], {}),
        summary.Result(v2a, [plan_one(v2a)], [], {0: "no luck"}),
        summary.Result(dataclasses.replace(dmrn, recipe="best"), [], [], {}),
        summary.Result(avsdn, [plan_one(avsdn)], [outcomes[avsdn.name]], {}),
    ]
    return summary.summarize(results), summary.trivial_scores(results)


def test_two_tasks_keep_their_trivial_baselines_apart():
    lines, trivial = write_lines()
    text = tables.to_markdown("Title", None, "command", lines, trivial, [])
    assert "| trivial, labelling segments: always background |" in text
    assert "| trivial, finding the start: random window |" in text
    assert "its validation figure is the mean of A2V and V2A" in text
    limits = "At most 60 (dmrn, cross_modal, avsdn) or 20 (cross_modal) epochs a run"
    assert limits in text
    # AVSDN is compared with DMRN, and not with a network of another task.
    assert ["avsdn_minus" in line for line in lines] == [True, *[False] * 4]


def test_figure_keeps_words_apart_from_data():
    lines, trivial = write_lines()
    figure = tables.draw("Title", lines, trivial)
    (axes,) = figure.axes
    assert figure.get_suptitle() == "Title"
    # The legend is outside of the axes, a word stands where there is no result.
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert axes.get_legend() is None
    assert not legend.get_window_extent().overlaps(axes.get_window_extent())
    words = {text.get_text(): text.get_position()[1] for text in axes.texts}
    assert words == {"failed: 0": 2, "not run": 3}
    # Each row has the dashed lines of its own task.
    dashed = {}
    for line in axes.lines:
        if line.get_label().startswith("trivial"):
            (value, _), (low, high) = line.get_data()
            dashed.setdefault((line.get_label(), round(value)), []).append(
                (low + high) / 2
            )
    assert dashed == {
        ("trivial: always background", 20): [0, 3, 4],
        ("trivial: random window", 30): [1, 2],
        ("trivial: always at end", 40): [1, 2],
    }


def test_every_table_has_a_title():
    assert {*TITLES} == {*PUBLISHED_TABLES, *CHANGES, LABELS}


def test_comparison_draws_the_same_clips_of_every_run(tmp_path, capsys):
    for name, wrong in (("one", 2), ("two", 4)):
        folder = tmp_path / name
        write_run(folder, wrong)
        report = json.loads((folder / "report.json").read_text())
        report["per_category"] = [{"category": c} for c in ("a", "b", "Background")]
        (folder / "report.json").write_text(json.dumps(report))
        (folder / "model.keras").touch()
        (folder / "SHA256SUMS").touch()
    out = tmp_path / "comparison.svg"
    runs = [str(tmp_path / "one"), str(tmp_path / "two")]
    compare.compare(runs, 3, out)
    assert "3 clips, by one" in capsys.readouterr().out
    assert out.read_text().count("not AVE") == 1

    report = json.loads((tmp_path / "two" / "report.json").read_text())
    report["per_category"][0]["category"] = "c"
    (tmp_path / "two" / "report.json").write_text(json.dumps(report))
    with pytest.raises(UserError, match=r"categories of .*one: a, b\. Received: c, b"):
        compare.compare(runs, 3, out)

    predictions = Predictions.load(tmp_path / "two" / "predictions.npz")
    Predictions(
        predictions.row + 1,
        predictions.logits,
        predictions.labels,
        predictions.clip_labels,
    ).save(tmp_path / "two" / "predictions.npz")
    with pytest.raises(UserError, match="same test clips"):
        compare.compare(runs, 3, out)


def test_runs_are_told_apart_by_what_differs():
    def names(*folders, models=("avel", "avel")):
        return compare._name_runs(list(map(pathlib.Path, folders)), models)

    paper = "runs/resnet152/weak,avel,loss=soft_margin,seed=0"
    best = "runs/resnet152/weak,avel,dropout=0.5,ema=0.9,loss=soft_margin,seed=0"
    assert names(paper, best) == ["avel", "dropout=0.5, ema=0.9"]
    assert names(paper, best, models=("avel", "avsdn")) == ("avel", "avsdn")
    assert names(paper, paper.replace("net152", "net50")) == ["resnet152", "resnet50"]
    assert names("runs/one", "runs/two") == ["one", "two"]
    assert names("a/b", "b/a") == ["a/b", "b/a"]


@pytest.fixture
def compared_run(tmp_path):
    write_run(tmp_path / "run", 2)
    (tmp_path / "run" / "model.keras").touch()
    (tmp_path / "run" / "SHA256SUMS").touch()
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--clips=0"], "--clips: expected 1 or more. Received: 0"),
        (["--out=x.bmp"], "--out: expected a file that ends in one of .png"),
        (["--out=/nowhere/x.png"], "can't be written"),
        (["missing"], "missing: expected the folder of a finished run"),
    ],
)
def test_comparison_that_can_not_be_drawn_is_one_message(
    words, message, compared_run, capsys
):
    report = json.loads((compared_run / "report.json").read_text())
    report["per_category"] = [{"category": c} for c in ("a", "b", "Background")]
    (compared_run / "report.json").write_text(json.dumps(report))
    with pytest.raises(SystemExit) as stop:
        compare.main([str(compared_run), *words])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("experiments.compare: ")
    assert message in error


def test_comparison_of_a_cross_modal_run_is_one_message(compared_run, capsys):
    config = Config(mode="cross_modal", model="cross_modal").to_dict()
    (compared_run / "config.json").write_text(json.dumps({"config": config}))
    with pytest.raises(SystemExit) as stop:
        compare.main([str(compared_run)])
    assert stop.value.code == 2
    assert "expected a run that labels segments" in capsys.readouterr().err
