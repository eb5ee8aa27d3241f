import csv
import dataclasses
import json
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

from avsdn_tf.data import batches
from avsdn_tf.data.dataset import Dataset, open_dataset
from avsdn_tf.errors import UserError
from avsdn_tf.evaluation import Predictions
from avsdn_tf.events import softmax
from avsdn_tf.models.avsdn import AVSDN
from avsdn_tf.run_folder import RunFolder
from avsdn_tf.training import run as training_run
from avsdn_tf.training.build import build_model, build_optimizer
from avsdn_tf.training.config import Config
from avsdn_tf.training.loop import train
from avsdn_tf.training.tasks import build_task
from avsdn_tf.training.tasks.segments import make_predict
from tests import commands, small_datasets


@pytest.fixture(scope="module")
def dataset(data_dir):
    return open_dataset("tfds_ave/synthetic", data_dir)


@pytest.fixture
def new_folder(tmp_path):
    """Return a function that creates a new run folder."""

    def make():
        folder = RunFolder(tmp_path / f"run{len(list(tmp_path.iterdir()))}")
        folder.write_config(Config().to_dict(), "hash")
        return folder

    return make


@pytest.fixture
def folder(new_folder):
    return new_folder()


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_training_saves_the_epoch_with_the_best_validation_score(dataset, folder, ema):
    config = Config(epochs=4, units=16, learning_rate=0.003, ema=ema)
    result = train(config, dataset, folder)
    assert [row["epoch"] for row in result.history] == [1, 2, 3, 4]
    assert result.history[-1]["loss"] < result.history[0]["loss"]
    best = max(row["validation_accuracy"] for row in result.history)
    selected = result.history[result.selected_epoch - 1]
    assert selected["validation_accuracy"] == best
    predict = make_predict(result.model)
    validation = predict(batches.scoring_batches(dataset, "validation"))
    assert np.mean(validation.logits.argmax(-1) == validation.labels) == best
    with folder.metrics.open() as file:
        assert [float(row["loss"]) for row in csv.DictReader(file)] == [
            row["loss"] for row in result.history
        ]
    assert list(folder.tensorboard.rglob("events*"))


def test_epoch_loss_is_the_mean_over_clips_not_over_batches(dataset, new_folder):
    # At a learning rate near 0, the epoch's loss doesn't depend on the batch size.
    losses = [
        train(
            Config(epochs=1, units=4, learning_rate=1e-12, batch_size=size),
            dataset,
            new_folder(),
        ).history[0]["loss"]
        for size in (64, 7)
    ]
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_equal_seeds_give_equal_weights(dataset, new_folder):
    def weights(seed):
        config = Config(epochs=2, units=8, seed=seed, dropout=0.2)
        return train(config, dataset, new_folder()).model.get_weights()

    first, again, other = weights(0), weights(0), weights(1)
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)
    assert any((one != two).any() for one, two in zip(first, other, strict=True))


def test_a_deterministic_run_enables_determinism_of_tensorflow(data_dir, tmp_path):
    # Determinism is a setting of a process: use a new process.
    program = (
        "import sys; from tests.commands import avsdn; "
        "from tensorflow.python.framework import config; "
        "before = config.is_op_determinism_enabled(); avsdn(*sys.argv[1:]); "
        "print(before, config.is_op_determinism_enabled())"
    )
    words = ("--epochs=1", "--units=4", f"--data_dir={data_dir}", "--deterministic")
    done = subprocess.run(
        [sys.executable, "-c", program, *words, f"--run={tmp_path / 'run'}"],
        cwd=pathlib.Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines()[-1:] == ["False True"], done.stderr


def test_averaged_weights_are_saved_but_not_used_for_training(dataset, new_folder):
    def run(ema):
        config = Config(epochs=2, units=8, ema=ema)
        result = train(config, dataset, new_folder())
        return [row["loss"] for row in result.history], result.model.get_weights()

    (plain_losses, plain), (losses, averaged) = run(0.0), run(0.99)
    assert losses == plain_losses
    assert any((one != two).any() for one, two in zip(plain, averaged, strict=True))


def test_labels_are_smoothed_for_the_loss_but_not_for_accuracy(dataset):
    config = Config(units=4, label_smoothing=0.3, loss="categorical_crossentropy")
    task = build_task(config, dataset)
    batch = next(iter(task.training_batches()))
    losses, correct = task.score_batch(batch)
    inputs = {name: batch[name] for name in ("audio", "visual")}
    logits = task.model(inputs).numpy().astype(np.float64)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    target = batch["target"].numpy()
    smooth = 0.7 * target + 0.3 / 29
    np.testing.assert_allclose(losses, -(smooth * log_p).sum(-1).mean(1), rtol=1e-5)
    right = logits.argmax(-1) == target.argmax(-1)
    np.testing.assert_allclose(correct, right.mean(1), rtol=1e-6)


def test_learning_rate_falls_to_a_tenth_once():
    schedule = build_optimizer(Config(decay_steps=100))._learning_rate
    rates = [float(schedule(step)) for step in (0, 99, 100, 1000)]
    np.testing.assert_allclose(rates, [1e-3, 1e-3, 1e-4, 1e-4], rtol=1e-6)
    assert float(build_optimizer(Config()).learning_rate) == pytest.approx(1e-3)


def test_learning_rate_falls_after_epochs():
    config = Config(decay_epochs="2,5", decay_factor=0.8)
    schedule = build_optimizer(config, steps_per_epoch=10)._learning_rate
    rates = [float(schedule(step)) for step in (0, 19, 20, 49, 50, 1000)]
    wanted = [1e-3, 1e-3, 8e-4, 8e-4, 6.4e-4, 6.4e-4]
    np.testing.assert_allclose(rates, wanted, rtol=1e-6)


def test_dmrn_starts_from_the_encoders_of_a_run(tmp_path):
    files = small_datasets.make_ave(tmp_path / "ave", "vgg19", noisy=False)
    small_datasets.build(files, tmp_path / "data", "vgg19")
    common = {
        "dataset": "tfds_ave/vgg19",
        "data_dir": str(tmp_path / "data"),
        "units": 4,
        "epochs": 1,
    }
    source, run = tmp_path / "avel", tmp_path / "dmrn"
    commands.train(Config(model="avel_att", **common), str(source))
    config = Config(model="dmrn", encoders=str(source), **common)
    dataset = open_dataset(config.dataset, config.data_dir)
    built = build_model(config, dataset)
    trained = keras.models.load_model(source / "model.keras")
    for name in ("visual_pooling", "audio_encoder", "visual_encoder"):
        for one, two in zip(
            getattr(built, name).get_weights(),
            getattr(trained, name).get_weights(),
            strict=True,
        ):
            np.testing.assert_array_equal(one, two)
    commands.train(config, str(run))
    assert f"--encoders={source}" in config.to_flags()

    for settings, message in (
        ({"model": "avel_att"}, "dmrn"),
        ({"encoders": str(run)}, "avel_att.*dmrn"),
        ({"encoders": "nowhere"}, "nowhere"),
        ({"units": 5}, "'units': 5.*'units': 4"),
    ):
        with pytest.raises(UserError, match=message) as error:
            build_model(dataclasses.replace(config, **settings), dataset)
        assert error.value.field == "encoders"


def test_early_stopping_waits_for_patience(dataset, folder):
    # A rate this small never changes a prediction: epoch 1 stays the best.
    config = Config(epochs=50, units=4, learning_rate=1e-12, patience=2)
    result = train(config, dataset, folder)
    assert len(result.history) == 3
    assert result.selected_epoch == 1


def test_early_stopping_ignores_warmup_epochs(dataset, folder, monkeypatch):
    monkeypatch.setattr(AVSDN, "warmup_epochs", 4)
    config = Config(epochs=50, units=4, learning_rate=1e-12, patience=2)
    result = train(config, dataset, folder)
    assert len(result.history) == 7
    assert result.selected_epoch == 1


@pytest.mark.parametrize(
    "weak_label", ["average", "average_background", "mil", "mil_background"]
)
def test_weak_training_learns_from_clip_labels(dataset, folder, weak_label):
    config = Config(mode="weak", weak_label=weak_label, epochs=3, units=16)
    history = train(config, dataset, folder).history
    assert history[-1]["loss"] < history[0]["loss"]


def test_a_run_folder_reproduces_its_report(data_dir, tmp_path):
    config = Config(epochs=2, units=8, data_dir=data_dir)
    run = tmp_path / "run with space"
    commands.train(config, str(run))
    names = {path.name for path in run.iterdir()}
    assert names == {
        ".lock",
        "SHA256SUMS",
        "checkpoints",
        "config.json",
        "confusion.png",
        "learning_curves.png",
        "metrics.csv",
        "model.keras",
        "predictions.npz",
        "report.html",
        "report.json",
        "tensorboard",
        "timelines.png",
    }
    report = json.loads((run / "report.json").read_text())
    predictions = Predictions.load(run / "predictions.npz")
    right = predictions.logits.argmax(-1) == predictions.labels
    assert report["accuracy"] == right.mean()
    assert "not AVE" in report["disclaimer"]
    assert "not AVE" in (run / "report.html").read_text()

    # The saved model reproduces the report's logits exactly.
    model = keras.models.load_model(run / "model.keras")
    dataset = open_dataset(config.dataset, data_dir)
    again = make_predict(model)(batches.scoring_batches(dataset, "test"))
    np.testing.assert_array_equal(again.logits, predictions.logits)

    (run / "report.json").unlink()
    commands.evaluate(run)
    assert json.loads((run / "report.json").read_text()) == report

    with pytest.raises(UserError, match="ended") as error:
        commands.train(config, run)
    assert error.value.field == "run"


def test_failed_training_leaves_no_folder(data_dir, tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("no such luck")

    monkeypatch.setattr(training_run, "train", fail)
    with pytest.raises(RuntimeError, match="no such luck"):
        commands.train(Config(data_dir=data_dir), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_network_records_the_data_that_it_learns_from(dataset):
    model = build_model(Config(units=4), dataset)
    assert (model.num_segments, model.segment_s) == (10, 1.0)
    assert model.backbones == dataset.backbones.to_dict()


def test_the_error_of_an_unsupported_setting_names_the_setting(dataset):
    for settings, field in (
        ({"model": "avel", "bidirectional": True}, "bidirectional"),
        ({"model": "avel_att"}, "model"),
        ({"model": "nothing"}, "model"),
    ):
        with pytest.raises(UserError) as error:
            build_task(Config(**settings), dataset)
        assert error.value.field == field
    without_times = dataclasses.replace(dataset, has_times=False)
    build_task(Config(mode="weak", weak_label="mil", units=4), without_times)
    for mode in ("supervised", "weak"):
        with pytest.raises(UserError, match="mil"):
            build_task(Config(mode=mode), without_times)


def test_missing_background_clips_fail_with_one_message(dataset, monkeypatch):
    monkeypatch.setattr(Dataset, "splits", ["train", "validation", "test"])
    with pytest.raises(UserError, match="no split of background clips") as error:
        build_task(Config(mode="weak", weak_label="mil_background"), dataset)
    assert error.value.field == "weak_label"


@pytest.mark.parametrize("mode", ["supervised", "weak"])
def test_label_guides_learn_clip_labels_with_weight_one(dataset, rng, mode):
    config = Config(
        mode=mode, model="avsdn_label_guided", units=4, loss="categorical_crossentropy"
    )
    task = build_task(config, dataset)
    clips = {
        "audio": rng.normal(size=(3, 4, 128)).astype("float32"),
        "visual": rng.normal(size=(3, 4, 2048)).astype("float32"),
    }
    shape = (3, 29) if mode == "weak" else (3, 4, 29)
    target = rng.dirichlet(np.ones(29), size=shape[:-1]).astype("float32")
    values, _ = task.score_batch({**clips, "target": target, "weight": np.ones(3)})

    def cross_entropy(distribution, logits):
        return -(distribution * np.log(softmax(np.asarray(logits)))).sum(-1)

    outputs = task.model.compute_outputs(clips, training=True)
    logits = np.asarray(outputs["logits"])
    if mode == "weak":
        clip_target = target
        expected = cross_entropy(target, logits.mean(axis=1))
    else:
        clip_target = target.mean(axis=1)
        expected = cross_entropy(target, logits).mean(axis=1)
    for guide in ("audio_clip_logits", "visual_clip_logits"):
        expected = expected + cross_entropy(clip_target, outputs[guide])
    np.testing.assert_allclose(values, expected, rtol=1e-4)
