"""This package's side of the comparison: what its commands compute, by itself."""

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

# Optimisations of a step, by the name of their replacement: an attribute of a module,
# and its value without the optimisation.
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
    """Return a function that takes training steps on one batch, as training does.

    Args:
        batch: The network and its shapes.
        data_dir: TFDS's folder, or None for its default.
        xla: See `Config`.
        precision: See `Config`.
        replaced: A name of `REPLACED`.
        settings: Further settings.

    Returns:
        The function; it returns the number of steps.
    """
    if REPLACED[replaced]:
        module, attribute, value = REPLACED[replaced]
        # Fail if the optimisation is gone.
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
    # Its categories are used, its clips are not read.
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
        how: `"keras"`: the model is called. `"graph"`: as evaluation and prediction do.
            `"xla"`: the graph, compiled. `"savedmodel"`: an exported model.
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
            # `loaded.serve` alone would not keep the variables alive.
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
    """Return random features in the dtypes that they are stored in."""
    audio, visual, _ = batch.random()
    # Maps are stored in half precision, and the step widens them.
    dtype = tf.float16 if len(batch.visual_shape) > 1 else tf.float32
    return {"audio": tf.constant(audio), "visual": tf.cast(visual, dtype)}
