"""The one trainer: whatever the task, from the first batch to the best model."""

import contextlib
import csv
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from avsdn_tf import data, evaluation, losses
from avsdn_tf.config import CROSS_MODAL, Config
from avsdn_tf.errors import UserError
from avsdn_tf.evaluation import Predictions
from avsdn_tf.matching import MatchingTask
from avsdn_tf.models import DMRN, MODEL_OPTIONS, MODELS, SegmentClassifier
from avsdn_tf.run_folder import RunFolder

# Steps between two looks at the progress: a call into the graph costs more than it
# does, and a bar need not move more often.
_STEPS_PER_CALL = 16
_SELECTION = "validation_accuracy"


@dataclasses.dataclass(frozen=True)
class Training:
    """What a training run ended with.

    Attributes:
        model: The model of the selected epoch, as loaded from the run folder.
        history: One dictionary an epoch: `epoch` (from 1), `loss`, `accuracy`,
            `validation_accuracy`, `seconds`.
        selected_epoch: The epoch with the best validation accuracy, from 1.
        seconds: Wall time of the training.
    """

    model: keras.Model
    history: list[dict[str, float]]
    selected_epoch: int
    seconds: float

    @property
    def validation_accuracy(self) -> float:
        """Validation accuracy of the selected epoch."""
        return self.history[self.selected_epoch - 1][_SELECTION]


class Task(Protocol):
    """What the trainer has to know of a task.

    Attributes:
        model: The network that is trained.
        num_clips: How many clips each split has.
        num_batches: How many batches an epoch has.
    """

    model: keras.Model
    num_clips: dict[str, int]
    num_batches: int

    def training_batches(self, epoch: int) -> tf.data.Dataset:
        """Returns the batches of an epoch."""

    def score_batch(self, batch: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the loss of each of a batch's samples, and how right it is, 0 to 1.

        Both have the shape `(batch,)`.
        """

    def validation_accuracy(self) -> float:
        """Returns what an epoch is selected by."""


def build_task(config: Config, dataset: data.Dataset) -> Task:
    """Makes the task that the mode names, with its network.

    Raises:
        UserError: If the settings don't fit each other, or the data.
    """
    task = MatchingTask if config.mode == CROSS_MODAL else SegmentTask
    return task(build_model(config, dataset), config, dataset)


def build_model(config: Config, dataset: data.Dataset) -> keras.Model:
    """Makes the network that the configuration names, as wide as the data.

    Raises:
        UserError: If there is no such network, or it does not fit the data.
    """
    if config.model not in MODELS:
        raise UserError(
            f"--model: expected one of {', '.join(MODELS)}. Received: {config.model}"
        )
    entry = MODELS[config.model]
    default = Config()
    for name in MODEL_OPTIONS - set(entry.options):
        if getattr(config, name) != getattr(default, name):
            raise UserError(
                f"--{name}: --model={config.model} has no such option. Expected among "
                f"its options: {', '.join(f'--{o}' for o in entry.options) or 'none'}"
            )
    try:
        model = entry.network(
            dataset.categories,
            dataset.audio_width,
            dataset.visual_shape,
            **{name: getattr(config, name) for name in entry.options},
            **entry.fixed,
        )
    except ValueError as error:
        raise UserError(
            f"--model={config.model} does not fit {config.dataset}: {error}"
        ) from error
    if config.encoders is not None:
        _load_encoders(model, config)
    return model


def _load_encoders(model: keras.Model, config: Config) -> None:
    """Gives a DMRN the encoders of a trained AVEL with attention."""
    if not isinstance(model, DMRN):
        raise UserError(
            f"--encoders: only --model=dmrn starts from another run's encoders. "
            f"Received: --model={config.model}"
        )
    folder = RunFolder(config.encoders)
    source_config = folder.read_config("encoders")
    if source_config.model != "avel_att":
        raise UserError(
            f"--encoders={config.encoders}: expected a run of --model=avel_att. "
            f"Received: one of --model={source_config.model}"
        )
    try:
        model.load_encoders(folder.load_model())
    except ValueError as error:
        raise UserError(f"--encoders={config.encoders}: {error}") from error


def build_optimizer(config: Config) -> keras.optimizers.Optimizer:
    """Makes Adam with the configuration's schedule, decay and average of weights."""
    learning_rate = config.learning_rate
    if config.decay_steps:
        learning_rate = keras.optimizers.schedules.PiecewiseConstantDecay(
            [config.decay_steps], [learning_rate, learning_rate / 10]
        )
    return keras.optimizers.Adam(
        learning_rate,
        weight_decay=config.weight_decay or None,
        use_ema=config.ema > 0,
        ema_momentum=config.ema,
    )


def build_loss(config: Config) -> keras.losses.Loss:
    """Makes the loss: on segments if supervised, on pooled clips if weak."""
    loss = losses.LOSSES[config.loss]()
    return (
        loss if config.mode == "supervised" else losses.ClipLoss(loss, config.pooling)
    )


def train(
    config: Config,
    dataset: data.Dataset,
    folder: RunFolder,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> Training:
    """Trains on the train split and selects the epoch on the validation split.

    Writes the best model, the metrics of each epoch and TensorBoard logs into the run
    folder, which must exist.

    Args:
        config: The run's settings.
        dataset: The data.
        folder: The run folder.
        callbacks: Further Keras callbacks, such as a progress bar.

    Raises:
        UserError: If configuration and data don't fit.
    """
    keras.utils.set_random_seed(config.seed)
    task = build_task(config, dataset)
    model, num_batches = task.model, task.num_batches
    optimizer = build_optimizer(config)
    optimizer.build(model.trainable_variables)
    train_steps = _make_train_steps(task, optimizer)

    history: list[dict[str, float]] = []
    callback_list = keras.callbacks.CallbackList(
        [
            keras.callbacks.ModelCheckpoint(
                str(folder.model), monitor=_SELECTION, mode="max", save_best_only=True
            ),
            keras.callbacks.EarlyStopping(
                monitor=_SELECTION, mode="max", patience=config.patience
            ),
            keras.callbacks.TensorBoard(str(folder.tensorboard), write_graph=False),
            *callbacks,
        ],
        model=model,
        epochs=config.epochs,
        steps=num_batches,
    )
    start = time.monotonic()
    # What Keras callbacks expect of a model that fit trains. The optimizer stays ours:
    # as the model's, its state would be saved with every model.
    model.stop_training = False
    model.optimizer = None
    callback_list.on_train_begin()
    for epoch in range(1, config.epochs + 1):
        epoch_start = time.monotonic()
        callback_list.on_epoch_begin(epoch - 1)
        iterator = iter(task.training_batches(epoch))
        totals = np.zeros(3)
        for step in range(0, num_batches, _STEPS_PER_CALL):
            num_steps = min(_STEPS_PER_CALL, num_batches - step)
            callback_list.on_train_batch_begin(step)
            totals += train_steps(iterator, tf.constant(num_steps)).numpy()
            logs = {"loss": totals[0] / totals[2], "accuracy": totals[1] / totals[2]}
            callback_list.on_train_batch_end(step + num_steps - 1, logs)
        # What is validated is what is saved, and the last weights train on.
        with _averaged_weights(optimizer, model):
            logs[_SELECTION] = task.validation_accuracy()
            history.append(
                {"epoch": epoch, **logs, "seconds": time.monotonic() - epoch_start}
            )
            _write_metrics(folder, history)
            callback_list.on_epoch_end(epoch - 1, logs)
        if model.stop_training:
            break
    callback_list.on_train_end()
    return Training(
        model=folder.load_model(),
        history=history,
        selected_epoch=1 + int(np.argmax([row[_SELECTION] for row in history])),
        seconds=time.monotonic() - start,
    )


class SegmentTask:
    """Learns the class of every segment, from segment labels or from clip labels.

    Args:
        model: The network that is trained.
        config: The settings.
        dataset: The data.
    """

    def __init__(
        self, model: SegmentClassifier, config: Config, dataset: data.Dataset
    ) -> None:
        self.model = model
        self._config = config
        self._dataset = dataset
        self._loss = build_loss(config)
        self._predict = make_predict(model)

    @property
    def num_clips(self) -> dict[str, int]:
        """How many clips each split has."""
        splits = ("train", "validation", "test")
        return {split: self._dataset.num_clips(split) for split in splits}

    @property
    def num_batches(self) -> int:
        """How many batches an epoch has."""
        return int(self.training_batches(epoch=1).cardinality().numpy())

    def training_batches(self, epoch: int) -> tf.data.Dataset:
        """Returns the batches of an epoch."""
        return data.training_batches(self._dataset, self._config, epoch)

    def score_batch(self, batch: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the loss of each clip of a batch, and which share of it is right."""
        clip_loss = self._loss if isinstance(self._loss, losses.ClipLoss) else None
        guide_loss = clip_loss.loss if clip_loss else self._loss
        target = batch["target"]
        outputs = self.model.forward(
            {"audio": batch["audio"], "visual": batch["visual"]}, training=True
        )
        logits = outputs.pop("logits")
        smoothing = self._config.label_smoothing
        smooth_target = (1 - smoothing) * target + smoothing / self.model.num_classes
        loss_values = _mean_of_clip(self._loss.call(smooth_target, logits))
        # Whatever else a network predicts is guided by the clip's label (table 3).
        clip_target = (
            smooth_target if clip_loss else tf.reduce_mean(smooth_target, axis=1)
        )
        for clip_logits in outputs.values():
            loss_values += guide_loss.call(clip_target, clip_logits)
        # What is learnt from decides what accuracy can mean: segments, or clips.
        scored = clip_loss.pool(logits) if clip_loss else logits
        correct = tf.argmax(scored, -1) == tf.argmax(target, -1)
        return loss_values, _mean_of_clip(tf.cast(correct, tf.float32))

    def validation_accuracy(self) -> float:
        """Returns the accuracy of the validation split's segments."""
        predictions = self._predict(
            data.scoring_batches(self._dataset, "validation", self._config.batch_size)
        )
        return evaluation.accuracy(
            predictions.labels, predictions.logits.argmax(axis=-1)
        )


def make_predict(
    model: SegmentClassifier,
) -> Callable[[tf.data.Dataset], Predictions]:
    """Returns a function that predicts batches of `data.scoring_batches`.

    It returns the segment logits of all clips, with their labels; made once, it is
    traced once.
    """

    @tf.function(reduce_retracing=True)
    def logits_of(inputs: dict[str, tf.Tensor]) -> tf.Tensor:
        return model(inputs, training=False)

    def predict(batches: tf.data.Dataset) -> Predictions:
        parts: dict[str, list[np.ndarray]] = {
            name: [] for name in ("row", "logits", "segment_labels", "clip_label")
        }
        for batch in batches:
            logits = logits_of({"audio": batch["audio"], "visual": batch["visual"]})
            for name, values in {**batch, "logits": logits}.items():
                if name in parts:
                    parts[name].append(values.numpy())
        joined = {name: np.concatenate(values) for name, values in parts.items()}
        return Predictions(
            row=joined["row"],
            logits=joined["logits"],
            labels=joined["segment_labels"],
            clip_labels=joined["clip_label"],
        )

    return predict


def _make_train_steps(
    task: Task, optimizer: keras.optimizers.Optimizer
) -> Callable[..., tf.Tensor]:
    """Returns a graph that takes several steps and returns their summed metrics."""
    variables = task.model.trainable_variables

    # Compiled, the update reads and writes the weights once instead of once an
    # operation. The networks gain nothing by it, and with dropout they lose: XLA draws
    # a mask anew wherever it is used.
    @tf.function(jit_compile=True)
    def update(gradients: list[tf.Tensor]) -> None:
        optimizer.apply(gradients, variables)

    def step(batch: dict[str, tf.Tensor]) -> tf.Tensor:
        weight = batch["weight"]
        total_weight = tf.reduce_sum(weight)
        with tf.GradientTape() as tape:
            loss_values, correct = task.score_batch(batch)
            total_loss = tf.reduce_sum(weight * loss_values)
            loss_value = total_loss / total_weight
        update(tape.gradient(loss_value, variables))
        return tf.stack([total_loss, tf.reduce_sum(weight * correct), total_weight])

    @tf.function(reduce_retracing=True)
    def train_steps(iterator: Any, num_steps: tf.Tensor) -> tf.Tensor:
        totals = tf.zeros(3)
        for _ in tf.range(num_steps):
            totals += step(next(iterator))
        return totals

    return train_steps


@contextlib.contextmanager
def _averaged_weights(
    optimizer: keras.optimizers.Optimizer, model: keras.Model
) -> Iterator[None]:
    """Puts the moving average of the weights, if there is one, in their place."""
    if not optimizer.use_ema:
        yield
        return
    last = [variable.numpy() for variable in model.trainable_variables]
    optimizer.finalize_variable_values(model.trainable_variables)
    try:
        yield
    finally:
        for variable, value in zip(model.trainable_variables, last, strict=True):
            variable.assign(value)


def _mean_of_clip(values: tf.Tensor) -> tf.Tensor:
    """Returns the mean over the segments, if there are values for each."""
    return values if values.shape.rank == 1 else tf.reduce_mean(values, axis=1)


def _write_metrics(folder: RunFolder, history: list[dict[str, float]]) -> None:
    """Writes metrics.csv anew, so that it never holds half a line."""
    aside = folder.metrics.with_suffix(".csv.tmp")
    with aside.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(history[0]))
        writer.writeheader()
        writer.writerows(history)
    aside.replace(folder.metrics)
