"""Export models to SavedModel, ONNX, LiteRT and Keras, for use without this package.

Each export runs the file in the format's own runtime, and deletes the file if its
logits differ from the Keras model's.
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
    write_temporary,
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
    """Export a network, and compare the result with Keras.

    Args:
        model: A network that labels segments.
        name: A name in `FORMATS`.
        out: Folder of the exported file, created if it doesn't exist.
        metadata: JSON-serializable metadata to store with the network. Formats with a
            fixed number of segments use `metadata["num_segments"]`.
        clips: Batches for the comparison: the model's inputs `"audio"` and `"visual"`,
            and `"mask"` if `mask`.
        mask: Boolean. Whether the exported network has an input `mask`,
            `(batch, num_segments)` float32, nonzero for real segments and zero for the
            padding at a clip's end.

    Returns:
        The path of the exported file or folder, and the largest absolute difference
        between its logits and the Keras model's, without padding.

    Raises:
        UserError: If the model doesn't label segments, packages are missing, the file
            exists or can't be written, or its logits differ from the Keras model's.

    Example:
        >>> from avsdn_tf.export import export_model
        >>> clips = {"audio": audio, "visual": visual}
        >>> model = avsdn_tf.load("runs/first")
        >>> metadata = {"segment_s": 1.0}
        >>> path, largest = export_model(model, "savedmodel", "out", metadata, [clips])
        >>> largest < 1e-4
        True
    """
    check_labels_segments(model)
    file_format = FORMATS[name]
    _check_installed(name, file_format)
    exportable = Exportable(model, mask)
    largest = 0.0
    out = pathlib.Path(expand_user(out))
    with write_temporary(out / file_format.name) as (path, tmp_path):
        with explain_failure(path):
            file_format.write(exportable, tmp_path, metadata)
        for batch in clips:
            batch = {name: batch[name] for name in exportable.signature(None)}
            expected = exportable.network.predict_on_batch(batch)
            with explain_failure(path):
                logits = file_format.run(tmp_path, batch)
            if mask:
                is_real = batch["mask"] != 0
                logits, expected = logits[is_real], expected[is_real]
            largest = max(largest, compare(logits, expected, path))
    return path, largest


def _check_installed(name: str, file_format: Format) -> None:
    version = keras.version()
    if tuple(map(int, version.split(".")[:2])) < file_format.oldest_keras:
        oldest = ".".join(map(str, file_format.oldest_keras))
        raise UserError(
            f"Expected Keras {oldest} or newer, which needs Python 3.11. Received: "
            f"Keras {version}.",
            field="format",
            value=name,
        )
    missing = [
        package
        for package in file_format.packages
        if importlib.util.find_spec(package) is None
    ]
    if missing:
        raise UserError(
            f"Expected {', '.join(missing)}, which the extra `export` installs: "
            "pip install 'avsdn_tf[export]'",
            field="format",
            value=name,
        )
