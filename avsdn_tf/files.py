"""Atomic writes, folder locks, hashes, and messages for files that can't be written."""

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
# Size limit for models and archives of arrays, which may be untrusted.
MAX_FILE_BYTES = 4 * 2**30


def expand_user(path: str | os.PathLike[str]) -> str:
    """Return a path with a leading `~` expanded; shells don't expand it in `--run=~`.

    A URL is returned unchanged.
    """
    return os.path.expanduser(os.fspath(path))


@contextlib.contextmanager
def atomic_write(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yield a temporary path, which replaces `path` when the block ends.

    If the block raises, `path` is unchanged. Several processes may write the same path:
    the last one wins. A killed process leaves its temporary folder behind; see
    `remove_temporary_files`.

    Args:
        path: The file to write. Its folder must exist.

    Yields:
        The temporary path. It has the same file name, because Keras and matplotlib
        choose the format by the suffix.

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
    """Remove temporary folders that killed processes left behind in `atomic_write`.

    The caller must hold the folder's lock.

    Args:
        folder: The folder that contains the temporary folders.
        *patterns: Names of the files that are written there, such as `*.png`. A
            temporary folder with other files is left alone.
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
    """Write UTF-8 text atomically, without converting line ends."""
    with atomic_write(path) as tmp_path:
        tmp_path.write_text(text, encoding="utf-8", newline="")


def write_json(path: pathlib.Path, value: Any) -> None:
    """Write JSON atomically; NaN and infinity raise ValueError."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file to read its bytes.

    Raises:
        OSError: If the file can't be opened.
        ValueError: If the file is a pipe or a device, which may never end.
    """

    def opener(name: str, flags: int) -> int:
        # Without O_NONBLOCK, opening a pipe waits for its writer.
        return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))

    file = open(path, "rb", opener=opener)  # noqa: SIM115 The caller closes it.
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise ValueError("no regular file")
    return file


def hash_file(path: str | os.PathLike[str], max_bytes: int = MAX_FILE_BYTES) -> str:
    """Return the SHA-256 of a regular file, in hexadecimal.

    Raises:
        OSError: If the file can't be read.
        ValueError: If the file is not a regular file, or longer than `max_bytes`.
    """
    digest = hashlib.sha256()
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > max_bytes:
            raise ValueError(f"more than {max_bytes:,} bytes")
        while content := file.read(_READ_BYTES):
            digest.update(content)
    return digest.hexdigest()


@contextlib.contextmanager
def lock(folder: pathlib.Path, timeout_s: float = -1) -> Iterator[None]:
    """Lock a folder against other processes, by a hidden file in it.

    Args:
        folder: The folder, which must exist.
        timeout_s: Seconds to wait for another process; -1: without limit.

    Raises:
        BlockingIOError: If another process still holds the lock after `timeout_s`.
        OSError: If the lock file can't be opened.
    """
    try:
        with filelock.FileLock(folder / LOCK, timeout=timeout_s):
            yield
    except filelock.Timeout as error:
        raise BlockingIOError(f"{folder} is locked by another process") from error


@contextlib.contextmanager
def explain_unwritable(path: pathlib.Path, what_next: str) -> Iterator[None]:
    """Convert an OSError in the block to a UserError.

    Args:
        path: The file or folder that the block writes.
        what_next: Sentence that advises the user.

    Raises:
        UserError: If the path can't be written.
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
    """Yield a folder's path, or a link to the folder if the path has glob characters.

    TensorFlow reads the path of a SavedModel's variables as a glob pattern, and finds
    no variables in a folder such as `a[1]`.

    Args:
        folder: A folder, or a URL, which is yielded unchanged.

    Raises:
        OSError: If no temporary folder can be created.
    """
    name = os.fspath(folder)
    if not (set(name) & set("*?[\\") and os.path.isdir(name)):
        yield name
        return
    with tempfile.TemporaryDirectory() as tmp_dir:
        link = os.path.join(tmp_dir, "model")
        os.symlink(os.path.abspath(name), link)
        yield link
