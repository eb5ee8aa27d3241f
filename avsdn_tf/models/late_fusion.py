"""LateFusion: events of two classifiers' outputs, without training."""

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
    """Audio-visual events of a sound classifier and an image classifier.

        heard = max over the category's sound classes of their scores
        seen = sum over the category's image classes of their probabilities
        logit = (log heard + log seen) / (2 temperature)
        logit of background = log background_level / temperature

    A multi-label network subtracts the logit of background from the others instead.

    An event is thus a segment where the geometric mean of heard and seen is above
    `background_level`. A category without image classes is heard only: `heard` also
    stands for `seen`. The network has no weights.

    Args:
        categories: Names of the event categories; background is added as last class.
        audio_width: Number of sound classes.
        visual_shape: `(number of image classes,)`.
        heard: Indices of the sound classes of each category, one or more.
        seen: Indices of the image classes of each category; none for a category that is
            heard only.
        temperature: Divides the logits. It changes scores, and no decision. At 1, an
            event at the background level has a score of about a half.
        background_level: Evidence in (0, 1) above which a segment is an event.
        **kwargs: `num_segments`, `segment_s` and `backbones`, as in
            `SegmentClassifier`, and those of `keras.Model`.

    Call arguments:
        inputs: `{"audio": (batch, num_segments, audio_width), "visual": (batch,
            num_segments, image classes)}`, scores and probabilities in [0, 1], or the
            pair.

    Returns:
        Segment logits, `(batch, num_segments, len(categories) + 1)`.

    Raises:
        ValueError: If an index or a number is out of its range, or there is not one
            list of indices for each category.
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
        # A repeated index doesn't change a maximum, and zero doesn't change a sum: the
        # image classes get one more, of probability 0.
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
        """Return the segment logits as `"logits"`."""
        del training
        audio = ops.cast(inputs["audio"], self.variable_dtype)
        visual = ops.cast(inputs["visual"], self.variable_dtype)
        heard = ops.max(ops.take(audio, self._heard, axis=-1), axis=-1)
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
    """Return indices with a padding each as a matrix."""
    longest = max(1, *(len(indices) for indices, _ in rows))
    # A model file may hold any lists.
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
    """Return lists of class indices as tuples, after a check of their range."""
    indices = tuple(tuple(map(int, each)) for each in lists)
    flat = [index for each in indices for index in each]
    if len(indices) != count or not all(0 <= index < num_classes for index in flat):
        raise ValueError(
            f"Expected {name} to hold one list for each of {count} categories, of "
            f"indices from 0 to {num_classes - 1}. Received: {len(indices)} lists"
            + (f", indices from {min(flat)} to {max(flat)}" if flat else "")
        )
    return indices
