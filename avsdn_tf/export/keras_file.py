"""Export to Keras's own format, with metadata."""

import json
import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from avsdn_tf.export.format import METADATA, Clips, Exportable, Format


def _write_keras(
    exportable: Exportable, path: pathlib.Path, metadata: Mapping[str, Any]
) -> None:
    exportable.network.save(path)
    append_metadata(path, metadata)


def _run_keras(path: pathlib.Path, clips: Clips) -> np.ndarray:
    return keras.models.load_model(path, safe_mode=True).predict_on_batch(dict(clips))


def append_metadata(path: pathlib.Path, metadata: Mapping[str, Any]) -> None:
    """Add metadata to a zip file; append a zip file with metadata to any other file.

    LiteRT's own tools attach files to a model in the same way.
    """
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(METADATA, json.dumps(metadata, indent=2))


KERAS = Format("model.keras", _write_keras, _run_keras, "Keras, with metadata")
