"""Files that are whole or not there, and what to say where none can be written."""

import contextlib
import fcntl
import json
import os
import pathlib
import tempfile
import uuid
from collections.abc import Iterator
from typing import Any

from avsdn_tf.errors import UserError

LOCK = ".lock"


@contextlib.contextmanager
def whole_file(path: pathlib.Path, shared: bool = False) -> Iterator[pathlib.Path]:
    """Gives a name to write to, and renames that file when it is on the disk.

    Whatever happens before, `path` stays what it was, and nothing else is left, but
    where the process is killed: what it began is then overwritten by the next one.

    Args:
        path: The file.
        shared: Whether other processes may write it at the same time. Each then has a
            name of its own, which stays if it is killed.

    Yields:
        The name to write to, which ends as that of the file.

    Raises:
        OSError: If it can't be written.
    """
    # Keras and matplotlib tell by the end of the name what to write.
    # Hidden, as no video or run is that somebody gives a name.
    name = f"{uuid.uuid4().hex}{path.suffix}" if shared else path.name
    aside = path.with_name(f".tmp-{name}")
    try:
        yield aside
        with aside.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


@contextlib.contextmanager
def without_patterns(folder: str | os.PathLike[str]) -> Iterator[str]:
    """Gives a name of a folder that TensorFlow does not take for a pattern.

    It looks for a SavedModel's variables as a shell would, and finds none where a
    folder's name holds `[`.

    Args:
        folder: The folder; or an address, which is given as it is.

    Raises:
        OSError: If no temporary file can be made.
    """
    name = os.fspath(folder)
    if not (set(name) & set("*?[\\") and os.path.isdir(name)):
        yield name
        return
    with tempfile.TemporaryDirectory() as elsewhere:
        link = os.path.join(elsewhere, "model")
        os.symlink(os.path.abspath(name), link)
        yield link


@contextlib.contextmanager
def explain_unwritable(path: pathlib.Path, what_next: str) -> Iterator[None]:
    """Turns a full disk or a read-only folder into one message.

    Args:
        path: The file or the folder that is written.
        what_next: A sentence on what the user still has and can do.

    Raises:
        UserError: If it can't be written.
    """
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path}: can't be written ({error.strerror or error}). Expected space and "
            f"leave to write there. {what_next}"
        ) from error


@contextlib.contextmanager
def locked(folder: pathlib.Path, wait: bool) -> Iterator[None]:
    """Holds a folder against other processes that ask for it.

    The system lets go of it however this process ends. A hidden file stays, of which
    NFS tells other machines that it is locked; it does not so of folders, nor of what
    was opened for reading alone (flock(2)).

    Args:
        folder: The folder, which is there.
        wait: Whether to wait for a process that holds it.

    Raises:
        BlockingIOError: If another process holds it, and nobody waits.
        OSError: If the file can't be opened.
    """
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise
        except OSError:
            # Some network file systems lock nothing; all else works there.
            pass
        yield
    finally:
        os.close(descriptor)


def write_text(path: pathlib.Path, text: str, shared: bool = False) -> None:
    """Writes text, with its line ends as they are; see `whole_file`."""
    with whole_file(path, shared) as aside:
        aside.write_text(text, encoding="utf-8", newline="")


def write_json(path: pathlib.Path, value: Any, shared: bool = False) -> None:
    """Writes JSON; see `whole_file`."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n", shared)


def printable(text: str) -> str:
    """Returns text that can be shown, of a name that may not be UTF-8."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
