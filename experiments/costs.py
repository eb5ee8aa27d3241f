"""What a network costs: parameters, multiplications, and a process's peak memory."""

import math
import pathlib
from collections.abc import Sequence

import tensorflow as tf

from avsdn_tf.models import SegmentClassifier

# Products of matrices, and their attribute by which the first matrix is transposed.
_TRANSPOSED = {"MatMul": "transpose_a", "BatchMatMulV2": "adj_x"}


def count_parameters(model: SegmentClassifier) -> int:
    """Return how many numbers training changes."""
    return sum(math.prod(variable.shape) for variable in model.trainable_variables)


def count_macs(model: SegmentClassifier) -> int:
    """Return the multiplications with addition that the prediction of a clip takes.

    Those of products of matrices, which are nearly all, in a clip of `num_segments`.
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
        summed = -2 if operation.get_attr(_TRANSPOSED[operation.type]) else -1
        return math.prod(operation.outputs[0].shape) * shapes[0][summed]
    if operation.type == "Einsum":
        return _einsum_macs(operation.get_attr("equation").decode(), shapes)
    return 0


def _einsum_macs(equation: str, shapes: Sequence[tuple[int, ...]]) -> int:
    """Return the product of the lengths of all axes."""
    names = equation.split("->")[0].split(",")
    lengths = {
        name: length
        for axes, shape in zip(names, shapes, strict=True)
        for name, length in zip(axes, shape, strict=True)
    }
    return math.prod(lengths.values())


def peak_bytes(process: int) -> int | None:
    """Return the most memory that a running process has held, where Linux tells.

    Args:
        process: Its number.
    """
    try:
        text = pathlib.Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    except OSError:
        return None
    (*_, found) = [None, *(line for line in text.splitlines() if "VmHWM" in line)]
    return 1024 * int(found.split()[1]) if found else None
