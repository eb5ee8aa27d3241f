import dataclasses
import json
import pathlib
import re
import shlex
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from avsdn_tf.backbones import Backbones
from avsdn_tf.cli import app
from avsdn_tf.data.dataset import Dataset
from avsdn_tf.errors import UserError
from avsdn_tf.evaluation import Predictions
from avsdn_tf.models.registry import MODELS
from avsdn_tf.run_folder import RunFolder
from avsdn_tf.training.build import build_optimizer
from avsdn_tf.training.config import CROSS_MODAL, Config
from avsdn_tf.training.tasks import build_task
from experiments import compare, published, run, runs
from experiments.published import (
    CHANGES,
    LABELS,
    PUBLISHED_TABLES,
    RECIPES,
    TITLES,
    best_changes,
    load_row,
    load_table,
)
from tests.experiment_runs import write_run

ROWS = [row for table in PUBLISHED_TABLES for row in load_table(table)]
EVERY_RECIPE = [
    dataclasses.replace(row, recipe=recipe)
    for row in (*ROWS, *load_table(LABELS))
    for recipe in RECIPES
]


def plan_one(row, *words):
    """Return the run of a row's first seed, on the row's features."""
    dataset = f"tfds_ave/{row.dataset_config or 'resnet152'}"
    args = run.parse([row.table, "--seeds=1", f"--dataset={dataset}", *words])
    (planned,) = runs.plan(row, args)
    return planned


def test_every_row_is_a_valid_command():
    for row in EVERY_RECIPE:
        planned = plan_one(row)
        assert planned.command()[:3] == ["python", "-m", "avsdn_tf.main"]
        args = app.parse(planned.command()[3:])
        assert args.config == planned.config
        assert args.run == str(planned.folder)


def test_published_files_contain_the_command_of_the_papers_recipe():
    for row in ROWS:
        file = pathlib.Path(published.__file__).parent / f"published/{row.name}.json"
        command = json.loads(file.read_text())["command"]
        assert shlex.split(command) == plan_one(row).command()


def test_tables_contain_the_published_rows():
    assert [row.paper for row in load_table("table3")] == [70.2, 70.9, 72.6, 74.2]
    assert [row.order for row in load_table("table1")] == list(range(1, 9))
    assert load_table("table1")[-1].model == "avsdn"
    assert [row.paper for row in load_table("tian")] == [73.1, 44.8, 35.6, 75.4]
    assert {*TITLES} == {*PUBLISHED_TABLES, *CHANGES, LABELS}


def list_networks():
    """Return the settings of every network in the tables, with a small visual shape."""
    networks = {}
    for row in EVERY_RECIPE:
        config = plan_one(row).config
        options = MODELS[row.model].options
        is_pooled = row.dataset_config in (None, "resnet152")
        is_variant = config.mode == "weak" and bool(MODELS[row.model].weak)
        options = [getattr(config, name) for name in options]
        key = (row.model, *options, is_pooled, is_variant)
        small = {"units": 3} if "units" in MODELS[row.model].options else {}
        config = dataclasses.replace(config, encoders=None, **small)
        networks.setdefault(key, (config, (4,) if is_pooled else (2, 2, 4)))
    return list(networks.values())


NETWORKS = list_networks()


def test_all_tasks_are_trained():
    modes = {config.mode for config, _ in NETWORKS}
    assert modes == {"supervised", "weak", CROSS_MODAL}


@pytest.mark.parametrize(
    ("config", "shape"),
    NETWORKS,
    ids=[f"{config.model}-{len(shape)}" for config, shape in NETWORKS],
)
def test_every_network_trains_a_step_is_saved_and_loaded(config, shape, rng, tmp_path):
    info = types.SimpleNamespace(splits={"background": None})
    builder = types.SimpleNamespace(info=info)
    dataset = Dataset(
        name="small",
        builder=builder,
        categories=("Bark", "Flute"),
        audio_width=5,
        visual_shape=shape,
        num_segments=4,
        segment_s=1.0,
        disclaimer=None,
        has_times=True,
        backbones=Backbones(),
        is_padded=False,
        train_segments=4,
        longest_segments=4,
        multi_label=False,
    )
    task = build_task(config, dataset)
    is_pairs = config.mode == CROSS_MODAL
    segments = (2,) if is_pairs else (2, 4)
    target = np.eye(3, dtype=np.float32)[rng.integers(0, 3, segments)]
    if config.mode == "weak":
        target = target.mean(axis=1)
    batch = {
        "audio": rng.random((*segments, 5), np.float32),
        "visual": rng.random((*segments, *shape), np.float32),
        "target": np.array([0, 1], np.float32) if is_pairs else target,
        "weight": np.ones(2, np.float32),
    }
    batch = {name: tf.constant(values) for name, values in batch.items()}
    variables = task.model.trainable_variables
    with tf.GradientTape() as tape:
        losses, _ = task.score_batch(batch)
        loss = tf.reduce_mean(losses)
    before = [variable.numpy() for variable in variables]
    build_optimizer(config).apply(tape.gradient(loss, variables), variables)
    assert np.isfinite(float(loss))
    assert any((v.numpy() != b).any() for v, b in zip(variables, before, strict=True))
    task.model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    inputs = {name: batch[name] for name in ("audio", "visual")}
    np.testing.assert_array_equal(loaded(inputs), task.model(inputs))


def test_rows_with_equal_settings_share_a_run():
    args = run.parse(["table3", "--seeds=2"])
    avsdn = runs.plan(load_row("table2_avsdn"), args)
    assert runs.plan(load_row("table3_fusion"), args) == avsdn
    table1 = load_table("table1")
    pooled = [row for row in table1 if row.dataset_config in (None, "resnet152")]
    folders = {r.folder for row in pooled for r in runs.plan(row, args)}
    assert len(folders) == 2 * len(pooled)


@pytest.mark.parametrize("table", CHANGES)
def test_changes_turn_the_papers_recipe_into_the_best_recipe(table):
    rows = load_table(table)
    mode = rows[0].mode
    best = {k: v for change in best_changes(mode) for k, v in change.items()}
    assert len(rows) == 1 + len(best_changes(mode))
    avsdn = load_row("table1_avsdn" if mode == "supervised" else "table2_avsdn")
    for row, recipe in ((rows[0], "paper"), (rows[-1], "best")):
        assert plan_one(row) == plan_one(dataclasses.replace(avsdn, recipe=recipe))
    assert best.items() <= plan_one(rows[-1]).config.to_dict().items()
    steps = ["step"] * (len(rows) - 2)
    assert [row.recipe for row in rows] == ["paper", *steps, "best"]


def test_dmrn_starts_from_the_run_of_the_same_seed():
    args = run.parse(["tian", "--seeds=2", "--dataset=tfds_ave/vgg19"])
    sources = runs.plan(load_row("table1_avel_att_vgg19"), args)
    planned = runs.plan(load_row("tian_dmrn"), args)
    assert [p.config.encoders for p in planned] == [str(s.folder) for s in sources]


def names_that_fit(table, dataset):
    return {row.name for row in load_table(table) if row.fits(dataset)}


def test_rows_match_data_sets_by_their_features():
    assert names_that_fit("table1", "tfds_ave/vgg19") == {
        "table1_avel_audio",
        "table1_avel_visual_vgg19",
        "table1_avel_vgg19",
        "table1_avel_att_vgg19",
    }
    pooled = names_that_fit("table1", "tfds_ave/resnet152")
    assert "table1_avsdn" in pooled
    assert "table1_avel_att_resnet152" not in pooled
    # Other configs with the same features, and names with a version.
    for dataset in ("synthetic", "videos", "resnet152:1.1.0", "videos:1.1.0"):
        assert names_that_fit("table1", f"tfds_ave/{dataset}") == pooled


def test_runs_on_a_data_set_version_have_their_own_folder():
    row = load_row("table1_avsdn")
    folder = plan_one(row, "--dataset=tfds_ave/resnet152:1.1.0").folder
    assert folder.parent.name == "resnet152-1.1.0"
    assert plan_one(row).folder.parent.name == "resnet152"


def test_a_run_fails_if_its_encoders_were_trained_again(tmp_path):
    planned = plan_one(load_row("tian_dmrn"), f"--runs={tmp_path}")
    checksums = RunFolder(planned.source).checksums
    planned.source.mkdir(parents=True)
    checksums.write_text("abc  model.keras\n")

    def start():
        process = planned.start({"threads": 1})
        process.kill()
        process.wait()

    start()
    planned.check_source()
    checksums.write_text("def  model.keras\n")
    with pytest.raises(UserError, match="trained again"):
        planned.check_source()
    # A resumed run keeps the encoders that it began with.
    planned.folder.mkdir()
    RunFolder(planned.folder).config.touch()
    start()
    with pytest.raises(UserError, match="trained again"):
        planned.check_source()


CATEGORIES = ("a", "b", "Background")


@pytest.fixture
def two_runs(tmp_path):
    """Two finished runs on the same clips."""
    for name, wrong in (("one", 2), ("two", 4)):
        write_run(tmp_path / name, wrong)
        set_categories(tmp_path / name, CATEGORIES)
    return [str(tmp_path / name) for name in ("one", "two")]


def set_categories(folder, categories):
    path = RunFolder(folder).report
    per_category = [{"category": category} for category in categories]
    report = {**json.loads(path.read_text()), "per_category": per_category}
    path.write_text(json.dumps(report))


def test_comparison_draws_the_same_clips_of_every_run(two_runs, tmp_path, capsys):
    out = tmp_path / "comparison.svg"
    compare.main([*two_runs, "--clips=3", f"--out={out}"])
    assert "3 clips, chosen by one" in capsys.readouterr().out
    assert out.read_text().count("not AVE") == 1

    set_categories(two_runs[1], ("c", "b", "Background"))
    with pytest.raises(UserError, match=r"a, b.*c, b"):
        compare.compare(two_runs, 3, out)
    set_categories(two_runs[1], CATEGORIES)
    path = RunFolder(two_runs[1]).predictions
    predictions = Predictions.load(path)
    dataclasses.replace(predictions, row=predictions.row + 1).save(path)
    with pytest.raises(UserError, match="same test clips"):
        compare.compare(two_runs, 3, out)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--clips=0"], "--clips"),
        (["--out=x.bmp"], "--out=x.bmp"),
        (["--out=/nowhere/x.png"], "can't be written"),
        (["missing"], "missing: expected the folder of a finished run"),
    ],
)
def test_an_impossible_comparison_is_a_one_line_error(words, message, two_runs, capsys):
    with pytest.raises(SystemExit) as stop:
        compare.main([two_runs[0], *words])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("experiments.compare: ")
    assert message in error


def test_a_cross_modal_run_is_not_compared(two_runs):
    config = Config(mode=CROSS_MODAL).to_dict()
    RunFolder(two_runs[0]).config.write_text(json.dumps({"config": config}))
    with pytest.raises(UserError, match="labels segments"):
        compare.compare(two_runs, 1, pathlib.Path("x.png"))


def test_runs_are_named_by_their_different_settings():
    def names(*folders, models=("avel", "avel")):
        return compare._name_runs(list(map(pathlib.Path, folders)), models)

    paper = "runs/resnet152/weak,avel,loss=soft_margin,seed=0"
    best = "runs/resnet152/weak,avel,dropout=0.5,ema=0.9,loss=soft_margin,seed=0"
    assert names(paper, best) == ["avel", "dropout=0.5, ema=0.9"]
    assert names(paper, best, models=("avel", "avsdn")) == ("avel", "avsdn")
    assert names(paper, paper.replace("net152", "net50")) == ["resnet152", "resnet50"]
    assert names("runs/one", "runs/two") == ["one", "two"]
    assert names("a/b", "b/a") == ["a/b", "b/a"]


RESULTS = pathlib.Path(run.__file__).parent / "results"
CHECKED_IN = [
    path
    for table in (*PUBLISHED_TABLES, *CHANGES, LABELS)
    for path in RESULTS.glob(f"{table}-*.md")
]


@pytest.mark.parametrize("path", CHECKED_IN, ids=lambda path: path.stem)
def test_commands_in_the_results_reproduce_the_results(path, monkeypatch):
    monkeypatch.chdir(RESULTS.parents[1])
    (command,) = re.findall(
        "^ *python -m experiments.run (.*)$", path.read_text(), re.M
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


def test_trials_do_not_overwrite_a_table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def folder(*words):
        return run._results_folder(run.parse(["table1", *words]), "table1-x.md")

    results, trials = pathlib.Path("experiments/results"), pathlib.Path("r/tables")
    assert folder("--runs=r", "--jobs=2", "--data_dir=d") == results
    for word in ("--seeds=1", "--epochs=2", "--patience=2", "--recipe=paper"):
        assert folder("--runs=r", word) == trials
    assert folder("--seeds=1", "--results=mine") == pathlib.Path("mine")

    # The command that a table states overwrites the table.
    results.mkdir(parents=True)
    command = "python -m experiments.run table1 --seeds=1 --recipe=paper"
    (results / "table1-x.md").write_text(f"# Title\n\n{command}\n\n| a |\n")
    again = ["--runs=r", "--recipe", "paper", "--seeds", "1"]
    assert folder(*again, "--jobs=2") == results
    assert folder(*again, "--epochs=2") == trials
    assert folder("--runs=r", "--seeds=1") == trials
