import csv
import dataclasses
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from rich.console import Console

from avsdn_tf.cli import commands, data, training
from avsdn_tf.training.config import Config
from avsdn_tf.training.distribution import num_cores
from avsdn_tf.errors import UserError
from avsdn_tf.evaluation import Predictions
from avsdn_tf.events import softmax
from avsdn_tf.run_folder import RunFolder
from tests import test_tfds_ave


@pytest.fixture(scope="module")
def dataset(data_dir):
    return data.open_dataset("tfds_ave/synthetic", data_dir)


@pytest.fixture
def new_folder(tmp_path):
    """Returns a function that makes a new run folder."""

    def make():
        folder = RunFolder(tmp_path / f"run{len(list(tmp_path.iterdir()))}")
        folder.create(Config(), "digest")
        return folder

    return make


@pytest.fixture
def folder(new_folder):
    return new_folder()


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_training_selects_on_validation_and_saves_that_epoch(dataset, folder, ema):
    config = Config(epochs=4, units=16, learning_rate=0.003, ema=ema)
    result = training.train(config, dataset, folder)
    assert [row["epoch"] for row in result.history] == [1, 2, 3, 4]
    assert result.history[-1]["loss"] < result.history[0]["loss"]
    best = max(row["validation_accuracy"] for row in result.history)
    selected = result.history[result.selected_epoch - 1]
    assert selected["validation_accuracy"] == best
    predict = training.make_predict(result.model)
    validation = predict(data.scoring_batches(dataset, "validation"))
    assert np.mean(validation.logits.argmax(-1) == validation.labels) == best
    with folder.metrics.open() as file:
        assert [float(row["loss"]) for row in csv.DictReader(file)] == [
            row["loss"] for row in result.history
        ]
    assert list(folder.tensorboard.rglob("events*"))


def test_epoch_loss_is_the_mean_over_clips_not_over_batches(dataset, new_folder):
    # Learning rate ~ 0: the loss of all clips, whatever the size of the last batch.
    losses = [
        training.train(
            Config(epochs=1, units=4, learning_rate=1e-12, batch_size=size),
            dataset,
            new_folder(),
        ).history[0]["loss"]
        for size in (64, 7)
    ]
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_same_seed_same_weights(dataset, new_folder):
    def weights(seed):
        config = Config(epochs=2, units=8, seed=seed, dropout=0.2)
        return training.train(config, dataset, new_folder()).model.get_weights()

    first, again, other = weights(0), weights(0), weights(1)
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)
    assert any((one != two).any() for one, two in zip(first, other, strict=True))


def test_a_deterministic_run_tells_tensorflow(data_dir, tmp_path):
    # For a whole process, so in one of its own.
    program = (
        "import sys; from rich.console import Console; "
        "from avsdn_tf.cli import commands; from avsdn_tf.training.config import Config; "
        "from tensorflow.python.framework import config; "
        "before = config.is_op_determinism_enabled(); "
        "run = Config(epochs=1, units=4, data_dir=sys.argv[1], deterministic=True); "
        "commands.train(run, sys.argv[2], Console(quiet=True)); "
        "print(before, config.is_op_determinism_enabled())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, data_dir, tmp_path / "run"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines()[-1:] == ["False True"], done.stderr


def test_averaged_weights_are_saved_and_the_last_ones_train_on(dataset, new_folder):
    def run(ema):
        config = Config(epochs=2, units=8, ema=ema)
        result = training.train(config, dataset, new_folder())
        return [row["loss"] for row in result.history], result.model.get_weights()

    (plain_losses, plain), (losses, averaged) = run(0.0), run(0.99)
    assert losses == plain_losses
    assert any((one != two).any() for one, two in zip(plain, averaged, strict=True))


def test_smoothed_labels_are_what_is_learnt_and_not_what_is_scored(dataset):
    config = Config(units=4, label_smoothing=0.3, loss="categorical_crossentropy")
    task = training.build_task(config, dataset)
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
    schedule = training.build_optimizer(Config(decay_steps=100))._learning_rate
    rates = [float(schedule(step)) for step in (0, 99, 100, 1000)]
    np.testing.assert_allclose(rates, [1e-3, 1e-3, 1e-4, 1e-4], rtol=1e-6)
    assert float(training.build_optimizer(Config()).learning_rate) == pytest.approx(
        1e-3
    )


def test_dmrn_starts_from_the_encoders_of_a_run(tmp_path):
    files = test_tfds_ave.make_ave(tmp_path / "ave", "vgg19", noisy=False)
    test_tfds_ave.build(files, tmp_path / "data", "vgg19")
    common = {
        "dataset": "tfds_ave/vgg19",
        "data_dir": str(tmp_path / "data"),
        "units": 4,
        "epochs": 1,
    }
    source, run = tmp_path / "avel", tmp_path / "dmrn"
    commands.train(Config(model="avel_att", **common), str(source), Console(quiet=True))
    config = Config(model="dmrn", encoders=str(source), **common)
    dataset = data.open_dataset(config.dataset, config.data_dir)
    built = training.build_model(config, dataset)
    trained = keras.models.load_model(source / "model.keras")
    for name in ("visual_pooling", "audio_encoder", "visual_encoder"):
        for one, two in zip(
            getattr(built, name).get_weights(),
            getattr(trained, name).get_weights(),
            strict=True,
        ):
            np.testing.assert_array_equal(one, two)
    commands.train(config, str(run), Console(quiet=True))
    assert f"--encoders={source}" in commands.repeat_command(config)

    for settings, message in (
        ({"model": "avel_att"}, "--encoders: only --model=dmrn"),
        ({"encoders": str(run)}, "expected a run of --model=avel_att. .*=dmrn"),
        ({"encoders": "nowhere"}, "--encoders=nowhere: expected a folder that a tr"),
        ({"units": 5}, "Expected an AVEL of.*'units': 5.*'units': 4"),
    ):
        with pytest.raises(UserError, match=message):
            training.build_model(dataclasses.replace(config, **settings), dataset)


def test_early_stopping_waits_for_patience(dataset, folder):
    # A rate this small never changes a prediction: epoch 1 stays the best.
    config = Config(epochs=50, units=4, learning_rate=1e-12, patience=2)
    result = training.train(config, dataset, folder)
    assert len(result.history) == 3
    assert result.selected_epoch == 1


@pytest.mark.parametrize("weak_label", ["average", "mil", "mil_background"])
def test_weak_training_learns_from_clip_labels(dataset, folder, weak_label):
    config = Config(mode="weak", weak_label=weak_label, epochs=3, units=16)
    history = training.train(config, dataset, folder).history
    assert history[-1]["loss"] < history[0]["loss"]


def test_a_run_can_be_read_repeated_and_evaluated_again(data_dir, tmp_path):
    config = Config(epochs=2, units=8, data_dir=data_dir)
    run = tmp_path / "run with space"
    commands.train(config, str(run), Console(quiet=True))
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
    assert "not AVE" in report["notice"]
    assert "not AVE" in (run / "report.html").read_text()

    # The saved model says to the last digit what the report was made from.
    model = keras.models.load_model(run / "model.keras")
    dataset = data.open_dataset(config.dataset, data_dir)
    again = training.make_predict(model)(data.scoring_batches(dataset, "test"))
    np.testing.assert_array_equal(again.logits, predictions.logits)

    (run / "report.json").unlink()
    commands.evaluate(str(run), None, Console(quiet=True))
    assert json.loads((run / "report.json").read_text()) == report

    with pytest.raises(UserError, match=r"new or empty folder"):
        commands.train(config, str(run), Console(quiet=True))


def test_repeat_command_holds_what_is_not_default():
    config = Config(mode="weak", units=64, shared_mlp=False, bidirectional=True)
    assert commands.repeat_command(config) == (
        "python -m avsdn_tf.main --mode=weak --units=64 --bidirectional --noshared_mlp"
    )


def test_failed_training_leaves_no_folder(data_dir, tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("no such luck")

    monkeypatch.setattr(training, "train", fail)
    with pytest.raises(RuntimeError, match="no such luck"):
        commands.train(
            Config(data_dir=data_dir), str(tmp_path / "run"), Console(quiet=True)
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("mode", ["supervised", "weak"])
def test_label_guides_learn_the_clips_label_with_weight_one(dataset, rng, mode):
    config = Config(
        mode=mode, model="avsdn_label_guided", units=4, loss="categorical_crossentropy"
    )
    task = training.build_task(config, dataset)
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


def _ask(config, monkeypatch, *, cores=16, gpus=()):
    """Returns how many threads an operation is given; None if nothing is said."""
    asked = [None]
    monkeypatch.setattr(training, "num_cores", lambda: cores)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda _: list(gpus))
    monkeypatch.setattr(
        tf.config.threading, "set_intra_op_parallelism_threads", asked.append
    )
    training.share_cores(config)
    return asked[-1]


@pytest.mark.parametrize(
    ("model", "cores", "threads"),
    [
        ("avsdn", 16, 8),
        ("avsdn", 3, 1),
        ("avsdn", 1, 1),
        ("avel", 2, 1),
        ("avel_att", 16, 16),
        ("avsdn_init_audio", 16, 16),
    ],
)
def test_products_that_go_on_at_once_share_the_cores(
    model, cores, threads, monkeypatch
):
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    assert _ask(Config(model=model), monkeypatch, cores=cores) == threads


def test_cores_are_not_shared_where_that_makes_nothing_faster(monkeypatch):
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    assert _ask(Config(xla="step"), monkeypatch) is None
    assert _ask(Config(), monkeypatch, gpus=["gpu"]) is None
    # What is no network is an error later.
    assert _ask(Config(model="avsnd"), monkeypatch) is None
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "3")
    assert _ask(Config(), monkeypatch) is None


def test_tensorflow_keeps_its_threads_once_it_has_begun(monkeypatch):
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    tf.zeros(())
    before = tf.config.threading.get_intra_op_parallelism_threads()
    monkeypatch.setattr(training, "num_cores", lambda: 2 * (before + 1))
    training.share_cores(Config())
    assert tf.config.threading.get_intra_op_parallelism_threads() == before


SHARE = """
import sys
from rich.console import Console
from avsdn_tf.cli import commands, distribution
from avsdn_tf.training.config import Config

def place(name):
    import tensorflow as tf
    tf.zeros(())
    print(tf.config.threading.get_intra_op_parallelism_threads())
    sys.exit()

distribution.place = place
commands.train(Config(), None, Console())
"""


def test_training_shares_the_cores_before_tensorflow_begins():
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment.pop("TF_NUM_INTRAOP_THREADS", None)
    output = subprocess.run(
        [sys.executable, "-c", SHARE],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    assert int(output.stdout) == max(1, num_cores() // 2)


def test_evaluation_shares_the_cores_as_the_training_did(new_folder, monkeypatch):
    class ReachedError(Exception):
        pass

    def share(config):
        asked.append(config)
        raise ReachedError

    asked = []
    config = Config(model="avel")
    monkeypatch.setattr(RunFolder, "read_config", lambda _: config)
    monkeypatch.setattr(training, "share_cores", share)
    with pytest.raises(ReachedError):
        commands.evaluate(str(new_folder().path), None, Console(quiet=True))
    assert asked == [config]
