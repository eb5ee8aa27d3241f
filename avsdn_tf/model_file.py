"""Load a `.keras` file that may be untrusted.

The file can't run code, read other files, or allocate memory out of proportion to its
size. All checks precede `keras.models.load_model`, which trusts the classes, widths and
HDF5 datasets that a file names.
"""

import concurrent.futures
import dataclasses
import io
import math
import os
import pathlib
import re
import zipfile
from typing import Annotated, Any, Literal

import h5py
import keras
import numpy as np
from pydantic import Field

from avsdn_tf.arrays import check_hdf5
from avsdn_tf.backbones import Backbones
from avsdn_tf.errors import UserError, first_line
from avsdn_tf.files import MAX_FILE_BYTES, open_regular
from avsdn_tf.models.audio_visual import AudioVisualModel
from avsdn_tf.schemas import MAX_JSON_BYTES, Schema, parse_json

# A file may unpack to this size at any compression ratio: metadata compresses well.
_SMALL_BYTES = 64 * 2**20
# Bounds memory in prediction: windows over a video have `num_segments` segments.
_MAX_SEGMENTS = 10_000
_SHOWN_CLASSES = 8
_CONFIG = "config.json"
_WEIGHTS = "model.weights.h5"
# `avsdn export` adds avsdn_tf.json.
_MEMBERS = {"metadata.json", _CONFIG, _WEIGHTS, "avsdn_tf.json"}
# Reject unknown fields: they would raise an error later, when a video is read.
_BackboneField = Literal[tuple(field.name for field in dataclasses.fields(Backbones))]


class _DTypePolicy(Schema):
    module: Literal["keras", "keras.dtype_policies"]
    class_name: Literal["DTypePolicy"]
    config: dict[str, str | None]
    registered_name: None = None


class _NetworkConfig(Schema, extra="allow"):
    """The constructor's arguments; only the dtype policy may be a serialized object."""

    dtype: _DTypePolicy | str | None = None
    categories: list[str] | None = None
    visual_shape: list[int] | None = None
    num_segments: Annotated[int, Field(ge=1, le=_MAX_SEGMENTS)] | None = None
    frozen: list[str] | None = None
    thresholds: list[float] | None = None
    backbones: dict[_BackboneField, str | None] | None = None
    heard: list[list[int]] | None = None
    seen: list[list[int]] | None = None
    __pydantic_extra__: dict[str, str | int | float | bool | None]


class _SavedNetwork(Schema, extra="ignore"):
    registered_name: str
    config: _NetworkConfig


def load_model_file(path: pathlib.Path) -> AudioVisualModel:
    """Load a network of this package or of a registered subclass, not compiled.

    Raises:
        UserError: If the file can't be loaded, or holds no such network.
    """
    try:
        if path.suffix != ".keras":
            raise ValueError("another suffix than .keras")
        with open_regular(path) as file:
            _check(file)
        return keras.models.load_model(path, compile=False, safe_mode=True)
    # Damaged files, foreign files and other versions raise errors of many types.
    except Exception as error:
        raise UserError(
            f"{path}: expected a model that this version of avsdn_tf can load. "
            f"Received: {first_line(error)}"
        ) from error


def _check(file: Any) -> None:
    """Raise an error unless the file can be a saved network of this package."""
    num_bytes = os.fstat(file.fileno()).st_size
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        names = {member.filename for member in members}
        if len(names) < len(members) or names - _MEMBERS:
            raise ValueError(f"other members than {', '.join(sorted(_MEMBERS))}")
        total = sum(member.file_size for member in members)
        limit = min(max(2 * num_bytes, _SMALL_BYTES), MAX_FILE_BYTES)
        if total > limit:
            raise ValueError(
                f"{total:,} bytes, unpacked from {num_bytes:,}. Expected at most "
                f"{limit:,}"
            )
        if archive.getinfo(_CONFIG).file_size > MAX_JSON_BYTES:
            raise ValueError(f"a configuration of more than {MAX_JSON_BYTES:,} bytes")
        saved = _parse(archive.read(_CONFIG))
        weights = archive.read(_WEIGHTS)
    with h5py.File(io.BytesIO(weights)) as stored:
        check_hdf5(stored)
    network = keras.saving.get_registered_object(saved.registered_name)
    if not (isinstance(network, type) and issubclass(network, AudioVisualModel)):
        raise ValueError(f"{ascii(saved.registered_name)[:80]}, no network of avsdn_tf")
    needed = _count_bytes(network, saved.config.model_dump(exclude_unset=True))
    if needed > len(weights):
        raise ValueError(f"weights of {len(weights):,} bytes. Expected {needed:,}")


def _parse(config: bytes) -> _SavedNetwork:
    """Return the configuration; raise ValueError unless it describes one network."""
    try:
        return parse_json(config, _SavedNetwork)
    except ValueError as error:
        classes = re.findall(
            r'"class_name": ?"(\w{1,40})"', config.decode(errors="replace")
        )
        shown = ", ".join(list(dict.fromkeys(classes))[:_SHOWN_CLASSES]) or "no class"
        raise ValueError(
            f"{shown}. Expected a network of avsdn_tf alone ({error})"
        ) from error


def _count_bytes(network: type[AudioVisualModel], config: dict[str, Any]) -> int:
    """Return the size of a network's weights, without allocating them."""

    def count() -> int:
        with keras.StatelessScope(initialize_variables=False):
            variables = network.from_config(config).variables
        sizes = (math.prod(v.shape) * np.dtype(v.dtype).itemsize for v in variables)
        return sum(sizes)

    # Keras keeps uninitialized variables in a thread-local list: use a new thread.
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(count).result()
