"""Base class of layers with a segment mask."""

from typing import Any

import keras


class MaskedLayer(keras.layers.Layer):
    """Base of the layers with a call argument `mask`, `(batch, num_segments)`."""

    def compute_mask(self, inputs: Any, previous_mask: Any) -> None:
        """Attach no mask to the outputs: losses would apply it a second time."""
