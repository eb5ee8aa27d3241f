"""Models for programs that don't have this package: SavedModel, ONNX, LiteRT, Keras.

An artefact that computes something else than the Keras model is never left behind.
"""

import importlib.util
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from avsdn_tf.errors import UserError
from avsdn_tf.export.checked import (
    check_labels_segments,
    compare,
    explain_failure,
    written_aside,
)
from avsdn_tf.export.format import METADATA, Clips, Exportable, Format
from avsdn_tf.export.keras_file import KERAS
from avsdn_tf.export.litert import LITERT
from avsdn_tf.export.onnx_file import ONNX
from avsdn_tf.export.savedmodel import SAVEDMODEL
from avsdn_tf.files import expand_user

__all__ = ["FORMATS", "METADATA", "Format", "export_model"]

FORMATS = {
    "savedmodel": SAVEDMODEL,
    "onnx": ONNX,
    "litert": LITERT,
    "keras": KERAS,
}


def export_model(
    model: keras.Model,
    name: str,
    out: str | os.PathLike[str],
    metadata: Mapping[str, Any],
    clips: Sequence[Clips],
    mask: bool = False,
) -> tuple[pathlib.Path, float]:
    """Write a network in a format, and check it against Keras.

    Args:
        model: A network that labels segments.
        name: One of `FORMATS`.
        out: The folder to write into; it is created if need be.
        metadata: What the artefact carries, ready for JSON. Formats that need a fixed
            number of segments take `num_segments`.
        clips: Batches to check with: `"audio"` and `"visual"` as the model takes them,
            and `"mask"` if the artefact takes one.
        mask: Boolean. Whether the artefact takes `mask`, `(batch, num_segments)`
            float32, nonzero where a segment is real: clips of different lengths are
            then padded at their end.

    Returns:
        The file or folder, and the largest difference of a real segment's logit from
        Keras's.

    Raises:
        UserError: If the model labels no segments, packages are missing, the artefact
            exists or can't be written, or it computes something else.
    """
    check_labels_segments(model)
    chosen = FORMATS[name]
    _check_installed(name, chosen)
    exportable = Exportable(model, mask)
    largest = 0.0
    out = pathlib.Path(expand_user(out))
    with written_aside(out / chosen.name) as (path, tmp_path):
        with explain_failure(path):
            chosen.write(exportable, tmp_path, metadata)
        for batch in clips:
            batch = {name: batch[name] for name in exportable.signature(None)}
            expected = exportable.network.predict_on_batch(batch)
            with explain_failure(path):
                found = chosen.run(tmp_path, batch)
            if mask:
                real = batch["mask"] != 0
                found, expected = found[real], expected[real]
            largest = max(largest, compare(found, expected, path))
    return path, largest


def _check_installed(name: str, chosen: Format) -> None:
    version = keras.version()
    if tuple(map(int, version.split(".")[:2])) < chosen.oldest_keras:
        oldest = ".".join(map(str, chosen.oldest_keras))
        raise UserError(
            f"Expected Keras {oldest} or newer, which needs Python 3.11. Received: "
            f"Keras {version}.",
            field="format",
            value=name,
        )
    missing = [
        package
        for package in chosen.packages
        if importlib.util.find_spec(package) is None
    ]
    if missing:
        raise UserError(
            f"Expected {', '.join(missing)}, which the extra `export` installs: "
            "pip install 'avsdn_tf[export]'",
            field="format",
            value=name,
        )
