"""What surrounds a build: one at a time, nothing lost, and nothing left behind."""

import contextlib
import os
import pathlib
import re
import shutil
from collections.abc import Callable, Iterator

from avsdn_tf.files import lock

# How TFDS names the folder of a build that goes on.
_INCOMPLETE = re.compile(r"incomplete\.[A-Z0-9]{6}_.+")
_REPLACED = "replaced."


def is_address(path: os.PathLike[str]) -> bool:
    """Return whether a path is an address, such as gs://, that has no lock."""
    return "://" in os.fspath(path)


@contextlib.contextmanager
def lock_folder(
    data_path: os.PathLike[str], say: Callable[[str], None]
) -> Iterator[None]:
    """Wait until no other process builds a data set, and remove what killed ones left.

    Args:
        data_path: The folder of the data set.
        say: Called with a text if another process builds it.
    """
    if is_address(data_path):
        yield
        return
    path = pathlib.Path(data_path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(lock(path.parent, timeout_s=0))
        except BlockingIOError:
            say(f"Waiting for another process that builds {path}")
            stack.enter_context(lock(path.parent))
        _remove_leftovers(path)
        yield


def find_leftovers(data_path: os.PathLike[str]) -> list[pathlib.Path]:
    """Return the folders beside a data set of builds that go on or were killed."""
    path = pathlib.Path(data_path)
    if is_address(data_path) or not path.parent.is_dir():
        return []
    return [
        other
        for other in path.parent.iterdir()
        if (_INCOMPLETE.fullmatch(other.name) or other.name == _REPLACED + path.name)
        and not other.is_symlink()
    ]


def _remove_leftovers(path: pathlib.Path) -> None:
    """Restore a data set that a killed build set aside; remove unfinished ones."""
    for other in find_leftovers(path):
        if other.name.startswith(_REPLACED) and not path.exists():
            other.rename(path)
        else:
            shutil.rmtree(other)


@contextlib.contextmanager
def set_aside(data_path: os.PathLike[str]) -> Iterator[None]:
    """Keep a built data set until the block has built another in its place."""
    path = pathlib.Path(data_path)
    if is_address(data_path) or not path.exists():
        yield
        return
    replaced = path.rename(path.with_name(_REPLACED + path.name))
    try:
        yield
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        replaced.rename(path)
        raise
    shutil.rmtree(replaced)


@contextlib.contextmanager
def remove_empty(downloads: str, *, is_default: bool) -> Iterator[None]:
    """Remove the folders that TFDS creates for downloads, if none was needed.

    A folder that a person named stays if it was there before.
    """
    folders = [pathlib.Path(downloads) / "extracted", pathlib.Path(downloads)]
    own = [folder for folder in folders if is_default or not folder.exists()]
    try:
        yield
    finally:
        for folder in own:
            with contextlib.suppress(OSError):
                folder.rmdir()
