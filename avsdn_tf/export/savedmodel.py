"""Export to TensorFlow's SavedModel, with events."""

import pathlib
from collections.abc import Mapping, Sequence
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
            **events_of_clips(
                probabilities, segment_s, exportable.thresholds, inputs.get("mask")
            ),
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


def events_of_clips(
    probabilities: tf.Tensor,
    segment_s: float,
    thresholds: Sequence[float] | None = None,
    mask: tf.Tensor | None = None,
) -> dict[str, tf.Tensor]:
    """Compute `events.events_from_probabilities` in a graph, for a batch of clips.

    Args:
        probabilities: `(batch, num_segments, num_classes)`. Without thresholds, the
            last class is background.
        segment_s: Length of a segment in seconds.
        thresholds: Thresholds of a multi-label network's categories.
        mask: `(batch, num_segments)`, nonzero for real segments, or None.

    Returns:
        `event_clip`, `event_start_s`, `event_end_s`, `event_class` and `event_score`,
        `(num_events,)` each, in order of clip, time and class.
    """
    if thresholds is None:
        classes = tf.argmax(probabilities, -1)
        is_active = tf.one_hot(classes, tf.shape(probabilities)[2], True, False)
        is_active, probabilities = is_active[..., :-1], probabilities[..., :-1]
    else:
        is_active = probabilities >= tf.constant(thresholds, probabilities.dtype)
    if mask is not None:
        is_active &= (mask != 0)[..., None]
    # With axes (clip, class, segment), tf.where returns starts and ends in the same
    # order.
    is_active = tf.pad(tf.transpose(is_active, (0, 2, 1)), [(0, 0), (0, 0), (1, 1)])
    before, after = is_active[..., :-1], is_active[..., 1:]
    starts, ends = tf.where(~before & after), tf.where(before & ~after)
    shape = tf.shape(is_active, tf.int64)
    clip, index, first = tf.unstack(starts, axis=1)
    order = tf.argsort((clip * shape[2] + first) * shape[1] + index)
    starts, ends = tf.gather(starts, order), tf.gather(ends, order)
    clip, index, first = tf.unstack(starts, axis=1)
    sums = tf.cumsum(tf.cast(tf.transpose(probabilities, (0, 2, 1)), tf.float64), -1)
    sums = tf.pad(sums, [(0, 0), (0, 0), (1, 0)])
    num_segments = ends[:, 2] - first
    total = tf.gather_nd(sums, ends) - tf.gather_nd(sums, starts)
    return {
        "event_clip": tf.cast(clip, tf.int32),
        "event_start_s": tf.cast(first, tf.float32) * segment_s,
        "event_end_s": tf.cast(ends[:, 2], tf.float32) * segment_s,
        "event_class": tf.cast(index, tf.int32),
        "event_score": tf.cast(
            total / tf.cast(num_segments, tf.float64), probabilities.dtype
        ),
    }


SAVEDMODEL = Format(
    "savedmodel",
    _write_savedmodel,
    _run_savedmodel,
    "TensorFlow's SavedModel, with events",
)
