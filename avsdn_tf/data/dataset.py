"""Opening a data set, and what is known of it."""

import contextlib
import dataclasses
import hashlib
import io
import json
import math
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

# TFDS finds the data set by name once this package has registered it.
import tfds_ave  # noqa: F401
from avsdn_tf.backbones import Backbones
from avsdn_tf.errors import UserError, first_line
from avsdn_tf.files import explain_unwritable, lock

_NAME = "tfds_ave"
# A wrong checksum; fewer examples than were written; a missing file.
_DAMAGE = (
    tf.errors.DataLossError,
    tf.errors.FailedPreconditionError,
    tf.errors.NotFoundError,
    tf.errors.OutOfRangeError,
)


class NotBuiltError(UserError):
    """The data set exists, but has not been built in that folder."""


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set that is ready to be read.

    Attributes:
        name: Its TFDS name, `tfds_ave/CONFIG`.
        builder: Its prepared TFDS builder.
        categories: Names of the event categories, without background.
        audio_width: Width of an audio feature.
        visual_shape: Shape of a segment's visual feature.
        num_segments: Segments a clip.
        segment_s: Length of a segment in seconds.
        disclaimer: What must be said wherever a result on it appears, or None.
        has_times: Whether every event has a start and an end. If not, some clips can
            only be learnt from their category.
        backbones: What made its features, as far as it is recorded.
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

    @property
    def splits(self) -> list[str]:
        """Names of the splits."""
        return list(self.builder.info.splits)

    def num_clips(self, split: str) -> int:
        """Return the number of clips of a split."""
        return self.builder.info.splits[split].num_examples

    @property
    def clip_bytes(self) -> int:
        """Size of a clip's features in bytes, as they are stored."""
        features = self.builder.info.features
        widths = {"audio": self.audio_width, "visual": math.prod(self.visual_shape)}
        return sum(
            self.num_segments * width * np.dtype(features[name].np_dtype).itemsize
            for name, width in widths.items()
        )

    def content_hash(self) -> str:
        """Return a hash that identifies the data, without reading them.

        It covers categories, shapes, sizes of all splits, backbones and, for one's own
        data, all labels. It doesn't see other features of the same sizes. The files
        themselves would not do: two builds of the same data differ in them.
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
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def open_dataset(name: str, data_dir: str | None = None) -> Dataset:
    """Open a data set; build the synthetic one where it is missing.

    Args:
        name: `tfds_ave/CONFIG`.
        data_dir: TFDS's folder of data sets; None for its default.

    Raises:
        NotBuiltError: If it has not been built there.
        UserError: If there is no such data set, or it can't be built.
    """
    data_dir = os.path.expanduser(data_dir) if data_dir else None
    if name.split("/")[0] != _NAME:
        configs = tfds.builder_cls(_NAME).builder_configs
        raise UserError(
            f"Expected {_NAME}/CONFIG, with a config of {', '.join(configs)}.",
            field="dataset",
            value=name,
        )
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    # TFDS asserts that the version exists.
    except (ValueError, AssertionError) as error:
        raise UserError(first_line(error), field="dataset", value=name) from error
    if not builder.is_prepared():
        config = builder.builder_config.name if builder.builder_config else ""
        if config != "synthetic":
            raise NotBuiltError(
                f"Not built in {builder.data_path}. Build it first:\n  "
                + _build_command(config, data_dir),
                field="dataset",
                value=name,
            )
        builder = _build_quietly(name, data_dir)
    return _describe(name, builder)


def _describe(name: str, builder: tfds.core.DatasetBuilder) -> Dataset:
    """Return what the builder's metadata say of a data set."""
    metadata = builder.info.metadata or {}
    try:
        return Dataset(
            name=name,
            builder=builder,
            categories=tuple(builder.info.features["clip_label"].names[:-1]),
            audio_width=int(metadata["audio_width"]),
            visual_shape=tuple(map(int, metadata["visual_shape"])),
            num_segments=int(metadata["num_segments"]),
            segment_s=float(metadata["segment_s"]),
            disclaimer=metadata["disclaimer"],
            has_times=bool(metadata["has_times"]),
            backbones=Backbones.from_dict(metadata["backbones"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{builder.data_path}: expected the metadata of tfds_ave "
            f"{tfds.builder_cls(_NAME).VERSION}. {type(error).__name__}: {error}. "
            "Remove the folder and build the data set again."
        ) from error


def _build_command(config: str, data_dir: str | None) -> str:
    files = "YOUR_DATA" if config == "custom" else "AVE_FILES"
    where = f" --data_dir={data_dir}" if data_dir else ""
    return (
        f"tfds build {_NAME} --imports={_NAME} --config={config} "
        f"--manual_dir=FOLDER_OF_{files}{where}"
    )


def _build_quietly(name: str, data_dir: str | None) -> tfds.core.DatasetBuilder:
    """Build simulated data without TFDS's output, which speaks of a download."""
    builder = tfds.builder(name, data_dir=data_dir)
    folder = pathlib.Path(builder.data_path).parent
    with explain_unwritable(builder.data_path, "Choose another folder for data_dir."):
        folder.mkdir(parents=True, exist_ok=True)
        with lock(folder):
            # Another process may have built it meanwhile; a builder looks only once.
            builder = tfds.builder(name, data_dir=data_dir)
            if not builder.is_prepared():
                print(f"Building {name} in {builder.data_path}", flush=True)
                with (
                    contextlib.redirect_stdout(io.StringIO()),
                    contextlib.redirect_stderr(io.StringIO()),
                ):
                    builder.download_and_prepare()
    return builder


@contextlib.contextmanager
def explain_damage(dataset: Dataset) -> Iterator[None]:
    """Name the damaged files where reading a data set fails.

    TFRecords hold a checksum of every example and of its length.

    Raises:
        UserError: If a file of the data set is missing, damaged or too short.
    """
    try:
        yield
    except _DAMAGE as error:
        damaged = _damaged_files(dataset.builder)
        if not damaged:
            raise
        raise UserError(
            f"{', '.join(damaged)}: damaged or missing examples. Remove the folder and "
            "build the data set again."
        ) from error


def _damaged_files(builder: tfds.core.DatasetBuilder) -> list[str]:
    """Return the files that can't be read, or hold another number of examples."""
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
