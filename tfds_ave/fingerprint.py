"""Record the source files of a data set in source.json, and detect changes.

Files that define the data set (manifest, categories, settings, annotations) are hashed
by SHA-256. Features and videos, which may be gigabytes, have a CRC-32 checksum, which
detects changes but not forgery. Modification times are ignored, because copying changes
them.
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
# A million entries of about 100 bytes each.
_MAX_BYTES = 100 * 2**20


class SourceEntry(Schema):
    """A source file; `name` is relative to the manual folder, or absolute outside."""

    name: str
    num_bytes: int
    sha256: str | None = None
    crc32: int | None = None


class Fingerprint(Schema):
    """Content of source.json.

    Attributes:
        folder: The manual folder.
        files: The source files, those that define the data set first.
        absent: Names of optional files that were missing.
        warnings: Warnings of the build.
    """

    folder: str
    # Stop at the first invalid entry: a message for each may need gigabytes.
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
    """Compute the fingerprint of source files.

    Args:
        folder: The manual folder.
        definitions: Names of the files that define the data set. They may be missing.
        data: Paths of features and videos.
    """
    names = list(definitions)
    existing = [name for name in names if os.path.isfile(folder / name)]
    files = [_describe(folder / name, name) for name in existing]
    # Remove duplicates: clips may share a file.
    files += [
        _describe_data(path, name_in(folder, path)) for path in dict.fromkeys(data)
    ]
    absent = [name for name in names if name not in existing]
    # JSON needs UTF-8, which can't encode undecodable bytes of a path.
    encoded = str(folder).encode(errors="replace").decode()
    return Fingerprint(folder=encoded, files=files, absent=absent, warnings=[])


def name_in(folder: pathlib.Path, path: pathlib.Path) -> str:
    """Return a file's name in a fingerprint: relative to the folder if inside it."""
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path)


def read_fingerprint(folder: os.PathLike[str]) -> Fingerprint | None:
    """Read the fingerprint of a built data set.

    Returns None if source.json is missing, or the data set is remote (gs://...).

    Raises:
        UserError: If source.json can't be read.
    """
    path = pathlib.Path(folder) / SOURCE
    if not os.path.isfile(path):
        return None
    content = "a record of the data set's source files"
    return read_json(path, Fingerprint, content, max_bytes=_MAX_BYTES)


def find_changes(
    fingerprint: Fingerprint, folder: pathlib.Path | None = None, *, read_data: bool
) -> list[str]:
    """Return descriptions of the differences between a folder and a fingerprint.

    Args:
        fingerprint: The fingerprint of a built data set.
        folder: The folder to compare. Default: the fingerprint's folder, if it exists.
        read_data: True: compare checksums of features and videos, and report missing
            files. False: compare only sizes of features and videos, and ignore missing
            files. Hashes of other files are always compared.
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
