import csv
import json
import re

import numpy as np
import pytest

from avsdn_tf.config import Config
from avsdn_tf.errors import UserError
from avsdn_tf.evaluation import Predictions
from avsdn_tf.models import MODELS
from experiments import compare, run
from experiments.published import TABLES, load_table

ROWS = [row for table in TABLES for row in load_table(table)]


def test_every_row_is_a_command_that_the_program_takes(capsys):
    for row in ROWS:
        assert row.model in MODELS
        settings = {**row.settings, "mode": row.mode, "model": row.model}
        Config(**settings)
        assert f"--model={row.model}" in row.flags({})
    assert [row.paper for row in load_table("table3")] == [70.2, 70.9, 72.6, 74.2]
    assert [row.order for row in load_table("table1")] == list(range(1, 9))
    assert load_table("table1")[-1].model == "avsdn"
    with pytest.raises(SystemExit):
        run.main(["table9"])
    assert "table1" in capsys.readouterr().err


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


def write_run(folder, wrong, seconds=10.0):
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


@pytest.fixture
def fake_training(monkeypatch):
    """Runs that fail for one model, and are right in 8 or 6 of 10 segments."""
    trained = []

    def subprocess_run(command, stdout, **_):
        model = next(w for w in command if w.startswith("--model=")).split("=")[1]
        folder = run.pathlib.Path(command[-1].removeprefix("--run="))
        trained.append(folder)

        class Done:
            returncode = 2 if model == "avel_visual" else 0

        if Done.returncode:
            stdout.write("avsdn_tf: no luck\n")
        else:
            write_run(folder, wrong=2 if model == "avsdn" else 4)
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
        fill(tmp_path)
    # Four rows fit the data set, two seeds each.
    assert len(fake_training) == 8
    results = {path.name for path in (tmp_path / "results").iterdir()}
    stem = "table1-paper-synthetic-simulated-not-ave"
    assert results == {f"{stem}.md", f"{stem}.csv", f"{stem}.png"}
    text = (tmp_path / "results" / f"{stem}.md").read_text()
    assert "not AVE" in text.splitlines()[0]
    assert re.search(r"\| AVEL visual only \| ResNet-152 \| 65.0 \| failed", text)
    assert "not run: needs tfds_ave/vgg19" in text
    assert re.search(r"\| AVSDN \| ResNet-152 \| 75.4 \| 80.0 ± 0.0", text)
    # 80 % against 60 %, in every clip alike: the interval has no width.
    assert "+20.0 (20.0 to 20.0)" in text
    assert "always background | | | 10.0" in text
    with (tmp_path / "results" / f"{stem}.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [float(line["accuracy"]) for line in lines if line["accuracy"]] == [
        0.6,
        0.6,
        0.8,
    ]

    fake_training.clear()
    with pytest.raises(SystemExit, match="failed"):
        fill(tmp_path)
    # What is done is not trained again; what failed is.
    assert {folder.parent.name for folder in fake_training} == {
        "table1_avel_visual_resnet152"
    }


def test_best_recipe_departs_only_where_a_model_has_the_option(tmp_path, monkeypatch):
    commands = []

    def subprocess_run(command, **_):
        commands.append(command)
        write_run(run.pathlib.Path(command[-1].removeprefix("--run=")), wrong=2)
        return type("Done", (), {"returncode": 0})

    monkeypatch.setattr(run.subprocess, "run", subprocess_run)
    fill(tmp_path, "--recipe=best", "--seeds=1")
    for command in commands:
        assert ("--bidirectional" in command) == ("--model=avsdn" in command)
        assert any(word.startswith("--dropout=") for word in command)


def test_comparison_draws_the_same_clips_of_every_run(tmp_path, capsys):
    for name, wrong in (("one", 2), ("two", 4)):
        folder = tmp_path / name
        write_run(folder, wrong)
        report = json.loads((folder / "report.json").read_text())
        report["per_category"] = [{"category": c} for c in ("a", "b", "Background")]
        (folder / "report.json").write_text(json.dumps(report))
        (folder / "config.json").write_text(
            json.dumps({"config": Config().to_dict(), "versions": {}})
        )
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
