"""The one trainer: whatever the task, from the first batch to the best model."""

import contextlib
import csv
import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from avsdn_tf import data, losses
from avsdn_tf.training.checkpoints import Checkpoints, Progress, SaveBest
from avsdn_tf.training.config import CROSS_MODAL, Config
from avsdn_tf.training.distribution import Placement, num_cores
from avsdn_tf.errors import UserError
from avsdn_tf.evaluation import Predictions
from avsdn_tf.files import explain_unwritable, atomic_write
from avsdn_tf.training.signals import Interruption, TrainingInterruptedError
from avsdn_tf.training.cross_modality_task import MatchingTask
from avsdn_tf.models import DMRN, MODEL_OPTIONS, MODELS, SegmentClassifier
from avsdn_tf.models.lstm import leave_cudnn
from avsdn_tf.optimizer import FusedAdam
from avsdn_tf.run_folder import RunFolder

# A call into the graph costs more than it does, so one takes several steps; yet
# progress and signals are to be looked at about so often.
_MOST_STEPS_A_CALL = 16
_CALL_S = 1.0
# TensorFlow's own name for how many threads an operation has.
_THREADS = "TF_NUM_INTRAOP_THREADS"
_SELECTION = "validation_accuracy"


@dataclasses.dataclass(frozen=True)
class Training:
    """What a training run ended with.

    Attributes:
        model: The model of the selected epoch, as loaded from the run folder by the
            chief; that of the last epoch in the other workers.
        history: One dictionary an epoch: `epoch` (from 1), `loss`, `accuracy`,
            `validation_accuracy`, `seconds`.
        selected_epoch: The epoch with the best validation accuracy, from 1.
    """

    model: keras.Model
    history: list[dict[str, float]]
    selected_epoch: int


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

    def training_batches(
        self, epochs: Sequence[int] = (1,), part: data.Part = data.WHOLE
    ) -> tf.data.Dataset:
        """Returns the batches of epochs, or a worker's part of each."""

    def score_batch(self, batch: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the loss of each of a batch's samples, and how right it is, 0 to 1.

        Both have the shape `(batch,)`.
        """

    def score_validation(self, part: data.Part = data.WHOLE) -> tuple[float, float]:
        """Scores a worker's share of the validation split, which selects the epoch.

        Returns:
            How much of it is right, and how much there is.
        """


def share_cores(config: Config) -> None:
    """Gives each of the large products that a network has at once a share of the cores.

    By default each has as many threads as there are cores. Those of two products then
    take turns on them, and so do those of an LSTM's small operations, whose results the
    next ones wait for.

    A program may decide this for its process, before TensorFlow computes anything; a
    library should not. Nothing changes on a GPU, where XLA compiles the step (which
    takes one product after the other), where the variable TF_NUM_INTRAOP_THREADS says
    how many threads there are, or where TensorFlow has begun.
    """
    entry = MODELS.get(config.model)
    if entry is None or config.xla != "none" or os.environ.get(_THREADS):
        return
    if tf.config.list_physical_devices("GPU"):
        return
    # TensorFlow raises this where it has begun: its threads are there already.
    with contextlib.suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(
            max(1, num_cores() // entry.products_at_once)
        )


def build_task(config: Config, dataset: data.Dataset) -> Task:
    """Makes the task that the mode names, with its network.

    Raises:
        UserError: If the settings don't fit each other, or the data.
    """
    data.check_times(dataset, config)
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
        # What attends to the cells of a map finds none in a vector.
        attends = entry.fixed.get("attention") or entry.network is DMRN
        what_fits = (
            ". Take a data set of feature maps, such as tfds_ave/vgg19, or --model=avel"
            if attends and len(dataset.visual_shape) == 1
            else ""
        )
        raise UserError(
            f"--model={config.model} does not fit {config.dataset}: {error}{what_fits}"
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
            # Keras's boundary is the last step, of which the first is 0.
            [config.decay_steps - 1],
            [learning_rate, learning_rate / 10],
        )
    return FusedAdam(
        learning_rate,
        weight_decay=config.weight_decay or None,
        use_ema=config.ema > 0,
        ema_momentum=config.ema,
        global_clipnorm=config.clip_norm or None,
        # The small gradients of this network are zero in half precision.
        loss_scale_factor=1024.0 if config.precision == "mixed_float16" else None,
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
    placement: Placement | None = None,
    interruption: Interruption | None = None,
) -> Training:
    """Trains on the train split and selects the epoch on the validation split.

    Writes the best model, the metrics of each epoch, TensorBoard logs and checkpoints
    into the run folder, which must exist; goes on from its last checkpoint, if it holds
    one. Of several workers, all must call this, and the chief alone writes.

    Args:
        config: The run's settings.
        dataset: The data.
        folder: The run folder.
        callbacks: Further Keras callbacks, such as a progress bar. `on_train_begin` is
            told the `epoch` that training starts in, the `step` after which it does,
            and the `best` value before, if it goes on from a checkpoint.
        placement: The devices; one if not given.
        interruption: Asked after every few steps whether to stop.

    Raises:
        UserError: If configuration and data don't fit, a checkpoint can't be read or
            written, or the loss is not finite.
        TrainingInterruptedError: If the interruption asked for it; all has been saved.
    """
    placement = placement or Placement(tf.distribute.get_strategy())
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(config.seed)
    with placement.strategy.scope(), precision_policy(config.precision):
        task = build_task(config, dataset)
        model = task.model
        optimizer = build_optimizer(config)
        optimizer.build(model.trainable_variables)
    checkpoints = Checkpoints(folder.checkpoints)
    variables = [*model.variables, *optimizer.variables]
    progress = checkpoints.restore(variables)
    _agree(placement, progress, folder)
    _separate_random_states(placement, model)
    history = progress.history
    train_steps = make_train_steps(task, optimizer, placement, config.xla)
    save_best = SaveBest(folder.model, history, _SELECTION, checkpoints)
    writing = [
        save_best,
        keras.callbacks.TensorBoard(str(folder.tensorboard), write_graph=False),
        *callbacks,
    ]
    callback_list = _begin(
        config, task, progress, writing if placement.is_chief else ()
    )

    def save() -> None:
        if placement.is_chief:
            checkpoints.save(progress, variables)

    # Where the process was killed between an epoch's checkpoint and its model.
    if history and not progress.step:
        with _averaged_weights(optimizer, model):
            if placement.is_chief:
                save_best.on_epoch_end(progress.epoch - 2)

    epochs = range(progress.epoch, 1 + (0 if model.stop_training else config.epochs))
    batches = _distribute(task, placement, epochs, progress.step)
    own_step_s = _CALL_S
    num_steps = steps_a_call(own_step_s)
    last_saved = time.monotonic()
    for epoch in epochs:
        start = time.monotonic() - progress.seconds
        callback_list.on_epoch_begin(epoch - 1)
        totals = progress.totals or [0.0] * 3
        while progress.step < task.num_batches:
            num_steps = min(num_steps, task.num_batches - progress.step)
            callback_list.on_train_batch_begin(progress.step)
            wants_stop = interruption is not None and interruption.signal is not None
            called = time.monotonic()
            *totals, num_done, is_sound, num_stops, all_step_s = train_steps(
                batches,
                tf.constant(num_steps),
                tf.constant(totals, tf.float64),
                tf.constant([wants_stop, own_step_s], tf.float64),
            ).numpy()
            own_step_s = (time.monotonic() - called) / num_steps
            num_steps = steps_a_call(
                all_step_s / placement.strategy.num_replicas_in_sync
            )
            # Of several workers, all have to stop if one was asked to.
            if num_stops:
                save()
                placement.wait_for_workers()
                raise TrainingInterruptedError(
                    interruption and interruption.signal, progress, checkpoints
                )
            progress.step += int(num_done)
            if not (is_sound and np.isfinite(totals[0])):
                raise UserError(
                    _describe_broken_loss(config, task, progress, checkpoints)
                )
            callback_list.on_train_batch_end(progress.step - 1, _means(totals))
            progress.totals = list(map(float, totals))
            progress.seconds = time.monotonic() - start
            if time.monotonic() - last_saved > 60 * config.checkpoint_minutes:
                save()
                last_saved = time.monotonic()
        # What is validated is what is saved, and the last weights train on.
        with _averaged_weights(optimizer, model):
            accuracy = _validate(task, placement, config)
            logs = {**_means(totals), _SELECTION: accuracy}
            seconds = time.monotonic() - start
            history.append({"epoch": epoch, **logs, "seconds": seconds})
            if placement.is_chief:
                _write_metrics(folder, history, checkpoints)
        progress.epoch, progress.step = epoch + 1, 0
        progress.totals, progress.seconds = [], 0.0
        # Before the model, which is then never of an epoch that is trained again.
        save()
        last_saved = time.monotonic()
        with _averaged_weights(optimizer, model):
            callback_list.on_epoch_end(epoch - 1, logs)
        if model.stop_training:
            break
    callback_list.on_train_end()
    # The chief may not read before the others are done, nor they before it has written.
    placement.wait_for_workers()
    if interruption is not None and interruption.signal is not None:
        raise TrainingInterruptedError(interruption.signal, progress, checkpoints)
    return Training(
        # The others leave at once: TensorFlow logs an error in a worker that is still
        # there when the chief has gone.
        model=folder.load_model() if placement.is_chief else model,
        history=history,
        selected_epoch=1 + int(np.argmax([row[_SELECTION] for row in history])),
    )


@contextlib.contextmanager
def precision_policy(name: str) -> Iterator[None]:
    """Makes networks that are built in it compute in a precision.

    Args:
        name: A Keras dtype policy, such as `"mixed_bfloat16"`.
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _begin(
    config: Config,
    task: Task,
    progress: Progress,
    callbacks: Sequence[keras.callbacks.Callback],
) -> keras.callbacks.CallbackList:
    """Returns the callbacks, told what has been trained already."""
    stopping = keras.callbacks.EarlyStopping(
        monitor=_SELECTION, mode="max", patience=config.patience
    )
    # What Keras callbacks expect of a model that fit trains. The optimizer stays ours:
    # as the model's, its state would be saved with every model.
    task.model.stop_training = False
    task.model.optimizer = None
    callback_list = keras.callbacks.CallbackList(
        [stopping, *callbacks],
        model=task.model,
        epochs=config.epochs,
        steps=task.num_batches,
    )
    history = progress.history
    if history or progress.step:
        best = max((row[_SELECTION] for row in history), default=float("-inf"))
        callback_list.on_train_begin(
            {"epoch": progress.epoch, "step": progress.step, "best": best}
        )
    else:
        callback_list.on_train_begin()
    for row in history:
        stopping.on_epoch_end(row["epoch"] - 1, row)
    return callback_list


def _agree(placement: Placement, progress: Progress, folder: RunFolder) -> None:
    """Checks that all workers go on from the same checkpoint."""
    at = [progress.epoch, progress.step]
    mean = placement.sum_over_workers(at) / placement.part.num_workers
    if not np.allclose(mean, at, rtol=0, atol=1e-6):
        raise UserError(
            f"{folder.checkpoints}: expected that all workers see the same checkpoints."
            f" Received: epoch {at[0]}, step {at[1]} in worker {placement.part.worker},"
            " and others elsewhere. Is --run on a disk that all of them share?"
        )


def _separate_random_states(placement: Placement, model: keras.Model) -> None:
    """Gives every replica random numbers of its own: they drop out other values."""
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


def _distribute(
    task: Task, placement: Placement, epochs: range, num_done: int
) -> Iterator[Any]:
    """Returns an iterator over the batches of epochs, less those already done."""
    if not epochs:
        return iter(())

    def read(_: tf.distribute.InputContext) -> tf.data.Dataset:
        batches = task.training_batches(epochs, placement.part)
        return batches.skip(num_done * placement.part.num_replicas)

    return iter(placement.strategy.distribute_datasets_from_function(read))


def steps_a_call(step_s: float) -> int:
    """Returns how many steps to take in one call.

    Args:
        step_s: Seconds that one takes, the same in all workers: so must be the answer.
    """
    return max(1, min(_MOST_STEPS_A_CALL, int(_CALL_S / step_s)))


def _means(totals: Sequence[float]) -> dict[str, float]:
    """Returns loss and accuracy of what was summed up."""
    return {"loss": totals[0] / totals[2], "accuracy": totals[1] / totals[2]}


def _validate(task: Task, placement: Placement, config: Config) -> float:
    """Returns the validation accuracy; every worker scores a share of the split."""
    counts = placement.sum_over_workers(task.score_validation(placement.part))
    right, total = np.rint(counts)
    if not total:
        raise UserError(f"{config.dataset}, validation: there is nothing to score.")
    return float(right / total)


def _describe_broken_loss(
    config: Config, task: Task, progress: Progress, checkpoints: Checkpoints
) -> str:
    """Returns what to say of a loss that is NaN or infinite."""
    step = progress.step
    batches = task.training_batches([progress.epoch]).skip(step - 1)
    batch = next(iter(batches))
    kept = batch["weight"].numpy() > 0
    finite = all(
        np.isfinite(batch[name].numpy()[kept]).all() for name in ("audio", "visual")
    )
    cause = (
        "Their features are finite: the update before may have broken the weights. Try "
        f"a lower --learning_rate than {config.learning_rate:g}, or --clip_norm=1"
        if finite
        else "Its features are not all finite: rebuild the data set without them"
    )
    rows = batch["row"].numpy()[kept]
    named = f"rows {rows.tolist()}"
    # Background clips have numbers of their own, from 0 too, and no other's category.
    if config.mode == "weak" and config.weak_label == "mil_background":
        target = batch["target"].numpy()[kept]
        is_background = target.argmax(axis=-1) == target.shape[-1] - 1
        named = (
            f"rows {rows[~is_background].tolist()} of train and "
            f"{rows[is_background].tolist()} of background"
        )
    return (
        f"Epoch {progress.epoch}, step {step}: expected a finite loss. Received NaN or "
        f"an infinite one, {named}. {cause}. {checkpoints.describe_last()}."
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
        # Made once, and read anew in each epoch.
        self._validation: dict[data.Part, tf.data.Dataset] = {}

    @property
    def num_clips(self) -> dict[str, int]:
        """How many clips each split has."""
        splits = ("train", "validation", "test")
        return {split: self._dataset.num_clips(split) for split in splits}

    @property
    def num_batches(self) -> int:
        """How many batches an epoch has."""
        split = data.training_split(self._dataset, self._config)
        return -(-self._dataset.num_clips(split) // self._config.batch_size)

    def training_batches(
        self, epochs: Sequence[int] = (1,), part: data.Part = data.WHOLE
    ) -> tf.data.Dataset:
        """Returns the batches of epochs, or a worker's part of each."""
        return data.training_batches(self._dataset, self._config, epochs, part)

    def score_batch(self, batch: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the loss of each clip of a batch, and which share of it is right."""
        clip_loss = self._loss if isinstance(self._loss, losses.ClipLoss) else None
        guide_loss = clip_loss.loss if clip_loss else self._loss
        target = batch["target"]
        outputs = self.model.compute_outputs(
            {"audio": batch["audio"], "visual": batch["visual"]}, training=True
        )
        outputs = {name: tf.cast(v, tf.float32) for name, v in outputs.items()}
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

    def score_validation(self, part: data.Part = data.WHOLE) -> tuple[float, float]:
        """Returns how many segments of the validation split are right, and of how many.

        Args:
            part: Whose share of the split to score.
        """
        if part not in self._validation:
            self._validation[part] = data.scoring_batches(
                self._dataset, "validation", self._config.batch_size, part
            )
        predictions = self._predict(self._validation[part])
        right = predictions.labels == predictions.logits.argmax(axis=-1)
        return right.sum(), right.size


def make_logits(model: SegmentClassifier) -> Callable[[dict[str, Any]], tf.Tensor]:
    """Returns a graph that predicts segment logits, made once for all batch sizes."""

    @tf.function(reduce_retracing=True, autograph=False)
    def logits_of(inputs: dict[str, tf.Tensor]) -> tf.Tensor:
        return model(inputs, training=False)

    return logits_of


def make_predict(
    model: SegmentClassifier,
) -> Callable[[tf.data.Dataset], Predictions]:
    """Returns a function that predicts batches of `data.scoring_batches`.

    It returns the segment logits of all clips, with their labels; made once, it is
    traced once.
    """
    logits_of = make_logits(model)

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


def make_train_steps(
    task: Task,
    optimizer: keras.optimizers.Optimizer,
    placement: Placement,
    xla: str,
) -> Callable[..., tf.Tensor]:
    """Returns a graph that takes several steps on all devices.

    Its arguments are the iterator, the number of steps, the totals so far, and what
    this worker has to tell: 1 if it was asked to stop, and seconds a step. If any was
    asked to stop, no step is done.

    It returns the totals (sums of losses, accuracies and weights, to which each step
    adds its own, so that they don't depend on how steps are divided into calls), how
    many steps were done (the one whose loss is not finite was the last), whether all
    weights are finite afterwards (a broken update shows in the loss of the next step
    alone), and the sums over all devices of what the workers told.
    """
    strategy = placement.strategy
    variables = task.model.trainable_variables
    if xla == "step":
        leave_cudnn(task.model)

    def sum_over_replicas(values: list[tf.Tensor]) -> list[tf.Tensor]:
        if strategy.num_replicas_in_sync == 1:
            return values
        return tf.distribute.get_replica_context().all_reduce("SUM", values)

    def places_of(batch: dict[str, Any]) -> tf.Tensor:
        """Returns how many clips a replica's batch has place for: all have as many."""
        return tf.cast(tf.shape(value_of(batch["weight"]))[0], tf.float32)

    def value_of(per_replica: Any) -> tf.Tensor:
        # All have the same.
        return strategy.experimental_local_results(per_replica)[0]

    # With dropout, XLA makes this slower: it draws a mask anew wherever it is used.
    # Layers hold no Python that depends on values: rewriting it only takes time.
    @tf.function(jit_compile=xla == "step", autograph=False)
    def differentiate(
        batch: dict[str, tf.Tensor],
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        weight = batch["weight"]
        with tf.GradientTape() as tape:
            loss_values, correct = task.score_batch(batch)
            total_loss = tf.reduce_sum(weight * loss_values)
            # The gradients of a sum would leave half precision with large batches.
            scaled_loss = optimizer.scale_loss(total_loss / places_of(batch))
        sums = [total_loss, tf.reduce_sum(weight * correct), tf.reduce_sum(weight)]
        return tape.gradient(scaled_loss, variables), tf.stack(sums)

    def replica_step(batch: dict[str, tf.Tensor]) -> list[tf.Tensor]:
        gradients, sums = differentiate(batch)
        return sum_over_replicas([*gradients, sums])

    def step(batch: dict[str, Any]) -> tf.Tensor:
        *gradients, sums = map(value_of, strategy.run(replica_step, args=(batch,)))
        # The gradients are those of a sum over the clips of all replicas, divided by
        # the places of one.
        num_full = sums[2] / places_of(batch)
        optimizer.apply([g / num_full for g in gradients], variables)
        return sums

    @tf.function(reduce_retracing=True)
    def train_steps(
        iterator: Any, num_steps: tf.Tensor, totals: tf.Tensor, own: tf.Tensor
    ) -> tf.Tensor:
        (per_replica,) = strategy.run(
            # A copy on the replica's device: the argument lies on none.
            lambda: sum_over_replicas([tf.identity(own)])
        )
        told = value_of(per_replica)
        if told[0] > 0:
            num_steps = 0
        num_done = 0
        while num_done < num_steps and tf.math.is_finite(totals[0]):
            totals += tf.cast(step(next(iterator)), totals.dtype)
            num_done += 1
        is_sound = tf.reduce_all(
            [tf.reduce_all(tf.math.is_finite(variable)) for variable in variables]
        )
        found = [tf.cast(value, totals.dtype) for value in (num_done, is_sound)]
        return tf.concat([totals, found, told], axis=0)

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


def _write_metrics(
    folder: RunFolder, history: list[dict[str, float]], checkpoints: Checkpoints
) -> None:
    """Writes metrics.csv anew, so that it never holds half a line."""
    with (
        explain_unwritable(folder.metrics, checkpoints.how_to_go_on()),
        atomic_write(folder.metrics) as tmp_path,
        tmp_path.open("w", newline="") as file,
    ):
        writer = csv.DictWriter(file, fieldnames=list(history[0]))
        writer.writeheader()
        writer.writerows(history)
