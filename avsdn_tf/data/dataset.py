"""Open data sets, check them, and describe them."""

import contextlib
import dataclasses
import hashlib
import io
import json
import math
import os
import pathlib
import shlex
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pydantic
import tensorflow as tf
import tensorflow_datasets as tfds

# Importing `tfds_ave` registers the data set with TFDS.
import tfds_ave
from avsdn_tf.backbones import Backbones
from avsdn_tf.data.damage import check_sizes, damage_error, find_damaged_files
from avsdn_tf.errors import UserError, first_line
from avsdn_tf.files import expand_user
from avsdn_tf.schemas import Schema, describe
from avsdn_tf.text import printable, short_name
from tfds_ave import fingerprint

_NAME = "tfds_ave"
_SIMULATED = "synthetic"
_SHOWN = 5
# TensorFlow's errors for wrong checksums, missing files and truncated files.
_DAMAGE = (
    tf.errors.DataLossError,
    tf.errors.FailedPreconditionError,
    tf.errors.NotFoundError,
    tf.errors.OutOfRangeError,
)


class NotBuiltError(UserError):
    """Raised if a known data set is not built in the folder."""


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set that is ready to be read.

    Attributes:
        name: Its TFDS name, `tfds_ave/CONFIG`.
        builder: Its prepared TFDS builder.
        categories: Names of the event categories, without background.
        audio_width: Width of an audio feature.
        visual_shape: Shape of a segment's visual feature.
        num_segments: Segments of a window, or of the longest clip if it is shorter.
        segment_s: Length of a segment in seconds.
        disclaimer: Text that must accompany every result on the data, or None.
        has_times: Whether every event has a start and an end. If not, some clips have
            only a category.
        backbones: The networks that computed the features, as far as recorded.
        is_padded: Whether examples differ in length, so that batches are padded.
        train_segments: Segments of the longest training example.
        longest_segments: Segments of the longest clip.
        multi_label: Whether events of two categories overlap in any clip.
    """

    name: str
    builder: tfds.core.DatasetBuilder
    categories: tuple[str, ...]
    audio_width: int
    visual_shape: tuple[int, ...]
    num_segments: int
    segment_s: float
    disclaimer: str | None
    has_times: bool
    backbones: Backbones
    is_padded: bool
    train_segments: int
    longest_segments: int
    multi_label: bool

    @property
    def splits(self) -> list[str]:
        """Names of the splits."""
        return list(self.builder.info.splits)

    def num_clips(self, split: str) -> int:
        """Return the number of clips of a split."""
        return self.builder.info.splits[split].num_examples

    @property
    def segment_bytes(self) -> int:
        """Size of a segment's stored features in bytes."""
        features = self.builder.info.features
        widths = {"audio": self.audio_width, "visual": math.prod(self.visual_shape)}
        return sum(
            width * np.dtype(features[name].np_dtype).itemsize
            for name, width in widths.items()
        )

    @property
    def clip_bytes(self) -> int:
        """Size of the features of the longest training example in bytes."""
        return self.train_segments * self.segment_bytes

    @property
    def source(self) -> fingerprint.Fingerprint | None:
        """Fingerprint of the data set's source files, or None if unknown."""
        return fingerprint.read_fingerprint(self.builder.data_path)

    @property
    def config(self) -> str:
        """Name of the config."""
        return self.name.partition("/")[2].partition(":")[0] or _SIMULATED

    def describe_source(self) -> str:
        """Return a line with the source, the categories and the number of clips."""
        source = self.source.folder if self.source else "an unknown source"
        # A split may hold several windows of each clip.
        counts = self.builder.info.metadata.get("num_clips")
        clips = sum(counts.values() if counts else map(self.num_clips, self.splits))
        return (
            f"{self.name} from {'simulation' if self.config == _SIMULATED else source}"
            f": {clips:,} clips, {len(self.categories):,} categories: "
            f"{_shorten(map(short_name, self.categories))}"
        )

    def check_source(self) -> None:
        """Check that the source has not changed since the data set was built.

        Features and videos are compared only by size, because checksums are slow. A
        missing source counts as unchanged.

        Raises:
            UserError: If the source has changed.
        """
        source = self.source
        changes = source and fingerprint.find_changes(source, read_data=False)
        if changes:
            command = _build_command(
                self.config, self.builder.data_dir_root, source.folder
            )
            raise UserError(
                f"The source {source.folder} has changed since the data set was built: "
                f"{_shorten(changes)}. Build it again:\n  {command} --overwrite\n"
                "or set allow_stale_data to train on the existing one.",
                field="dataset",
                value=self.name,
            )

    def is_built_from(self, folder: str) -> bool:
        """Return whether the data set was built from the files in a folder."""
        source, path = self.source, pathlib.Path(folder).resolve()
        return bool(source) and not fingerprint.find_changes(
            source, path, read_data=True
        )

    def content_hash(self) -> str:
        """Return a hash that identifies the data, without reading the features.

        The hash covers categories, shapes, sizes of all splits, backbones and, for your
        own data, all labels and the checksums of features and videos. It excludes the
        built files, which differ between two builds of the same data.
        """
        content: dict[str, Any] = {
            "categories": self.categories,
            "shapes": [self.num_segments, self.audio_width, self.visual_shape],
            "splits": {
                name: [split.shard_lengths, split.num_bytes]
                for name, split in self.builder.info.splits.items()
            },
            "labels": self.builder.info.metadata.get("labels_hash"),
            "backbones": self.backbones.to_dict(),
        }
        if source := self.source:
            content["checksums"] = source.data_checksums
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def open_dataset(
    name: str, data_dir: str | None = None, *, build: bool = True
) -> Dataset:
    """Open a data set; build a missing synthetic data set.

    Args:
        name: `tfds_ave/CONFIG`.
        data_dir: TFDS's folder of data sets; None for its default.
        build: Whether to build a missing synthetic data set.

    Raises:
        NotBuiltError: If the data set is not built in `data_dir`.
        UserError: If there is no such data set, or it can't be built.
    """
    builder = find_builder(name, data_dir)
    if not builder.is_prepared():
        config = builder.builder_config.name if builder.builder_config else ""
        if config != _SIMULATED or not build:
            raise NotBuiltError(
                f"No data set in {builder.data_path}. Build it first:\n  "
                + _build_command(config, data_dir),
                field="dataset",
                value=name,
            )
        stdout, path = sys.stdout, builder.data_path

        def say(text: str) -> None:
            print(printable(text), file=stdout, flush=True)

        def announce(stage: str, *_: int) -> None:
            # Only the process that builds the data set reports "starting".
            if stage == "starting":
                say(f"Building {name} in {path}")

        builder.say, builder.on_progress = say, announce
        build_dataset(builder)
        builder = find_builder(name, data_dir)
    return _describe(name, builder)


def find_builder(name: str, data_dir: str | None = None) -> tfds.core.DatasetBuilder:
    """Return the builder of a data set, built or not.

    Args:
        name: `tfds_ave/CONFIG`.
        data_dir: TFDS's folder of data sets; None for its default.

    Raises:
        UserError: If there is no such data set, or its folder can't be read.
    """
    if name.split("/")[0] != _NAME:
        configs = tfds.builder_cls(_NAME).builder_configs
        raise UserError(
            f"Expected {_NAME}/CONFIG, with a config of {', '.join(configs)}.",
            field="dataset",
            value=name,
        )
    try:
        return tfds.builder(name, data_dir=expand_user(data_dir) if data_dir else None)
    # TFDS raises AssertionError for unknown versions.
    except (ValueError, AssertionError) as error:
        raise UserError(first_line(error), field="dataset", value=name) from error
    # Unreadable folders and inaccessible URLs raise errors of any type.
    except Exception as error:
        raise UserError(
            f"{name} can't be read there ({first_line(error.__cause__ or error)}). "
            "Expected a folder of data sets. If it is a URL, check that you can access "
            "it; if it is a local folder, remove the data set and build it again.",
            field="data_dir",
            value=data_dir,
        ) from error


def build_dataset(builder: tfds.core.DatasetBuilder, **arguments: Any) -> None:
    """Build a data set without TFDS's output, which has hundreds of lines.

    Args:
        builder: Builder of the data set.
        **arguments: Arguments of `download_and_prepare`.

    Raises:
        UserError: If source files are missing or invalid, or the data set can't be
            written.
    """
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            builder.download_and_prepare(**arguments)
    except tfds_ave.DatasetError as error:
        raise UserError(str(error)) from error


def open_dataset_of_run(
    name: str,
    recorded_dir: str | None,
    data_dir: str | None = None,
    *,
    build: bool = True,
) -> Dataset:
    """Open the data set of a run, whose settings may be untrusted.

    If the folder is from the settings, nothing is built there, and a URL is refused.

    Args:
        name: As in `open_dataset`.
        recorded_dir: TFDS's folder according to the settings.
        data_dir: TFDS's folder according to the caller, or None.
        build: As in `open_dataset`.

    Raises:
        NotBuiltError: If the data set is not built in the folder.
        UserError: If `recorded_dir` is a URL, or as in `open_dataset`.
    """
    if data_dir or not recorded_dir:
        return open_dataset(name, data_dir, build=build)
    if "://" in recorded_dir:
        raise UserError(
            f"The run's settings name {recorded_dir!a}. A URL in a file is not opened "
            "without asking. Pass it as data_dir if you trust it.",
            field="data_dir",
        )
    return open_dataset(name, recorded_dir, build=False)


class _Metadata(Schema):
    """The members of metadata.json that `Dataset` reads."""

    model_config = pydantic.ConfigDict(extra="ignore")

    audio_width: pydantic.PositiveInt
    visual_shape: list[pydantic.PositiveInt] = pydantic.Field(min_length=1)
    num_segments: pydantic.PositiveInt
    segment_s: pydantic.PositiveFloat
    disclaimer: str | None
    has_times: bool
    backbones: dict[str, str | None]
    # The following members are only in config `custom`.
    is_padded: bool = False
    train_segments: pydantic.PositiveInt | None = None
    longest_segments: pydantic.PositiveInt | None = None
    multi_label: bool = False
    # Number of clips in each split.
    num_clips: dict[str, pydantic.NonNegativeInt] | None = None
    # Shortest, median and longest clip, in segments.
    lengths: list[pydantic.PositiveInt] | None = pydantic.Field(
        None, min_length=3, max_length=3
    )
    window_s: pydantic.PositiveInt | None = None
    hop_s: pydantic.PositiveInt | None = None


def _describe(name: str, builder: tfds.core.DatasetBuilder) -> Dataset:
    """Return the data set that the builder's metadata describe."""
    try:
        metadata = _Metadata.model_validate(dict((builder.info.metadata or {}).items()))
        fields = {
            **metadata.model_dump(
                exclude={"num_clips", "lengths", "window_s", "hop_s"}
            ),
            "visual_shape": tuple(metadata.visual_shape),
            "backbones": Backbones.from_dict(metadata.backbones),
            "categories": tuple(builder.info.features["clip_label"].names[:-1]),
            "train_segments": metadata.train_segments or metadata.num_segments,
            "longest_segments": metadata.longest_segments or metadata.num_segments,
        }
        dataset = Dataset(name=name, builder=builder, **fields)
        if missing := {"train", "validation", "test"} - set(dataset.splits):
            raise ValueError(f"No split {', '.join(sorted(missing))}")
        lengths = (dataset.num_segments, dataset.train_segments)
        longest = max(*lengths, dataset.longest_segments) * dataset.segment_bytes
        shortest = dataset.segment_bytes if dataset.is_padded else longest
        check_sizes(builder, shortest, longest)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        is_schema = isinstance(error, pydantic.ValidationError)
        reason = describe(error) if is_schema else first_line(error)
        raise UserError(
            f"{builder.data_path}: expected the metadata of tfds_ave "
            f"{builder.version}. {type(error).__name__}: {reason}. "
            "Remove the folder and build the data set again."
        ) from error
    return dataset


def _build_command(
    config: str,
    data_dir: str | os.PathLike[str] | None,
    manual_dir: str | None = None,
) -> str:
    files = "YOUR_DATA" if config == "custom" else "AVE_FILES"
    words = ["avsdn", "build", config]
    words.append(f"--manual_dir={manual_dir or f'FOLDER_OF_{files}'}")
    if data_dir:
        words.append(f"--data_dir={os.fspath(data_dir)}")
    return shlex.join(words)


@contextlib.contextmanager
def explain_damage(dataset: Dataset) -> Iterator[None]:
    """Convert TensorFlow's read errors in the block to a UserError.

    Raises:
        UserError: If a file of the data set is missing, damaged or too short. The
            message names the file.
    """
    try:
        yield
    except _DAMAGE as error:
        damaged = find_damaged_files(dataset.builder)
        if not damaged:
            raise
        raise damage_error(damaged) from error


def _shorten(names: Iterable[str]) -> str:
    shown = list(names)
    more = len(shown) - _SHOWN
    return "; ".join(shown[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")
