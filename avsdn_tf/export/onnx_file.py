"""ONNX, by tf2onnx."""

import json
import pathlib
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from avsdn_tf.export.format import METADATA, Clips, Exportable, Format


def _write_onnx(
    exportable: Exportable, path: pathlib.Path, metadata: Mapping[str, Any]
) -> None:
    import onnx

    with warnings.catch_warnings():
        # Keras looks up a NumPy name for tf2onnx that NumPy is about to reuse.
        warnings.filterwarnings("ignore", "In the future `np.", FutureWarning)
        exportable.export(
            str(path),
            format="onnx",
            input_signature=exportable.input_spec_for(None),
            verbose=False,
        )
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {METADATA: json.dumps(metadata)})
    onnx.save(model, path)


def _run_onnx(path: pathlib.Path, clips: Clips) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path))
    (logits,) = session.run(["logits"], dict(clips))
    return logits


ONNX = Format(
    "model.onnx",
    _write_onnx,
    _run_onnx,
    "ONNX",
    packages=("onnx", "onnxruntime", "tf2onnx"),
)
