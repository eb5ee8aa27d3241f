"""From the feature map of a segment to one vector."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="avsdn_tf")
class SpatialMean(keras.layers.Layer):
    """Mean of each segment's feature map; a pooled vector passes unchanged.

    Call arguments:
        visual: `(batch, num_segments, rows, columns, width)` or
            `(batch, num_segments, width)`.

    Returns:
        `(batch, num_segments, width)`.

    Reference:
        Tian et al., ECCV 2018, https://arxiv.org/abs/1803.08842 (networks without
        attention).
    """

    def call(self, visual: Any) -> Any:
        """Averages over rows and columns."""
        return visual if len(visual.shape) == 3 else ops.mean(visual, axis=(2, 3))

    def compute_output_shape(
        self, input_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        """Returns the shape without rows and columns."""
        return (*input_shape[:2], input_shape[-1])
