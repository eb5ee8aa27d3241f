"""An LSTM over the segments of a clip, with its states in and out."""

import math
from typing import Any

import keras
from keras import ops

# Up to here a loop over segments is written out as a graph without a loop, which
# compilers fuse; longer ones would take too long to compile.
_MOST_UNROLLED = 32
_CELL = {
    "activation": "tanh",
    "recurrent_activation": "sigmoid",
    "use_bias": True,
    "dropout": 0.0,
    "recurrent_dropout": 0.0,
}


class _ProjectInputsFirst(keras.layers.RNN):
    """The loop that Keras's LSTM takes where there is no cuDNN, for short sequences.

    Keras multiplies every segment's input by its weights in turn. Here one product does
    so for all segments, and only the recurrent product stays in the loop.
    """

    def inner_loop(
        self, sequences: Any, initial_state: Any, mask: Any, training: bool = False
    ) -> Any:
        num_segments = sequences.shape[1]
        is_short = num_segments is not None and num_segments <= self.most_unrolled
        if not is_short or mask is not None:
            return super().inner_loop(sequences, initial_state, mask, training)
        projected = ops.matmul(sequences, self.cell.kernel) + self.cell.bias
        segments = ops.unstack(projected, num_segments, axis=1)
        hidden_state, cell_state = initial_state
        outputs = []
        for segment in reversed(segments) if self.go_backwards else segments:
            gates = segment + ops.matmul(hidden_state, self.cell.recurrent_kernel)
            i, f, g, o = ops.split(gates, 4, axis=-1)
            cell_state = ops.sigmoid(f) * cell_state + ops.sigmoid(i) * ops.tanh(g)
            hidden_state = ops.sigmoid(o) * ops.tanh(cell_state)
            outputs.append(hidden_state)
        return hidden_state, ops.stack(outputs, axis=1), [hidden_state, cell_state]


@keras.saving.register_keras_serializable(package="avsdn_tf")
class SegmentLSTM(keras.layers.LSTM, _ProjectInputsFirst):
    """Keras's LSTM, faster over short sequences where there is no cuDNN.

    Weights and results are those of `keras.layers.LSTM`, with its default activations
    and bias, and without dropout.

    Args:
        units: Width of the outputs and of the states.
        **kwargs: Of `keras.layers.LSTM`.

    Raises:
        ValueError: If the arguments ask for another cell.
    """

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(units, **kwargs)
        self.most_unrolled = _MOST_UNROLLED
        asked = {
            "activation": keras.activations.serialize(self.activation),
            "recurrent_activation": keras.activations.serialize(
                self.recurrent_activation
            ),
            "use_bias": self.use_bias,
            "dropout": self.dropout,
            "recurrent_dropout": self.recurrent_dropout,
        }
        if asked != _CELL:
            raise ValueError(
                f"Expected {_CELL}, as the loop that is written out has them. "
                f"Received: {asked}. Take keras.layers.LSTM."
            )


def disable_cudnn(model: keras.Model) -> None:
    """Makes a model's LSTMs loops of plain operations from now on, on a GPU too.

    cuDNN's operation is one that neither XLA nor runtimes other than TensorFlow know.
    """
    for layer in _segment_lstms(model):
        layer.use_cudnn = False


def unroll_all(model: keras.Model) -> None:
    """Makes a model write all steps of its LSTMs out from now on, however many.

    LiteRT has no loop that they fit in.
    """
    for layer in _segment_lstms(model):
        layer.most_unrolled = math.inf


def _segment_lstms(model: keras.Model) -> list[SegmentLSTM]:
    layers = model._flatten_layers()
    return [layer for layer in layers if isinstance(layer, SegmentLSTM)]


@keras.saving.register_keras_serializable(package="avsdn_tf")
class SequenceLSTM(keras.layers.Layer):
    """A Keras LSTM over segments, in one direction or both, that shows its states.

    One direction, per segment (Eq. 1 of Lin et al., whose `U x_t` in the gates is read
    as a misprint of `U h_(t-1)`):

        f, i, o = sigmoid(W x_t + U h_(t-1) + b), one weight set a gate
        c_t = f * c_(t-1) + i * tanh(W_c x_t + U_c h_(t-1) + b_c)
        h_t = o * tanh(c_t)

    Args:
        units: Width of the LSTM in each direction.
        bidirectional: Boolean. True: a second LSTM reads backwards; outputs and states
            of the two are concatenated, forward first.

    Call arguments:
        sequence: `(batch, num_segments, width)`.
        hidden_state: `(batch, output_width)` to start from, or None for zeros.
        cell_state: The same. Given if and only if `hidden_state` is.

    Returns:
        A tuple of the outputs, `(batch, num_segments, output_width)`, and the final
        hidden and cell states, `(batch, output_width)` each. `output_width` is `units`,
        or `2 * units` if bidirectional. The backward half of the final states is that
        after the clip's first segment.

    Raises:
        ValueError: If only one of the two states is given.

    Reference:
        Lin et al., ICASSP 2019, https://arxiv.org/abs/1902.07473, Eq. 1.
    """

    def __init__(
        self, units: int = 128, bidirectional: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.bidirectional = bidirectional
        lstm = SegmentLSTM(
            units, return_sequences=True, return_state=True, dtype=self.dtype_policy
        )
        self.lstm = lstm
        if bidirectional:
            self.lstm = keras.layers.Bidirectional(lstm, dtype=self.dtype_policy)
            # Bidirectional copies the layer, and while a model is loaded, Keras takes
            # two of the same address for one: no other may get that of this one. In a
            # function, Keras does not take it for a layer of ours.
            self._copied = lambda: lstm

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
        """Creates the weights."""
        del hidden_state_shape, cell_state_shape
        if not self.lstm.built:
            self.lstm.build(sequence_shape)
        self.built = True

    def call(
        self,
        sequence: Any,
        hidden_state: Any = None,
        cell_state: Any = None,
        training: bool = False,
    ) -> tuple[Any, Any, Any]:
        """Runs over the sequence."""
        if (hidden_state is None) != (cell_state is None):
            raise ValueError(
                "Expected both states or neither. Received: "
                f"hidden_state={hidden_state}, cell_state={cell_state}"
            )
        initial_state = None
        if hidden_state is not None:
            initial_state = [hidden_state, cell_state]
            if self.bidirectional:
                # Keras orders them by direction, and we by kind of state.
                forward_h, backward_h = ops.split(hidden_state, 2, axis=-1)
                forward_c, backward_c = ops.split(cell_state, 2, axis=-1)
                initial_state = [forward_h, forward_c, backward_h, backward_c]
        outputs, *states = self.lstm(
            sequence, initial_state=initial_state, training=training
        )
        if self.bidirectional:
            forward_h, forward_c, backward_h, backward_c = states
            states = [
                ops.concatenate([forward_h, backward_h], axis=-1),
                ops.concatenate([forward_c, backward_c], axis=-1),
            ]
        return outputs, states[0], states[1]

    def compute_output_shape(
        self,
        sequence_shape: tuple[int | None, ...],
        hidden_state_shape: tuple[int | None, ...] | None = None,
        cell_state_shape: tuple[int | None, ...] | None = None,
    ) -> tuple[tuple[int | None, ...], ...]:
        """Returns the shapes of the outputs and of the two states."""
        del hidden_state_shape, cell_state_shape
        state_shape = (sequence_shape[0], self.output_width)
        return (*sequence_shape[:2], self.output_width), state_shape, state_shape

    def get_config(self) -> dict[str, Any]:
        """Returns what `__init__` was given."""
        return {
            **super().get_config(),
            "units": self.units,
            "bidirectional": self.bidirectional,
        }
