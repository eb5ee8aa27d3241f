"""TensorFlow's SavedModel, with events."""

import pathlib
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from avsdn_tf.export.format import METADATA, Clips, Exportable, Format
from avsdn_tf.files import without_patterns, write_json


def _write_savedmodel(
    exportable: Exportable, path: pathlib.Path, metadata: Mapping[str, Any]
) -> None:
    segment_s = float(metadata["segment_s"])

    def logits_of(inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {"logits": exportable(inputs)["logits"]}

    def events_of(inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        probabilities = exportable(inputs)["probabilities"]
        return {
            "probabilities": probabilities,
            **events_of_clips(probabilities, segment_s),
        }

    archive = keras.export.ExportArchive()
    archive.track(exportable)
    for name, function in (("logits", logits_of), ("serving_default", events_of)):
        archive.add_endpoint(name, function, exportable.input_spec_for(None))
    archive.write_out(str(path), verbose=False)
    write_metadata(path, metadata)


def write_metadata(path: pathlib.Path, metadata: Mapping[str, Any]) -> None:
    """Write the metadata into assets.extra, which TensorFlow reserves for users."""
    (path / "assets.extra").mkdir()
    write_json(path / "assets.extra" / METADATA, metadata)


def _run_savedmodel(path: pathlib.Path, clips: Clips) -> np.ndarray:
    with without_patterns(path) as name:
        logits_of = tf.saved_model.load(name).signatures["logits"]
    return logits_of(**{n: tf.constant(v) for n, v in clips.items()})["logits"].numpy()


def events_of_clips(probabilities: tf.Tensor, segment_s: float) -> dict[str, tf.Tensor]:
    """Do in a graph what `events.events_from_probabilities` does.

    Args:
        probabilities: `(batch, num_segments, num_classes)`, background last.
        segment_s: Length of a segment in seconds.

    Returns:
        `event_clip`, `event_start_s`, `event_end_s`, `event_class` and `event_score`,
        `(num_events,)` each, in order of clip and time.
    """
    shape = tf.shape(probabilities)
    classes = tf.argmax(probabilities, -1, tf.int32)
    is_event = classes != shape[2] - 1
    changes = classes[:, 1:] != classes[:, :-1]
    starts = is_event & tf.pad(changes, [(0, 0), (1, 0)], constant_values=True)
    numbers = tf.cumsum(tf.cast(tf.reshape(starts, [-1]), tf.int32)) - 1
    num_events = tf.reduce_sum(tf.cast(starts, tf.int32))
    clip, segment = tf.meshgrid(tf.range(shape[0]), tf.range(shape[1]), indexing="ij")
    kept = tf.reshape(is_event, [-1])

    def of_events(values: tf.Tensor) -> tf.Tensor:
        return tf.boolean_mask(tf.reshape(values, [-1]), kept)

    owners = of_events(numbers)

    def first(values: tf.Tensor) -> tf.Tensor:
        return tf.math.unsorted_segment_min(of_events(values), owners, num_events)

    last = tf.math.unsorted_segment_max(of_events(segment), owners, num_events)
    score = tf.reduce_max(probabilities, -1)
    return {
        "event_clip": first(clip),
        "event_start_s": tf.cast(first(segment), tf.float32) * segment_s,
        "event_end_s": tf.cast(last + 1, tf.float32) * segment_s,
        "event_class": first(classes),
        "event_score": tf.math.unsorted_segment_mean(
            of_events(score), owners, num_events
        ),
    }


SAVEDMODEL = Format(
    "savedmodel",
    _write_savedmodel,
    _run_savedmodel,
    "TensorFlow's SavedModel, with events",
)
