"""Convert stored labels of a batch to targets for training and labels for scoring.

Labels are expanded to one-hot and multi-hot targets batch by batch: with many
categories, the targets of all clips would not fit into memory.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from avsdn_tf.data.dataset import Dataset

Example = dict[str, Any]


def has_events(dataset: Dataset) -> bool:
    """Return whether examples have the features `events` and `clip_categories`."""
    return "events" in dataset.builder.info.features


def target_feature(dataset: Dataset, label: str, multi_label: bool) -> str:
    """Return the name of the stored feature from which a target is computed."""
    if not has_events(dataset):
        return label
    if label == "clip_label":
        return "clip_categories"
    return "events" if multi_label else label


def add_target(
    dataset: Dataset, label: str, multi_label: bool
) -> Callable[[Example], Example]:
    """Return a function that replaces a batch's stored label by its `target`.

    `batches.training_batches` documents the arguments and the target.
    """
    feature = target_feature(dataset, label, multi_label)
    num_categories = len(dataset.categories)

    def make(batch: Example) -> Example:
        values = batch.pop(feature)
        if feature == "events":
            num_segments = batch["audio"].shape[1]
            active = multi_hot_segments(values, num_segments, num_categories)
            target = tf.cast(active, tf.float32)
            if label == "segment_label_mean":
                length = batch.get("length", tf.constant([num_segments], tf.int64))
                length = tf.cast(tf.maximum(length, 1), tf.float32)
                target = tf.reduce_sum(target, axis=1) / length[:, None]
        elif feature == "clip_categories":
            target = _multi_hot_clips(values, num_categories)
            if not multi_label:
                count = tf.reduce_sum(target, axis=1, keepdims=True)
                background = 1 - tf.minimum(count, 1)
                target = tf.concat([target / tf.maximum(count, 1), background], axis=1)
        else:
            # one_hot of -1, the label of padding, is all zeros.
            is_mean = label == "segment_label_mean"
            target = values if is_mean else tf.one_hot(values, num_categories + 1)
            if multi_label:
                target = target[..., :num_categories]
        return {**batch, "target": target}

    return make


def score_labels(dataset: Dataset) -> Callable[[Example], Example]:
    """Return a function that converts a batch's `segment_labels` to multi-hot labels.

    The multi-hot labels are `(batch, num_segments, num_categories)` int8 of 0 and 1, -1
    in padding.
    """
    num_categories = len(dataset.categories)

    def make(batch: Example) -> Example:
        labels = batch["segment_labels"]
        if "events" in batch:
            num_segments = tf.shape(labels)[1]
            active = multi_hot_segments(
                batch.pop("events"), num_segments, num_categories
            )
        else:
            classes = tf.one_hot(labels, num_categories + 1, dtype=tf.int8)
            active = classes[..., :num_categories]
        padding = tf.constant(-1, tf.int8)
        active = tf.where(labels[:, :, None] < 0, padding, active)
        return {**batch, "segment_labels": active}

    return make


def multi_hot_segments(
    events: tf.Tensor, num_segments: int | tf.Tensor, num_categories: int
) -> tf.Tensor:
    """Convert events to multi-hot segment labels.

    Args:
        events: `(batch, num_events, 3)` int64: category, first segment and exclusive
            end. Events of zero segments are padding.
        num_segments: Number of segments per clip.
        num_categories: Number of categories.

    Returns:
        `(batch, num_segments, num_categories)` int8 of 0 and 1.
    """
    category, first, end = tf.unstack(events[:, :, None], axis=-1)
    segment = tf.range(tf.cast(num_segments, tf.int64))
    clip, event, where = tf.unstack(
        tf.where((segment >= first) & (segment < end)), axis=-1
    )
    category = tf.gather_nd(category[..., 0], tf.stack([clip, event], axis=-1))
    shape = (tf.shape(events)[0], num_segments, num_categories)
    return _ones_at(tf.stack([clip, where, category], axis=-1), shape)


def _multi_hot_clips(categories: tf.Tensor, num_categories: int) -> tf.Tensor:
    """Convert category indices to multi-hot vectors, `(batch, num_categories)`.

    `categories` is `(batch, max_per_clip)`, padded with -1.
    """
    positions = tf.where(categories >= 0)
    category = tf.gather_nd(categories, positions)
    shape = (tf.shape(categories)[0], num_categories)
    indices = tf.stack([positions[:, 0], category], axis=-1)
    return tf.cast(_ones_at(indices, shape), tf.float32)


def _ones_at(indices: tf.Tensor, shape: tuple[Any, ...]) -> tf.Tensor:
    """Return an int8 tensor that is 1 at the indices, else 0; indices may repeat."""
    ones = tf.ones(tf.shape(indices)[:1], tf.int8)
    zeros = tf.zeros(tf.stack(shape), tf.int8)
    result = tf.tensor_scatter_nd_update(zeros, indices, ones)
    sizes = [size if isinstance(size, int) else None for size in shape]
    return tf.ensure_shape(result, sizes)
