"""The training loop: epochs of steps, validation, checkpoints, the best model."""

import contextlib
import csv
import dataclasses
import logging
import time
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from avsdn_tf.data.dataset import Dataset
from avsdn_tf.errors import UserError
from avsdn_tf.files import atomic_write, explain_unwritable
from avsdn_tf.run_folder import RunFolder
from avsdn_tf.training.build import build_optimizer
from avsdn_tf.training.checkpoints import Checkpoints, Progress, SaveBest
from avsdn_tf.training.config import Config
from avsdn_tf.training.distribution import Placement
from avsdn_tf.training.signals import StopRequest, TrainingInterruptedError
from avsdn_tf.training.step import STEPS_PER_CALL, make_train_steps
from avsdn_tf.training.tasks import Task, build_task
from avsdn_tf.training.tensorboard import TensorBoard

_LOGGER = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Training:
    """The result of a training.

    Attributes:
        model: The model of the selected epoch; in workers other than the chief, the
            model of the last epoch.
        history: One dictionary per epoch, with `epoch` (from 1), `loss`, `accuracy`,
            the score named by the task's `selection`, and `seconds`.
        selected_epoch: The epoch with the best validation score, from 1.
    """

    model: keras.Model
    history: list[dict[str, float]]
    selected_epoch: int


def train(
    config: Config,
    dataset: Dataset,
    folder: RunFolder,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    placement: Placement | None = None,
    stop_request: StopRequest | None = None,
) -> Training:
    """Train on the train split and select the epoch on the validation split.

    Training resumes from the last checkpoint in the run folder, and writes the best
    model, metrics.csv, TensorBoard logs and checkpoints to the run folder. All workers
    must call this; only the chief writes.

    Args:
        config: The settings.
        dataset: The data.
        folder: The run folder, which must exist.
        callbacks: Additional Keras callbacks, such as a progress bar.
        placement: The devices. Default: one device.
        stop_request: Stops training when it is set. It is checked every few steps.

    Raises:
        UserError: If settings and data don't fit, a checkpoint can't be read or
            written, or the loss is not finite.
        TrainingInterruptedError: If `stop_request` is set; the state is saved.
    """
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(config.seed)
    placement = placement or Placement(tf.distribute.get_strategy())
    with placement.strategy.scope(), precision_policy(config.precision):
        task = build_task(config, dataset)
        optimizer = build_optimizer(config, task.num_batches)
        optimizer.build(task.model.trainable_variables)
    return _Loop(config, task, optimizer, folder, placement, stop_request).run(
        callbacks
    )


@contextlib.contextmanager
def precision_policy(name: str) -> Iterator[None]:
    """Set Keras's dtype policy, such as mixed_bfloat16, within a block."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


class _Loop:
    """The state of a training; checkpoints contain `progress` and `variables`."""

    def __init__(
        self,
        config: Config,
        task: Task,
        optimizer: keras.optimizers.Optimizer,
        folder: RunFolder,
        placement: Placement,
        stop_request: StopRequest | None,
    ) -> None:
        self.config = config
        self.task = task
        self.optimizer = optimizer
        self.folder = folder
        self.placement = placement
        self.stop_request = stop_request or StopRequest()
        self.checkpoints = Checkpoints(folder.checkpoints)
        self.variables = [*task.model.variables, *optimizer.variables]
        self.progress = self.checkpoints.restore(self.variables, task.selection)
        _check_same_checkpoint(placement, self.progress, folder)
        _separate_random_states(placement, task.model)
        self.train_steps = make_train_steps(task, optimizer, placement, config.xla)
        self.last_saved = time.monotonic()

    def run(self, callbacks: Sequence[keras.callbacks.Callback]) -> Training:
        """Train until the last epoch, early stopping or an interruption."""
        save_best = SaveBest(
            self.folder.model, self.progress, self.task.selection, self.checkpoints
        )
        how_to_resume = self.checkpoints.how_to_resume
        tensorboard = TensorBoard(self.folder.tensorboard, how_to_resume)
        chief_callbacks = [save_best, tensorboard, *callbacks]
        callback_list = self._begin(chief_callbacks if self.placement.is_chief else ())
        # A killed process may have saved the checkpoint of an epoch, but not the model.
        if self.progress.history and not self.progress.step:
            with self._averaged_weights():
                # Validation chooses the thresholds, which checkpoints don't contain.
                self._validate()
                if self.placement.is_chief:
                    save_best.on_epoch_end(self.progress.epoch - 2)
        model = self.task.model
        last = 0 if model.stop_training else self.config.epochs
        epochs = range(self.progress.epoch, last + 1)
        batches = self._distributed_batches(epochs)
        for epoch in epochs:
            self._run_epoch(epoch, batches, callback_list)
            if model.stop_training:
                break
        callback_list.on_train_end()
        # No worker may exit while other workers still train or write.
        self.placement.wait_for_workers()
        if self.stop_request.is_set:
            raise self._interrupted()
        history = self.progress.history
        scores = [row[self.task.selection] for row in history]
        return Training(
            model=self.folder.load_model() if self.placement.is_chief else model,
            history=history,
            selected_epoch=1 + int(np.argmax(scores)),
        )

    def _begin(
        self, callbacks: Sequence[keras.callbacks.Callback]
    ) -> keras.callbacks.CallbackList:
        """Start the callbacks, and replay finished epochs for early stopping."""
        progress = self.progress
        stopping = keras.callbacks.EarlyStopping(
            monitor=self.task.selection,
            mode="max",
            patience=self.config.patience,
            start_from_epoch=self.task.model.warmup_epochs,
        )
        # Callbacks expect the attributes that `fit` sets. Omit the optimizer, so that
        # the model file doesn't contain the optimizer's state.
        self.task.model.stop_training = False
        self.task.model.optimizer = None
        callback_list = keras.callbacks.CallbackList(
            [stopping, *callbacks],
            model=self.task.model,
            epochs=self.config.epochs,
            steps=self.task.num_batches,
        )
        if progress.history or progress.step:
            done = f", after step {progress.step}" if progress.step else ""
            self._log("resuming in epoch %d%s", progress.epoch, done)
        callback_list.on_train_begin()
        for row in progress.history:
            stopping.on_epoch_end(row["epoch"] - 1, row)
        return callback_list

    def _distributed_batches(self, epochs: range) -> Iterator[Any]:
        """Return an iterator over the batches of epochs, without finished steps."""
        if not epochs:
            return iter(())
        shard = self.placement.shard

        def read(_: tf.distribute.InputContext) -> tf.data.Dataset:
            batches = self.task.training_batches(epochs, shard)
            return batches.skip(self.progress.step * shard.num_replicas)

        return iter(self.placement.strategy.distribute_datasets_from_function(read))

    def _run_epoch(
        self,
        epoch: int,
        batches: Iterator[Any],
        callbacks: keras.callbacks.CallbackList,
    ) -> None:
        """Train, validate and save one epoch."""
        progress = self.progress
        start = time.monotonic() - progress.seconds
        self.task.model.begin_epoch(epoch - 1)
        callbacks.on_epoch_begin(epoch - 1)
        while progress.step < self.task.num_batches:
            callbacks.on_train_batch_begin(progress.step)
            self._take_steps(batches)
            callbacks.on_train_batch_end(progress.step - 1, progress.means())
            progress.seconds = time.monotonic() - start
            if time.monotonic() - self.last_saved > 60 * self.config.checkpoint_minutes:
                self._save()
        # Validate and save the averaged weights, but continue training with the last
        # weights.
        with self._averaged_weights():
            logs = {**progress.means(), self.task.selection: self._validate()}
            seconds = time.monotonic() - start
            progress.history.append({"epoch": epoch, **logs, "seconds": seconds})
            if self.placement.is_chief:
                self.folder.check_in_place()
                self._write_metrics()
        progress.begin_next_epoch()
        # Save the checkpoint before the model: a resumed run must not repeat the epoch
        # of a saved model.
        self._save()
        with self._averaged_weights():
            callbacks.on_epoch_end(epoch - 1, logs)
        *before, last = (row[self.task.selection] for row in progress.history)
        self._log(
            "epoch %3d/%d   loss %.4f   accuracy %5.1f%%   %s %5.1f%%%s",
            epoch,
            self.config.epochs,
            logs["loss"],
            100 * logs["accuracy"],
            "validation F1" if "f1" in self.task.selection else "validation",
            100 * last,
            "  best" if last > max(before, default=-1) else "",
        )

    def _take_steps(self, batches: Iterator[Any]) -> None:
        """Run the next steps of the epoch in one call."""
        progress = self.progress
        steps = self.train_steps(
            batches,
            min(STEPS_PER_CALL, self.task.num_batches - progress.step),
            progress.totals,
            self.stop_request.is_set,
        )
        # All workers stop if one worker received a signal.
        if steps.num_stops:
            self._save()
            self.placement.wait_for_workers()
            raise self._interrupted()
        progress.step += steps.num_done
        progress.totals = steps.totals.tolist()
        if not (steps.is_sound and np.isfinite(progress.totals[0])):
            raise UserError(self._describe_broken_loss())

    def _validate(self) -> float:
        """Return the validation score, from the counts of all workers."""
        counts = self.task.count_validation(self.placement.shard)
        total = np.rint(self.placement.sum_over_workers(counts))
        score = self.task.score_validation(total)
        if score is None:
            raise UserError(
                f"{self.config.dataset}: no epoch can be selected, because the "
                "validation split has no event. Expected at least one."
            )
        return score

    def _save(self) -> None:
        if self.placement.is_chief:
            self.folder.check_in_place()
            self.checkpoints.save(self.progress, self.variables)
        self.last_saved = time.monotonic()

    def _log(self, text: str, *values: Any) -> None:
        if self.placement.is_chief:
            _LOGGER.info(text, *values)

    def _write_metrics(self) -> None:
        path, history = self.folder.metrics, self.progress.history
        with (
            explain_unwritable(path, self.checkpoints.how_to_resume()),
            atomic_write(path) as tmp_path,
            tmp_path.open("w", newline="") as file,
        ):
            writer = csv.DictWriter(file, fieldnames=list(history[0]))
            writer.writeheader()
            writer.writerows(history)

    @contextlib.contextmanager
    def _averaged_weights(self) -> Iterator[None]:
        """Replace the weights by their moving average within a block, if enabled."""
        if not self.optimizer.use_ema:
            yield
            return
        variables = self.task.model.trainable_variables
        last = [variable.numpy() for variable in variables]
        self.optimizer.finalize_variable_values(variables)
        try:
            yield
        finally:
            for variable, value in zip(variables, last, strict=True):
                variable.assign(value)

    def _interrupted(self) -> TrainingInterruptedError:
        return TrainingInterruptedError(
            self.stop_request.signal,
            f"in epoch {self.progress.epoch}, after step {self.progress.step}. "
            f"{self.checkpoints.how_to_resume()}",
        )

    def _describe_broken_loss(self) -> str:
        """Return the message for a loss that is not finite: its clips and the cause."""
        epoch, step = self.progress.epoch, self.progress.step
        batch = next(iter(self.task.training_batches([epoch]).skip(step - 1)))
        real = batch["weight"].numpy() > 0
        if all(np.isfinite(batch[n].numpy()[real]).all() for n in ("audio", "visual")):
            cause = (
                "Their features are finite: the previous update may have broken the "
                f"weights. Try a learning_rate below {self.config.learning_rate:g}, or "
                "clip_norm=1"
            )
        else:
            cause = "Some features are not finite: build the data set without them"
        rows = batch["row"].numpy()[real]
        named = f"rows {rows.tolist()}"
        # Background clips are numbered separately.
        if self.config.weak_label.endswith("_background"):
            target = batch["target"].numpy()[real]
            is_background = target.argmax(axis=-1) == target.shape[-1] - 1
            named = (
                f"rows {rows[~is_background].tolist()} of train and "
                f"{rows[is_background].tolist()} of background"
            )
        return (
            f"Epoch {epoch}, step {step}: the loss of {named} is NaN or infinite. "
            f"{cause}. {self.checkpoints.describe_last()}."
        )


def _check_same_checkpoint(
    placement: Placement, progress: Progress, folder: RunFolder
) -> None:
    """Check that all workers resume from the same checkpoint."""
    own = [progress.epoch, progress.step]
    mean = placement.sum_over_workers(own) / placement.shard.num_workers
    if not np.allclose(mean, own, rtol=0, atol=1e-6):
        raise UserError(
            f"{folder.checkpoints}: worker {placement.shard.worker} found a checkpoint "
            f"of epoch {own[0]}, step {own[1]}; another worker found a different one. "
            "Put the run folder on a disk that all workers share."
        )


def _separate_random_states(placement: Placement, model: keras.Model) -> None:
    """Give every replica its own random state, so that dropout masks differ."""
    if placement.strategy.num_replicas_in_sync == 1:
        return
    states = [
        variable
        for variable in model.non_trainable_variables
        if variable.path.endswith("seed_generator_state")
    ]

    @tf.function
    def shift() -> None:
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        for state in states:
            state.assign(state + tf.cast(tf.stack([replica, 0]), state.dtype))

    placement.strategy.run(shift)
