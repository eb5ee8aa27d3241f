"""Spatial attention maps of networks, for clips and for whole videos."""

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from avsdn_tf.windows import stitch


def attention_maps(model: Any, inputs: dict[str, np.ndarray]) -> np.ndarray | None:
    """Return the attention weights of a batch, or None without spatial attention.

    Args:
        model: A Keras model. Without a method `attention_maps`, the result is None.
        inputs: `"audio"` and `"visual"` features of a batch of clips.

    Returns:
        `(batch, num_segments, rows, columns)` float32; each segment's weights sum to 1.
    """
    if not hasattr(model, "attention_maps"):
        return None
    maps = model.attention_maps(inputs)
    # NumPy has no bfloat16.
    return (
        None
        if maps is None
        else keras.ops.convert_to_numpy(keras.ops.cast(maps, "float32"))
    )


def stitch_outputs(
    model: Any, chunks: Iterable[tuple[np.ndarray, np.ndarray]], window: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the logits and attention maps of a video, averaged over windows.

    Args:
        model: Any Keras model that labels segments.
        chunks: As in `windows.stitch`.
        window: As in `windows.stitch`.

    Returns:
        Logits, `(num_segments, num_classes)`, and attention weights, `(num_segments,
        rows, columns)` float32, or None without spatial attention.

    Raises:
        ValueError: If there is no segment, the features don't fit the model, or
            `window` is less than 1.
    """

    def outputs_of(inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        outputs = [model.predict_on_batch(inputs), attention_maps(model, inputs)]
        return [np.asarray(output) for output in outputs if output is not None]

    logits, *maps = stitch(outputs_of, chunks, window)
    return logits, maps[0].astype(np.float32) if maps else None
