"""What a data set was built from: source.json, with files, sizes and checksums.

Files that define a data set (manifest, categories, settings, annotations) have a
SHA-256. Features and videos, which may be gigabytes, are read once for a CRC-32: it
finds changed files, not forged ones. Times of change aren't compared, since copying
changes them.
"""

import os
import pathlib
import zlib
from collections.abc import Iterable
from typing import Annotated

import pydantic

from avsdn_tf.files import hash_file
from avsdn_tf.schemas import Schema, read_json

SOURCE = "source.json"
_READ_BYTES = 2**20
# A line of about 100 bytes for each of a million files.
_MAX_BYTES = 100 * 2**20


class SourceEntry(Schema):
    """A file by its name relative to the folder, or its absolute path."""

    name: str
    num_bytes: int
    sha256: str | None = None
    crc32: int | None = None


class Fingerprint(Schema):
    """Content of source.json.

    Attributes:
        folder: The manual folder.
        files: Its files that were read: first those that define the data set.
        absent: Optional files that it lacked.
        warnings: What is unusual about the data, for a person.
    """

    folder: str
    # The first wrong entry is enough: a message about each would take gigabytes.
    files: Annotated[list[SourceEntry], pydantic.FailFast()]
    absent: list[str]
    warnings: list[str]

    @property
    def data_checksums(self) -> list[int]:
        """Checksums of features and videos, in the order of the clips."""
        return [entry.crc32 for entry in self.files if entry.crc32 is not None]


def take_fingerprint(
    folder: pathlib.Path,
    definitions: Iterable[str],
    data: Iterable[pathlib.Path],
) -> Fingerprint:
    """Return the fingerprint of a source.

    Args:
        folder: The manual folder.
        definitions: Names of the files that define the data set; they may be missing.
        data: Features and videos.
    """
    names = list(definitions)
    there = [name for name in names if os.path.isfile(folder / name)]
    files = [_describe(folder / name, name) for name in there]
    # A file may belong to several clips.
    files += [
        _describe_data(path, name_in(folder, path)) for path in dict.fromkeys(data)
    ]
    absent = [name for name in names if name not in there]
    # JSON holds no name that isn't UTF-8.
    shown = str(folder).encode(errors="replace").decode()
    return Fingerprint(folder=shown, files=files, absent=absent, warnings=[])


def name_in(folder: pathlib.Path, path: pathlib.Path) -> str:
    """Return the name of a file in a fingerprint."""
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path)


def read_fingerprint(folder: os.PathLike[str]) -> Fingerprint | None:
    """Return the fingerprint of a built data set; None if it has none.

    That of a data set at an address, such as gs://, isn't read.

    Raises:
        UserError: If source.json can't be read.
    """
    path = pathlib.Path(folder) / SOURCE
    if not os.path.isfile(path):
        return None
    what = "what the data set was built from"
    return read_json(path, Fingerprint, what, max_bytes=_MAX_BYTES)


def find_changes(
    fingerprint: Fingerprint, folder: pathlib.Path | None = None, *, read_data: bool
) -> list[str]:
    """Return what differs in a folder from a fingerprint, as short texts.

    Args:
        fingerprint: The fingerprint of a built data set.
        folder: The folder to compare with it; default: the one that it names, if that
            is there.
        read_data: Whether to compare the checksums of features and videos, and to name
            missing files. Without, only the sizes of those that are there are compared.
    """
    if folder is not None and not folder.is_dir():
        return [f"{folder} is missing"]
    folder = folder or pathlib.Path(fingerprint.folder)
    if not folder.is_dir():
        return []
    changes = []
    for entry in fingerprint.files:
        path = folder / entry.name
        if not os.path.isfile(path):
            changes += [f"{entry.name} is missing"] * read_data
        elif _differs(path, entry, read_data):
            changes.append(f"{entry.name} has changed")
    new = [name for name in fingerprint.absent if os.path.isfile(folder / name)]
    return [*changes, *(f"{name} is new" for name in new)]


def _describe(path: pathlib.Path, name: str) -> SourceEntry:
    num_bytes = path.stat().st_size
    return SourceEntry(name=name, num_bytes=num_bytes, sha256=hash_file(path))


def _describe_data(path: pathlib.Path, name: str) -> SourceEntry:
    num_bytes = crc32 = 0
    with path.open("rb") as file:
        while piece := file.read(_READ_BYTES):
            num_bytes += len(piece)
            crc32 = zlib.crc32(piece, crc32)
    return SourceEntry(name=name, num_bytes=num_bytes, crc32=crc32)


def _differs(path: pathlib.Path, entry: SourceEntry, read_data: bool) -> bool:
    if path.stat().st_size != entry.num_bytes:
        return True
    if entry.sha256 is not None:
        return _describe(path, entry.name) != entry
    return read_data and _describe_data(path, entry.name) != entry
