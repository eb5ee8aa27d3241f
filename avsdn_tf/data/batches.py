"""TFDS examples as tf.data batches, for training and for scoring."""

import collections
import contextlib
import dataclasses
import functools
import hashlib
import io
import itertools
import json
import math
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

import tfds_ave
from avsdn_tf.training.config import Config
from avsdn_tf.errors import UserError, first_line
from avsdn_tf.files import explain_unwritable, locked

# Memory stays bounded whatever the number of clips: so many bytes of features wait to
# be drawn at random. That is half of AVE's pooled vectors, but a fiftieth of its
# largest maps, so these are also read in blocks, in an order of their own every epoch.
_SHUFFLE_BYTES = 128 * 2**20
_MOST_BLOCKS = 4
# A training split is read in this many shares that take turns. Workers have shares of
# their own, so each reads only these, and yet a batch holds the same clips whatever the
# number of workers.
NUM_SHARES = 8

# A wrong checksum; fewer examples than were written; a file that is gone.
_DAMAGE = (
    tf.errors.DataLossError,
    tf.errors.FailedPreconditionError,
    tf.errors.NotFoundError,
    tf.errors.OutOfRangeError,
)
_STAND_IN_CLIPS = 16
_SIMULATED = "Simulated data (tfds_ave/synthetic): these are not AVE results"
_STAND_IN = (
    "Stand-in features (audio below zero, which AVE's released features never are): "
    "these are not AVE results"
)


class NotBuiltError(UserError):
    """A data set that exists, and has not been built yet where it was looked for."""


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set that is ready to be read.

    Attributes:
        builder: Its prepared TFDS builder.
        categories: Names of the event categories, without background.
        audio_width: Width of an audio feature.
        visual_shape: Shape of a segment's visual feature.
        num_segments: Segments a clip.
        notice: What must be said wherever a result on it appears, or None.
        has_times: Whether every clip's event has a start and an end. If not, some clips
            can only be learnt from their category.
        networks: What its features were made with, if it was built from videos; see
            `features.extract.settings_of`.
    """

    builder: tfds.core.DatasetBuilder
    categories: tuple[str, ...]
    audio_width: int
    visual_shape: tuple[int, ...]
    num_segments: int
    notice: str | None
    has_times: bool = True
    # Counts of a data set are kept by its hash, which a dictionary has none of.
    networks: dict[str, str] | None = dataclasses.field(default=None, hash=False)

    def num_clips(self, split: str) -> int:
        """Returns the number of clips of a split, or of several joined by "+"."""
        return self.builder.info.splits[split].num_examples

    def digest(self) -> str:
        """Returns a digest by which a data set that was built of others is told.

        It is of the categories, the shapes, the sizes of all splits, the networks that
        made the features of videos, and of one's own data all labels; nothing is read,
        so that other feature files of the same sizes, or AVE's with other labels, are
        not told. Files that were built twice from the same differ in the order of
        features within an example, so theirs would not do.
        """
        told = {
            "categories": self.categories,
            "shapes": [self.num_segments, self.audio_width, self.visual_shape],
            "splits": {
                name: [split.shard_lengths, split.num_bytes]
                for name, split in self.builder.info.splits.items()
            },
            "labels": (self.builder.info.metadata or {}).get("labels_digest"),
        }
        if self.networks:
            told["networks"] = self.networks
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    @property
    def clip_bytes(self) -> int:
        """How large the features of a clip are, as they are stored."""
        features = self.builder.info.features
        widths = {"audio": self.audio_width, "visual": math.prod(self.visual_shape)}
        return sum(
            self.num_segments * width * np.dtype(features[name].np_dtype).itemsize
            for name, width in widths.items()
        )


@dataclasses.dataclass(frozen=True)
class Part:
    """Which part of every batch a process has, where several train one model.

    Attributes:
        worker: Number of the process, from 0.
        num_workers: How many processes there are; `NUM_SHARES` at most.
        num_replicas: How many devices share the process's part.
    """

    worker: int = 0
    num_workers: int = 1
    num_replicas: int = 1


WHOLE = Part()


def open_dataset(name: str, data_dir: str | None = None) -> Dataset:
    """Opens a data set, and makes the synthetic one where it is not there yet.

    Args:
        name: `tfds_ave/CONFIG`.
        data_dir: TFDS's folder of data sets, or None for its default.

    Raises:
        NotBuiltError: If it has not been built there.
        UserError: If there is no such data set, or it can't be built.
    """
    if name.split("/")[0] != tfds_ave.Builder.name:
        raise UserError(
            f"--dataset={name}: expected {tfds_ave.Builder.name}/CONFIG, with a config "
            f"of {', '.join(tfds_ave.Builder.builder_configs)}."
        )
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    # TFDS asserts that a version is one that there is.
    except (ValueError, AssertionError) as error:
        raise UserError(f"--dataset={name}: {first_line(error)}") from error
    if not builder.is_prepared():
        config = builder.builder_config.name if builder.builder_config else ""
        if config != "synthetic":
            where = f" --data_dir={data_dir}" if data_dir else ""
            files = "YOUR_DATA" if config == "custom" else "AVE_FILES"
            raise NotBuiltError(
                f"--dataset={name}: not built yet in {builder.data_path}. Build it "
                f"first:\n  tfds build {builder.name} --imports=tfds_ave "
                f"--config={config} --manual_dir=FOLDER_OF_{files}{where}"
            )
        builder = _build_quietly(name, data_dir)
    features = builder.info.features
    # Only of one's own data do the metadata tell what the features can't.
    metadata = builder.info.metadata or {}
    num_segments, audio_width = features["audio"].shape
    return Dataset(
        builder=builder,
        categories=tuple(features["clip_label"].names[:-1]),
        audio_width=metadata.get("audio_width", audio_width),
        visual_shape=tuple(metadata.get("visual_shape", features["visual"].shape[1:])),
        num_segments=metadata.get("num_segments", num_segments),
        notice=_notice(builder),
        has_times=metadata.get("has_times", True),
        networks=metadata.get("networks"),
    )


def training_batches(
    dataset: Dataset, config: Config, epochs: Sequence[int] = (1,), part: Part = WHOLE
) -> tf.data.Dataset:
    """Returns the batches of epochs, each in an order that (seed, epoch) decides.

    In weak mode the segment labels are not decoded: what a batch holds is all that
    training can read. Every batch has the same size: the last one is filled up with
    zeros, which weigh nothing.

    Args:
        dataset: The data.
        config: Mode, seed and batch size.
        epochs: The epochs, which follow each other.
        part: Which part of every batch to return. Its replicas take turns: the first
            batch is the first replica's part of the first batch of all.

    Returns:
        A dataset of dictionaries: `audio` `(batch, num_segments, audio_width)`,
        `visual` `(batch, num_segments, *visual_shape)`, as precise as it is stored,
        `row` and `weight` `(batch,)`, and `target`, a distribution over the classes:
        `(batch, num_segments, num_classes)`, or `(batch, num_classes)` in weak mode.

    Raises:
        UserError: If the data set lacks the background clips that are asked for.
    """
    split, label = training_split(dataset, config), _training_label(config)
    num_classes = len(dataset.categories) + 1

    def with_target(batch: dict[str, Any]) -> dict[str, Any]:
        target = batch[label]
        if label != "segment_label_mean":
            target = tf.one_hot(target, num_classes)
        return {
            "audio": batch["audio"],
            "visual": batch["visual"],
            "row": batch["row"],
            "target": target,
        }

    names = ("audio", "visual", "row", label)

    def block_of(name: str) -> _Block:
        read = functools.partial(_read, dataset, name, names)
        return _Block(read, dataset.num_clips(name))

    splits = [
        [_Share(list(map(block_of, blocks))) for blocks in _blocks(dataset, name)]
        for name in split.split("+")
    ]
    order = _Order(
        seeds=[_epoch_seed(config.seed, epoch) for epoch in epochs],
        buffer=_buffer_clips(dataset),
        batch_size=config.batch_size,
    )
    return _take_turns(splits, order, part, with_target).prefetch(1)


def check_times(dataset: Dataset, config: Config) -> None:
    """Checks that a data set knows when events are, if that is to be learnt.

    Raises:
        UserError: If not.
    """
    if _training_label(config) != "clip_label" and not dataset.has_times:
        weak = f" --weak_label={config.weak_label}" if config.mode == "weak" else ""
        raise UserError(
            f"{config.dataset} has clips without start and end. Expected --mode=weak "
            "with --weak_label=mil, which learns from their category alone. Received: "
            f"--mode={config.mode}{weak}"
        )


def training_split(dataset: Dataset, config: Config) -> str:
    """Returns the name of what is trained on.

    Raises:
        UserError: If the data set lacks the background clips that are asked for.
    """
    if config.mode != "weak" or config.weak_label != "mil_background":
        return "train"
    if "background" not in dataset.builder.info.splits:
        raise UserError(
            f"--weak_label=mil_background: {config.dataset} has no background clips of "
            "their own. Take --weak_label=mil, or AVE's feature files, built with the "
            "noisy ones in the manual folder."
        )
    return "train+background"


def _training_label(config: Config) -> str:
    """Returns the name of the feature that holds what is learnt."""
    if config.mode != "weak":
        return "segment_labels"
    return "segment_label_mean" if config.weak_label == "average" else "clip_label"


def scoring_batches(
    dataset: Dataset, split: str, batch_size: int = 64, part: Part = WHOLE
) -> tf.data.Dataset:
    """Returns a split's batches in their stored order, with the labels to score by.

    Args:
        dataset: The data.
        split: The split.
        batch_size: Clips in a batch.
        part: Whose clips to return: a worker has a share of them.

    Returns:
        A dataset of dictionaries: `audio`, `visual` and `row` as in training,
        `segment_labels` `(batch, num_segments)` and `clip_label` `(batch,)`.
    """
    names = ("audio", "visual", "row", "segment_labels", "clip_label")

    return (
        _read(dataset, _cut(dataset, split, part.num_workers)[part.worker], names)
        .batch(batch_size)
        .prefetch(1)
    )


def matching_segments(
    dataset: Dataset,
    match_split: str,
    *,
    batch_size: int = 8,
    seed: int = 0,
    epochs: Sequence[int] = (1,),
    part: Part = WHOLE,
) -> tf.data.Dataset:
    """Returns pairs of simultaneous segments, in an order of (seed, epoch).

    The splits of the cross-modality task are others than those of the data set: the
    clips come from all of its splits.

    Args:
        dataset: The data.
        match_split: `"train"`, `"validation"` or `"test"` of the cross-modality task.
        batch_size: Pairs in a batch.
        seed: Decides the order, with the epoch.
        epochs: The epochs, which follow each other.
        part: Which part of every batch to return; see `training_batches`.

    Returns:
        A dataset of dictionaries: `audio` `(batch, audio_width)`, `visual`
        `(batch, *visual_shape)`, `target` `(batch,)`: 1 where the segment is an event,
        else 0; `row` `(batch,)` of the clip; and `weight` `(batch,)`: 0 for the zeros
        that fill the last batch up.
    """
    names = ("audio", "visual", "row", "segment_labels")

    def split_up(example: dict[str, Any]) -> tf.data.Dataset:
        is_event = example["segment_labels"] != len(dataset.categories)
        return tf.data.Dataset.from_tensor_slices(
            {
                "audio": example["audio"],
                "visual": example["visual"],
                "target": tf.cast(is_event, tf.float32),
                "row": tf.repeat(example["row"], dataset.num_segments),
            }
        )

    def read(block: str) -> tf.data.Dataset:
        return _read_match_split(dataset, block, match_split, names).flat_map(split_up)

    def block_of(name: str) -> _Block:
        num_clips = _count_matching(dataset, name)[match_split]
        return _Block(functools.partial(read, name), dataset.num_segments * num_clips)

    shares = [
        _Share(list(map(block_of, blocks)))
        for blocks in _blocks(dataset, _match_sources(dataset))
    ]
    order = _Order(
        seeds=[_epoch_seed(seed, epoch) for epoch in epochs],
        buffer=dataset.num_segments * _buffer_clips(dataset),
        batch_size=batch_size,
    )
    return _take_turns([shares], order, part).prefetch(8)


def matching_clips(
    dataset: Dataset, match_split: str, batch_size: int = 64, part: Part = WHOLE
) -> tf.data.Dataset:
    """Returns the whole clips of a split of the cross-modality task, to score.

    Args:
        dataset: The data.
        match_split: See `matching_segments`.
        batch_size: Clips in a batch.
        part: Whose clips to return: a worker has a share of them.

    Returns:
        A dataset of dictionaries: `audio` `(batch, num_segments, audio_width)`,
        `visual` `(batch, num_segments, *visual_shape)`, `row` `(batch,)`, and
        `is_event` `(batch, num_segments)`.
    """

    def mark_events(example: dict[str, Any]) -> dict[str, Any]:
        labels = example.pop("segment_labels")
        return {**example, "is_event": labels != len(dataset.categories)}

    names = ("audio", "visual", "row", "segment_labels")
    return (
        _read_match_split(dataset, _match_sources(dataset), match_split, names)
        # A share of the stored splits may hold no clip of this one.
        .shard(part.num_workers, part.worker)
        .map(mark_events, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(batch_size)
        .prefetch(1)
    )


def count_matching_clips(dataset: Dataset) -> dict[str, int]:
    """Returns how many clips each split of the cross-modality task has."""
    total: collections.Counter[str] = collections.Counter()
    # Block by block, as they are counted for the training too: all data are read once.
    for block in itertools.chain(*_blocks(dataset, _match_sources(dataset))):
        total.update(_count_matching(dataset, block))
    return dict(total)


@functools.lru_cache(maxsize=NUM_SHARES * _MOST_BLOCKS)
def _count_matching(dataset: Dataset, share: str) -> dict[str, int]:
    feature = dataset.builder.info.features["match_split"]
    counts = np.zeros(feature.num_classes, int)
    for batch in _read(dataset, share, ("match_split",)).batch(1024):
        counts += np.bincount(
            batch["match_split"].numpy(), minlength=feature.num_classes
        )
    return dict(zip(feature.names, counts.tolist(), strict=True))


def _match_sources(dataset: Dataset) -> str:
    """Returns the stored splits whose clips the cross-modality task distributes."""
    return "+".join(
        name for name in dataset.builder.info.splits if name != "background"
    )


def _read_match_split(
    dataset: Dataset, share: str, match_split: str, names: tuple[str, ...]
) -> tf.data.Dataset:
    """Returns the examples of a split of the cross-modality task."""
    wanted = dataset.builder.info.features["match_split"].str2int(match_split)
    examples = _read(dataset, share, (*names, "match_split"))

    def is_wanted(example: dict[str, Any]) -> tf.Tensor:
        return example["match_split"] == wanted

    def without_split(example: dict[str, Any]) -> dict[str, Any]:
        return {name: example[name] for name in names}

    return examples.filter(is_wanted).map(without_split)


def _cut(dataset: Dataset, split: str, num_shares: int) -> list[str]:
    """Returns the names of shares of a split, of sizes that differ by 1 at most.

    Args:
        dataset: The data.
        split: A split, or several joined by "+".
        num_shares: How many shares.

    Returns:
        What TFDS takes as the name of a share. There may be empty ones.
    """
    names = split.split("+")
    starts = np.cumsum([0, *map(dataset.num_clips, names)]).tolist()
    bounds = [starts[-1] * i // num_shares for i in range(num_shares + 1)]
    shares = []
    for begin, end in itertools.pairwise(bounds):
        pieces = [
            f"{name}[{max(begin, first) - first}:{min(end, last) - first}]"
            for name, (first, last) in zip(
                names, itertools.pairwise(starts), strict=True
            )
            if max(begin, first) < min(end, last)
        ]
        shares.append("+".join(pieces) or f"{names[0]}[:0]")
    return shares


def _blocks(dataset: Dataset, split: str) -> list[list[str]]:
    """Returns the names of a split's shares, each in blocks.

    Only where few of a share's clips can wait to be drawn it has several blocks, each
    at least twice as long as what can wait.
    """
    waiting = max(1, _buffer_clips(dataset))
    num_blocks = dataset.num_clips(split) // (2 * waiting)
    num_blocks = max(1, min(_MOST_BLOCKS, num_blocks))
    blocks = _cut(dataset, split, NUM_SHARES * num_blocks)
    return [
        blocks[first : first + num_blocks]
        for first in range(0, len(blocks), num_blocks)
    ]


@dataclasses.dataclass(frozen=True)
class _Block:
    """Elements that are stored one after the other.

    Attributes:
        read: Returns them.
        num_elements: How many there are.
    """

    read: Callable[[], tf.data.Dataset]
    num_elements: int


@dataclasses.dataclass(frozen=True)
class _Share:
    """A share of the elements of a split.

    Attributes:
        blocks: What it consists of, in the order in which they are stored.
    """

    blocks: Sequence[_Block]

    @property
    def num_elements(self) -> int:
        """How many there are."""
        return sum(block.num_elements for block in self.blocks)

    def read(self) -> Callable[[tf.Tensor], tf.data.Dataset]:
        """Returns what gives its elements, in blocks whose order a seed decides."""
        blocks = [block.read() for block in self.blocks]
        if len(blocks) == 1:
            return lambda seed: blocks[0]
        counts = tf.constant([block.num_elements for block in self.blocks], tf.int64)

        def in_order_of(seed: tf.Tensor) -> tf.data.Dataset:
            order = tf.random.experimental.stateless_shuffle(
                tf.range(len(blocks), dtype=tf.int64), tf.stack([seed, 0])
            )
            # One turn more than it has elements, which is passed over: a reader that
            # has come to its end lets go of its file and its buffers.
            turns = tf.repeat(order, tf.gather(counts, order) + 1)
            return tf.data.Dataset.choose_from_datasets(
                blocks,
                tf.data.Dataset.from_tensor_slices(turns),
                stop_on_empty_dataset=False,
            )

        return in_order_of


@dataclasses.dataclass(frozen=True)
class _Order:
    """How elements are shuffled and put into batches.

    Attributes:
        seeds: One an epoch, which decides its order.
        buffer: How many elements may wait in memory.
        batch_size: Elements in a batch of all workers.
    """

    seeds: Sequence[int]
    buffer: int
    batch_size: int


def _turns(splits: Sequence[Sequence[_Share]]) -> np.ndarray:
    """Returns whose turn it is, by the number of the share among all.

    The elements of a split are those of its first share, its second and so on, again
    and again; those that are used up lose their turn. Of several splits, each is spread
    evenly over the epoch.
    """
    places, owners = [], []
    first = 0
    for shares in splits:
        counts = [share.num_elements for share in shares]
        # By turn, then by share.
        of_split = [
            i for turn in range(max(counts)) for i, n in enumerate(counts) if turn < n
        ]
        places.append((np.arange(len(of_split)) + 0.5) / max(1, len(of_split)))
        owners.append(first + np.array(of_split, int))
        first += len(shares)
    return np.concatenate(owners)[np.argsort(np.concatenate(places), kind="stable")]


def _take_turns(
    splits: Sequence[Sequence[_Share]],
    order: _Order,
    part: Part,
    finish: Callable[[dict[str, Any]], dict[str, Any]] = dict,
) -> tf.data.Dataset:
    """Returns a worker's part of batches to which shuffled shares contribute in turn.

    A share is read by one worker alone. `finish` changes batches.

    A graph is compiled once a shape, and replicas share a batch evenly: so batches have
    one static shape, and zeros of weight 0 fill them up.
    """
    shares = list(itertools.chain(*splits))
    turns = _turns(splits)
    batches = np.split(turns, range(order.batch_size, len(turns), order.batch_size))
    owned = [i for i in range(len(shares)) if i % part.num_workers == part.worker]
    most = max(
        np.count_nonzero(batch % part.num_workers == worker)
        for batch in batches
        for worker in range(part.num_workers)
    )
    replica_size = -(-most // part.num_replicas)
    filling = len(owned)
    choices = np.full((len(batches), replica_size * part.num_replicas), filling)
    for row, batch in zip(choices, batches, strict=True):
        own = [owned.index(i) for i in batch if i in owned]
        row[: len(own)] = own

    # A split has of the buffer what it has of the elements.
    buffers = [
        order.buffer
        * sum(one.num_elements for one in split)
        // len(turns)
        // len(split)
        for split in splits
        for _ in split
    ]
    ordered = {i: shares[i].read() for i in owned}
    spec = ordered[owned[0]](tf.constant(0, tf.int64)).element_spec
    nothing = {name: tf.zeros(of.shape, of.dtype) for name, of in spec.items()}
    filler = tf.data.Dataset.from_tensors(nothing).repeat()
    choices = choices.reshape(-1).astype(np.int64)
    turns_to_take = tf.data.Dataset.from_tensor_slices(choices)
    weights = tf.data.Dataset.from_tensor_slices(np.float32(choices != filling))

    # The seed is a tensor, so that the graph is made once and not for every epoch.
    def epoch_batches(seed: tf.Tensor) -> tf.data.Dataset:
        # The seed of this graph alone: the program's would be mixed into the order, and
        # can't be 0 beside a seed that is a tensor.
        tf.random.set_seed(1)
        shuffled = [
            ordered[i](seed + i).shuffle(
                max(1, min(buffers[i], shares[i].num_elements)),
                seed=seed + i,
                reshuffle_each_iteration=False,
            )
            for i in owned
        ]
        chosen = tf.data.Dataset.choose_from_datasets(
            [*shuffled, filler], turns_to_take
        )
        return (
            tf.data.Dataset.zip(chosen, weights)
            .batch(replica_size, drop_remainder=True)
            .map(lambda batch, weight: {**finish(batch), "weight": weight})
        )

    return tf.data.Dataset.from_tensor_slices(np.array(order.seeds, np.int64)).flat_map(
        epoch_batches
    )


@contextlib.contextmanager
def named_damage(builder: tfds.core.DatasetBuilder) -> Iterator[None]:
    """Names the damaged file where reading a data set fails.

    TFRecords have a checksum for every example and its length.

    Raises:
        UserError: If a file of the data set is damaged, or too short.
    """
    try:
        yield
    except _DAMAGE as error:
        damaged = _damaged_files(builder)
        if not damaged:
            raise
        raise UserError(
            f"{', '.join(damaged)}: expected the examples that were written when the "
            "data set was built. Received damaged or missing ones, which no training "
            "may learn from. Remove the folder and build the data set again."
        ) from error


def _damaged_files(builder: tfds.core.DatasetBuilder) -> list[str]:
    """Returns the files that can't be read, or hold another number of examples."""
    damaged = []
    for split in builder.info.splits.values():
        for path, length in zip(split.filepaths, split.shard_lengths, strict=True):
            try:
                found = sum(1 for _ in tf.data.TFRecordDataset(str(path)))
            except tf.errors.OpError:
                found = None
            if found != length:
                damaged.append(str(path))
    return damaged


def _buffer_clips(dataset: Dataset) -> int:
    """Returns how many clips may wait in memory."""
    return _SHUFFLE_BYTES // dataset.clip_bytes


def _build_quietly(name: str, data_dir: str | None) -> tfds.core.DatasetBuilder:
    """Builds simulated data, of which TFDS would say that it downloads it."""
    builder = tfds.builder(name, data_dir=data_dir)
    folder = pathlib.Path(builder.data_path).parent
    with explain_unwritable(builder.data_path, "Choose another folder by --data_dir."):
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder, wait=True):
            # Another process may just have built it; a builder reads that but once.
            builder = tfds.builder(name, data_dir=data_dir)
            if not builder.is_prepared():
                print(f"Building {name} in {builder.data_path}", flush=True)
                with (
                    contextlib.redirect_stdout(io.StringIO()),
                    contextlib.redirect_stderr(io.StringIO()),
                ):
                    builder.download_and_prepare()
    return builder


def _read(
    dataset: Dataset,
    split: str,
    names: tuple[str, ...],
) -> tf.data.Dataset:
    """Returns a split's examples with only the named features decoded."""
    is_empty = dataset.num_clips(split) == 0
    examples = dataset.builder.as_dataset(
        # TFDS refuses to read nothing.
        split=split.replace("[:0]", "[:1]") if is_empty else split,
        decoders=tfds.decode.PartialDecoding(dict.fromkeys(names, True)),
        read_config=tfds.ReadConfig(
            # TFDS would keep small data sets in memory, twice with the shuffle.
            try_autocache=False,
            skip_prefetch=True,
            # The shares are read beside each other already. Each reads one file after
            # the other, and nothing ahead: that would cost 60 MB a share of maps.
            interleave_cycle_length=1,
            interleave_block_length=1,
            num_parallel_calls_for_interleave_files=1,
            override_buffer_size=2**20,
        ),
    )
    shapes = {
        "audio": (dataset.num_segments, dataset.audio_width),
        "visual": (dataset.num_segments, *dataset.visual_shape),
        "segment_labels": (dataset.num_segments,),
        "segment_label_mean": (len(dataset.categories) + 1,),
    }

    def shaped(example: dict[str, Any]) -> dict[str, Any]:
        # What is stored of one's own data has no static shape, and maps are flat.
        return {
            name: tf.reshape(value, shapes[name]) if name in shapes else value
            for name, value in example.items()
        }

    if is_empty:
        examples = examples.take(0)
    return examples.map(shaped)


def _epoch_seed(seed: int, epoch: int) -> int:
    """Returns a seed for an epoch that a resumed run finds again."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])


def _notice(builder: tfds.core.DatasetBuilder) -> str | None:
    """Returns what results must carry if the features are not those of AVE."""
    # Of a name with a version, TFDS opens the files without this class's config.
    source = tfds_ave.Builder.builder_configs[builder.builder_config.name].source
    if source == "simulated":
        return _SIMULATED
    if source == "custom":
        return None
    num_clips = min(_STAND_IN_CLIPS, builder.info.splits["train"].num_examples)
    first = builder.as_dataset(
        split=f"train[:{num_clips}]",
        decoders=tfds.decode.PartialDecoding({"audio": True}),
    )
    with named_damage(builder):
        lowest = min(float(tf.reduce_min(example["audio"])) for example in first)
    # VGGish's features are taken after its final ReLU (DATASET: released features).
    return _STAND_IN if lowest < 0 else None
