"""The networks in plain Keras: its own layers, functional, `compile` and `fit`.

It is written as a Keras user would write it, with the features in memory. It imports
nothing of avsdn_tf.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from experiments.benchmark import h5py_program

_AUDIO_WIDTH = 128
_NUM_CLASSES = 29
_ATTENTION_UNITS = 512
# `fit` costs some milliseconds by itself, which an epoch's 50 steps share.
_STEPS_A_FIT = 16


def build_avsdn(
    num_segments: int, visual_shape: Sequence[int], units: int
) -> keras.Model:
    """Return AVSDN of Lin et al. (ICASSP 2019), compiled."""
    audio, visual = _inputs(num_segments, visual_shape)
    _, *audio_states = layers.LSTM(units, return_state=True)(audio)
    _, *visual_states = layers.LSTM(units, return_state=True)(visual)
    fused = []
    for heard, seen in zip(audio_states, visual_states, strict=True):
        mlp = keras.Sequential(
            [layers.Dense(units, activation="tanh"), layers.Dense(units)]
        )
        update = (mlp(heard) + mlp(seen)) / 2
        fused.append(ops.tanh(heard + update) + ops.tanh(seen + update))
    local = layers.Concatenate()([audio, visual])
    decoded = layers.LSTM(units, return_sequences=True)(local, initial_state=fused)
    return _compile(audio, visual, decoded)


def build_avel_att(
    num_segments: int, visual_shape: Sequence[int], units: int
) -> keras.Model:
    """Return AVEL with attention of Tian et al. (ECCV 2018), compiled."""
    audio, visual = _inputs(num_segments, visual_shape)
    *places, width = visual_shape
    cells = layers.Reshape((num_segments, int(np.prod(places)), width))(visual)
    num_cells = cells.shape[2]
    heard = layers.Dense(_ATTENTION_UNITS, activation="relu")(audio)
    heard = layers.Dense(num_cells, use_bias=False)(heard)
    seen = layers.Dense(_ATTENTION_UNITS, activation="relu")(cells)
    seen = layers.Dense(num_cells, use_bias=False)(seen)
    scores = ops.tanh(seen + ops.expand_dims(heard, 2))
    weights = layers.Softmax(axis=2)(layers.Dense(1, use_bias=False)(scores))
    attended = ops.squeeze(ops.matmul(ops.swapaxes(weights, 2, 3), cells), 2)
    encoded = [
        layers.Bidirectional(layers.LSTM(units, return_sequences=True))(features)
        for features in (audio, attended)
    ]
    hidden = layers.Dense(64, activation="relu")(
        ops.relu(layers.Concatenate()(encoded))
    )
    return _compile(audio, visual, hidden)


NETWORKS = {"avsdn": build_avsdn, "avel_att": build_avel_att}


def training(
    network: str,
    batch_size: int,
    num_segments: int,
    visual_shape: list[int],
    units: int,
) -> Callable[[], int]:
    """Return a function that takes training steps on a batch in memory."""
    model = NETWORKS[network](num_segments, visual_shape, units)
    rng = np.random.default_rng(0)
    inputs = tuple(
        rng.random((batch_size, num_segments, *shape), np.float32)
        for shape in ((_AUDIO_WIDTH,), visual_shape)
    )
    target = _one_hot(rng.integers(_NUM_CLASSES, size=(batch_size, num_segments)))
    batches = tf.data.Dataset.from_tensors((inputs, target)).repeat()

    def work() -> int:
        model.fit(batches, steps_per_epoch=_STEPS_A_FIT, verbose=0)
        return _STEPS_A_FIT

    return work


def epoch(
    network: str, visual_shape: list[int], units: int, batch_size: int, files: str
) -> Callable[[], None]:
    """Return a function that trains an epoch, and scores the validation split.

    Args:
        network: A name of `NETWORKS`.
        visual_shape: Shape of a segment's visual feature.
        units: Width of the LSTMs.
        batch_size: Clips in a batch.
        files: The feature file, which is loaded whole.
    """
    clips, splits = h5py_program.load(files)
    # The splits lie one after the other, so that these are views.
    train, validation = (
        (
            tuple(clips[name][rows[0] : rows[-1] + 1] for name in ("audio", "visual")),
            _one_hot(clips["labels"][rows[0] : rows[-1] + 1]),
        )
        for rows in splits.values()
    )
    model = NETWORKS[network](clips["labels"].shape[1], visual_shape, units)
    epochs = itertools.count()

    def work() -> None:
        first = next(epochs)
        model.fit(
            *train,
            batch_size=batch_size,
            initial_epoch=first,
            epochs=first + 1,
            validation_data=validation,
            verbose=0,
        )

    return work


def _inputs(num_segments: int, visual_shape: Sequence[int]) -> list[Any]:
    return [
        keras.Input((num_segments, *shape)) for shape in ((_AUDIO_WIDTH,), visual_shape)
    ]


def _compile(audio: Any, visual: Any, features: Any) -> keras.Model:
    outputs = layers.Dense(_NUM_CLASSES, activation="softmax")(features)
    model = keras.Model([audio, visual], outputs)
    # The paper's loss: binary cross-entropy of the softmax.
    model.compile("adam", keras.losses.BinaryCrossentropy(), metrics=["accuracy"])
    return model


def _one_hot(labels: np.ndarray) -> np.ndarray:
    return np.eye(_NUM_CLASSES, dtype=np.float32)[labels]
