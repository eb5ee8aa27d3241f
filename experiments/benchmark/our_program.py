"""Training steps and inference of this package, without its command line."""

import dataclasses
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from avsdn_tf.data.dataset import open_dataset
from avsdn_tf.models import lstm
from avsdn_tf.models.registry import MODELS
from avsdn_tf.training import step as training_step
from avsdn_tf.training.build import build_optimizer
from avsdn_tf.training.config import Config
from avsdn_tf.training.distribution import Placement
from avsdn_tf.training.loop import precision_policy
from avsdn_tf.training.tasks import build_task
from avsdn_tf.training.tasks.segments import make_logits
from experiments.benchmark.batch import AUDIO_WIDTH, NUM_CLASSES, Batch

# Optimizations to switch off, by variant: module, attribute, and the value that
# switches the optimization off.
REPLACED: dict[str, tuple[Any, str, Any] | None] = {
    "as it is": None,
    "one step a call": (training_step, "STEPS_PER_CALL", 1),
    "Keras's loop over segments": (lstm, "_MAX_UNROLLED", 0),
}


def step(
    batch: Batch,
    data_dir: str | None,
    xla: str = Config().xla,
    precision: str = Config().precision,
    replaced: str = "as it is",
    settings: Mapping[str, Any] | None = None,
) -> Callable[[], int]:
    """Return a function that runs training steps on one batch.

    Args:
        batch: The network and its shapes.
        data_dir: TFDS's folder, or None for its default.
        xla: As in `Config`.
        precision: As in `Config`.
        replaced: A variant in `REPLACED`.
        settings: Further fields of `Config`.

    Returns:
        The function, which returns the number of steps.
    """
    if REPLACED[replaced]:
        module, attribute, value = REPLACED[replaced]
        # Fail if the attribute has been removed.
        getattr(module, attribute)
        setattr(module, attribute, value)
    config = Config(
        model=batch.network,
        batch_size=batch.size,
        units=batch.units,
        xla=xla,
        precision=precision,
        **(settings or {}),
    )
    # Only the data set's categories are used. No clips are read.
    dataset = dataclasses.replace(
        open_dataset(config.dataset, data_dir),
        visual_shape=tuple(batch.visual_shape),
        num_segments=batch.num_segments,
    )
    keras.utils.set_random_seed(0)
    with precision_policy(precision):
        task = build_task(config, dataset)
        optimizer = build_optimizer(config)
        optimizer.build(task.model.trainable_variables)
    placement = Placement(tf.distribute.get_strategy())
    take_steps = training_step.make_train_steps(task, optimizer, placement, xla)
    clips = {
        **_as_stored(batch),
        "row": tf.range(batch.size, dtype=tf.int64),
        "target": batch.random()[2],
        "weight": tf.ones(batch.size),
    }
    batches = iter(tf.data.Dataset.from_tensors(clips).repeat())
    num_steps = training_step.STEPS_PER_CALL

    def work() -> int:
        return take_steps(batches, num_steps, np.zeros(3), False).num_done

    return work


def inference(batch: Batch, how: str) -> Callable[[], None]:
    """Return a function that predicts one batch.

    Args:
        batch: The network and its shapes.
        how: What is called. `"keras"`: the model; `"graph"`: the graph function of
            evaluation and prediction; `"xla"`: the model compiled by XLA;
            `"savedmodel"`: the exported model.
    """
    keras.utils.set_random_seed(0)
    entry = MODELS[batch.network]
    model = entry.network(
        [f"category {i}" for i in range(NUM_CLASSES - 1)],
        AUDIO_WIDTH,
        tuple(batch.visual_shape),
        units=batch.units,
        **entry.fixed,
    )
    clips = _as_stored(batch)
    if how == "savedmodel":
        with tempfile.TemporaryDirectory() as folder:
            model.export(folder, verbose=False)
            loaded = tf.saved_model.load(folder)

        def predict(clips: dict[str, tf.Tensor]) -> tf.Tensor:
            # Keep `loaded` alive: `loaded.serve` doesn't own the variables.
            return loaded.serve(clips)

    elif how == "xla":
        lstm.disable_cudnn(model)
        predict = tf.function(model, jit_compile=True, autograph=False)
    else:
        predict = make_logits(model) if how == "graph" else model

    def work() -> None:
        predict(clips).numpy()

    return work


def _as_stored(batch: Batch) -> dict[str, tf.Tensor]:
    """Return random features in the dtypes of data sets."""
    audio, visual, _ = batch.random()
    # Data sets store maps as float16, and the step casts them.
    dtype = tf.float16 if len(batch.visual_shape) > 1 else tf.float32
    return {"audio": tf.constant(audio), "visual": tf.cast(visual, dtype)}
