"""Batches: interleaved shards of a split, shuffled, padded to one size.

Training reads every split in `NUM_SHARDS` shards and interleaves them. Each worker
reads only its own shards, but the clips of a global batch don't depend on the number of
workers: the order of the shards is fixed, and (seed, epoch) determines the order within
a shard. A shard that is much larger than its shuffle buffer is split into slices, which
are read in random order. All batches have the same static size, padded with examples of
weight 0, so that graphs are compiled once and replicas get equal shares.

If lengths differ, clips are padded at their end, and a batch contains the lengths.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from avsdn_tf.data.dataset import Dataset
from avsdn_tf.data.targets import (
    Example,
    add_target,
    has_events,
    score_labels,
    target_feature,
)

NUM_SHARDS = 8
# Total size of the shuffle buffers. They hold half of AVE's pooled features, or 2 % of
# its largest feature maps.
_SHUFFLE_BYTES = 128 * 2**20
# Size limit of a scoring batch if clips differ in length.
_BATCH_BYTES = 256 * 2**20
_MAX_SLICES = 4


@dataclasses.dataclass(frozen=True)
class InputShard:
    """The part of every global batch that one worker process reads.

    Attributes:
        worker: Index of the process, from 0.
        num_workers: Number of processes, at most `NUM_SHARDS`.
        num_replicas: Number of devices of this process.
    """

    worker: int = 0
    num_workers: int = 1
    num_replicas: int = 1


ALL = InputShard()


@dataclasses.dataclass(frozen=True)
class Shard:
    """A shard of a split.

    Attributes:
        index: Index of the shard, 0 to `NUM_SHARDS` - 1, which determines its worker.
        slices: Data set and number of examples of each slice, in stored order.
    """

    index: int
    slices: Sequence[tuple[tf.data.Dataset, int]]

    @property
    def size(self) -> int:
        """Number of examples."""
        return sum(size for _, size in self.slices)

    def shuffled(self, seed: tf.Tensor, buffer_size: int) -> tf.data.Dataset:
        """Return the examples in a random order, determined by `seed`."""
        datasets, sizes = zip(*self.slices, strict=True)
        order = tf.random.experimental.stateless_shuffle(
            tf.range(len(sizes), dtype=tf.int64), tf.stack([seed, 0])
        )
        # Poll each slice once past its end, so that the exhausted reader closes its
        # file.
        polls = tf.repeat(order, tf.gather(tf.constant(sizes, tf.int64), order) + 1)
        return tf.data.Dataset.choose_from_datasets(
            datasets,
            tf.data.Dataset.from_tensor_slices(polls),
            stop_on_empty_dataset=False,
        ).shuffle(
            max(1, min(buffer_size, self.size)),
            seed=seed,
            reshuffle_each_iteration=False,
        )


def training_batches(
    dataset: Dataset,
    splits: Sequence[str],
    label: str,
    *,
    batch_size: int,
    seed: int,
    epochs: Sequence[int] = (1,),
    shard: InputShard = ALL,
    multi_label: bool = False,
) -> tf.data.Dataset:
    """Return the batches of all `epochs`; (seed, epoch) determines an epoch's order.

    Only the requested label is decoded: weak training can't read segment labels. The
    clips of each split are spread evenly over the epoch.

    If lengths differ (`dataset.is_padded`), `num_segments` is `dataset.train_segments`.
    Shorter examples are padded at their end with zeros, also in `target`.

    Args:
        dataset: The data.
        splits: Names of the splits to train on.
        label: `"segment_labels"`, `"clip_label"`, or `"segment_label_mean"`, the mean
            of a clip's one-hot segment labels.
        batch_size: Clips in a global batch.
        seed: Seed of the order.
        epochs: The epochs to concatenate, counted from 1.
        shard: The part of every global batch to return. With several replicas, the
            batches of the replicas alternate.
        multi_label: Whether several categories may be active at once.

    Returns:
        Dictionaries with these keys:

        * `audio` `(batch, num_segments, audio_width)` and `visual` `(batch,
          num_segments, *visual_shape)`, in their stored dtypes.
        * `row` `(batch,)`: Number of the clip.
        * `weight` `(batch,)`: 0 for padding of the batch, else 1.
        * `length` `(batch,)` int64, if lengths differ: 0 for padding of the batch.
        * `target`: `(batch, num_segments, num_classes)` for segment labels, else
          `(batch, num_classes)`. A distribution over the classes; a clip label is
          uniform over the clip's categories. With `multi_label`, without background:
          1 for each active category, or with `"segment_label_mean"`, the fraction of
          segments in which the category is active.
    """
    names = ("audio", "visual", "row", target_feature(dataset, label, multi_label))
    shards = [
        Shard(index, [(read(dataset, part, names), size) for part, size in parts])
        for split in splits
        for index, parts in enumerate(shard_slices(dataset, split))
        if parts
    ]
    return shuffled_batches(
        shards,
        batch_size=batch_size,
        buffer_size=shuffle_clips(dataset),
        seed=seed,
        epochs=epochs,
        shard=shard,
        finish=add_target(dataset, label, multi_label),
        padded_shapes=_shapes(dataset, dataset.train_segments),
    ).prefetch(1)


def scoring_batches(
    dataset: Dataset,
    split: str,
    batch_size: int = 64,
    shard: InputShard = ALL,
    *,
    multi_label: bool = False,
) -> tf.data.Dataset:
    """Return a split's batches in stored order, with the labels for scoring.

    Args:
        dataset: The data.
        split: Name of the split.
        batch_size: Largest number of clips in a batch. Batches of long clips are
            smaller to save memory.
        shard: The part of the split to return.
        multi_label: Whether several categories may be active at once.

    Returns:
        Dictionaries of `audio`, `visual` and `row` as in training, `segment_labels`
        `(batch, num_segments)` and `clip_label` `(batch,)`. If lengths differ, clips
        are padded to the longest clip of the batch, `segment_labels` with -1, and
        `length` `(batch,)` is added. With `multi_label`, `segment_labels` is `(batch,
        num_segments, num_categories)` int8 of 0 and 1, -1 in padding.
    """
    names = ["audio", "visual", "row", "segment_labels", "clip_label"]
    if multi_label and has_events(dataset):
        names.append("events")
    part, _ = slices(dataset, split, shard.num_workers)[shard.worker]
    examples = read(dataset, part, names)
    if dataset.is_padded:
        segment_bytes = dataset.segment_bytes + multi_label * len(dataset.categories)
        limit = _BATCH_BYTES // (dataset.longest_segments * segment_bytes)
        batch_size = max(1, min(batch_size, limit))
    batches = _batch(examples, batch_size, _shapes(dataset, None))
    if multi_label:
        batches = batches.map(score_labels(dataset))
    return batches.prefetch(1)


def shard_slices(dataset: Dataset, split: str) -> list[list[tuple[str, int]]]:
    """Return the slices of each shard of a split, as pairs of name and size.

    A shard has several slices only if each is at least twice as large as the shard's
    shuffle buffer.
    """
    num_clips = dataset.num_clips(split)
    count = num_clips // (2 * max(1, shuffle_clips(dataset)))
    count = max(1, min(_MAX_SLICES, count))
    parts = slices(dataset, split, NUM_SHARDS * count)
    return [
        [(part, size) for part, size in parts[start : start + count] if size]
        for start in range(0, len(parts), count)
    ]


def slices(dataset: Dataset, split: str, count: int) -> list[tuple[str, int]]:
    """Split a split into slices of equal size; return their TFDS names and sizes."""
    num_clips = dataset.num_clips(split)
    bounds = [num_clips * i // count for i in range(count + 1)]
    return [
        (f"{split}[{start}:{stop}]", stop - start)
        for start, stop in itertools.pairwise(bounds)
    ]


def shuffle_clips(dataset: Dataset) -> int:
    """Return the total capacity of the shuffle buffers in clips."""
    return _SHUFFLE_BYTES // dataset.clip_bytes


def shuffled_batches(
    shards: Sequence[Shard],
    *,
    batch_size: int,
    buffer_size: int,
    seed: int,
    epochs: Sequence[int],
    shard: InputShard,
    finish: Callable[[Example], Example] = dict,
    padded_shapes: Mapping[str, Sequence[int | None]] | None = None,
) -> tf.data.Dataset:
    """Return a worker's part of the batches of all `epochs`.

    Args:
        shards: All shards of all workers.
        batch_size: Examples in a global batch.
        buffer_size: Total capacity of the shuffle buffers of all shards in examples.
        seed: Seed of the order.
        epochs: The epochs, counted from 1.
        shard: The part to return.
        finish: Function that is applied to every batch.
        padded_shapes: Shapes to pad examples to, by name, if their shapes differ.
    """
    own = [i for i, s in enumerate(shards) if _reader_of(s, shard) == shard.worker]
    choices = _choices(shards, batch_size, shard)
    total = sum(s.size for s in shards)
    spec = shards[own[0]].slices[0][0].element_spec
    padding = tf.data.Dataset.from_tensors(
        {
            name: tf.zeros([size or 0 for size in entry.shape], entry.dtype)
            for name, entry in spec.items()
        }
    ).repeat()
    next_shard = tf.data.Dataset.from_tensor_slices(choices.reshape(-1))
    weights = tf.data.Dataset.from_tensor_slices(
        np.float32(choices != len(own)).reshape(-1)
    )
    # Batch size of a replica.
    local_size = choices.shape[1] // shard.num_replicas

    # The seed is a tensor, so that one graph serves all epochs.
    def epoch_batches(epoch_seed: tf.Tensor) -> tf.data.Dataset:
        # TensorFlow combines the graph's seed with the shuffle's seed: set the same
        # graph seed in every process. A graph seed of 0 fails if the shuffle's seed is
        # a tensor.
        tf.random.set_seed(1)
        shuffled = [
            shards[i].shuffled(epoch_seed + i, buffer_size * shards[i].size // total)
            for i in own
        ]
        chosen = tf.data.Dataset.choose_from_datasets([*shuffled, padding], next_shard)
        return tf.data.Dataset.zip(
            _batch(chosen, local_size, padded_shapes, drop_remainder=True),
            weights.batch(local_size, drop_remainder=True),
        ).map(lambda batch, weight: {**finish(batch), "weight": weight})

    seeds = np.array([_epoch_seed(seed, epoch) for epoch in epochs], np.int64)
    return tf.data.Dataset.from_tensor_slices(seeds).flat_map(epoch_batches)


def _batch(
    examples: tf.data.Dataset,
    batch_size: int,
    shapes: Mapping[str, Sequence[int | None]] | None,
    drop_remainder: bool = False,
) -> tf.data.Dataset:
    """Batch examples; pad them at their end if shapes differ.

    Classes are padded with -1, other values with 0.
    """
    spec = examples.element_spec
    if all(entry.shape.is_fully_defined() for entry in spec.values()):
        return examples.batch(batch_size, drop_remainder=drop_remainder)
    values = dict.fromkeys(("segment_labels", "clip_categories"), -1)
    return examples.padded_batch(
        batch_size,
        {name: shapes.get(name, entry.shape) for name, entry in spec.items()},
        {name: tf.cast(values.get(name, 0), each.dtype) for name, each in spec.items()},
        drop_remainder=drop_remainder,
    )


def _shapes(
    dataset: Dataset, num_segments: int | None
) -> dict[str, tuple[int | None, ...]]:
    """Return the shape of each array feature, with None for an axis of any size."""
    return {
        "audio": (num_segments, dataset.audio_width),
        "visual": (num_segments, *dataset.visual_shape),
        "segment_labels": (num_segments,),
        "segment_label_mean": (len(dataset.categories) + 1,),
        "events": (None, 3),
        "clip_categories": (None,),
    }


def _reader_of(shard: Shard, workers: InputShard) -> int:
    """Return the index of the worker that reads a shard."""
    return shard.index % workers.num_workers


def _choices(
    shards: Sequence[Shard], batch_size: int, workers: InputShard
) -> np.ndarray:
    """Return the shard of each example in a worker's batches.

    The shards of a split alternate, and every split is spread evenly over the epoch.

    Returns:
        Indices into the worker's own shards, `(num_batches, size)`; the index of
        padding is the number of these shards. `size` is the same for all workers, and a
        multiple of the number of replicas.
    """
    positions = np.concatenate(
        [(np.arange(s.size) + (s.index + 0.5) / NUM_SHARDS) / s.size for s in shards]
    )
    order = np.repeat(np.arange(len(shards)), [s.size for s in shards])
    order = order[np.argsort(positions, kind="stable")]
    readers = np.array([_reader_of(s, workers) for s in shards])
    batches = [
        order[start : start + batch_size] for start in range(0, len(order), batch_size)
    ]
    largest = max(
        np.bincount(readers[batch], minlength=workers.num_workers).max()
        for batch in batches
    )
    size = -(-largest // workers.num_replicas) * workers.num_replicas
    is_own = readers == workers.worker
    own_index = np.cumsum(is_own) - 1
    choices = np.full((len(batches), size), np.count_nonzero(is_own), np.int64)
    for row, batch in zip(choices, batches, strict=True):
        own = own_index[batch[is_own[batch]]]
        row[: len(own)] = own
    return choices


def read(dataset: Dataset, split: str, names: Sequence[str]) -> tf.data.Dataset:
    """Return the examples of a split or slice; decode only the named features."""
    examples = dataset.builder.as_dataset(
        split=split,
        decoders=tfds.decode.PartialDecoding(dict.fromkeys(names, True)),
        read_config=tfds.ReadConfig(
            # Save memory: the shuffle buffers already hold the examples.
            try_autocache=False,
            skip_prefetch=True,
            # Read a shard's files one by one: `_choices` interleaves the shards, and
            # reading ahead takes 60 MB per shard of feature maps.
            interleave_cycle_length=1,
            interleave_block_length=1,
            num_parallel_calls_for_interleave_files=1,
            override_buffer_size=2**20,
        ),
    )
    shapes = _shapes(dataset, None if dataset.is_padded else dataset.num_segments)

    def set_shapes(example: Example) -> Example:
        # Config `custom` stores flat features without static shapes.
        shaped = {
            name: tf.reshape(value, [-1 if n is None else n for n in shapes[name]])
            if name in shapes
            else value
            for name, value in example.items()
        }
        if dataset.is_padded and "audio" in shaped:
            shaped["length"] = tf.shape(shaped["audio"], tf.int64)[0]
        return shaped

    return examples.map(set_shapes)


def _epoch_seed(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])
