"""TFDS examples as tf.data batches, for training and for scoring."""

import contextlib
import dataclasses
import functools
import io
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

import tfds_ave
from avsdn_tf.config import Config
from avsdn_tf.errors import UserError

# A shuffle this large holds all of AVE's pooled features, and a share of its maps:
# memory stays bounded whatever the number of clips.
_SHUFFLE_BYTES = 320 * 2**20

_SIMULATED = "Simulated data (tfds_ave/synthetic): these are not AVE results"
_STAND_IN = (
    "Stand-in features (audio below zero, which AVE's released features never are): "
    "these are not AVE results"
)


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
    """

    builder: tfds.core.DatasetBuilder
    categories: tuple[str, ...]
    audio_width: int
    visual_shape: tuple[int, ...]
    num_segments: int
    notice: str | None
    has_times: bool = True

    def num_clips(self, split: str) -> int:
        """Returns the number of clips of a split, or of several joined by "+"."""
        return self.builder.info.splits[split].num_examples


def open_dataset(name: str, data_dir: str | None = None) -> Dataset:
    """Opens a data set, and makes the synthetic one where it is not there yet.

    Args:
        name: `tfds_ave/CONFIG`.
        data_dir: TFDS's folder of data sets, or None for its default.

    Raises:
        UserError: If there is no such data set, or it has not been built.
    """
    if name.split("/")[0] != tfds_ave.Builder.name:
        raise UserError(
            f"--dataset={name}: expected {tfds_ave.Builder.name}/CONFIG, with a config "
            f"of {', '.join(tfds_ave.Builder.builder_configs)}."
        )
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except ValueError as error:
        raise UserError(f"--dataset={name}: {str(error).splitlines()[0]}") from error
    if not builder.is_prepared():
        config = builder.builder_config.name if builder.builder_config else ""
        if config != "synthetic":
            where = f" --data_dir={data_dir}" if data_dir else ""
            raise UserError(
                f"--dataset={name}: not built yet in {builder.data_path}. Build it "
                f"first:\n  tfds build {builder.name} --imports=tfds_ave "
                f"--config={config} --manual_dir=FOLDER_OF_AVE_FILES{where}"
            )
        print(f"Building {name} in {builder.data_path}", flush=True)
        _build_quietly(builder)
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
    )


def training_batches(dataset: Dataset, config: Config, epoch: int) -> tf.data.Dataset:
    """Returns an epoch's batches, in an order that (seed, epoch) decides.

    In weak mode the segment labels are not decoded: what a batch holds is all that
    training can read. Every batch has the same size: the last one is filled up with
    zeros, which weigh nothing.

    Returns:
        A dataset of dictionaries: `audio` `(batch, num_segments, audio_width)`,
        `visual` `(batch, num_segments, *visual_shape)`, `row` and `weight` `(batch,)`,
        and `target`, a distribution over the classes: `(batch, num_segments,
        num_classes)`, or `(batch, num_classes)` in weak mode.

    Raises:
        UserError: If the data set lacks the background clips or the times that are
            asked for.
    """
    split = "train"
    if config.mode == "supervised":
        label = "segment_labels"
    elif config.weak_label == "average":
        label = "segment_label_mean"
    else:
        label = "clip_label"
    if label != "clip_label" and not dataset.has_times:
        raise UserError(
            f"{config.dataset} has clips without start and end. Expected --mode=weak "
            "with --weak_label=mil, which learns from their category alone. Received: "
            f"--mode={config.mode} --weak_label={config.weak_label}"
        )
    if config.mode == "weak" and config.weak_label == "mil_background":
        if "background" not in dataset.builder.info.splits:
            raise UserError(
                f"--weak_label=mil_background: {config.dataset} has no background "
                "clips. Build it with the noisy files in the manual folder, or take "
                "--weak_label=mil."
            )
        split = "train+background"

    num_classes = len(dataset.categories) + 1

    def to_batch_element(example: dict[str, Any]) -> dict[str, Any]:
        target = example[label]
        if label != "segment_label_mean":
            target = tf.one_hot(target, num_classes)
        return {
            "audio": example["audio"],
            "visual": tf.cast(example["visual"], tf.float32),
            "row": example["row"],
            "target": target,
        }

    seed = _epoch_seed(config.seed, epoch)
    examples = _read(
        dataset, split, ("audio", "visual", "row", label), shuffle_seed=seed
    )
    buffer = min(
        dataset.num_clips(split), max(1, int(_SHUFFLE_BYTES // _clip_bytes(dataset)))
    )
    elements = examples.shuffle(buffer, seed=seed).map(
        to_batch_element, num_parallel_calls=tf.data.AUTOTUNE
    )
    batches = _full_batches(elements, dataset.num_clips(split), config.batch_size)
    return batches.prefetch(2)


def scoring_batches(
    dataset: Dataset, split: str, batch_size: int = 64
) -> tf.data.Dataset:
    """Returns a split's batches in their stored order, with the labels to score by.

    Returns:
        A dataset of dictionaries: `audio`, `visual` and `row` as in training,
        `segment_labels` `(batch, num_segments)` and `clip_label` `(batch,)`.
    """
    names = ("audio", "visual", "row", "segment_labels", "clip_label")

    def widen(example: dict[str, Any]) -> dict[str, Any]:
        return {**example, "visual": tf.cast(example["visual"], tf.float32)}

    return (
        _read(dataset, split, names)
        .map(widen, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(batch_size)
        .prefetch(2)
    )


def matching_segments(
    dataset: Dataset,
    match_split: str,
    *,
    batch_size: int = 8,
    seed: int = 0,
    epoch: int = 1,
) -> tf.data.Dataset:
    """Returns pairs of simultaneous segments, in an order of (seed, epoch).

    The splits of the cross-modality task are others than those of the data set: the
    clips come from all of its splits.

    Args:
        dataset: The data.
        match_split: `"train"`, `"validation"` or `"test"` of the cross-modality task.
        batch_size: Pairs in a batch.
        seed: Decides the order, with the epoch.
        epoch: Decides the order, with the seed.

    Returns:
        A dataset of dictionaries: `audio` `(batch, audio_width)`, `visual`
        `(batch, *visual_shape)`, `target` `(batch,)`: 1 where the segment is an event,
        else 0; and `weight` `(batch,)`: 0 for the zeros that fill the last batch up.
    """
    shuffle_seed = _epoch_seed(seed, epoch)
    names = ("audio", "visual", "segment_labels")
    clips = _read_match_split(dataset, match_split, names, shuffle_seed)

    def split_up(example: dict[str, Any]) -> tf.data.Dataset:
        is_event = example["segment_labels"] != len(dataset.categories)
        return tf.data.Dataset.from_tensor_slices(
            {
                "audio": example["audio"],
                "visual": example["visual"],
                "target": tf.cast(is_event, tf.float32),
            }
        )

    def widen(pair: dict[str, Any]) -> dict[str, Any]:
        return {**pair, "visual": tf.cast(pair["visual"], tf.float32)}

    num_pairs = dataset.num_segments * count_matching_clips(dataset)[match_split]
    pair_bytes = _clip_bytes(dataset) // dataset.num_segments
    buffer = min(num_pairs, max(1, int(_SHUFFLE_BYTES // pair_bytes)))
    pairs = clips.flat_map(split_up).shuffle(buffer, seed=shuffle_seed)
    return (
        _full_batches(pairs, num_pairs, batch_size)
        .map(widen, num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(8)
    )


def matching_clips(
    dataset: Dataset, match_split: str, batch_size: int = 64
) -> tf.data.Dataset:
    """Returns the whole clips of a split of the cross-modality task, to score.

    Returns:
        A dataset of dictionaries: `audio` `(batch, num_segments, audio_width)`,
        `visual` `(batch, num_segments, *visual_shape)`, `row` `(batch,)`, and
        `is_event` `(batch, num_segments)`.
    """

    def widen(example: dict[str, Any]) -> dict[str, Any]:
        labels = example.pop("segment_labels")
        return {
            **example,
            "visual": tf.cast(example["visual"], tf.float32),
            "is_event": labels != len(dataset.categories),
        }

    names = ("audio", "visual", "row", "segment_labels")
    return (
        _read_match_split(dataset, match_split, names)
        .map(widen, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(batch_size)
        .prefetch(2)
    )


@functools.lru_cache(maxsize=4)
def count_matching_clips(dataset: Dataset) -> dict[str, int]:
    """Returns how many clips each split of the cross-modality task has."""
    feature = dataset.builder.info.features["match_split"]
    counts = np.zeros(feature.num_classes, int)
    for source in _match_sources(dataset):
        for batch in _read(dataset, source, ("match_split",)).batch(1024):
            counts += np.bincount(
                batch["match_split"].numpy(), minlength=feature.num_classes
            )
    return dict(zip(feature.names, counts.tolist(), strict=True))


def _match_sources(dataset: Dataset) -> tuple[str, ...]:
    """Returns the stored splits whose clips the cross-modality task distributes."""
    return tuple(name for name in dataset.builder.info.splits if name != "background")


def _read_match_split(
    dataset: Dataset,
    match_split: str,
    names: tuple[str, ...],
    shuffle_seed: int | None = None,
) -> tf.data.Dataset:
    """Returns the examples of a split of the cross-modality task."""
    wanted = dataset.builder.info.features["match_split"].str2int(match_split)
    examples = _read(
        dataset,
        "+".join(_match_sources(dataset)),
        (*names, "match_split"),
        shuffle_seed=shuffle_seed,
    )

    def is_wanted(example: dict[str, Any]) -> tf.Tensor:
        return example["match_split"] == wanted

    def without_split(example: dict[str, Any]) -> dict[str, Any]:
        return {name: example[name] for name in names}

    return examples.filter(is_wanted).map(without_split)


def _full_batches(
    elements: tf.data.Dataset, num_elements: int, batch_size: int
) -> tf.data.Dataset:
    """Returns batches of one static shape, with a `weight` of 1 for every element.

    A graph is compiled once a shape, and replicas share a batch evenly: so zeros of
    weight 0 fill the last batch up.
    """
    nothing = {
        name: tf.zeros(spec.shape, spec.dtype)
        for name, spec in elements.element_spec.items()
    }
    weighed = elements.map(lambda element: {**element, "weight": 1.0})
    filling = tf.data.Dataset.from_tensors({**nothing, "weight": 0.0}).repeat(
        -num_elements % batch_size
    )
    return weighed.concatenate(filling).batch(batch_size, drop_remainder=True)


def _clip_bytes(dataset: Dataset) -> int:
    """Returns how many bytes the features of a clip take."""
    features = dataset.builder.info.features
    widths = {
        "audio": dataset.audio_width,
        "visual": int(np.prod(dataset.visual_shape)),
    }
    return sum(
        dataset.num_segments * width * np.dtype(features[name].np_dtype).itemsize
        for name, width in widths.items()
    )


def _build_quietly(builder: tfds.core.DatasetBuilder) -> None:
    """Builds simulated data, of which TFDS would say that it downloads it."""
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            builder.download_and_prepare()
    except OSError as error:
        raise UserError(
            f"{builder.data_path}: can't be written ({error.strerror or error}). "
            "Expected a folder that this user may write to; choose one by --data_dir."
        ) from error


def _read(
    dataset: Dataset,
    split: str,
    names: tuple[str, ...],
    shuffle_seed: int | None = None,
) -> tf.data.Dataset:
    """Returns a split's examples with only the named features decoded."""
    examples = dataset.builder.as_dataset(
        split=split,
        shuffle_files=shuffle_seed is not None,
        decoders=tfds.decode.PartialDecoding(dict.fromkeys(names, True)),
        read_config=tfds.ReadConfig(
            shuffle_seed=shuffle_seed,
            shuffle_reshuffle_each_iteration=False,
            # TFDS would keep small data sets in memory, twice with the shuffle.
            try_autocache=False,
            skip_prefetch=True,
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

    return examples.map(shaped, num_parallel_calls=tf.data.AUTOTUNE)


def _epoch_seed(seed: int, epoch: int) -> int:
    """Returns a seed for an epoch that a resumed run finds again."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])


def _notice(builder: tfds.core.DatasetBuilder) -> str | None:
    """Returns what results must carry if the features are not those of AVE."""
    source = builder.builder_config.source
    if source == "simulated":
        return _SIMULATED
    if source == "custom":
        return None
    first = builder.as_dataset(
        split="train[:16]", decoders=tfds.decode.PartialDecoding({"audio": True})
    )
    lowest = min(float(tf.reduce_min(example["audio"])) for example in first)
    # VGGish's features are taken after its final ReLU (DATASET: released features).
    return _STAND_IN if lowest < 0 else None
