"""This package's side of the comparison: what its own commands compute, by itself."""

import dataclasses
import pathlib
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from avsdn_tf import data
from avsdn_tf.training import loop as training
from avsdn_tf.training.config import Config
from avsdn_tf.training.distribution import Placement
from avsdn_tf.export import FORMATS, Exportable
from avsdn_tf.models.lstm import leave_cudnn

_MATRIX = 2048
_MATRIX_PRODUCTS = 8
# Of all work by this rate: multiplications and additions.
MATRIX_OPERATIONS = 2 * _MATRIX_PRODUCTS * _MATRIX**3
_MANY_EPOCHS = range(1, 10_001)


def matrix() -> Callable[[], None]:
    """Returns a function that does `MATRIX_OPERATIONS` in large matrix products."""
    left, right = tf.random.normal((2, _MATRIX, _MATRIX))

    def work() -> None:
        for _ in range(_MATRIX_PRODUCTS):
            product = tf.linalg.matmul(left, right)
        product.numpy()

    return work


def step(
    network: str,
    batch_size: int,
    num_segments: int,
    visual_shape: Sequence[int],
    units: int,
    xla: str,
    data_dir: str | None,
    precision: str = "float32",
) -> Callable[[], int]:
    """Returns a function that takes training steps on one batch, as training does.

    Args:
        network: A name of `models.MODELS`.
        batch_size: Clips in the batch.
        num_segments: Segments a clip.
        visual_shape: Shape of a segment's visual feature.
        units: Width of the LSTMs.
        xla: What XLA compiles; see `Config`.
        data_dir: TFDS's folder, or None for its default.
        precision: What the network computes in; see `Config`.

    Returns:
        The function; it returns how many steps it took.
    """
    config = Config(
        model=network, batch_size=batch_size, units=units, xla=xla, precision=precision
    )
    training.share_cores(config)
    # Not its clips, which are not read, but its categories.
    dataset = dataclasses.replace(
        data.open_dataset(config.dataset, data_dir),
        visual_shape=tuple(visual_shape),
        num_segments=num_segments,
    )
    keras.utils.set_random_seed(0)
    with training.precision_policy(precision):
        task = training.build_task(config, dataset)
        optimizer = training.build_optimizer(config)
        optimizer.build(task.model.trainable_variables)
    placement = Placement(tf.distribute.get_strategy())
    take_steps = training.make_train_steps(task, optimizer, placement, xla)
    classes = tf.random.uniform(
        (batch_size, num_segments), maxval=task.model.num_classes, dtype=tf.int64
    )
    batch = {
        **_random_clips(batch_size, num_segments, visual_shape),
        "row": tf.range(batch_size, dtype=tf.int64),
        "target": tf.one_hot(classes, task.model.num_classes),
        "weight": tf.ones(batch_size),
    }
    batches = iter(tf.data.Dataset.from_tensors(batch).repeat())
    num_steps = 1

    def work() -> int:
        nonlocal num_steps
        num_done, start = num_steps, time.perf_counter()
        take_steps(
            batches,
            tf.constant(num_done),
            tf.zeros(3, tf.float64),
            tf.zeros(2, tf.float64),
        ).numpy()
        num_steps = training.steps_a_call((time.perf_counter() - start) / num_done)
        return num_done

    return work


def inference(
    network: str,
    batch_size: int,
    num_segments: int,
    visual_shape: Sequence[int],
    units: int,
    how: str,
) -> Callable[[], None]:
    """Returns a function that predicts one batch.

    Args:
        network: A name of `models.MODELS`.
        batch_size: Clips in the batch.
        num_segments: Segments a clip.
        visual_shape: Shape of a segment's visual feature.
        units: Width of the LSTMs.
        how: `"keras"`: the model is called. `"graph"`: as prediction does. `"shared"`:
            as evaluation does, which shares the cores out among products. `"xla"`: the
            graph, compiled. `"savedmodel"`: what `export` writes.
    """
    if how == "shared":
        training.share_cores(Config(model=network))
    keras.utils.set_random_seed(0)
    entry = training.MODELS[network]
    model = entry.network(
        [f"category {i}" for i in range(28)],
        128,
        tuple(visual_shape),
        **entry.fixed,
        **({"units": units} if "units" in entry.options else {}),
    )
    clips = _random_clips(batch_size, num_segments, visual_shape)
    if how == "savedmodel":
        predict = _saved(model, num_segments)
    elif how == "xla":
        leave_cudnn(model)
        predict = tf.function(model, jit_compile=True, autograph=False)
    elif how in ("graph", "shared"):
        predict = training.make_logits(model)
    else:
        predict = model

    def work() -> None:
        predict(clips).numpy()

    return work


def reading(dataset: str, data_dir: str | None) -> Callable[[], None]:
    """Returns a function that reads an epoch's batches and does nothing with them.

    Args:
        dataset: The data set, as `--dataset` names it.
        data_dir: TFDS's folder, or None for its default.
    """
    config = Config(dataset=dataset, data_dir=data_dir)
    opened = data.open_dataset(dataset, data_dir)
    batches = iter(data.training_batches(opened, config, _MANY_EPOCHS))
    num_batches = -(-opened.num_clips("train") // config.batch_size)

    def work() -> None:
        for _ in range(num_batches):
            next(batches)

    return work


def _saved(
    model: keras.Model, num_segments: int
) -> Callable[[dict[str, tf.Tensor]], tf.Tensor]:
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "savedmodel"
        metadata = {"segment_s": 1.0, "num_segments": num_segments}
        FORMATS["savedmodel"].write(Exportable(model), path, metadata)
        loaded = tf.saved_model.load(str(path))
    logits_of = loaded.signatures["logits"]

    def predict(clips: dict[str, tf.Tensor]) -> tf.Tensor:
        # The signature does not keep what it was loaded with.
        assert loaded is not None
        return logits_of(**clips)["logits"]

    return predict


def _random_clips(
    batch_size: int, num_segments: int, visual_shape: Sequence[int]
) -> dict[str, Any]:
    random = np.random.default_rng(0)
    shapes = {"audio": (128,), "visual": visual_shape}
    clips = {
        name: tf.constant(random.random((batch_size, num_segments, *shape), np.float32))
        for name, shape in shapes.items()
    }
    if len(visual_shape) > 1:
        # As they are stored: the step widens maps, and so it does here.
        clips["visual"] = tf.cast(clips["visual"], tf.float16)
    return clips
