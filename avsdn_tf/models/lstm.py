"""LSTMs over the segments of a clip, with initial and final states."""

import math
from typing import Any

import keras
from keras import ops

from avsdn_tf.models.masking import MaskedLayer

# Unrolled loops over more segments take too long to compile.
_MAX_UNROLLED = 32
_CELL = {
    "activation": "tanh",
    "recurrent_activation": "sigmoid",
    "use_bias": True,
    "dropout": 0.0,
    "recurrent_dropout": 0.0,
}


class _UnrolledLoop(MaskedLayer, keras.layers.RNN):
    """Unrolled loop over short sequences.

    The inputs of all segments are multiplied by the kernel at once; Keras multiplies
    one segment at a time. A training step of AVSDN takes 23.7 ms instead of 27.3 ms on
    two cores of an AMD EPYC, family 26.
    """

    def inner_loop(
        self, sequences: Any, initial_state: Any, mask: Any, training: bool = False
    ) -> Any:
        num_segments = sequences.shape[1]
        # An unknown length is None, or a symbol in JAX.
        is_short = isinstance(num_segments, int) and num_segments <= self.max_unrolled
        if not is_short:
            return super().inner_loop(sequences, initial_state, mask, training)
        projected = ops.matmul(sequences, self.cell.kernel) + self.cell.bias
        segments = ops.unstack(projected, num_segments, axis=1)
        is_real = [None] * num_segments
        if mask is not None:
            real = ops.expand_dims(ops.cast(mask, "bool"), -1)
            is_real = ops.unstack(real, num_segments, axis=1)
        steps = list(zip(segments, is_real, strict=True))
        states = initial_state
        outputs = []
        for segment, real in reversed(steps) if self.go_backwards else steps:
            hidden_state, cell_state = states
            gates = segment + ops.matmul(hidden_state, self.cell.recurrent_kernel)
            i, f, g, o = ops.split(gates, 4, axis=-1)
            cell_state = ops.sigmoid(f) * cell_state + ops.sigmoid(i) * ops.tanh(g)
            hidden_state = ops.sigmoid(o) * ops.tanh(cell_state)
            new = [hidden_state, cell_state]
            if real is not None:
                new = [ops.where(real, *both) for both in zip(new, states, strict=True)]
            states = new
            outputs.append(states[0])
        return states[0], ops.stack(outputs, axis=1), states


# `keras.layers.LSTM.inner_loop` tries cuDNN, then calls `super().inner_loop`: that of
# `_UnrolledLoop`, the second base class.
@keras.saving.register_keras_serializable(package="avsdn_tf")
class SegmentLSTM(keras.layers.LSTM, _UnrolledLoop):
    """Keras's LSTM with a faster loop over short sequences if cuDNN is unavailable.

    Weights and results equal those of `keras.layers.LSTM` with default activations and
    bias, and without dropout.

    Args:
        units: Width of the outputs and of the states.
        **kwargs: As in `keras.layers.LSTM`.

    Call arguments:
        sequences: `(batch, num_segments, width)`.
        mask: `(batch, num_segments)`, as in `keras.layers.LSTM`, or None.

    Returns:
        As in `keras.layers.LSTM`, but without a Keras mask on the outputs.

    Raises:
        ValueError: If activations, bias or dropout are not the defaults.

    Example:
        >>> from avsdn_tf.models.lstm import SegmentLSTM
        >>> SegmentLSTM(16, return_sequences=True)(audio).shape
        TensorShape([4, 10, 16])
    """

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(units, **kwargs)
        self.max_unrolled = _MAX_UNROLLED
        serialize = keras.activations.serialize
        cell = {
            "activation": serialize(self.activation),
            "recurrent_activation": serialize(self.recurrent_activation),
            "use_bias": self.use_bias,
            "dropout": self.dropout,
            "recurrent_dropout": self.recurrent_dropout,
        }
        if cell != _CELL:
            raise ValueError(
                f"Expected {_CELL}. Received: {cell}. Use keras.layers.LSTM for other "
                "options."
            )


def disable_cudnn(model: keras.Model) -> None:
    """Make a model's LSTMs use plain operations instead of cuDNN on GPUs.

    XLA, and runtimes other than TensorFlow, can't run cuDNN's operation.
    """
    for layer in _segment_lstms(model):
        layer.use_cudnn = False


def unroll_all(model: keras.Model) -> None:
    """Unroll the LSTMs of a model for any number of segments.

    LiteRT can't run the loop of an LSTM.
    """
    for layer in _segment_lstms(model):
        layer.max_unrolled = math.inf


def _segment_lstms(model: keras.Model) -> list[SegmentLSTM]:
    layers = model._flatten_layers()
    return [layer for layer in layers if isinstance(layer, SegmentLSTM)]


class _BothDirections(MaskedLayer):
    """Two LSTMs, the second backwards, with concatenated outputs and states.

    `keras.layers.Bidirectional` copies its layer by serialization, which creates
    temporary layers. Keras's loader identifies layers by memory address: if two
    encoders had temporary layers at the same address, they would share their weights.
    """

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.forward_layer = _lstm(units, self.dtype_policy)
        self.backward_layer = _lstm(units, self.dtype_policy, go_backwards=True)

    def build(self, sequences_shape: tuple[int | None, ...]) -> None:
        """Create the weights."""
        for layer in (self.forward_layer, self.backward_layer):
            layer.build(sequences_shape)

    def call(
        self,
        sequences: Any,
        initial_state: Any = None,
        mask: Any = None,
        training: bool = False,
    ) -> list[Any]:
        """Apply both LSTMs to the sequences."""
        states = [None, None]
        if initial_state is not None:
            halves = [ops.split(state, 2, axis=-1) for state in initial_state]
            states = [list(state) for state in zip(*halves, strict=True)]
        outputs, *forward = self.forward_layer(
            sequences, initial_state=states[0], mask=mask, training=training
        )
        reversed_outputs, *backward = self.backward_layer(
            sequences, initial_state=states[1], mask=mask, training=training
        )
        pairs = [
            (outputs, ops.flip(reversed_outputs, axis=1)),
            *zip(forward, backward, strict=True),
        ]
        return [ops.concatenate(pair, axis=-1) for pair in pairs]


def _lstm(units: int, dtype: Any, **kwargs: Any) -> SegmentLSTM:
    return SegmentLSTM(
        units, return_sequences=True, return_state=True, dtype=dtype, **kwargs
    )


@keras.saving.register_keras_serializable(package="avsdn_tf")
class SequenceLSTM(MaskedLayer):
    """LSTM over segments, in one direction or both, with initial and final states.

    Each direction computes Eq. 1 of Lin et al., where `U x_t` in the gates is a
    misprint of `U h_(t-1)`:

        f, i, o = sigmoid(W x_t + U h_(t-1) + b), with separate weights per gate
        c_t = f * c_(t-1) + i * tanh(W_c x_t + U_c h_(t-1) + b_c)
        h_t = o * tanh(c_t)

    Args:
        units: Width of the LSTM in each direction.
        bidirectional: Boolean. True: a second LSTM reads backwards; outputs and states
            of the two are concatenated, forward first.

    Call arguments:
        sequence: `(batch, num_segments, width)`.
        hidden_state: Initial hidden state, `(batch, output_width)`, or None for zeros.
        cell_state: Initial cell state, `(batch, output_width)`, or None for zeros.
        mask: `(batch, num_segments)`, nonzero where a segment is real, or None if all
            are real. Padding at the end of a clip leaves the states unchanged.

    Returns:
        The outputs, `(batch, num_segments, output_width)`, and the final hidden and
        cell states, `(batch, output_width)` each. `output_width` is `units`, or `2 *
        units` if bidirectional. The backward half of a final state is the state after
        the clip's first segment.

    Raises:
        ValueError: If only one of the two states is given.

    Example:
        >>> from avsdn_tf.models.lstm import SequenceLSTM
        >>> outputs, hidden, cell = SequenceLSTM(units=16, bidirectional=True)(audio)
        >>> outputs.shape, hidden.shape
        (TensorShape([4, 10, 32]), TensorShape([4, 32]))

    Reference:
        Lin et al., ICASSP 2019, https://arxiv.org/abs/1902.07473, Eq. 1.
    """

    def __init__(
        self, units: int = 128, bidirectional: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.bidirectional = bidirectional
        self.lstm = (
            _BothDirections(units, dtype=self.dtype_policy)
            if bidirectional
            else _lstm(units, self.dtype_policy)
        )

    @property
    def output_width(self) -> int:
        """Width of the outputs and of the states."""
        return self.units * (2 if self.bidirectional else 1)

    def build(
        self,
        sequence_shape: tuple[int | None, ...],
        hidden_state_shape: tuple[int | None, ...] | None = None,
        cell_state_shape: tuple[int | None, ...] | None = None,
    ) -> None:
        """Create the weights."""
        del hidden_state_shape, cell_state_shape
        if not self.lstm.built:
            self.lstm.build(sequence_shape)

    def call(
        self,
        sequence: Any,
        hidden_state: Any = None,
        cell_state: Any = None,
        mask: Any = None,
        training: bool = False,
    ) -> tuple[Any, Any, Any]:
        """Apply the LSTM to the sequence."""
        if (hidden_state is None) != (cell_state is None):
            raise ValueError(
                "Expected both states or neither. Received: "
                f"hidden_state={hidden_state}, cell_state={cell_state}"
            )
        states = None if hidden_state is None else [hidden_state, cell_state]
        if mask is not None:
            mask = ops.cast(mask, "bool")
            # cuDNN fails on clips without real segments: unmask these clips.
            is_empty = ops.logical_not(ops.any(mask, axis=1, keepdims=True))
            mask = ops.logical_or(mask, is_empty)
        return tuple(
            self.lstm(sequence, initial_state=states, mask=mask, training=training)
        )

    def compute_output_shape(
        self,
        sequence_shape: tuple[int | None, ...],
        hidden_state_shape: tuple[int | None, ...] | None = None,
        cell_state_shape: tuple[int | None, ...] | None = None,
    ) -> tuple[tuple[int | None, ...], ...]:
        """Return the shapes of the outputs and of the two states."""
        del hidden_state_shape, cell_state_shape
        state_shape = (sequence_shape[0], self.output_width)
        return (*sequence_shape[:2], self.output_width), state_shape, state_shape

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "units": self.units,
            "bidirectional": self.bidirectional,
        }
