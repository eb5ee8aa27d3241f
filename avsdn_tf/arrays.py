"""Read arrays from untrusted NumPy and HDF5 files.

A header may claim 10^12 elements, and an HDF5 dataset may refer to another file. Each
function compares header and file size before it reads.
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
# Limit on the size of unpacked features, as a multiple of the compressed file's size.
_MAX_EXPANSION = 64
_MAX_CHUNK_BYTES = 256 * 2**20
# Dtype kinds: boolean, signed and unsigned integer, float.
_KINDS = "biuf"


@dataclasses.dataclass(frozen=True)
class StoredArray:
    """An array in a file, whose header matches the number of bytes that follow it.

    Attributes:
        shape: Shape of the array.
        dtype: Dtype of the array.
        read: Function that returns the array.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]


def open_npy(path: pathlib.Path) -> StoredArray:
    """Return the array of a `.npy` file.

    Raises:
        OSError: If the file can't be read.
        ValueError: If the file is not regular, not an array of numbers, or not as long
            as its header states.
    """
    with open_regular(path) as file:
        num_bytes = os.fstat(file.fileno()).st_size
        return _describe(file, num_bytes, lambda: open_regular(path))


def open_npz(file: BinaryIO, max_bytes: int = MAX_FILE_BYTES) -> dict[str, StoredArray]:
    """Return the arrays of an `np.savez` file by name.

    `StoredArray.read` of these arrays works while the file is open.

    Raises:
        OSError: If the file can't be read.
        ValueError: If the file is not an archive of uncompressed arrays of numbers, if
            the arrays exceed `max_bytes`, or if an array is not as long as its
            header states.
    """
    num_bytes = os.fstat(file.fileno()).st_size
    try:
        archive = zipfile.ZipFile(file)
        total = sum(member.file_size for member in archive.infolist())
        if total > (limit := min(num_bytes, max_bytes)):
            raise ValueError(f"arrays of {total:,} bytes, where {limit:,} are allowed")
        arrays = {}
        for member in archive.infolist():
            if member.compress_type != zipfile.ZIP_STORED:
                raise ValueError("a compressed array")
            with archive.open(member) as stream:
                arrays[member.filename.removesuffix(".npy")] = _describe(
                    stream, member.file_size, functools.partial(archive.open, member)
                )
    # zipfile raises RuntimeError for encrypted members.
    except (zipfile.BadZipFile, RuntimeError, EOFError) as error:
        raise ValueError(str(error)) from error
    return arrays


def _describe(
    file: BinaryIO, num_bytes: int, opened: Callable[[], BinaryIO]
) -> StoredArray:
    """Return the array at the start of a file of `num_bytes`.

    `opened` opens the file again for reading.
    """
    version = np.lib.format.read_magic(file)
    if version not in _NPY_VERSIONS:
        raise ValueError(f"version {version} of the .npy format")
    # A damaged header can raise any error: NumPy evaluates it as a Python literal.
    try:
        shape, is_fortran, dtype = _NPY_VERSIONS[version](file)
    except Exception as error:
        raise ValueError(f"a damaged array header ({error})") from error
    if dtype.kind not in _KINDS:
        raise ValueError(f"elements of {dtype}")
    start = file.tell()
    size = math.prod(shape) * dtype.itemsize
    if size != num_bytes - start or not all(0 <= n < 2**48 for n in shape):
        raise ValueError(
            f"a header of shape {shape}, but {num_bytes - start:,} bytes of data"
        )

    def read() -> np.ndarray:
        with opened() as again:
            again.seek(start)
            content = again.read(size)
        flat = np.frombuffer(content, dtype)
        return flat.reshape(shape[::-1]).T if is_fortran else flat.reshape(shape)

    return StoredArray(shape, dtype, read)


def read_npz(
    stored: Mapping[str, StoredArray],
    expected: Mapping[str, tuple[tuple[int, ...] | None, np.dtype]],
) -> dict[str, np.ndarray]:
    """Read the expected arrays of a file that `open_npz` opened.

    Args:
        stored: The result of `open_npz`, whose file is still open.
        expected: Shape (None: any) and dtype of each array. Arrays are cast to the
            dtype if NumPy's `"same_kind"` rule allows it.

    Raises:
        OSError: If the file can't be read.
        ValueError: If an array is missing or damaged, or has a wrong shape or dtype.
    """
    if missing := [name for name in expected if name not in stored]:
        raise ValueError(f"no array {', '.join(missing[:3])}")
    for name, (shape, dtype) in expected.items():
        array = stored[name]
        can_cast = np.can_cast(array.dtype, dtype, "same_kind")
        if not can_cast or shape not in (None, array.shape):
            expected_shape = "any shape" if shape is None else f"shape {shape}"
            raise ValueError(
                f"{name} of shape {array.shape} and {array.dtype}. Expected "
                f"{expected_shape} and {dtype}"
            )
    try:
        # A float64 may overflow in float32; the caller checks for infinite values.
        with np.errstate(over="ignore"):
            return {
                name: stored[name].read().astype(dtype, copy=False)
                for name, (_, dtype) in expected.items()
            }
    except (zipfile.BadZipFile, RuntimeError, EOFError) as error:
        raise ValueError(str(error)) from error


def check_hdf5(file: h5py.File) -> None:
    """Check that an HDF5 file contains each of its arrays uncompressed and only once.

    Raises:
        ValueError: If the file holds a link, two names of one object, or a dataset that
            is virtual, external, compressed, not numeric or not fully stored.
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
                    f"{dataset.dtype} that is not stored as numbers, in full and "
                    "uncompressed"
                )


def open_hdf5(file: h5py.File, name: str) -> h5py.Dataset:
    """Return a numeric dataset of an HDF5 file without reading its values.

    Args:
        file: The file.
        name: Name of the dataset.

    Raises:
        ValueError: If the dataset is not numeric, is stored in another file, or would
            unpack to far more bytes than the file has.
        KeyError: If there is no such dataset.
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
    """Return the group or dataset at a path below a group.

    Raises:
        ValueError: If the member is a link, or a dataset stored in another file.
        KeyError: If there is no such member.
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
