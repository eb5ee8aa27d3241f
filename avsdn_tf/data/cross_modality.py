"""Batches of cross-modality localization: pairs of segments, and whole clips.

The task has its own splits, which differ from the stored splits of the data set. The
feature `match_split` of an example is the example's split in this task.
"""

import collections
import functools
import itertools
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from avsdn_tf.data.batches import (
    ALL,
    Example,
    InputShard,
    Shard,
    read,
    shard_slices,
    shuffle_clips,
    shuffled_batches,
)
from avsdn_tf.data.dataset import Dataset
from avsdn_tf.errors import UserError

_NAMES = ("audio", "visual", "row", "segment_labels")


def segment_pairs(
    dataset: Dataset,
    match_split: str,
    *,
    batch_size: int = 8,
    seed: int = 0,
    epochs: Sequence[int] = (1,),
    shard: InputShard = ALL,
) -> tf.data.Dataset:
    """Return pairs of simultaneous segments, in random order.

    The seed and the epoch determine the order.

    Args:
        dataset: The data.
        match_split: Split of this task: `"train"`, `"validation"` or `"test"`.
        batch_size: Pairs in a global batch.
        seed: Seed of the order.
        epochs: The epochs to concatenate, counted from 1.
        shard: As in `batches.training_batches`.

    Returns:
        Dictionaries of `audio` `(batch, audio_width)`, `visual` `(batch,
        *visual_shape)`, `target` `(batch,)`: 1 where the segment is an event, else 0;
        `row` `(batch,)`: the clip's row; and `weight` `(batch,)`: 0 for padding.
    """

    def to_segments(example: Example) -> tf.data.Dataset:
        return tf.data.Dataset.from_tensor_slices(
            {
                "audio": example["audio"],
                "visual": example["visual"],
                "target": tf.cast(_is_event(dataset, example), tf.float32),
                "row": tf.repeat(example["row"], dataset.num_segments),
            }
        )

    def read_slice(name: str) -> tuple[tf.data.Dataset, int]:
        num_clips = _count(dataset, name)[match_split]
        examples = _read_match_split(dataset, name, match_split)
        return examples.flat_map(to_segments), dataset.num_segments * num_clips

    shards = [
        Shard(index, [read_slice(name) for name, _ in slices])
        for split in _stored_splits(dataset)
        for index, slices in enumerate(shard_slices(dataset, split))
    ]
    shards = [entry for entry in shards if entry.size]
    return shuffled_batches(
        shards,
        batch_size=batch_size,
        buffer_size=dataset.num_segments * shuffle_clips(dataset),
        seed=seed,
        epochs=epochs,
        shard=shard,
    ).prefetch(8)


def scoring_clips(
    dataset: Dataset, match_split: str, batch_size: int = 64, shard: InputShard = ALL
) -> tf.data.Dataset:
    """Return the whole clips of a split of this task, in stored order.

    Args:
        dataset: The data.
        match_split: As in `segment_pairs`.
        batch_size: Clips in a batch; the last batch may be smaller.
        shard: The part of the split to return.

    Returns:
        Dictionaries of `audio` `(batch, num_segments, audio_width)`, `visual` `(batch,
        num_segments, *visual_shape)`, `row` `(batch,)` and `is_event` `(batch,
        num_segments)`.
    """

    def mark_events(example: Example) -> Example:
        is_event = _is_event(dataset, example)
        del example["segment_labels"]
        return {**example, "is_event": is_event}

    stored = "+".join(_stored_splits(dataset))
    return (
        _read_match_split(dataset, stored, match_split)
        # Shard after filtering: a stored slice may contain no clip of the task.
        .shard(shard.num_workers, shard.worker)
        .map(mark_events, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(batch_size)
        .prefetch(1)
    )


def count_clips(dataset: Dataset) -> dict[str, int]:
    """Return the number of clips in each split of this task."""
    total: collections.Counter[str] = collections.Counter()
    # Count each slice: `segment_pairs` needs the same counts, and `_count` is cached.
    for split in _stored_splits(dataset):
        for name, _ in itertools.chain(*shard_slices(dataset, split)):
            total.update(_count(dataset, name))
    return dict(total)


def _is_event(dataset: Dataset, example: Example) -> tf.Tensor:
    return example["segment_labels"] != len(dataset.categories)


def _stored_splits(dataset: Dataset) -> list[str]:
    """Return the names of the stored splits that contain clips of this task.

    Raises:
        UserError: If clips differ in length.
    """
    if dataset.is_padded:
        raise UserError(
            "Cross-modality localization expects clips of one length. Received: "
            f"clips of up to {dataset.longest_segments} segments. Cut all clips to one "
            "length, and build with a window_s of that length.",
            field="dataset",
            value=dataset.name,
        )
    return [name for name in dataset.splits if name != "background"]


@functools.lru_cache(maxsize=256)
def _count(dataset: Dataset, split: str) -> dict[str, int]:
    """Count the clips of each split of the task in a stored split or slice."""
    feature = dataset.builder.info.features["match_split"]
    counts = np.zeros(feature.num_classes, int)
    for batch in read(dataset, split, ("match_split",)).batch(1024):
        counts += np.bincount(batch["match_split"], minlength=feature.num_classes)
    return dict(zip(feature.names, counts.tolist(), strict=True))


def _read_match_split(
    dataset: Dataset, split: str, match_split: str
) -> tf.data.Dataset:
    """Return the examples of one split of the task from a stored split or slice."""
    number = dataset.builder.info.features["match_split"].str2int(match_split)

    def is_in_split(example: Example) -> tf.Tensor:
        return example["match_split"] == number

    def without_split(example: Example) -> Example:
        return {name: example[name] for name in _NAMES}

    examples = read(dataset, split, (*_NAMES, "match_split"))
    return examples.filter(is_in_split).map(without_split)
