"""Transformer blocks over segments, within a modality and between two modalities."""

import math
from typing import Any

import keras
from keras import ops

from avsdn_tf.models.masking import MaskedLayer

# PyTorch's default, as in the authors' code.
_LAYER_NORM_EPSILON = 1e-5


def _attention(
    units: int, num_heads: int, dropout: float, dtype: Any
) -> keras.layers.MultiHeadAttention:
    if units % num_heads:
        raise ValueError(
            "Expected a width that is a multiple of num_heads. Received: "
            f"width={units}, num_heads={num_heads}"
        )
    # Use PyTorch's range: Keras's default initializer counts the heads as inputs, and
    # draws smaller weights.
    limit = math.sqrt(1.5 / units)
    layer = keras.layers.MultiHeadAttention(
        num_heads,
        units // num_heads,
        dropout=dropout,
        kernel_initializer=keras.initializers.RandomUniform(-limit, limit),
        dtype=dtype,
    )
    layer.build((None, None, units), (None, None, units))
    return layer


def built_layer_norm(width: int, dtype: Any) -> keras.layers.LayerNormalization:
    """Return a layer normalization with weights for inputs `(..., width)`."""
    layer = keras.layers.LayerNormalization(epsilon=_LAYER_NORM_EPSILON, dtype=dtype)
    layer.build((None, None, width))
    return layer


def built_dense(
    width: int, units: int, dtype: Any, activation: str | None = None
) -> keras.layers.Dense:
    """Return a dense layer with weights for inputs `(..., width)`."""
    layer = keras.layers.Dense(units, activation=activation, dtype=dtype)
    layer.build((None, None, width))
    return layer


def repeat_single(memory: Any, mask: Any = None) -> tuple[Any, Any]:
    """Return a memory of at least two entries, and its mask.

    A single entry is duplicated, to avoid Keras's warning about a softmax over one
    value. The result of attention is the same.

    Args:
        memory: `(..., memory_length, width)`.
        mask: `(..., memory_length)`, or None.
    """
    if memory.shape[-2] != 1:
        return memory, mask
    twice = ops.concatenate([memory, memory], axis=-2)
    return twice, None if mask is None else ops.concatenate([mask, mask], axis=-1)


def _attention_mask(mask: Any) -> Any:
    """Return a key mask `(batch, length)` as an attention mask `(batch, 1, length)`."""
    return None if mask is None else ops.cast(mask, "bool")[:, None, :]


@keras.saving.register_keras_serializable(package="avsdn_tf")
class TransformerBlock(MaskedLayer):
    """Post-norm transformer block: attention to a memory, and a feed-forward network.

        x = norm(query + dropout(attention(query, memory)))
        y = norm(x + dropout(dense(dropout(relu(dense(x))))))

    There is no positional encoding.

    Args:
        num_heads: Number of attention heads.
        feed_forward: Width of the feed-forward network.
        dropout: Dropout rate of features and of attention weights.

    Call arguments:
        query: `(batch, num_segments, width)`.
        memory: Keys and values, `(batch, memory_length, width)`; the query itself for
            self-attention.
        mask: `(batch, memory_length)`, nonzero where the memory is real, or None.

    Returns:
        `(batch, num_segments, width)`.

    Raises:
        ValueError: If the width is not a multiple of the number of heads.

    Reference:
        Xu et al., ACM MM 2020, https://dl.acm.org/doi/10.1145/3394171.3413581.
    """

    def __init__(
        self,
        num_heads: int = 4,
        feed_forward: int = 2048,
        dropout: float = 0.1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.feed_forward = feed_forward
        self.dropout = dropout

    def build(
        self,
        query_shape: tuple[int | None, ...],
        memory_shape: tuple[int | None, ...] | None = None,
    ) -> None:
        """Create the weights."""
        del memory_shape
        units, dtype = query_shape[-1], self.dtype_policy
        self.attention = _attention(units, self.num_heads, self.dropout, dtype)
        self.attention_norm = built_layer_norm(units, dtype)
        self.hidden = built_dense(units, self.feed_forward, dtype, "relu")
        self.output_projection = built_dense(self.feed_forward, units, dtype)
        self.output_norm = built_layer_norm(units, dtype)
        # Separate layers: each has its own random state.
        self.attention_dropout = keras.layers.Dropout(self.dropout, dtype=dtype)
        self.hidden_dropout = keras.layers.Dropout(self.dropout, dtype=dtype)
        self.output_dropout = keras.layers.Dropout(self.dropout, dtype=dtype)
        self.built = True

    def call(
        self, query: Any, memory: Any, mask: Any = None, training: bool = False
    ) -> Any:
        """Attend to the memory."""
        memory, mask = repeat_single(memory, mask)
        attended = self.attention(
            query, memory, attention_mask=_attention_mask(mask), training=training
        )
        attended = self.attention_dropout(attended, training=training)
        x = self.attention_norm(query + attended)
        hidden = self.hidden_dropout(self.hidden(x), training=training)
        y = self.output_dropout(self.output_projection(hidden), training=training)
        return self.output_norm(x + y)

    def compute_output_shape(
        self,
        query_shape: tuple[int | None, ...],
        memory_shape: tuple[int | None, ...] | None = None,
    ) -> tuple[int | None, ...]:
        """Return the shape of the query."""
        del memory_shape
        return query_shape

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "feed_forward": self.feed_forward,
            "dropout": self.dropout,
        }


class _Projected(MaskedLayer):
    """Base of the layers with a dense projection before transformer blocks."""

    def __init__(
        self,
        units: int = 256,
        num_heads: int = 4,
        feed_forward: int = 2048,
        dropout: float = 0.1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.num_heads = num_heads
        self.feed_forward = feed_forward
        self.dropout = dropout

    def build(
        self,
        x_shape: tuple[int | None, ...],
        memory_shape: tuple[int | None, ...] | None = None,
    ) -> None:
        """Create the weights."""
        del memory_shape
        self.projection = built_dense(x_shape[-1], self.units, self.dtype_policy)
        self.block = self._create_block()
        self.built = True

    def _create_block(self) -> TransformerBlock:
        block = TransformerBlock(
            self.num_heads, self.feed_forward, self.dropout, dtype=self.dtype_policy
        )
        block.build((None, None, self.units))
        return block

    def compute_output_shape(
        self,
        x_shape: tuple[int | None, ...],
        memory_shape: tuple[int | None, ...] | None = None,
    ) -> tuple[int | None, ...]:
        """Return the shape of the projected segments."""
        del memory_shape
        return (*x_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "units": self.units,
            "num_heads": self.num_heads,
            "feed_forward": self.feed_forward,
            "dropout": self.dropout,
        }


@keras.saving.register_keras_serializable(package="avsdn_tf")
class SegmentEncoder(_Projected):
    """Dense projection and two self-attention blocks over one modality's segments.

    Args:
        units: Width of the encoding.
        num_heads: As in `TransformerBlock`.
        feed_forward: As in `TransformerBlock`.
        dropout: As in `TransformerBlock`.

    Call arguments:
        x: `(batch, num_segments, width)`.
        mask: `(batch, num_segments)`, nonzero where a segment is real, or None.

    Returns:
        `(batch, num_segments, units)`.

    Reference:
        Xu et al., ACM MM 2020, https://dl.acm.org/doi/10.1145/3394171.3413581.
    """

    def build(self, x_shape: tuple[int | None, ...]) -> None:
        """Create the weights."""
        super().build(x_shape)
        self.second_block = self._create_block()

    def call(self, x: Any, mask: Any = None, training: bool = False) -> Any:
        """Encode the segments."""
        x = self.projection(x)
        x = self.block(x, x, mask=mask, training=training)
        return self.second_block(x, x, mask=mask, training=training)


@keras.saving.register_keras_serializable(package="avsdn_tf")
class CrossModalDecoder(_Projected):
    """Dense projection and a block that attends to both modalities.

        query = dense(x);  y = block(query, [memory ; query] along time)

    Args:
        units: Width of the output and of the memory.
        num_heads: As in `TransformerBlock`.
        feed_forward: As in `TransformerBlock`.
        dropout: As in `TransformerBlock`.

    Call arguments:
        x: `(batch, num_segments, width)`.
        memory: The other modality's encoding, `(batch, num_segments, units)`.
        mask: `(batch, num_segments)`, nonzero where a segment is real, or None.

    Returns:
        `(batch, num_segments, units)`.

    Reference:
        Xu et al., ACM MM 2020, https://dl.acm.org/doi/10.1145/3394171.3413581.
    """

    def call(
        self, x: Any, memory: Any, mask: Any = None, training: bool = False
    ) -> Any:
        """Attend to both modalities."""
        query = self.projection(x)
        memory = ops.concatenate([memory, query], axis=1)
        mask = None if mask is None else ops.concatenate([mask, mask], axis=1)
        return self.block(query, memory, mask=mask, training=training)


@keras.saving.register_keras_serializable(package="avsdn_tf")
class CrossModalInteraction(MaskedLayer):
    """Attention to both modalities, with their product as the query.

        g = first * second
        y = norm(g + dropout(attention(g, [second ; first] along time)))

    Args:
        num_heads: Number of attention heads.
        dropout: Dropout rate of the attention weights. The dropout rate of the attended
            features is always 0.1.

    Call arguments:
        first: `(batch, num_segments, width)`.
        second: `(batch, num_segments, width)`.
        mask: `(batch, num_segments)`, nonzero where a segment is real, or None.

    Returns:
        `(batch, num_segments, width)`.

    Reference:
        Xu et al., ACM MM 2020, https://dl.acm.org/doi/10.1145/3394171.3413581.
    """

    def __init__(self, num_heads: int = 4, dropout: float = 0.1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.dropout = dropout

    def build(
        self,
        first_shape: tuple[int | None, ...],
        second_shape: tuple[int | None, ...] | None = None,
    ) -> None:
        """Create the weights."""
        del second_shape
        units, dtype = first_shape[-1], self.dtype_policy
        self.attention = _attention(units, self.num_heads, self.dropout, dtype)
        self.attended_dropout = keras.layers.Dropout(0.1, dtype=dtype)
        self.norm = built_layer_norm(units, dtype)
        self.built = True

    def call(
        self, first: Any, second: Any, mask: Any = None, training: bool = False
    ) -> Any:
        """Attend to both modalities."""
        product = first * second
        memory = ops.concatenate([second, first], axis=1)
        mask = None if mask is None else ops.concatenate([mask, mask], axis=1)
        attended = self.attention(
            product, memory, attention_mask=_attention_mask(mask), training=training
        )
        attended = self.attended_dropout(attended, training=training)
        return self.norm(product + attended)

    def compute_output_shape(
        self,
        first_shape: tuple[int | None, ...],
        second_shape: tuple[int | None, ...] | None = None,
    ) -> tuple[int | None, ...]:
        """Return the shape of the output."""
        del second_shape
        return first_shape

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "dropout": self.dropout,
        }
