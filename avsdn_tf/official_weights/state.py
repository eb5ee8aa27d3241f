"""Copy arrays from the `state_dict` of a PyTorch module to Keras layers."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from avsdn_tf.models.lstm import SequenceLSTM


class StateReader:
    """Reads each array of a `state_dict` once.

    Args:
        state: Arrays, or values that `numpy.asarray` accepts, by name. The prefix of
            `torch.nn.DataParallel` is removed.
        program: Names of the PyTorch program's authors, for messages.
        unused: Prefixes of names to ignore.
    """

    def __init__(
        self, state: Mapping[str, Any], program: str, unused: Sequence[str] = ()
    ) -> None:
        named = {name.removeprefix("module."): array for name, array in state.items()}
        self._program = program
        self._unread = {
            name: np.asarray(array)
            for name, array in named.items()
            if not name.startswith(tuple(unused))
        }

    def __contains__(self, name: str) -> bool:
        """Return whether the state has an unread array of that name."""
        return name in self._unread

    def matrix_shape(self, name: str) -> tuple[int, int]:
        """Return the shape of a matrix, `(outputs, inputs)`.

        Raises:
            ValueError: If the array is missing or no matrix.
        """
        shape = self._find(name).shape
        if len(shape) != 2:
            raise ValueError(f"Expected {name!r} to be a matrix. Received: {shape}")
        return shape

    def take(self, name: str, shape: Any) -> np.ndarray:
        """Read an array as float32.

        Raises:
            ValueError: If the array is missing or has another shape.
        """
        array, shape = self._find(name), tuple(shape)
        if array.shape != shape:
            raise ValueError(
                f"Expected {name!r} of shape {shape}. Received: {array.shape}"
            )
        return self._unread.pop(name).astype(np.float32)

    def set_dense(self, layers: Mapping[str, keras.layers.Dense]) -> None:
        """Set the weights of dense layers, given by their names in PyTorch."""
        for name, layer in layers.items():
            # PyTorch's matrices are (outputs, inputs).
            weights = [self.take(f"{name}.weight", reversed(layer.kernel.shape)).T]
            if layer.use_bias:
                weights.append(self.take(f"{name}.bias", layer.bias.shape))
            layer.set_weights(weights)

    def set_norms(self, layers: Mapping[str, keras.layers.LayerNormalization]) -> None:
        """Set layer normalizations, given by their names in PyTorch."""
        for name, layer in layers.items():
            layer.set_weights(
                [
                    self.take(f"{name}.weight", layer.gamma.shape),
                    self.take(f"{name}.bias", layer.beta.shape),
                ]
            )

    def set_lstm(self, name: str, layer: SequenceLSTM) -> None:
        """Set a bidirectional LSTM.

        Both frameworks order the gates as input, forget, cell, output. Keras has one
        bias, the sum of PyTorch's two.
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
        """Set a multi-head attention, whose input projections PyTorch concatenates."""
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
        """Raise ValueError if unread arrays are left."""
        if self._unread:
            raise ValueError(
                "Expected the state of one network alone. Received also: "
                f"{', '.join(sorted(self._unread))}"
            )

    def _find(self, name: str) -> np.ndarray:
        if name not in self._unread:
            raise ValueError(
                f"Expected an array {name!r}, as the program of {self._program} names "
                f"it. Received: {', '.join(sorted(self._unread)) or 'no other array'}"
            )
        return self._unread[name]
