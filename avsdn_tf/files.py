"""Atomic writes, locks, and the messages where a file can't be written."""

import contextlib
import hashlib
import json
import os
import pathlib
import stat
import tempfile
from collections.abc import Iterator
from typing import Any, BinaryIO

import filelock

from avsdn_tf.errors import UserError

LOCK = ".lock"
TMP_PREFIX = ".tmp-"
_READ_BYTES = 2**20
# The largest model or archive of arrays that is read: it may be anybody's.
MAX_FILE_BYTES = 4 * 2**30


def expand_user(path: str | os.PathLike[str]) -> str:
    """Return a path that a person gave, with a leading `~` expanded.

    No shell has expanded `~` after `--run=`, in a file or in Python. An address
    (`https://...`) is returned as it is.
    """
    return os.path.expanduser(os.fspath(path))


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
    with tempfile.TemporaryDirectory(prefix=TMP_PREFIX, dir=path.parent) as folder:
        tmp_path = pathlib.Path(folder) / path.name
        yield tmp_path
        with tmp_path.open("rb") as file:
            os.fsync(file.fileno())
        tmp_path.replace(path)


def remove_temporary_files(folder: pathlib.Path, *patterns: str) -> None:
    """Remove what killed processes left of `atomic_write`. Hold the folder's lock.

    Args:
        folder: The folder.
        *patterns: Names of the files that are written there, such as `*.png`. A
            temporary folder that holds anything else is not ours, and stays.
    """
    for tmp_dir in folder.glob(f"{TMP_PREFIX}*"):
        with contextlib.suppress(OSError):
            if tmp_dir.is_symlink() or not tmp_dir.is_dir():
                continue
            paths = list(tmp_dir.iterdir())
            if all(any(map(path.match, patterns)) for path in paths):
                for path in paths:
                    path.unlink()
                tmp_dir.rmdir()


def write_text(path: pathlib.Path, text: str) -> None:
    """Write UTF-8 text atomically, with line ends as they are."""
    with atomic_write(path) as tmp_path:
        tmp_path.write_text(text, encoding="utf-8", newline="")


def write_json(path: pathlib.Path, value: Any) -> None:
    """Write JSON atomically; NaN and infinity raise ValueError."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file to read its bytes.

    Raises:
        OSError: If it can't be opened.
        ValueError: If it is a pipe or a device, which may never end.
    """

    def opener(name: str, flags: int) -> int:
        # Opening a pipe would wait for its writer.
        return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))

    file = open(path, "rb", opener=opener)  # noqa: SIM115 The caller closes it.
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise ValueError("no regular file")
    return file


def hash_file(path: str | os.PathLike[str], max_bytes: int = MAX_FILE_BYTES) -> str:
    """Return the SHA-256 of a regular file, in hexadecimal.

    Raises:
        OSError: If it can't be read.
        ValueError: If it is no regular file, or longer than `max_bytes`.
    """
    found = hashlib.sha256()
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > max_bytes:
            raise ValueError(f"more than {max_bytes:,} bytes")
        while content := file.read(_READ_BYTES):
            found.update(content)
    return found.hexdigest()


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
