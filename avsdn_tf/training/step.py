"""Training steps on one or several devices; one graph executes several steps."""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from avsdn_tf.models.lstm import disable_cudnn
from avsdn_tf.training.distribution import Placement
from avsdn_tf.training.tasks import Task

# Calling a graph takes longer than a step of a small network. With one step per call,
# an epoch of cross-modality localization on the synthetic set takes 1.3 s instead of
# 0.7 to 1.0 s, and a step of AVSDN with 64 clips takes 25.0 ms instead of 23.7 ms (two
# cores of an AMD EPYC, family 26). Progress is reported and signals are checked between
# calls, so a call must stay short.
STEPS_PER_CALL = 8


class Steps(NamedTuple):
    """Result of a call of several steps.

    Attributes:
        totals: Sums of losses, accuracies and weights over the epoch so far, float64.
            The values of each step are added separately, so that the number of steps
            per call doesn't change the sums.
        num_done: Number of executed steps. A step with a NaN or infinite loss is the
            last.
        is_sound: Whether all weights are finite after the steps. The losses don't show
            whether the last update broke the weights.
        num_stops: Number of workers that should stop. If positive, num_done is 0.
    """

    totals: np.ndarray
    num_done: int
    is_sound: bool
    num_stops: float


def make_train_steps(
    task: Task,
    optimizer: keras.optimizers.Optimizer,
    placement: Placement,
    xla: str = "none",
) -> Callable[[Any, int, Any, bool], Steps]:
    """Return a function that executes several steps on all devices.

    The function's arguments are the iterator over batches, the number of steps, the
    totals so far, and whether this worker should stop. A step computes loss and
    gradients of every replica's part of a batch, sums them over all replicas and
    workers, and updates the weights by the mean gradient over the batch's clips.

    Args:
        task: Task with the network and the loss of a batch.
        optimizer: A built optimizer.
        placement: The devices.
        xla: `"step"` to compile network and gradients with XLA, else `"none"`.
    """
    strategy = placement.strategy
    variables = task.model.trainable_variables
    if xla == "step":
        disable_cudnn(task.model)

    def sum_over_replicas(values: list[tf.Tensor]) -> list[tf.Tensor]:
        if strategy.num_replicas_in_sync == 1:
            return values
        return tf.distribute.get_replica_context().all_reduce("SUM", values)

    def first_replica(per_replica: Any) -> tf.Tensor:
        return strategy.experimental_local_results(per_replica)[0]

    def padded_batch_size(batch: dict[str, Any]) -> tf.Tensor:
        """Return the padded size of a replica's batch, equal in all replicas."""
        return tf.cast(tf.shape(first_replica(batch["weight"]))[0], tf.float32)

    # XLA is slower with dropout: it recomputes a mask for each use.
    @tf.function(jit_compile=xla == "step", autograph=False)
    def gradients_of(
        batch: dict[str, tf.Tensor],
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        weight = batch["weight"]
        with tf.GradientTape() as tape:
            losses, accuracies = task.score_batch(batch)
            total_loss = tf.reduce_sum(weight * losses)
            # Divide here: gradients of a sum over the batch may overflow float16.
            scaled = optimizer.scale_loss(total_loss / padded_batch_size(batch))
        sums = [total_loss, tf.reduce_sum(weight * accuracies), tf.reduce_sum(weight)]
        return tape.gradient(scaled, variables), tf.stack(sums)

    def replica_step(batch: dict[str, tf.Tensor]) -> list[tf.Tensor]:
        gradients, sums = gradients_of(batch)
        return sum_over_replicas([*gradients, sums])

    def step(batch: dict[str, Any]) -> tf.Tensor:
        per_replica = strategy.run(replica_step, args=(batch,))
        *gradients, sums = map(first_replica, per_replica)
        # Each gradient is the sum over all clips, divided by a replica's padded batch
        # size. Convert it to the mean over the real clips.
        divisor = sums[2] / padded_batch_size(batch)
        optimizer.apply([g / divisor for g in gradients], variables)
        return sums

    @tf.function(reduce_retracing=True)
    def train_steps(
        iterator: Any, num_steps: tf.Tensor, totals: tf.Tensor, wants_stop: tf.Tensor
    ) -> tf.Tensor:
        (stops,) = strategy.run(
            # Copy the argument to every replica's device.
            lambda: sum_over_replicas([tf.identity(wants_stop)])
        )
        num_stops = first_replica(stops)
        if num_stops > 0:
            num_steps = 0
        num_done = 0
        while num_done < num_steps and tf.math.is_finite(totals[0]):
            totals += tf.cast(step(next(iterator)), totals.dtype)
            num_done += 1
        is_sound = tf.reduce_all(
            [tf.reduce_all(tf.math.is_finite(variable)) for variable in variables]
        )
        results = [num_done, is_sound, num_stops]
        return tf.concat([totals, [tf.cast(r, totals.dtype) for r in results]], axis=0)

    def call(iterator: Any, num_steps: int, totals: Any, wants_stop: bool) -> Steps:
        *totals, num_done, is_sound, num_stops = train_steps(
            iterator,
            tf.constant(num_steps),
            tf.constant(totals, tf.float64),
            tf.constant(float(wants_stop)),
        ).numpy()
        return Steps(np.array(totals), int(num_done), bool(is_sound), num_stops)

    return call
