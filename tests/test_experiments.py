import csv
import dataclasses
import json
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from avsdn_tf import data, training
from avsdn_tf.config import Config
from avsdn_tf.cross_modal_evaluation import Distances, right_starts
from avsdn_tf.errors import UserError
from avsdn_tf.evaluation import Predictions
from avsdn_tf.models import MODELS
from experiments import compare, run
from experiments.published import (
    CHANGES,
    PUBLISHED_TABLES,
    best_changes,
    load_row,
    load_table,
)
from tfds_ave.configs import CONFIGS

ROWS = [row for table in PUBLISHED_TABLES for row in load_table(table)]


def test_every_row_is_a_command_that_the_program_takes(capsys):
    for row in ROWS:
        assert row.model in MODELS
        for recipe in ("paper", "best"):
            args = run.parse([row.table, "--seeds=1"])
            (planned,) = run.plan(dataclasses.replace(row, recipe=recipe), args)
            assert planned.config.model == row.model
    assert [row.paper for row in load_table("table3")] == [70.2, 70.9, 72.6, 74.2]
    assert [row.order for row in load_table("table1")] == list(range(1, 9))
    assert load_table("table1")[-1].model == "avsdn"
    assert [row.paper for row in load_table("tian")] == [73.1, 44.8, 35.6]
    with pytest.raises(SystemExit):
        run.main(["table9"])
    assert "table1" in capsys.readouterr().err


SHAPES = {config.name: config.visual_shape for config in CONFIGS}
BUILT = {
    (row.mode == "cross_modal", row.model, SHAPES[row.dataset_config or "vgg19"]): row
    for row in ROWS
}


@pytest.mark.parametrize("row", BUILT.values(), ids=lambda row: row.name)
def test_every_row_trains_a_step_is_saved_and_loaded(row, rng, tmp_path):
    shape = SHAPES[row.dataset_config or "vgg19"]
    dataset = data.Dataset(None, ("Bark", "Flute"), 128, shape, 10, None)
    # What a row starts from is another test's.
    (planned,) = run.plan(row, run.parse([row.table, "--seeds=1"]))
    config = dataclasses.replace(planned.config, encoders=None)
    task = training.build_task(config, dataset)
    per_clip = (2,) if row.mode == "cross_modal" else (2, 10)
    batch = {
        "audio": rng.random((*per_clip, 128), np.float32),
        "visual": rng.random((*per_clip, *shape), np.float32),
        "target": np.eye(3, dtype="f")[rng.integers(0, 3, per_clip)],
        "weight": np.ones(2, np.float32),
    }
    if row.mode == "weak":
        batch["target"] = batch["target"].mean(axis=1)
    if row.mode == "cross_modal":
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
    assert run.plan(fusion, args) == run.plan(avsdn, args)
    table1 = load_table("table1")
    pooled = [row for row in table1 if row.dataset_config in (None, "resnet152")]
    folders = {r.folder for row in pooled for r in run.plan(row, args)}
    assert len(folders) == 2 * len(pooled)


def test_changes_lead_from_the_papers_recipe_to_the_best():
    for table in CHANGES:
        rows = load_table(table)
        mode = rows[0].mode
        best = {k: v for change in best_changes(mode) for k, v in change.items()}
        assert len(rows) == 1 + len(best_changes(mode))
        args = run.parse([table, "--seeds=1"])
        published = next(
            row for row in ROWS if row.mode == mode and row.model == "avsdn"
        )
        for row, recipe in ((rows[0], "paper"), (rows[-1], "best")):
            assert run.plan(row, args) == run.plan(
                dataclasses.replace(published, recipe=recipe),
                run.parse([published.table, "--seeds=1"]),
            )
        (last,) = run.plan(rows[-1], args)
        assert best.items() <= last.config.to_dict().items()


def test_dmrn_starts_from_the_run_of_the_same_seed():
    args = run.parse(["tian", "--seeds=2", "--dataset=tfds_ave/vgg19"])
    sources = run.plan(load_row("table1_avel_att_vgg19"), args)
    planned = run.plan(load_row("tian_dmrn"), args)
    assert [p.config.encoders for p in planned] == [str(s.folder) for s in sources]


def test_rows_fit_data_sets_with_their_features():
    fitting = {row.name for row in load_table("table1") if row.fits("tfds_ave/vgg19")}
    assert fitting == {
        "table1_avel_audio",
        "table1_avel_visual_vgg19",
        "table1_avel_vgg19",
        "table1_avel_att_vgg19",
    }
    pooled = {
        row.name for row in load_table("table1") if row.fits("tfds_ave/synthetic")
    }
    assert "table1_avsdn" in pooled
    assert "table1_avel_att_resnet152" not in pooled


def write_run(folder, wrong, config=None, seconds=10.0):
    """A finished run of 4 clips of which the first `wrong` segments each are wrong."""
    labels = np.zeros((4, 10), int)
    predicted = labels.copy()
    predicted[:, :wrong] = 1
    folder.mkdir(parents=True)
    Predictions(
        np.array([3, 1, 2, 0]), np.eye(3)[predicted], labels, np.zeros(4, int)
    ).save(folder / "predictions.npz")
    report = {
        "accuracy": 1 - wrong / 10,
        "validation_accuracy": 0.5,
        "seconds": seconds,
        "notice": "these are not AVE results",
        "trivial": {"always_background": 0.1},
    }
    (folder / "report.json").write_text(json.dumps(report))
    config = (config or Config()).to_dict()
    (folder / "config.json").write_text(json.dumps({"config": config, "versions": {}}))


def config_of(command):
    """What the program makes of its flags."""
    kinds = {f.name: f.metadata["kind"] for f in dataclasses.fields(Config)}
    settings = {}
    for word in command:
        if word.startswith("--") and not word.startswith("--run="):
            name, _, value = word.removeprefix("--").partition("=")
            settings[name] = kinds[name](value) if value and value != "True" else True
            if kinds[name] is type(None):
                settings[name] = value
    return Config(**settings)


@pytest.fixture
def fake_training(monkeypatch):
    """Runs that fail for one model, and are right in 8 or 6 of 10 segments."""
    trained = []

    def subprocess_run(command, stdout, env, **_):
        assert env["TF_NUM_INTRAOP_THREADS"].isdigit()
        config = config_of(command)
        folder = run.pathlib.Path(command[-1].removeprefix("--run="))
        trained.append(config)

        class Done:
            returncode = 2 if config.model == "avel_visual" else 0

        if Done.returncode:
            stdout.write("avsdn_tf: no luck\n")
        else:
            write_run(folder, 2 if config.model == "avsdn" else 4, config)
        return Done

    monkeypatch.setattr(run.subprocess, "run", subprocess_run)
    return trained


def fill(tmp_path, *words):
    run.main(
        [
            "table1",
            "--seeds=2",
            "--dataset=tfds_ave/synthetic",
            f"--runs={tmp_path / 'runs'}",
            f"--results={tmp_path / 'results'}",
            *words,
        ]
    )


def test_table_shows_failures_resumes_and_says_what_it_is(tmp_path, fake_training):
    with pytest.raises(SystemExit, match=r"2 run\(s\) failed"):
        fill(tmp_path, "--recipe=paper", "--jobs=2")
    # Four rows fit the data set, two seeds each.
    assert len(fake_training) == 8
    results = {path.name for path in (tmp_path / "results").iterdir()}
    stem = "table1-synthetic-simulated-not-ave"
    assert results == {f"{stem}.md", f"{stem}.csv", f"{stem}.png"}
    text = (tmp_path / "results" / f"{stem}.md").read_text()
    assert "not AVE" in text.splitlines()[0]
    assert re.search(
        r"\| AVEL visual only \| ResNet-152 \| paper \| 65.0 \| failed", text
    )
    assert "not run: needs tfds_ave/vgg19" in text
    assert re.search(r"\| AVSDN \| ResNet-152 \| paper \| 75.4 \| 80.0 ± 0.0", text)
    # 80 % against 60 %, in every clip alike: the interval has no width.
    assert "+20.0 (20.0 to 20.0)" in text
    assert re.search(r"always background [| ]+ 10\.0 ", text)
    with (tmp_path / "results" / f"{stem}.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [float(line["accuracy"]) for line in lines if line["accuracy"]] == [
        0.6,
        0.6,
        0.8,
    ]

    fake_training.clear()
    with pytest.raises(SystemExit, match="failed"):
        fill(tmp_path, "--recipe=paper")
    # What is done is not trained again; what failed is.
    assert {config.model for config in fake_training} == {"avel_visual"}

    # A run with other settings is not taken for this one.
    with pytest.raises(SystemExit, match=r"holds a run with another epochs"):
        fill(tmp_path, "--recipe=paper", "--epochs=7")


def test_best_recipe_departs_only_where_a_model_has_the_option(tmp_path, fake_training):
    with pytest.raises(SystemExit, match="failed"):
        fill(tmp_path, "--seeds=1")
    best = [config for config in fake_training if config.ema]
    assert len(fake_training) == 2 * len(best) == 8
    for config in best:
        assert config.bidirectional == (config.model == "avsdn")
        assert config.dropout
    text = next((tmp_path / "results").glob("*.md")).read_text()
    # Both recipes are equally right here: no gain, and AVSDN 20 points ahead in both.
    assert text.count("+0.0 (0.0 to 0.0)") == 3
    assert text.count("+20.0 (20.0 to 20.0)") == 4


def test_changes_are_compared_with_the_row_before(tmp_path, fake_training):
    run.main(
        [
            "changes_weak",
            "--seeds=1",
            "--dataset=tfds_ave/synthetic",
            f"--runs={tmp_path / 'runs'}",
            f"--results={tmp_path / 'results'}",
        ]
    )
    text = next((tmp_path / "results").glob("*.md")).read_text()
    assert len(fake_training) == 1 + len(best_changes("weak"))
    assert text.count("+0.0 (0.0 to 0.0)") == len(best_changes("weak"))
    assert "AVSDN minus it" not in text
    assert "over the row before" in text


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
        name: run._read_correct(
            load_row(f"tian_avdln_{name}"), folder / "predictions.npz"
        )
        for name in ("a2v", "v2a")
    }
    # In the order of rows: 7, 9.
    assert correct["a2v"].shape == (2, 1)
    wanted = Distances(np.array([7, 9]), distances, labels)
    for name, right in zip(("a2v", "v2a"), right_starts(wanted), strict=True):
        np.testing.assert_array_equal(correct[name][:, 0], right)


def test_comparison_draws_the_same_clips_of_every_run(tmp_path, capsys):
    for name, wrong in (("one", 2), ("two", 4)):
        folder = tmp_path / name
        write_run(folder, wrong)
        report = json.loads((folder / "report.json").read_text())
        report["per_category"] = [{"category": c} for c in ("a", "b", "Background")]
        (folder / "report.json").write_text(json.dumps(report))
        (folder / "model.keras").touch()
    out = tmp_path / "comparison.svg"
    runs = [str(tmp_path / "one"), str(tmp_path / "two")]
    compare.compare(runs, 3, out)
    assert "3 clips, by one" in capsys.readouterr().out
    assert out.read_text().count("not AVE") == 1

    predictions = Predictions.load(tmp_path / "two" / "predictions.npz")
    Predictions(
        predictions.row + 1,
        predictions.logits,
        predictions.labels,
        predictions.clip_labels,
    ).save(tmp_path / "two" / "predictions.npz")
    with pytest.raises(UserError, match="same test clips"):
        compare.compare(runs, 3, out)
