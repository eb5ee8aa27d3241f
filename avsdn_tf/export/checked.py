"""Artefacts are run by their own runtime before they are given their name."""

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

# Largest difference from Keras, as a share of the largest logit if that is above 1.
BOUND = 1e-5


def check_labels_segments(model: keras.Model) -> None:
    """Check that a model labels segments.

    Raises:
        UserError: If it doesn't.
    """
    if not isinstance(model, SegmentClassifier):
        raise UserError(
            "Expected a network that labels segments. Received: "
            f"{type(model).__name__}",
            field="model",
        )


@contextlib.contextmanager
def written_aside(path: pathlib.Path) -> Iterator[tuple[pathlib.Path, pathlib.Path]]:
    """Yield a path and a temporary one, which is renamed when the block ends.

    After an error nothing is left, not even the folders that were created.

    Raises:
        UserError: If the path exists, or can't be written.
    """
    if path.exists():
        raise UserError(f"{path} exists. Remove it, or choose another folder.")
    made = [folder for folder in path.parents if not folder.exists()]
    try:
        with explain_unwritable(path, "Nothing is left there."):
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix="tmp-", dir=path.parent) as folder:
                tmp_path = pathlib.Path(folder) / path.name
                yield path, tmp_path
                # Fails where another process has created the folder meanwhile.
                tmp_path.rename(path)
    except BaseException:
        for folder in made:
            # Another process may have put something there.
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


@contextlib.contextmanager
def explain_failure(path: pathlib.Path) -> Iterator[None]:
    """Turn any error of an exporter or runtime into one message.

    Raises:
        UserError: If one of them failed.
    """
    try:
        yield
    except OSError:
        raise
    # Each of those packages has its own errors, without a common base class.
    except Exception as error:
        full = os.strerror(errno.ENOSPC)
        if isinstance(error, tf.errors.ResourceExhaustedError) and full in str(error):
            raise OSError(errno.ENOSPC, full) from error
        raise UserError(
            f"{path}: this format can't hold or run the network "
            f"({type(error).__name__}: {first_line(error)}). Nothing is left there."
        ) from error


def compare(found: np.ndarray, expected: np.ndarray, path: pathlib.Path) -> float:
    """Return the largest difference from Keras.

    Raises:
        UserError: If it is above `BOUND`.
    """
    found, expected = np.asarray(found), np.asarray(expected)
    largest = float(np.abs(found - expected).max())
    if not largest <= BOUND * max(1.0, float(np.abs(expected).max())):
        raise UserError(
            f"{path}: differs from the Keras model by {largest:.2g}. Expected at most "
            f"{BOUND:g} of the largest value. Nothing is left there."
        )
    return largest
