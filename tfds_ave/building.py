"""Lock builds, keep the previous data set if a build fails, and remove leftovers."""

import contextlib
import os
import pathlib
import re
import shutil
from collections.abc import Callable, Iterator

from avsdn_tf.files import lock

# TFDS's name for the folder of an unfinished build.
_INCOMPLETE = re.compile(r"incomplete\.[A-Z0-9]{6}_.+")
_REPLACED = "replaced."


def is_address(path: os.PathLike[str]) -> bool:
    """Return whether a path is a URL such as gs://...; a URL can't be locked."""
    return "://" in os.fspath(path)


@contextlib.contextmanager
def lock_folder(
    data_path: os.PathLike[str], say: Callable[[str], None]
) -> Iterator[None]:
    """Lock a data set, wait for other builds, and remove leftovers of killed builds.

    Args:
        data_path: Folder of the data set.
        say: Called with a message if another process builds the data set.
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
    """Return the temporary folders of running and killed builds of a data set."""
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
    """Restore the data set that a killed build moved; remove unfinished data sets."""
    for other in find_leftovers(path):
        if other.name.startswith(_REPLACED) and not path.exists():
            other.rename(path)
        else:
            shutil.rmtree(other)


@contextlib.contextmanager
def keep_previous(data_path: os.PathLike[str]) -> Iterator[None]:
    """Move a data set aside while the block builds another; restore it on an error."""
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
    """Remove empty folders of downloads after the block.

    A folder that existed before the block is kept, unless it is the default.
    """
    folders = [pathlib.Path(downloads) / "extracted", pathlib.Path(downloads)]
    removable = [folder for folder in folders if is_default or not folder.exists()]
    try:
        yield
    finally:
        for folder in removable:
            with contextlib.suppress(OSError):
                folder.rmdir()
