"""Find files of a data set that are damaged, missing or too small."""

import os

import tensorflow as tf
import tensorflow_datasets as tfds

from avsdn_tf.errors import UserError


def check_sizes(
    builder: tfds.core.DatasetBuilder, shortest_bytes: int, longest_bytes: int
) -> None:
    """Check that files are large enough for the shapes in the metadata.

    The metadata may be untrusted: shapes out of proportion would exhaust memory.

    Args:
        builder: The builder of the data set.
        shortest_bytes: Size of the features of the shortest clip.
        longest_bytes: Size of the features of the longest clip.

    Raises:
        UserError: If a file is missing, or too small.
    """
    if builder.info.file_format != tfds.core.FileFormat.TFRECORD:
        return  # Other formats may be compressed.
    sizes, small = {}, []
    for split in builder.info.splits.values():
        for path, length in zip(split.filepaths, split.shard_lengths, strict=True):
            name = os.fspath(path)
            sizes[name] = path.stat().length if path.exists() else 0
            if length * shortest_bytes > sizes[name]:
                small.append(name)
    if longest_bytes > sum(sizes.values()):
        small = list(sizes)
    if small:
        raise damage_error(small)


def damage_error(paths: list[str]) -> UserError:
    """Return the error about damaged files."""
    return UserError(
        f"{', '.join(paths)}: damaged or missing examples. Remove the folder and build "
        "the data set again."
    )


def find_damaged_files(builder: tfds.core.DatasetBuilder) -> list[str]:
    """Return the unreadable files, and the files with a wrong number of examples."""
    damaged = []
    for split in builder.info.splits.values():
        for path, length in zip(split.filepaths, split.shard_lengths, strict=True):
            try:
                num_examples = sum(1 for _ in tf.data.TFRecordDataset(str(path)))
            except tf.errors.OpError:
                num_examples = None
            if num_examples != length:
                damaged.append(str(path))
    return damaged
