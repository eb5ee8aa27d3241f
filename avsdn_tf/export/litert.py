"""Export to LiteRT, for clips of a fixed length."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from avsdn_tf.export.format import Clips, Exportable, Format
from avsdn_tf.export.keras_file import append_metadata
from avsdn_tf.models.lstm import unroll_all


def _write_litert(
    exportable: Exportable, path: pathlib.Path, metadata: Mapping[str, Any]
) -> None:
    unroll_all(exportable.network)
    exportable.export(
        str(path),
        format="litert",
        # Fix the number of segments: otherwise, the LSTM needs TensorFlow's operators.
        input_signature=exportable.input_spec_for(int(metadata["num_segments"])),
        verbose=False,
    )
    append_metadata(path, metadata)


def _run_litert(path: pathlib.Path, clips: Clips) -> np.ndarray:
    from ai_edge_litert.interpreter import Interpreter

    return Interpreter(str(path)).get_signature_runner()(**clips)["logits"]


LITERT = Format(
    "model.tflite",
    _write_litert,
    _run_litert,
    "LiteRT, for clips as long as those of training",
    packages=("ai_edge_litert",),
    oldest_keras=(3, 13),
)
