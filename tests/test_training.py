import csv
import json

import keras
import numpy as np
import pytest
from rich.console import Console

from avsdn_tf import commands, data, training
from avsdn_tf.config import Config
from avsdn_tf.errors import UserError
from avsdn_tf.evaluation import Predictions
from avsdn_tf.run_folder import RunFolder


@pytest.fixture(scope="module")
def dataset(data_dir):
    return data.open_dataset("tfds_ave/synthetic", data_dir)


@pytest.fixture
def folder(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.create(Config())
    return folder


def test_training_selects_on_validation_and_saves_that_epoch(dataset, folder):
    config = Config(epochs=4, units=16, learning_rate=0.003)
    result = training.train(config, dataset, folder)
    assert [row["epoch"] for row in result.history] == [1, 2, 3, 4]
    assert result.history[-1]["loss"] < result.history[0]["loss"]
    best = max(row["validation_accuracy"] for row in result.history)
    assert result.validation_accuracy == best
    predict = training.make_predict(result.model)
    validation = predict(data.scoring_batches(dataset, "validation"))
    assert np.mean(validation.logits.argmax(-1) == validation.labels) == best
    with folder.metrics.open() as file:
        assert [float(row["loss"]) for row in csv.DictReader(file)] == [
            row["loss"] for row in result.history
        ]
    assert list(folder.tensorboard.rglob("events*"))


def test_epoch_loss_is_the_mean_over_clips_not_over_batches(dataset, folder):
    # Learning rate ~ 0: the loss of all clips, whatever the size of the last batch.
    losses = [
        training.train(
            Config(epochs=1, units=4, learning_rate=1e-12, batch_size=size),
            dataset,
            folder,
        ).history[0]["loss"]
        for size in (64, 7)
    ]
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_same_seed_same_weights(dataset, folder):
    def weights(seed):
        config = Config(epochs=2, units=8, seed=seed, dropout=0.2)
        return training.train(config, dataset, folder).model.get_weights()

    first, again, other = weights(0), weights(0), weights(1)
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)
    assert any((one != two).any() for one, two in zip(first, other, strict=True))


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
