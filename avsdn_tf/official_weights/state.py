"""The state of a PyTorch module, and how its arrays become weights of our layers."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from avsdn_tf.models.lstm import SequenceLSTM


class State:
    """Arrays by the names of PyTorch's modules, each of which is read once.

    Args:
        state: Arrays, or values that `numpy.asarray` accepts, by name. The prefix that
            `torch.nn.DataParallel` adds is removed.
        program: Authors of the program, for the messages.
        unused: Beginnings of the names of modules that the program has and never calls.
    """

    def __init__(
        self, state: Mapping[str, Any], program: str, unused: Sequence[str] = ()
    ) -> None:
        named = {name.removeprefix("module."): array for name, array in state.items()}
        self._program = program
        self._left = {
            name: np.asarray(array)
            for name, array in named.items()
            if not name.startswith(tuple(unused))
        }

    def __contains__(self, name: str) -> bool:
        """Return whether there is an array of that name that was not read."""
        return name in self._left

    def matrix_shape(self, name: str) -> tuple[int, int]:
        """Return the shape of a matrix, outputs first.

        Raises:
            ValueError: If there is none of that name.
        """
        shape = self._find(name).shape
        if len(shape) != 2:
            raise ValueError(f"Expected {name!r} to be a matrix. Received: {shape}")
        return shape

    def take(self, name: str, shape: Any) -> np.ndarray:
        """Return an array as float32.

        Raises:
            ValueError: If there is none of that name and shape.
        """
        array, shape = self._find(name), tuple(shape)
        if array.shape != shape:
            raise ValueError(
                f"Expected {name!r} of shape {shape}. Received: {array.shape}"
            )
        return self._left.pop(name).astype(np.float32)

    def set_dense(self, layers: Mapping[str, keras.layers.Dense]) -> None:
        """Set dense layers, by the names of PyTorch's modules."""
        for name, layer in layers.items():
            # PyTorch's matrices are transposed.
            weights = [self.take(f"{name}.weight", reversed(layer.kernel.shape)).T]
            if layer.use_bias:
                weights.append(self.take(f"{name}.bias", layer.bias.shape))
            layer.set_weights(weights)

    def set_norms(self, layers: Mapping[str, keras.layers.LayerNormalization]) -> None:
        """Set layer normalizations, by the names of PyTorch's modules."""
        for name, layer in layers.items():
            parts = (("weight", layer.gamma), ("bias", layer.beta))
            layer.set_weights(
                [self.take(f"{name}.{part}", of.shape) for part, of in parts]
            )

    def set_lstm(self, name: str, layer: SequenceLSTM) -> None:
        """Set a bidirectional LSTM.

        The gates have the same order (input, forget, cell, output); PyTorch adds two
        biases where Keras has one.
        """
        weights = []
        kernel, recurrent_kernel, bias = layer.get_weights()[:3]
        for suffix in ("l0", "l0_reverse"):
            weights += [
                self.take(f"{name}.weight_ih_{suffix}", kernel.T.shape).T,
                self.take(f"{name}.weight_hh_{suffix}", recurrent_kernel.T.shape).T,
                self.take(f"{name}.bias_ih_{suffix}", bias.shape)
                + self.take(f"{name}.bias_hh_{suffix}", bias.shape),
            ]
        layer.set_weights(weights)

    def set_attention(self, name: str, layer: keras.layers.MultiHeadAttention) -> None:
        """Set an attention of several heads, whose three projections PyTorch joins."""
        width, num_heads, key_width = layer.query_dense.kernel.shape
        kernel_shape = (width, num_heads, key_width)
        matrix = self.take(f"{name}.in_proj_weight", (3 * width, width))
        biases = self.take(f"{name}.in_proj_bias", (3 * width,))
        projections = (layer.query_dense, layer.key_dense, layer.value_dense)
        for dense, rows, bias in zip(
            projections, np.split(matrix, 3), np.split(biases, 3), strict=True
        ):
            dense.set_weights(
                [rows.T.reshape(kernel_shape), bias.reshape(num_heads, key_width)]
            )
        matrix = self.take(f"{name}.out_proj.weight", (width, width))
        layer.output_dense.set_weights(
            [
                matrix.T.reshape(num_heads, key_width, width),
                self.take(f"{name}.out_proj.bias", (width,)),
            ]
        )

    def check_all_read(self) -> None:
        """Raise ValueError if an array was not read."""
        if self._left:
            raise ValueError(
                "Expected the state of one network alone. Received also: "
                f"{', '.join(sorted(self._left))}"
            )

    def _find(self, name: str) -> np.ndarray:
        if name not in self._left:
            raise ValueError(
                f"Expected an array {name!r}, as the program of {self._program} names "
                f"it. Received: {', '.join(sorted(self._left)) or 'no more'}"
            )
        return self._left[name]
