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
    _refuse_empty_batches(model.graph)
    onnx.helper.set_model_props(model, {METADATA: json.dumps(metadata)})
    onnx.save(model, path)


def _refuse_empty_batches(graph: Any) -> None:
    """Make a batch of no clips an error, before an LSTM.

    onnxruntime's LSTM ends the whole process by such a batch; its Reshape can't tell
    the number of segments then, and raises.
    """
    import onnx

    for given in list(graph.input):
        name = f"{given.name}_of_one_clip_or_more"
        widths = [axis.dim_value for axis in given.type.tensor_type.shape.dim[2:]]
        shape = onnx.numpy_helper.from_array(
            np.array([0, -1, *widths]), f"{name}_shape"
        )
        for node in graph.node:
            node.input[:] = [name if i == given.name else i for i in node.input]
        graph.initializer.append(shape)
        reshape = onnx.helper.make_node(
            "Reshape", [given.name, shape.name], [name], name=name
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
