"""Atomic writes, locks, and the messages where a file can't be written."""

import contextlib
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

import filelock

from avsdn_tf.errors import UserError

LOCK = ".lock"
_TMP_PREFIX = ".tmp-"


@contextlib.contextmanager
def atomic_write(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yield a temporary path, which replaces `path` when the block ends.

    After an error `path` is what it was before. Several processes may write the same
    path: the last one wins. A killed process leaves its temporary folder behind; see
    `remove_temporary_files`.

    Args:
        path: The file to write. Its folder must exist.

    Yields:
        The temporary path. It ends in the file's own name, since Keras and matplotlib
        choose the format by it.

    Raises:
        OSError: If the file can't be written.
    """
    with tempfile.TemporaryDirectory(prefix=_TMP_PREFIX, dir=path.parent) as folder:
        tmp_path = pathlib.Path(folder) / path.name
        yield tmp_path
        with tmp_path.open("rb") as file:
            os.fsync(file.fileno())
        tmp_path.replace(path)


def remove_temporary_files(folder: pathlib.Path) -> None:
    """Remove what killed processes left of `atomic_write`. Hold the folder's lock."""
    for path in folder.glob(f"{_TMP_PREFIX}*"):
        shutil.rmtree(path, ignore_errors=True)


def write_text(path: pathlib.Path, text: str) -> None:
    """Write UTF-8 text atomically, with line ends as they are."""
    with atomic_write(path) as tmp_path:
        tmp_path.write_text(text, encoding="utf-8", newline="")


def write_json(path: pathlib.Path, value: Any) -> None:
    """Write JSON atomically; NaN and infinity raise ValueError."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


@contextlib.contextmanager
def lock(folder: pathlib.Path, timeout_s: float = -1) -> Iterator[None]:
    """Lock a folder against other processes, by a hidden file in it.

    Args:
        folder: The folder, which must exist.
        timeout_s: Seconds to wait for another process; -1: without limit.

    Raises:
        BlockingIOError: If another process still holds the lock.
        OSError: If the lock file can't be opened.
    """
    try:
        with filelock.FileLock(folder / LOCK, timeout=timeout_s):
            yield
    except filelock.Timeout as error:
        raise BlockingIOError(f"{folder} is locked by another process") from error


@contextlib.contextmanager
def explain_unwritable(path: pathlib.Path, what_next: str) -> Iterator[None]:
    """Turn a full disk or a read-only folder into one message.

    Args:
        path: The file or folder that is written.
        what_next: A sentence on what is left and what to do.

    Raises:
        UserError: If it can't be written.
    """
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path}: can't be written ({error.strerror or error}). Check free space "
            f"and write permission. {what_next}"
        ) from error


@contextlib.contextmanager
def without_patterns(folder: str | os.PathLike[str]) -> Iterator[str]:
    """Yield a name for a folder that TensorFlow doesn't read as a glob pattern.

    TensorFlow globs for a SavedModel's variables, and finds none below a folder whose
    name holds `[`. A symbolic link without such characters stands in.

    Args:
        folder: The folder; or an address, which is passed on.

    Raises:
        OSError: If no temporary folder can be made.
    """
    name = os.fspath(folder)
    if not (set(name) & set("*?[\\") and os.path.isdir(name)):
        yield name
        return
    with tempfile.TemporaryDirectory() as tmp_dir:
        link = os.path.join(tmp_dir, "model")
        os.symlink(os.path.abspath(name), link)
        yield link


def printable(text: str) -> str:
    """Return text that a terminal can show, for a file name that may not be UTF-8."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
