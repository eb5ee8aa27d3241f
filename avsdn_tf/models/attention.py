"""Layers that reduce the feature map of a segment to one vector."""

from typing import Any

import keras
from keras import ops


def check_maps(visual_shape: tuple[int | None, ...]) -> None:
    """Raise ValueError if a shape is not the shape of feature maps."""
    if len(visual_shape) != 5:
        raise ValueError(
            "Expected visual feature maps (batch, num_segments, rows, columns, width). "
            f"Received: {tuple(visual_shape)}"
        )


@keras.saving.register_keras_serializable(package="avsdn_tf")
class SpatialMean(keras.layers.Layer):
    """Mean of each segment's feature map over space; pooled vectors pass unchanged.

    Call arguments:
        visual: `(batch, num_segments, rows, columns, width)` or
            `(batch, num_segments, width)`.

    Returns:
        `(batch, num_segments, width)`.

    Example:
        >>> from avsdn_tf.models.attention import SpatialMean
        >>> SpatialMean()(maps).shape
        TensorShape([4, 10, 512])

    Reference:
        Tian et al., ECCV 2018, https://arxiv.org/abs/1803.08842 (networks without
        attention).
    """

    def call(self, visual: Any) -> Any:
        """Average over rows and columns."""
        return visual if len(visual.shape) == 3 else ops.mean(visual, axis=(2, 3))

    def compute_output_shape(
        self, input_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        """Return the shape without rows and columns."""
        return (*input_shape[:2], input_shape[-1])


@keras.saving.register_keras_serializable(package="avsdn_tf")
class AudioGuidedAttention(keras.layers.Layer):
    """Audio-guided attention over the cells of each segment's feature map.

    For a segment's audio feature `a` and every cell `v` of its map:

        z = w . tanh(P relu(W_v v + b_v) + Q relu(W_a a + b_a))
        attended = sum over cells of softmax(z) * v

    P and Q have as many hidden units as a map has cells.

    Args:
        units: Width of `W_v v` and `W_a a`.
        audio_axis: Axis along which `Q relu(W_a a + b_a)` is added. `"hidden"`: one
            value for each hidden unit, the same for all cells, as in the equation.
            `"cell"`: one value for each cell, the same for all hidden units, as in the
            authors' code.

    Call arguments:
        audio: `(batch, num_segments, audio_width)`.
        visual: `(batch, num_segments, rows, columns, visual_width)`.

    Returns:
        The attended visual features, `(batch, num_segments, visual_width)`, and the
        weights of the cells, `(batch, num_segments, rows, columns)`, which sum to 1.

    Raises:
        ValueError: If `visual` is not a feature map, or `audio_axis` is unknown.

    Example:
        >>> from avsdn_tf.models.attention import AudioGuidedAttention
        >>> attended, weights = AudioGuidedAttention()(audio, maps)
        >>> attended.shape, weights.shape
        (TensorShape([4, 10, 512]), TensorShape([4, 10, 7, 7]))

    Reference:
        Tian et al., ECCV 2018, https://arxiv.org/abs/1803.08842, section 4.2, and its
        code.
    """

    def __init__(
        self, units: int = 512, audio_axis: str = "hidden", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if audio_axis not in ("hidden", "cell"):
            raise ValueError(
                "Expected one of {'hidden', 'cell'}. "
                f"Received: audio_axis={audio_axis!r}"
            )
        self.units = units
        self.audio_axis = audio_axis

    def build(
        self,
        audio_shape: tuple[int | None, ...],
        visual_shape: tuple[int | None, ...],
    ) -> None:
        """Create the weights."""
        check_maps(visual_shape)
        rows, columns, width = visual_shape[2:]
        cells = rows * columns
        self.cells_shape = (rows, columns)

        def dense(inputs: int, outputs: int, **kwargs: Any) -> keras.layers.Dense:
            layer = keras.layers.Dense(outputs, dtype=self.dtype_policy, **kwargs)
            layer.build((None, inputs))
            return layer

        self.audio_projection = dense(audio_shape[-1], self.units, activation="relu")
        self.visual_projection = dense(width, self.units, activation="relu")
        self.audio_scores = dense(self.units, cells, use_bias=False)
        self.visual_scores = dense(self.units, cells, use_bias=False)
        self.cell_score = dense(cells, 1, use_bias=False)
        self.built = True

    def call(self, audio: Any, visual: Any) -> tuple[Any, Any]:
        """Attend to the cells."""
        rows, columns = self.cells_shape
        shape, num_cells = ops.shape(visual), rows * columns
        from_audio = self.audio_scores(self.audio_projection(audio))
        from_audio = ops.expand_dims(
            from_audio, 2 if self.audio_axis == "hidden" else 3
        )
        # Reshape to one matrix, so that compilers fuse bias and ReLU into the product.
        all_cells = ops.reshape(visual, (-1, shape[-1]))
        from_visual = self.visual_scores(self.visual_projection(all_cells))
        from_visual = ops.reshape(
            from_visual, (shape[0], shape[1], num_cells, num_cells)
        )
        scores = self.cell_score(ops.tanh(from_visual + from_audio))
        weights = ops.softmax(ops.squeeze(scores, -1), axis=-1)
        cells = ops.reshape(visual, (shape[0], shape[1], num_cells, shape[-1]))
        attended = ops.einsum("btn,btnd->btd", weights, cells)
        return attended, ops.reshape(weights, (shape[0], shape[1], rows, columns))

    def compute_output_shape(
        self,
        audio_shape: tuple[int | None, ...],
        visual_shape: tuple[int | None, ...],
    ) -> tuple[tuple[int | None, ...], ...]:
        """Return the shapes of the attended features and of the weights."""
        del audio_shape
        return (*visual_shape[:2], visual_shape[-1]), tuple(visual_shape[:4])

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "units": self.units,
            "audio_axis": self.audio_axis,
        }
