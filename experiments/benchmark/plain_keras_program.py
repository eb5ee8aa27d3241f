"""AVSDN and AVEL in plain Keras: functional API, `compile`, `fit`, data in memory.

The module doesn't import avsdn_tf, because that would add to the measured memory.
"""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from keras import layers, ops

from experiments.benchmark.batch import (
    ATTENTION_UNITS,
    AUDIO_WIDTH,
    NUM_CLASSES,
    Batch,
    load_features,
    one_hot,
)

# Steps per call of `fit`, because each call has an overhead of some milliseconds.
_STEPS_PER_FIT = 16


def build_avsdn(batch: Batch) -> keras.Model:
    """Return AVSDN of Lin et al. (ICASSP 2019), compiled."""
    units = batch.units
    audio, visual = _inputs(batch)
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


def build_avel_att(batch: Batch) -> keras.Model:
    """Return AVEL with attention of Tian et al. (ECCV 2018), compiled."""
    audio, visual = _inputs(batch)
    rows, columns, width = batch.visual_shape
    num_cells = rows * columns
    cells = layers.Reshape((batch.num_segments, num_cells, width))(visual)
    heard = layers.Dense(ATTENTION_UNITS, activation="relu")(audio)
    heard = layers.Dense(num_cells, use_bias=False)(heard)
    seen = layers.Dense(ATTENTION_UNITS, activation="relu")(cells)
    seen = layers.Dense(num_cells, use_bias=False)(seen)
    scores = ops.tanh(seen + ops.expand_dims(heard, 2))
    weights = layers.Softmax(axis=2)(layers.Dense(1, use_bias=False)(scores))
    attended = ops.squeeze(ops.matmul(ops.swapaxes(weights, 2, 3), cells), 2)
    encoded = [
        layers.Bidirectional(layers.LSTM(batch.units, return_sequences=True))(features)
        for features in (audio, attended)
    ]
    hidden = layers.Dense(64, activation="relu")(
        ops.relu(layers.Concatenate()(encoded))
    )
    return _compile(audio, visual, hidden)


NETWORKS = {"avsdn": build_avsdn, "avel_att": build_avel_att}


def training(batch: Batch) -> Callable[[], int]:
    """Return a function that runs training steps and returns their number."""
    model = NETWORKS[batch.network](batch)
    audio, visual, target = batch.random()
    batches = tf.data.Dataset.from_tensors(((audio, visual), target)).repeat()

    def work() -> int:
        model.fit(batches, steps_per_epoch=_STEPS_PER_FIT, shuffle=False, verbose=0)
        return _STEPS_PER_FIT

    return work


def epoch(batch: Batch, files: str) -> Callable[[], None]:
    """Return a function that trains for an epoch and evaluates the validation split."""
    clips, splits = load_features(files)
    data = {}
    for name, rows in splits.items():
        # Slice to avoid a copy: the rows of a split are consecutive.
        audio, visual, labels = (a[rows[0] : rows[-1] + 1] for a in clips.values())
        data[name] = ((audio, visual), one_hot(labels))
    model = NETWORKS[batch.network](batch)

    def work() -> None:
        model.fit(
            *data["train"],
            batch_size=batch.size,
            validation_data=data["validation"],
            verbose=0,
        )

    return work


def _inputs(batch: Batch) -> list[Any]:
    shapes = ((AUDIO_WIDTH,), batch.visual_shape)
    return [keras.Input((batch.num_segments, *shape)) for shape in shapes]


def _compile(audio: Any, visual: Any, features: Any) -> keras.Model:
    model = keras.Model([audio, visual], layers.Dense(NUM_CLASSES)(features))
    # The paper's loss is the binary cross-entropy of a softmax, which Keras doesn't
    # have: BinaryCrossentropy(from_logits=True) applies a sigmoid.
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    return model
