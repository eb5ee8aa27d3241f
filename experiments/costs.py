"""Count a network's parameters and operations, and read a process's peak memory."""

import math
import pathlib
from collections.abc import Sequence

import tensorflow as tf

from avsdn_tf.models import SegmentClassifier

# Matrix products, with the name of the attribute that transposes the first matrix.
_TRANSPOSED = {"MatMul": "transpose_a", "BatchMatMulV2": "adj_x"}


def count_parameters(model: SegmentClassifier) -> int:
    """Return the number of trainable parameters."""
    return sum(math.prod(variable.shape) for variable in model.trainable_variables)


def count_macs(model: SegmentClassifier) -> int:
    """Return the multiply-accumulates of matrix products in the prediction of a clip.

    The clip has `model.num_segments` segments. Other operations are negligible.
    """
    segments = model.num_segments
    specs = {
        name: tf.TensorSpec((1, segments, *shape[2:]))
        for name, shape in model.input_shapes().items()
        if name in model.used_inputs
    }
    graph = tf.function(
        lambda inputs: model(inputs, training=False), autograph=False
    ).get_concrete_function(specs)
    return sum(map(_macs_of, graph.graph.get_operations()))


def _macs_of(operation: tf.Operation) -> int:
    shapes = [tuple(tensor.shape) for tensor in operation.inputs]
    if operation.type in _TRANSPOSED:
        axis = -2 if operation.get_attr(_TRANSPOSED[operation.type]) else -1
        return math.prod(operation.outputs[0].shape) * shapes[0][axis]
    if operation.type == "Einsum":
        return _einsum_macs(operation.get_attr("equation").decode(), shapes)
    return 0


def _einsum_macs(equation: str, shapes: Sequence[tuple[int, ...]]) -> int:
    """Return the product of the lengths of all axes in the equation."""
    names = equation.split("->")[0].split(",")
    lengths = {
        name: length
        for axes, shape in zip(names, shapes, strict=True)
        for name, length in zip(axes, shape, strict=True)
    }
    return math.prod(lengths.values())


def peak_bytes(process: int) -> int | None:
    """Return the peak memory of a running process in bytes; None except on Linux.

    Args:
        process: Process ID.
    """
    try:
        text = pathlib.Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    except OSError:
        return None
    lines = (line for line in text.splitlines() if "VmHWM" in line)
    line = next(lines, None)
    return 1024 * int(line.split()[1]) if line else None
