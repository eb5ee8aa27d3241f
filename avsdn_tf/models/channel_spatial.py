"""Audio-guided attention to the channels and the cells of a feature map."""

from typing import Any

import keras
from keras import ops

from avsdn_tf.models.attention import check_maps
from avsdn_tf.models.masking import MaskedLayer
from avsdn_tf.models.transformer import (
    built_dense,
    built_layer_norm,
    repeat_single,
)

Shape = tuple[int | None, ...]


def as_cells(visual: Any) -> Any:
    """Return maps as `(batch, num_segments, rows * columns, width)`."""
    shape = ops.shape(visual)
    return ops.reshape(visual, (shape[0], shape[1], -1, visual.shape[-1]))


def _as_map(weights: Any, visual: Any) -> Any:
    """Return weights of cells as `(batch, num_segments, rows, columns)`."""
    return ops.reshape(weights, ops.shape(visual)[:4])


class _CellScores(keras.layers.Layer):
    """Attention weights of the cells, given one guide vector per segment.

        softmax over cells of tanh(w . [relu(W_x x) * relu(W_g g)] + b)

    Call arguments:
        guide: `(batch, num_segments, guide_width)`.
        cells: `(batch, num_segments, num_cells, width)`.

    Returns:
        `(batch, num_segments, num_cells)`.
    """

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units

    def build(self, guide_shape: Shape, cells_shape: Shape) -> None:
        dtype = self.dtype_policy
        self.guide = built_dense(guide_shape[-1], self.units, dtype, "relu")
        self.cell = built_dense(cells_shape[-1], self.units, dtype, "relu")
        self.score = built_dense(self.units, 1, dtype)
        self.built = True

    def call(self, guide: Any, cells: Any) -> Any:
        # Multiply w into the small guide: the product with all cells would be large.
        guide = self.guide(guide) * self.score.kernel[:, 0]
        scores = ops.einsum("btnu,btu->btn", self.cell(cells), guide)
        return ops.softmax(ops.tanh(scores + self.score.bias), axis=-1)


@keras.saving.register_keras_serializable(package="avsdn_tf")
class ChannelSpatialAttention(keras.layers.Layer):
    """Audio-guided attention over the channels, then over the cells, of feature maps.

    For a segment's audio feature `a` and the cells `v` of its map:

        q = mean over cells of relu(W_v x) * relu(W_a a)
        c = sigmoid(W_c relu(W_q q))
        v <- v * (1 + c)
        z = tanh(w . [relu(U_v v) * relu(U_a a)])
        attended = sum over cells of softmax(z) * v

    `x` is `compared`, or `v` if `compared` is None. All dense layers have a bias.

    Args:
        units: Width of `W_q q`, `U_v v` and `U_a a`.

    Call arguments:
        audio: `(batch, num_segments, audio_width)`.
        visual: `(batch, num_segments, rows, columns, width)`.
        compared: Cell features for the channel attention, `(batch, num_segments, rows
            * columns, width)`; None: the map itself.

    Returns:
        The attended visual features, `(batch, num_segments, width)`, and the attention
        weights of the cells, `(batch, num_segments, rows, columns)`, which sum to 1.

    Raises:
        ValueError: If `visual` is not a feature map.

    Reference:
        Xu et al., "Cross-modal relation-aware networks for audio-visual event
        localization", ACM MM 2020, https://dl.acm.org/doi/10.1145/3394171.3413581,
        section 3.2.
    """

    def __init__(self, units: int = 256, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units

    def build(
        self,
        audio_shape: Shape,
        visual_shape: Shape,
        compared_shape: Shape | None = None,
    ) -> None:
        """Create the weights."""
        del compared_shape
        check_maps(visual_shape)
        audio, width, dtype = audio_shape[-1], visual_shape[-1], self.dtype_policy
        self.channel_audio = built_dense(audio, width, dtype, "relu")
        self.channel_visual = built_dense(width, width, dtype, "relu")
        self.channel_bottleneck = built_dense(width, self.units, dtype, "relu")
        self.channel_gate = built_dense(self.units, width, dtype, "sigmoid")
        self.cell_weights = _CellScores(self.units, dtype=dtype)
        self.cell_weights.build(audio_shape, (None, None, None, width))
        self.built = True

    def call(self, audio: Any, visual: Any, compared: Any = None) -> tuple[Any, Any]:
        """Attend to channels and cells."""
        cells = as_cells(visual)
        projected = self.channel_visual(cells if compared is None else compared)
        query = ops.mean(projected, axis=2) * self.channel_audio(audio)
        gate = 1 + self.channel_gate(self.channel_bottleneck(query))
        weights = self.cell_weights(audio, cells * gate[:, :, None])
        # The gate is the same for all cells: multiply the sum, not each cell.
        attended = ops.einsum("btn,btnd->btd", weights, cells) * gate
        return attended, _as_map(weights, visual)

    def compute_output_shape(
        self,
        audio_shape: Shape,
        visual_shape: Shape,
        compared_shape: Shape | None = None,
    ) -> tuple[Shape, Shape]:
        """Return the shapes of the attended features and of the weights."""
        del audio_shape, compared_shape
        return (*visual_shape[:2], visual_shape[-1]), tuple(visual_shape[:4])

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable(package="avsdn_tf")
class UnscaledAttention(MaskedLayer):
    """Single-head attention without the scale factor 1 / sqrt(key_width).

        softmax(W_q x (W_k m)^T) W_v m

    Args:
        key_width: Width of queries and keys.

    Call arguments:
        x: `(..., length, width)`.
        memory: `(..., memory_length, memory_width)`.
        mask: `(..., memory_length)`, nonzero where the memory is real, or None.

    Returns:
        `(..., length, memory_width)`.

    Reference:
        Xia and Zhao, CVPR 2022, https://doi.org/10.1109/CVPR52688.2022.01936, and its
        code.
    """

    def __init__(self, key_width: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.key_width = key_width

    def build(self, x_shape: Shape, memory_shape: Shape) -> None:
        """Create the weights."""
        dtype, width = self.dtype_policy, memory_shape[-1]
        self.query = built_dense(x_shape[-1], self.key_width, dtype)
        self.key = built_dense(width, self.key_width, dtype)
        self.value = built_dense(width, width, dtype)
        self.built = True

    def call(self, x: Any, memory: Any, mask: Any = None) -> Any:
        """Attend to the memory."""
        memory, mask = repeat_single(memory, mask)
        keys = ops.swapaxes(self.key(memory), -1, -2)
        scores = ops.matmul(self.query(x), keys)
        if mask is not None:
            is_real = ops.cast(mask, "bool")[..., None, :]
            # Not -inf: the softmax of a clip without real segments would be NaN.
            lowest = -3e4 if self.compute_dtype == "float16" else -1e9
            scores = ops.where(is_real, scores, ops.cast(lowest, scores.dtype))
        return ops.matmul(ops.softmax(scores, axis=-1), self.value(memory))

    def compute_output_shape(self, x_shape: Shape, memory_shape: Shape) -> Shape:
        """Return the shape of the attended values."""
        return (*x_shape[:-1], memory_shape[-1])

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "key_width": self.key_width}


@keras.saving.register_keras_serializable(package="avsdn_tf")
class SelfGuidedAttention(keras.layers.Layer):
    """Channel and spatial attention, guided by the audio and by the map itself.

        x = norm(v + dropout(softmax(W_q v (W_k v)^T) W_v v))
        s = sum over cells of softmax(z) * x
        u = ChannelSpatialAttention(a, v, compared=x)
        attended = u + strength * sigmoid(s) * u

    The `z` in `s` is computed as in `ChannelSpatialAttention`, with weights of its own,
    from the cells `x` and, instead of the audio, the mean of `x` over the cells.

    Args:
        units: As in `ChannelSpatialAttention`.
        strength: Factor of the term gated by the map itself.
        dropout: Dropout rate of the self-attention's output.

    Call arguments:
        audio: `(batch, num_segments, audio_width)`.
        visual: `(batch, num_segments, rows, columns, width)`.

    Returns:
        The attended visual features, `(batch, num_segments, width)`, and the
        audio-guided attention weights of the cells, `(batch, num_segments, rows,
        columns)`, which sum to 1.

    Raises:
        ValueError: If `visual` is not a feature map.

    Reference:
        Xia and Zhao, "Cross-modal background suppression for audio-visual event
        localization", CVPR 2022, https://doi.org/10.1109/CVPR52688.2022.01936, and its
        code.
    """

    def __init__(
        self,
        units: int = 256,
        strength: float = 0.4,
        dropout: float = 0.2,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.strength = strength
        self.dropout = dropout

    def build(self, audio_shape: Shape, visual_shape: Shape) -> None:
        """Create the weights."""
        check_maps(visual_shape)
        width, dtype = visual_shape[-1], self.dtype_policy
        cells_shape = (None, None, None, width)
        self.self_attention = UnscaledAttention(width // 4, dtype=dtype)
        self.self_attention.build(cells_shape, cells_shape)
        self.self_dropout = keras.layers.Dropout(self.dropout, dtype=dtype)
        self.self_norm = built_layer_norm(width, dtype)
        self.self_weights = _CellScores(self.units, dtype=dtype)
        self.self_weights.build((None, None, width), cells_shape)
        self.audio_guided = ChannelSpatialAttention(self.units, dtype=dtype)
        self.audio_guided.build(audio_shape, visual_shape)
        self.built = True

    def call(self, audio: Any, visual: Any, training: bool = False) -> tuple[Any, Any]:
        """Attend to channels and cells."""
        cells = as_cells(visual)
        residual = self.self_attention(cells, cells)
        residual = self.self_dropout(residual, training=training)
        related = self.self_norm(cells + residual)
        self_weights = self.self_weights(ops.mean(related, axis=2), related)
        self_guided = ops.einsum("btn,btnd->btd", self_weights, related)
        attended, weights = self.audio_guided(audio, visual, related)
        gate = ops.sigmoid(self_guided)
        return attended + self.strength * gate * attended, weights

    def compute_output_shape(
        self, audio_shape: Shape, visual_shape: Shape
    ) -> tuple[Shape, Shape]:
        """Return the shapes of the attended features and of the weights."""
        return self.audio_guided.compute_output_shape(audio_shape, visual_shape)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "units": self.units,
            "strength": self.strength,
            "dropout": self.dropout,
        }
