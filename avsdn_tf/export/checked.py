"""Write exported files atomically, and compare them with Keras."""

import contextlib
import errno
import os
import pathlib
import tempfile
from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf

from avsdn_tf.errors import UserError, first_line
from avsdn_tf.files import explain_unwritable
from avsdn_tf.models import SegmentClassifier

# Largest allowed absolute difference from Keras's values. If a value exceeds 1, the
# bound is relative to the largest value.
BOUND = 1e-5


def check_labels_segments(model: keras.Model) -> None:
    """Check that a model labels segments.

    Raises:
        UserError: If the model doesn't label segments.
    """
    if not isinstance(model, SegmentClassifier):
        raise UserError(
            "Expected a network that labels segments. Received: "
            f"{type(model).__name__}",
            field="model",
        )


@contextlib.contextmanager
def write_temporary(path: pathlib.Path) -> Iterator[tuple[pathlib.Path, pathlib.Path]]:
    """Yield `path` and a temporary path, which becomes `path` when the block ends.

    After an error, the temporary file and all new folders are removed.

    Raises:
        UserError: If the path exists or can't be written.
    """
    if path.exists():
        raise UserError(f"{path} exists. Remove it, or choose another folder.")
    new_folders = [folder for folder in path.parents if not folder.exists()]
    try:
        with explain_unwritable(path, "Choose another folder."):
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix="tmp-", dir=path.parent) as folder:
                tmp_path = pathlib.Path(folder) / path.name
                yield path, tmp_path
                # Fails if another process has created a folder at `path`.
                tmp_path.rename(path)
    except BaseException:
        for folder in new_folders:
            # Keep folders that another process uses.
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


@contextlib.contextmanager
def explain_failure(path: pathlib.Path) -> Iterator[None]:
    """Convert errors of an exporter or runtime to `UserError`.

    Raises:
        OSError: If the disk is full, or a file can't be read or written.
        UserError: For other errors.
    """
    try:
        yield
    except OSError:
        raise
    # The exporters' errors have no common base class.
    except Exception as error:
        disk_full = os.strerror(errno.ENOSPC)
        is_exhausted = isinstance(error, tf.errors.ResourceExhaustedError)
        if is_exhausted and disk_full in str(error):
            raise OSError(errno.ENOSPC, disk_full) from error
        raise UserError(
            f"{path}: this format can't hold or run the network "
            f"({type(error).__name__}: {first_line(error)}). No file was written."
        ) from error


def compare(values: np.ndarray, expected: np.ndarray, path: pathlib.Path) -> float:
    """Return the largest absolute difference from `expected`, the values of Keras.

    Raises:
        UserError: If the difference exceeds `BOUND`.
    """
    values, expected = np.asarray(values), np.asarray(expected)
    largest = float(np.abs(values - expected).max())
    # `not <=` rejects NaN, too.
    if not largest <= BOUND * max(1.0, float(np.abs(expected).max())):
        raise UserError(
            f"{path}: differs from the Keras model by {largest:.2g}. Expected at most "
            f"{BOUND:g} of the largest value. No file was written."
        )
    return largest
