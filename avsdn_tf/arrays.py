"""Read arrays of NumPy and HDF5 files; memory is bounded by the file, not its header.

A header may claim 10^12 elements, and an HDF5 dataset may lie in another file. Each
function compares the claim with the file before it reads.
"""

import dataclasses
import functools
import math
import os
import pathlib
import zipfile
from collections.abc import Callable, Mapping
from typing import BinaryIO

import h5py
import numpy as np

from avsdn_tf.files import MAX_FILE_BYTES, open_regular

_NPY_VERSIONS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
# Of compressed features. Half of what a ReLU returns is zero.
_MAX_EXPANSION = 64
_MAX_CHUNK_BYTES = 256 * 2**20
# Numbers and truth values.
_KINDS = "biuf"


@dataclasses.dataclass(frozen=True)
class StoredArray:
    """An array in a file, whose header fits the bytes that follow it.

    Attributes:
        shape: Its shape.
        dtype: Its dtype.
        read: Returns the array.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]


def open_npy(path: pathlib.Path) -> StoredArray:
    """Return the array of a `.npy` file.

    Raises:
        OSError: If the file can't be read.
        ValueError: If it is no regular file of one array of numbers, or its size is not
            that of its header.
    """
    with open_regular(path) as file:
        num_bytes = os.fstat(file.fileno()).st_size
        return _describe(file, num_bytes, lambda: open_regular(path))


def open_npz(file: BinaryIO, max_bytes: int = MAX_FILE_BYTES) -> dict[str, StoredArray]:
    """Return the arrays of a file of `np.savez`, by name. Reading needs the open file.

    Raises:
        OSError: If the file can't be read.
        ValueError: If it is no archive of uncompressed arrays of numbers, whose sizes
            are those of their headers, or has more than `max_bytes`.
    """
    num_bytes = os.fstat(file.fileno()).st_size
    try:
        archive = zipfile.ZipFile(file)
        total = sum(member.file_size for member in archive.infolist())
        if total > min(num_bytes, max_bytes):
            raise ValueError(f"arrays of {total:,} bytes in {num_bytes:,}")
        found = {}
        for member in archive.infolist():
            if member.compress_type != zipfile.ZIP_STORED:
                raise ValueError("a compressed array")
            with archive.open(member) as stream:
                found[member.filename.removesuffix(".npy")] = _describe(
                    stream, member.file_size, functools.partial(archive.open, member)
                )
    # RuntimeError: what zipfile doesn't know.
    except (zipfile.BadZipFile, RuntimeError, EOFError) as error:
        raise ValueError(str(error)) from error
    return found


def _describe(
    file: BinaryIO, num_bytes: int, opened: Callable[[], BinaryIO]
) -> StoredArray:
    """Return the array at the start of a file of `num_bytes`."""
    version = np.lib.format.read_magic(file)
    if version not in _NPY_VERSIONS:
        raise ValueError(f"version {version} of the .npy format")
    # Errors of many types: the header is Python, which NumPy parses.
    try:
        shape, is_fortran, dtype = _NPY_VERSIONS[version](file)
    except Exception as error:
        raise ValueError(f"no header of an array ({error})") from error
    if dtype.kind not in _KINDS:
        raise ValueError(f"elements of {dtype}")
    start = file.tell()
    size = math.prod(shape) * dtype.itemsize
    if size != num_bytes - start or not all(0 <= n < 2**48 for n in shape):
        raise ValueError(f"a header of shape {shape}, and {num_bytes - start:,} bytes")

    def read() -> np.ndarray:
        with opened() as again:
            again.seek(start)
            content = again.read(size)
        flat = np.frombuffer(content, dtype)
        return flat.reshape(shape[::-1]).T if is_fortran else flat.reshape(shape)

    return StoredArray(shape, dtype, read)


def read_npz(
    found: Mapping[str, StoredArray],
    expected: Mapping[str, tuple[tuple[int, ...] | None, np.dtype]],
) -> dict[str, np.ndarray]:
    """Return arrays that `open_npz` found.

    Args:
        found: The result of `open_npz`, whose file is open.
        expected: Shape, or None for any, and dtype of each array. A dtype that NumPy
            casts to it within its kind is converted.

    Raises:
        OSError: If the file can't be read.
        ValueError: If an array is missing, damaged, or of another kind.
    """
    if missing := [name for name in expected if name not in found]:
        raise ValueError(f"no array {', '.join(missing[:3])}")
    for name, (shape, dtype) in expected.items():
        array = found[name]
        fits = np.can_cast(array.dtype, dtype, "same_kind")
        if not fits or shape not in (None, array.shape):
            wanted = "any shape" if shape is None else f"shape {shape}"
            raise ValueError(
                f"{name} of shape {array.shape} and {array.dtype}. Expected {wanted} "
                f"and {dtype}"
            )
    try:
        # A float64 may be infinite in float32; who reads it checks that.
        with np.errstate(over="ignore"):
            return {
                name: found[name].read().astype(dtype, copy=False)
                for name, (_, dtype) in expected.items()
            }
    except (zipfile.BadZipFile, RuntimeError, EOFError) as error:
        raise ValueError(str(error)) from error


def check_hdf5(file: h5py.File) -> None:
    """Check that an HDF5 file holds all its arrays itself, uncompressed and once.

    Raises:
        ValueError: If there is a link, or a dataset that lies in another file, is
            virtual, compressed, or larger than what is stored.
    """
    total, groups, seen = 0, [file["/"]], set()
    while groups:
        group = groups.pop()
        for name in group:
            dataset = get_hdf5(group, name)
            address = h5py.h5o.get_info(dataset.id).addr
            if address in seen:
                raise ValueError(f"{dataset.name}: two names of one object")
            seen.add(address)
            if isinstance(dataset, h5py.Group):
                groups.append(dataset)
                continue
            size = math.prod(dataset.shape or ()) * dataset.dtype.itemsize
            total += size
            if (
                dataset.shape is None
                or dataset.dtype.kind not in _KINDS + "V"
                or dataset.id.get_create_plist().get_nfilters()
                or dataset.id.get_storage_size() != size
                or total > file.id.get_filesize()
            ):
                raise ValueError(
                    f"{dataset.name}: an array of shape {dataset.shape} and "
                    f"{dataset.dtype} that is not stored as such"
                )


def open_hdf5(file: h5py.File, name: str) -> h5py.Dataset:
    """Return an array of an HDF5 file, whose rows can be read one by one.

    Args:
        file: The file.
        name: Name of the array.

    Raises:
        ValueError: If it is not in this file, or can't be: it has no values, or
            unpacks to much more than the file.
        KeyError: If there is none.
    """
    dataset = get_hdf5(file, name)
    is_array = isinstance(dataset, h5py.Dataset) and dataset.shape is not None
    if not is_array or dataset.dtype.kind not in _KINDS:
        raise ValueError(f"{name} is no array of numbers")
    itemsize, num_bytes = dataset.dtype.itemsize, file.id.get_filesize()
    if math.prod(dataset.shape) * itemsize > _MAX_EXPANSION * num_bytes:
        raise ValueError(f"{name} of shape {dataset.shape} in {num_bytes:,} bytes")
    if math.prod(dataset.chunks or ()) * itemsize > _MAX_CHUNK_BYTES:
        raise ValueError(f"{name} in chunks of shape {dataset.chunks}")
    return dataset


def get_hdf5(group: h5py.Group, path: str) -> h5py.Group | h5py.Dataset:
    """Return what lies at a path below a group, in this file.

    Raises:
        ValueError: If it is a link, or a dataset whose values are in another file.
        KeyError: If there is none.
    """
    parent, _, name = path.rpartition("/")
    if parent:
        group = get_hdf5(group, parent)
    link = group.get(name, getlink=True) if isinstance(group, h5py.Group) else None
    if link is None:
        raise KeyError(f"no {name}")
    if not isinstance(link, h5py.HardLink):
        raise ValueError(f"{name}: a link to elsewhere")
    member = group[name]
    if isinstance(member, h5py.Group):
        return member
    if not isinstance(member, h5py.Dataset):
        raise ValueError(f"{name}: neither a group nor an array")
    layout = member.id.get_create_plist()
    if layout.get_layout() == h5py.h5d.VIRTUAL or layout.get_external_count():
        raise ValueError(f"{name}: its values are in another file")
    return member
