"""Checkpoints, resumed runs, full disks, damaged files and nonfinite training."""

import dataclasses
import itertools
import json
import pathlib
import re
import shutil
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf

import avsdn_tf
from avsdn_tf import files, run_folder
from avsdn_tf.backbones import Backbones
from avsdn_tf.data import batches
from avsdn_tf.data.dataset import open_dataset
from avsdn_tf.errors import UserError
from avsdn_tf.run_folder import RunFolder
from avsdn_tf.training import loop
from avsdn_tf.training.build import build_optimizer
from avsdn_tf.training.checkpoints import Checkpoints, Progress
from avsdn_tf.training.config import Config
from avsdn_tf.training.loop import train
from avsdn_tf.training.run import check_settings, prepare_folder
from avsdn_tf.training.signals import (
    StopRequest,
    TrainingInterruptedError,
    handle_signals,
)
from avsdn_tf.training.tasks import segments
from experiments.faults import kill
from tests import commands, processes


@pytest.fixture(scope="module")
def dataset(data_dir):
    return open_dataset("tfds_ave/synthetic", data_dir)


@pytest.fixture
def folder(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.write_config(Config().to_dict(), "hash")
    return folder


class StopAt(keras.callbacks.Callback):
    """Requests a stop after a number of calls of the training graph."""

    def __init__(self, num_calls):
        super().__init__()
        self.stop_request = StopRequest()
        self._left = num_calls

    def on_train_batch_end(self, batch, logs=None):
        self._left -= 1
        if not self._left:
            self.stop_request.signal = signal.SIGTERM


def without_seconds(history):
    return [{**row, "seconds": None} for row in history]


@pytest.mark.parametrize("num_calls", [1, 3, 4])
def test_resumed_and_uninterrupted_training_give_equal_weights(
    dataset, tmp_path, monkeypatch, num_calls
):
    # An epoch has 8 steps, which take two calls of the training graph.
    monkeypatch.setattr(loop, "STEPS_PER_CALL", 5)
    config = Config(
        epochs=4, patience=2, units=4, dropout=0.3, ema=0.9, weight_decay=0.1
    )
    whole, broken = (RunFolder(tmp_path / name) for name in ("whole", "broken"))
    for one in (whole, broken):
        one.write_config(config.to_dict(), "hash")
    expected = train(config, dataset, whole)
    stop = StopAt(num_calls)
    with pytest.raises(TrainingInterruptedError, match=r"Stopped by SIGTERM") as error:
        train(config, dataset, broken, [stop], stop_request=stop.stop_request)
    assert error.value.exit_code == 143
    # No step follows the call in which the stop was requested.
    epoch, half = divmod(num_calls, 2)
    assert f"epoch-{epoch + 1:05d}-step-00000{5 if half else 0}" in str(error.value)
    result = train(config, dataset, broken)
    assert without_seconds(result.history) == without_seconds(expected.history)
    assert all(isinstance(row["epoch"], int) for row in result.history)
    for one, two in zip(
        result.model.get_weights(), expected.model.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(one, two)


def test_killed_and_uninterrupted_runs_give_equal_weights(data_dir, tmp_path):
    # An epoch has 60 steps, which take several calls of the training graph.
    flags = ("--epochs=6", "--units=8", "--dropout=0.2", "--batch_size=8")
    flags = (*flags, f"--data_dir={data_dir}")
    command = (*flags, "--checkpoint_minutes=0.0001", f"--run={tmp_path / 'broken'}")
    with processes.started(*command) as process:
        processes.read_until(process, "epoch   2/6")
        process.kill()
    with processes.started(*command) as process:
        # The words that `experiments.faults kill` looks for.
        processes.read_until(process, f"{kill._RESUMED}epoch")
        process.send_signal(signal.SIGINT)
        code, output, _ = processes.finish(process)
    assert code == 128 + signal.SIGINT
    assert "Stopped by SIGINT" in output
    assert f"run folder {tmp_path / 'broken'} resumes" in output
    # `evaluate` refuses an unfinished run, because a report marks a run as finished.
    with pytest.raises(UserError, match="has ended"):
        commands.evaluate(str(tmp_path / "broken"))
    code, output = processes.run(*command)
    assert code == 0, output

    config = Config(epochs=6, units=8, dropout=0.2, batch_size=8, data_dir=data_dir)
    commands.train(config, str(tmp_path / "whole"))
    models = [
        keras.models.load_model(tmp_path / run / "model.keras")
        for run in ("broken", "whole")
    ]
    for one, two in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(one, two)


def test_checkpoints_are_also_saved_within_an_epoch(dataset, folder, monkeypatch):
    class Dies(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch > 2:
                raise MemoryError

    monkeypatch.setattr(loop, "STEPS_PER_CALL", 2)
    for minutes, saved in ((1e3, []), (1e-9, ["epoch-00001-step-000002.ckpt"])):
        with pytest.raises(MemoryError):
            train(
                Config(units=4, checkpoint_minutes=minutes), dataset, folder, [Dies()]
            )
        paths = Checkpoints(folder.checkpoints).paths()
        assert [path.name for path in paths] == saved


def make_variables(shape=(3, 2)):
    return [keras.Variable(np.arange(6.0).reshape(shape)), keras.Variable(7)]


def test_a_checkpoint_contains_variables_and_progress(tmp_path):
    saved = Checkpoints(tmp_path)
    progress = Progress(3, 2, [1.0, 2.5, 3.0], [{"epoch": 1, "loss": 0.1}], 9.5)
    saved.save(progress, make_variables())
    variables = [keras.Variable(np.zeros((3, 2))), keras.Variable(0)]
    assert Checkpoints(tmp_path).restore(variables) == progress
    np.testing.assert_array_equal(variables[0], np.arange(6).reshape(3, 2))
    assert int(variables[1]) == 7


def test_the_last_three_checkpoints_are_kept(tmp_path):
    saved = Checkpoints(tmp_path / "new")
    assert saved.restore([]) == Progress()
    for epoch, step in itertools.product((1, 2, 11), (0, 8)):
        saved.save(Progress(epoch, step), make_variables())
    assert [path.name for path in saved.paths()] == [
        "epoch-00002-step-000008.ckpt",
        "epoch-00011-step-000000.ckpt",
        "epoch-00011-step-000008.ckpt",
    ]
    assert len(list(saved.folder.iterdir())) == 3


def test_a_checkpoint_with_a_changed_byte_is_refused(tmp_path):
    saved = Checkpoints(tmp_path)
    path = saved.save(Progress(), make_variables())
    content = path.read_bytes()
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] ^= 1
        path.write_bytes(changed)
        with pytest.raises(UserError, match="checksum"):
            saved.restore(make_variables())
    for length in (0, 10, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(UserError, match="checksum"):
            saved.restore(make_variables())
    path.write_bytes(content)
    assert saved.restore(make_variables()) == Progress()
    with pytest.raises(UserError, match="of another network or optimizer"):
        saved.restore(make_variables((2, 3)))


@pytest.fixture
def fill_disk(monkeypatch):
    """Return a function that makes writes to a path fail, as on a full disk."""
    full = set()
    temporary_directory = files.tempfile.TemporaryDirectory

    class FullDisk(temporary_directory):
        def __enter__(self):
            folder = super().__enter__()
            for path in full:
                pathlib.Path(folder, path.name).symlink_to("/dev/full")
            return folder

    monkeypatch.setattr(files.tempfile, "TemporaryDirectory", FullDisk)
    return full.add


def test_training_in_a_moved_folder_writes_to_no_other_folder(dataset, tmp_path):
    folder = RunFolder(tmp_path / "run")
    other = RunFolder(tmp_path / "run")

    class Moves(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                folder.path.rename(tmp_path / "moved")
                other.write_config({}, "other")

    config = Config(units=4, epochs=4)
    with folder.lock():
        assert not prepare_folder(folder, config, dataset)
        with pytest.raises(UserError, match="moved"):
            train(config, dataset, folder, [Moves()])
    assert [path.name for path in other.path.iterdir()] == ["config.json"]
    assert other.matches_dataset("other")
    moved = Checkpoints(tmp_path / "moved" / "checkpoints").paths()
    assert [path.name for path in moved][-1] == "epoch-00003-step-000000.ckpt"


def test_temporary_files_of_a_killed_process_are_removed(tmp_path):
    (tmp_path / ".tmp-abc").mkdir()
    (tmp_path / ".tmp-abc" / "epoch-00001-step-000007.ckpt").touch()
    path = Checkpoints(tmp_path).save(Progress(2, 0), make_variables())
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_last_checkpoint_whole(tmp_path, fill_disk):
    saved = Checkpoints(tmp_path)
    path = saved.save(Progress(1, 0), make_variables())
    before = path.read_bytes()
    for progress, name in (
        (Progress(1, 0), path.name),
        (Progress(2, 0), "epoch-00002-step-000000.ckpt"),
    ):
        fill_disk(tmp_path / name)
        with pytest.raises(UserError) as error:
            saved.save(progress, make_variables())
        assert "can't be written (No space left on device)" in str(error.value)
        assert f"The last checkpoint is {path}" in str(error.value)
        # The incomplete file is removed.
        assert [file.name for file in tmp_path.iterdir()] == [path.name]
        assert path.read_bytes() == before


def test_a_full_disk_leaves_the_best_model_whole(
    dataset, folder, fill_disk, monkeypatch
):
    class FillDisk(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                fill_disk(folder.model)

    # The second epoch is better than the first.
    config = Config(epochs=3, units=16)
    with pytest.raises(UserError, match=r"model.keras: can't be written \(No space"):
        train(config, dataset, folder, [FillDisk()])
    assert keras.models.load_model(folder.model).num_classes == 29
    monkeypatch.undo()
    # The resumed run writes the missing model of the second epoch.
    config = dataclasses.replace(config, epochs=2)
    resumed = train(config, dataset, folder)
    shutil.rmtree(folder.path)
    folder.write_config(config.to_dict(), "hash")
    expected = train(config, dataset, folder)
    assert resumed.selected_epoch == expected.selected_epoch == 2
    for one, two in zip(
        resumed.model.get_weights(), expected.model.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(one, two)


def test_a_full_disk_while_a_report_is_written_fails_with_one_message(
    finished, tmp_path, fill_disk
):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    names = sorted(path.name for path in run.iterdir())
    for name in ("report.json", "report.html", "timelines.png", "predictions.npz"):
        before = (run / name).read_bytes()
        fill_disk(run / name)
        with pytest.raises(UserError, match=r"can't be written \(No space left"):
            commands.evaluate(run)
        assert (run / name).read_bytes() == before
        assert sorted(path.name for path in run.iterdir()) == names


def test_one_process_at_a_time_trains_in_a_folder(data_dir, tmp_path):
    run = tmp_path / "run"
    config = Config(epochs=1, units=4, data_dir=data_dir)
    with (
        RunFolder(run).lock(),
        pytest.raises(UserError, match="nother process"),
    ):
        commands.train(config, str(run))
    assert [path.name for path in run.iterdir()] == [".lock"]
    commands.train(config, str(run))
    assert (run / "report.json").is_file()


def test_a_changed_setting_is_refused_with_the_difference(dataset, data_dir, tmp_path):
    config = Config(epochs=1, units=4, data_dir=data_dir)
    run = tmp_path / "run"
    RunFolder(run).write_config(config.to_dict(), dataset.content_hash())
    changed = dataclasses.replace(config, units=8, ema=0.9)
    with pytest.raises(UserError, match=r"units 4, received 8") as error:
        commands.train(changed, run)
    assert "ema 0.0, received 0.9" in str(error.value)
    assert "epochs" not in str(error.value)
    with pytest.raises(UserError, match="new or empty"):
        commands.train(config, run, resume=False)
    commands.train(config, run)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    for folder, message in ((run, "has ended"), (tmp_path / "other", "new or empty")):
        with pytest.raises(UserError, match=message) as error:
            commands.train(config, folder)
        assert error.value.field == "run"


def test_a_run_is_not_resumed_on_another_data_set(dataset, tmp_path):
    folder, config = RunFolder(tmp_path / "run"), Config()
    assert not prepare_folder(folder, config, dataset)
    assert prepare_folder(folder, config, dataset)
    other = dataclasses.replace(dataset, backbones=Backbones("vgg19"))
    with pytest.raises(UserError, match="rebuilt from other data"):
        prepare_folder(folder, config, other)


def test_evaluate_reports_another_data_set(finished, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    commands.evaluate(run)
    assert "differs from the data set" not in capsys.readouterr().out
    content = json.loads((run / "config.json").read_text())
    real = content["dataset_hash"]
    (run / "config.json").write_text(json.dumps({**content, "dataset_hash": "other"}))
    commands.evaluate(run)
    assert "differs from the data set" in capsys.readouterr().out
    assert json.loads((run / "report.json").read_text())["dataset_hash"] == real


def test_library_versions_of_a_resumed_run_are_recorded(folder, monkeypatch):
    now = run_folder.versions()
    folder.add_versions()
    assert folder.read_versions() == now
    for keras_version in ("3.99", "3.99", now["keras"]):
        found = {**now, "keras": keras_version}
        monkeypatch.setattr(run_folder, "versions", found.copy)
        folder.add_versions()
    noted = f"{now['keras']}, then 3.99, then {now['keras']}"
    assert folder.read_versions() == {**now, "keras": noted}
    assert folder.matches_dataset("hash")
    assert not folder.matches_dataset("another")


def test_a_rebuilt_data_set_has_the_same_hash(dataset, tmp_path):
    again = open_dataset("tfds_ave/synthetic", str(tmp_path))
    # Make sure that the data set was built a second time.
    assert again.builder.data_path != dataset.builder.data_path
    assert again.content_hash() == dataset.content_hash()


@pytest.fixture(scope="module")
def finished(data_dir, tmp_path_factory):
    run = tmp_path_factory.mktemp("finished") / "run"
    commands.train(Config(epochs=1, units=4, data_dir=data_dir), str(run))
    return run


def test_a_model_with_a_changed_byte_is_refused(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    folder = RunFolder(run)
    content = folder.model.read_bytes()
    for position in np.linspace(0, len(content) - 1, 20).astype(int):
        changed = bytearray(content)
        changed[position] ^= 1
        folder.model.write_bytes(changed)
        with pytest.raises(UserError, match="checksum"):
            folder.load_model()
    with pytest.raises(UserError, match="checksum"):
        commands.evaluate(str(run))
    # Without SHA256SUMS, the content of the file is still checked.
    folder.checksums.unlink()
    changed = bytearray(content)
    changed[len(content) // 2] ^= 1
    folder.model.write_bytes(changed)
    with pytest.raises(UserError, match=r"model.keras: expected a model that this"):
        folder.load_model()


def test_load_verifies_the_checksum_of_a_run(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    for path in (run, run / "model.keras"):
        assert avsdn_tf.load(path).num_segments == 10
    content = bytearray((run / "model.keras").read_bytes())
    content[len(content) // 2] ^= 1
    (run / "model.keras").write_bytes(content)
    for path in (run, run / "model.keras"):
        with pytest.raises(UserError, match="checksum"):
            avsdn_tf.load(path)


@pytest.mark.parametrize(
    ("offset", "value"), [(8, 1), (10, 99)], ids=["encrypted", "compressed"]
)
def test_a_model_with_a_changed_zip_directory_is_refused(
    finished, tmp_path, offset, value
):
    path = tmp_path / "copied.keras"
    content = bytearray((finished / "model.keras").read_bytes())
    # In an entry, the flags are at offset 8 and the compression method is at offset 10.
    for entry in re.finditer(rb"PK\x01\x02", bytes(content)):
        content[entry.start() + offset] = value
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"copied.keras: expected a model that this"):
        avsdn_tf.load(path)


def test_an_unshared_run_folder_of_workers_fails_with_one_message(tmp_path):
    with pytest.raises(UserError, match="all workers share") as error:
        check_settings(RunFolder(tmp_path), Config())
    assert error.value.field == "run"


def test_a_folder_without_settings_is_removed(dataset, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_folder, "write_json", fail)
    with pytest.raises(UserError, match="No space left"):
        prepare_folder(RunFolder(tmp_path / "run"), Config(), dataset)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "content",
    ['{"config": {"epochs": "many"}, "versions": {}}', '{"config": 3}', "[]", "{", "["],
)
def test_settings_of_wrong_types_fail_with_one_message(finished, tmp_path, content):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    (run / "config.json").write_text(content)
    with pytest.raises(UserError):
        commands.evaluate(run)


def test_nonfinite_logits_of_the_test_split_fail_with_one_message(
    finished, dataset, tmp_path, monkeypatch
):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    make_predict = segments.make_predict

    def predict_badly(model):
        def predict(batches):
            predictions = make_predict(model)(batches)
            predictions.logits[0, 0, 0] = np.nan
            return predictions

        return predict

    monkeypatch.setattr(segments, "make_predict", predict_badly)
    with pytest.raises(UserError, match=r"tfds_ave/synthetic, test: .*finite"):
        commands.evaluate(str(run))


def test_the_version_of_a_missing_package_is_absent():
    assert run_folder.package_version("numpy") == np.__version__
    assert run_folder.package_version("no such package") == "absent"


def test_ignored_signals_stay_ignored():
    received = []
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        numbers = (signal.SIGHUP, signal.SIGUSR1)
        usual = signal.getsignal(signal.SIGUSR1)
        with handle_signals(lambda number, restore: received.append(number), numbers):
            for number in numbers:
                signal.raise_signal(number)
            assert signal.getsignal(signal.SIGUSR1) != usual
        assert received == [signal.SIGUSR1]
        assert signal.getsignal(signal.SIGUSR1) == usual
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_code_in_a_model_is_never_run(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    folder = RunFolder(run)
    folder.checksums.unlink()
    layer = keras.layers.Lambda(lambda x: x + 1)
    keras.Sequential([keras.Input((3,)), layer]).save(folder.model)
    with pytest.raises(UserError, match=r"(?i)lambda"):
        folder.load_model()


def flip_a_bit(shard):
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)


def drop_the_last_example(shard):
    *kept, _ = tf.data.TFRecordDataset(str(shard))
    with tf.io.TFRecordWriter(str(shard)) as writer:
        for example in kept:
            writer.write(example.numpy())


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("damage", [flip_a_bit, drop_the_last_example])
def test_a_damaged_shard_is_named(data_dir, tmp_path, split, damage):
    shutil.copytree(f"{data_dir}/tfds_ave", tmp_path / "tfds_ave")
    (shard,) = tmp_path.rglob(f"*{split}.tfrecord*")
    damage(shard)
    config = Config(epochs=1, units=4, data_dir=str(tmp_path))
    run = tmp_path / "run"
    with pytest.raises(UserError) as error:
        commands.train(config, str(run))
    assert str(error.value).startswith(f"{shard}: ")
    # Missing examples are detected at the start, damaged examples when they are read.
    is_read = damage is flip_a_bit and split == "test"
    assert run.exists() == is_read


def test_a_nonfinite_loss_stops_training_and_names_step_and_rows(dataset, folder):
    config = Config(epochs=3, units=4, learning_rate=1e38)
    with pytest.raises(UserError, match=r"Epoch 1, step \d: .* infinite") as error:
        train(config, dataset, folder)
    assert "rows [" in str(error.value)
    assert "learning_rate below 1e+38" in str(error.value)
    assert "There is no checkpoint yet" in str(error.value)


def test_the_error_names_rows_of_background_clips_separately(
    dataset, folder, monkeypatch
):
    poison_features(monkeypatch)
    config = Config(mode="weak", weak_label="mil_background", epochs=1, units=4)
    with pytest.raises(UserError, match=r"of train and \[.*\] of background") as error:
        train(config, dataset, folder)
    assert "features are not finite" in str(error.value)


def test_nonfinite_weights_are_never_saved(dataset, folder):
    # The epoch's only batch has a finite loss, but the update breaks the weights.
    config = Config(epochs=3, units=4, learning_rate=1e39, batch_size=480)
    with pytest.raises(UserError, match="Epoch 1, step 1: "):
        train(config, dataset, folder)
    assert not Checkpoints(folder.checkpoints).paths()
    assert not folder.model.exists()


def poison_features(monkeypatch):
    training_batches = batches.training_batches

    def poisoned(*args, **kwargs):
        return training_batches(*args, **kwargs).map(
            lambda batch: {
                **batch,
                "audio": tf.where(
                    (batch["row"] == batch["row"][0])[:, None, None],
                    np.nan,
                    batch["audio"],
                ),
            }
        )

    monkeypatch.setattr(batches, "training_batches", poisoned)


def test_the_error_names_nonfinite_features(dataset, folder, monkeypatch):
    poison_features(monkeypatch)
    with pytest.raises(UserError, match=r"step 1: .*features are not finite"):
        train(Config(epochs=1, units=4), dataset, folder)


def test_gradients_are_clipped_to_a_norm():
    weight = keras.Variable([3.0, 4.0])
    moments = []
    for clip_norm in (0.0, 1.0):
        optimizer = build_optimizer(Config(clip_norm=clip_norm))
        optimizer.build([weight])
        optimizer.apply([tf.constant([30.0, 40.0])])
        moments.append(optimizer._momentums[0].numpy())
    np.testing.assert_allclose(moments[0], [3, 4], rtol=1e-6)
    np.testing.assert_allclose(moments[1], [0.06, 0.08], rtol=1e-6)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_models_trained_in_mixed_precision_load_in_any_precision(
    dataset, folder, precision
):
    config = Config(epochs=2, units=8, learning_rate=0.01, precision=precision)
    result = train(config, dataset, folder)
    assert result.history[1]["loss"] < result.history[0]["loss"]
    assert {weight.dtype for weight in result.model.weights} == {"float32"}
    scored = batches.scoring_batches(dataset, "test")
    assert segments.make_predict(result.model)(scored).logits.dtype == np.float32
    assert keras.config.dtype_policy().name == "float32"


def test_losses_of_large_batches_are_finite_in_half_precision(dataset, folder):
    # The loss is scaled by 1,024. The gradient of its sum over 480 clips, instead of
    # its mean, would overflow float16.
    config = Config(
        epochs=2,
        units=8,
        batch_size=480,
        learning_rate=1e-6,
        precision="mixed_float16",
        loss="categorical_crossentropy",
    )
    train(config, dataset, folder)


def test_xla_compilation_does_not_change_the_loss(dataset, tmp_path):
    losses = []
    for xla in ("none", "step"):
        folder = RunFolder(tmp_path / xla)
        config = Config(epochs=2, units=4, xla=xla)
        folder.write_config(config.to_dict(), "hash")
        history = train(config, dataset, folder).history
        losses.append([row["loss"] for row in history])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


def test_a_run_folder_contains_its_settings(finished):
    settings = json.loads((finished / "config.json").read_text())["config"]
    assert settings["strategy"] == "auto"
    assert Checkpoints(finished / "checkpoints").paths()
