"""Export to ONNX, by tf2onnx."""

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
        # NumPy warns about a name that Keras looks up for tf2onnx.
        warnings.filterwarnings("ignore", "In the future `np.", FutureWarning)
        exportable.export(
            str(path),
            format="onnx",
            input_signature=exportable.input_spec_for(None),
            verbose=False,
        )
    model = onnx.load(path)
    _refuse_empty_batches(model.graph)
    onnx.helper.set_model_props(model, {METADATA: json.dumps(metadata)})
    onnx.save(model, path)


def _refuse_empty_batches(graph: Any) -> None:
    """Insert a Reshape after each input to raise an error for an empty batch.

    A Reshape can't infer the number of segments of an empty batch. Without this error,
    onnxruntime's LSTM crashes the process.
    """
    import onnx

    for tensor in list(graph.input):
        name = f"{tensor.name}_of_one_clip_or_more"
        widths = [axis.dim_value for axis in tensor.type.tensor_type.shape.dim[2:]]
        shape = onnx.numpy_helper.from_array(
            np.array([0, -1, *widths]), f"{name}_shape"
        )
        for node in graph.node:
            node.input[:] = [name if i == tensor.name else i for i in node.input]
        graph.initializer.append(shape)
        reshape = onnx.helper.make_node(
            "Reshape", [tensor.name, shape.name], [name], name=name
        )
        graph.node.insert(0, reshape)


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
