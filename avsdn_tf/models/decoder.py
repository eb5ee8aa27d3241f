"""AVSDN's decoder, which computes segment logits from features and a clip's state."""

from typing import Any

import keras
from keras import ops

from avsdn_tf.models.lstm import SequenceLSTM
from avsdn_tf.models.masking import MaskedLayer


@keras.saving.register_keras_serializable(package="avsdn_tf")
class Decoder(MaskedLayer):
    """LSTM that starts from the clip's global state and labels every segment.

        y = LSTM([audio_t; visual_t], initial state = (hidden_state, cell_state))
        logits = dense(y)

    Args:
        num_classes: Number of logits per segment.
        units: Width of the LSTM in each direction.
        bidirectional: Boolean. Whether a second LSTM reads backwards; `hidden_state`
            and `cell_state` must then be `2 * units` wide.
        append_state: Boolean. Whether to append `hidden_state` to the input of every
            segment.
        dropout: Dropout rate of the LSTM's outputs.

    Call arguments:
        audio: `(batch, num_segments, audio_width)`.
        visual: `(batch, num_segments, visual_width)`.
        hidden_state: `(batch, state_width)`, the clip's global hidden state.
        cell_state: `(batch, state_width)`, the clip's global cell state.
        mask: `(batch, num_segments)`, nonzero where a segment is real, or None.

    Returns:
        Segment logits, `(batch, num_segments, num_classes)`.

    Example:
        >>> from avsdn_tf.models.decoder import Decoder
        >>> state = np.zeros((4, 16), "float32")
        >>> Decoder(num_classes=3, units=16)(audio, visual, state, state).shape
        TensorShape([4, 10, 3])

    Reference:
        Lin et al., ICASSP 2019, https://arxiv.org/abs/1902.07473, section 2.2.
    """

    def __init__(
        self,
        num_classes: int,
        units: int = 128,
        bidirectional: bool = False,
        append_state: bool = False,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.units = units
        self.bidirectional = bidirectional
        self.append_state = append_state
        self.dropout = dropout
        self.lstm = SequenceLSTM(units, bidirectional, dtype=self.dtype_policy)
        self.output_dropout = keras.layers.Dropout(dropout, dtype=self.dtype_policy)
        # Keep the head in float32: half-precision logits can tie, and argmax never
        # picks background, the last class, from a tie.
        self.head = keras.layers.Dense(num_classes, dtype=self.variable_dtype)

    def build(
        self,
        audio_shape: tuple[int | None, ...],
        visual_shape: tuple[int | None, ...],
        hidden_state_shape: tuple[int | None, ...],
        cell_state_shape: tuple[int | None, ...],
    ) -> None:
        """Create the weights."""
        del cell_state_shape
        width = audio_shape[-1] + visual_shape[-1]
        if self.append_state:
            width += hidden_state_shape[-1]
        self.lstm.build((*audio_shape[:2], width))
        self.head.build((*audio_shape[:2], self.lstm.output_width))
        self.built = True

    def call(
        self,
        audio: Any,
        visual: Any,
        hidden_state: Any,
        cell_state: Any,
        mask: Any = None,
        training: bool = False,
    ) -> Any:
        """Label the segments."""
        local = [audio, visual]
        if self.append_state:
            repeated = ops.expand_dims(hidden_state, 1)
            local.append(ops.repeat(repeated, ops.shape(audio)[1], axis=1))
        outputs, _, _ = self.lstm(
            ops.concatenate(local, axis=-1),
            hidden_state,
            cell_state,
            mask=mask,
            training=training,
        )
        return self.head(self.output_dropout(outputs, training=training))

    def compute_output_shape(
        self,
        audio_shape: tuple[int | None, ...],
        visual_shape: tuple[int | None, ...],
        hidden_state_shape: tuple[int | None, ...],
        cell_state_shape: tuple[int | None, ...],
    ) -> tuple[int | None, ...]:
        """Return the shape of the logits."""
        del visual_shape, hidden_state_shape, cell_state_shape
        return (*audio_shape[:2], self.num_classes)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "units": self.units,
            "bidirectional": self.bidirectional,
            "append_state": self.append_state,
            "dropout": self.dropout,
        }
