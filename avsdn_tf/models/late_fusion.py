"""LateFusion: combine the outputs of two classifiers, without training."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from avsdn_tf.models.base import SegmentClassifier

_SMALLEST = 1e-7
_MAX_INDICES = 10**7


@keras.saving.register_keras_serializable(package="avsdn_tf")
class LateFusion(SegmentClassifier):
    """Combine a sound classifier and an image classifier into segment logits.

        heard = largest score of the category's sound classes
        seen = sum of the probabilities of the category's image classes
        logit = (log heard + log seen) / (2 temperature)
        logit of background = log background_level / temperature

    A segment is an event if a category's geometric mean of heard and seen exceeds
    `background_level`. With `multi_label=True`, the logits are those of the categories,
    minus the background logit. For a category without image classes, seen = heard.
    The network has no weights.

    Args:
        categories: Names of the event categories; background is added as last class.
        audio_width: Number of sound classes.
        visual_shape: `(number of image classes,)`.
        heard: Indices of the sound classes of each category, one or more.
        seen: Indices of the image classes of each category; empty for a category that
            is detected by sound alone.
        temperature: Divisor of the logits. It changes scores, but not decisions. At 1,
            an event at `background_level` has a score of about 0.5.
        background_level: Geometric mean in (0, 1) above which a segment is an event.
        **kwargs: As in `SegmentClassifier`, and the arguments of `keras.Model`.

    Call arguments:
        inputs: Scores of sound classes and probabilities of image classes in [0, 1],
            `{"audio": (batch, num_segments, audio_width), "visual": (batch,
            num_segments, num_image_classes)}`, or the pair `(audio, visual)`.

    Returns:
        Segment logits, `(batch, num_segments, num_classes)`. The last class is
        background, unless `multi_label=True`.

    Raises:
        ValueError: If an index, `temperature` or `background_level` is out of range,
            `heard` or `seen` doesn't have one list per category, or a category has no
            sound class.

    Example:
        >>> model = avsdn_tf.LateFusion(
        ...     ["Bark"], audio_width=3, visual_shape=(4,), heard=[[0, 2]], seen=[[1]]
        ... )
        >>> heard = np.array([[[0.8, 0.1, 0.3], [0.0, 0.9, 0.0]]], "float32")
        >>> seen = np.array([[[0.1, 0.7, 0.1, 0.1], [0.1, 0.7, 0.1, 0.1]]], "float32")
        >>> logits = model({"audio": heard, "visual": seen})
        >>> np.argmax(logits, axis=-1)
        array([[0, 1]])
    """

    def __init__(
        self,
        categories: Sequence[str],
        audio_width: int,
        visual_shape: Sequence[int],
        *,
        heard: Sequence[Sequence[int]],
        seen: Sequence[Sequence[int]],
        temperature: float = 1.0,
        background_level: float = 0.2,
        **kwargs: Any,
    ) -> None:
        super().__init__(categories, audio_width, visual_shape, **kwargs)
        if len(self.visual_shape) != 1:
            raise ValueError(
                "Expected visual_shape (image classes,). "
                f"Received: visual_shape={self.visual_shape}"
            )
        if not (temperature > 0 and 0 < background_level < 1):
            raise ValueError(
                "Expected a positive temperature, and background_level in (0, 1). "
                f"Received: temperature={temperature}, "
                f"background_level={background_level}"
            )
        self.heard = _as_indices("heard", heard, len(categories), self.audio_width)
        self.seen = _as_indices("seen", seen, len(categories), self.visual_shape[0])
        if not all(self.heard):
            raise ValueError("Expected at least one sound class of each category")
        self.temperature = float(temperature)
        self.background_level = float(background_level)
        # Pad the index lists to the same length. A repeated index doesn't change the
        # maximum, and a class of probability 0 doesn't change the sum.
        self._heard = _pad([(indices, indices[0]) for indices in self.heard])
        self._seen = _pad([(indices, self.visual_shape[0]) for indices in self.seen])
        self.build()

    @property
    def heard_only(self) -> list[str]:
        """Names of the categories that have no image class."""
        pairs = zip(self.categories, self.seen, strict=True)
        return [category for category, indices in pairs if not indices]

    def compute_outputs(
        self, inputs: dict[str, Any], training: bool = False
    ) -> dict[str, Any]:
        """Return the segment `"logits"`."""
        del training
        audio = ops.cast(inputs["audio"], self.variable_dtype)
        visual = ops.cast(inputs["visual"], self.variable_dtype)
        heard = ops.max(ops.take(audio, self._heard, axis=-1), axis=-1)
        # Append the class of probability 0 that pads `_seen`.
        visual = ops.concatenate([visual, ops.zeros_like(visual[..., :1])], axis=-1)
        seen = ops.sum(ops.take(visual, self._seen, axis=-1), axis=-1)
        seen = ops.where(np.array([bool(i) for i in self.seen]), seen, heard)
        evidence = 0.5 * (_log(heard) + _log(seen))
        background = float(np.log(self.background_level))
        if self.multi_label:
            return {"logits": (evidence - background) / self.temperature}
        background = ops.full_like(evidence[..., :1], background)
        logits = ops.concatenate([evidence, background], axis=-1) / self.temperature
        return {"logits": logits}

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "heard": [list(indices) for indices in self.heard],
            "seen": [list(indices) for indices in self.seen],
            "temperature": self.temperature,
            "background_level": self.background_level,
        }


def _log(values: Any) -> Any:
    return ops.log(ops.maximum(values, _SMALLEST))


def _pad(rows: list[tuple[tuple[int, ...], int]]) -> np.ndarray:
    """Return a matrix of indices, given pairs of a row and its padding value."""
    longest = max(1, *(len(indices) for indices, _ in rows))
    # Limit the memory: a model file's lists may be of any length.
    if len(rows) * longest > _MAX_INDICES:
        raise ValueError(
            f"Expected at most {_MAX_INDICES:,} indices, categories times classes. "
            f"Received: {len(rows):,} times {longest:,}"
        )
    return np.array(
        [indices + (padding,) * (longest - len(indices)) for indices, padding in rows]
    )


def _as_indices(
    name: str, lists: Sequence[Sequence[int]], count: int, num_classes: int
) -> tuple[tuple[int, ...], ...]:
    """Check the range of lists of class indices, and return them as tuples."""
    indices = tuple(tuple(map(int, each)) for each in lists)
    flat = [index for each in indices for index in each]
    if len(indices) != count or not all(0 <= index < num_classes for index in flat):
        raise ValueError(
            f"Expected {name} to hold one list for each of {count} categories, of "
            f"indices from 0 to {num_classes - 1}. Received: {len(indices)} lists"
            + (f", indices from {min(flat)} to {max(flat)}" if flat else "")
        )
    return indices
