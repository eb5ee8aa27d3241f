"""Compute the F1 of segments and of events over categories and clips.

Predictions may be single-label or multi-label.

A lane is one category in one clip, with its true and its predicted segments. Segments
and events are counted per lane. Background is not a category, and padding is never
active.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from avsdn_tf.evaluation.predictions import Predictions
from avsdn_tf.evaluation.segments import category_rows, ratio
from avsdn_tf.events import active_categories, sigmoid, softmax
from avsdn_tf.metrics import count_events, count_segments


class Lanes(NamedTuple):
    """The lanes that have a true or predicted event, sorted by clip and category.

    Attributes:
        clip: Index of the clip, `(num_lanes,)`.
        category: Index of the category, `(num_lanes,)`.
        true: Where the category is active, `(num_lanes, num_segments)` bool.
        predicted: Where the category is predicted, the same shape and dtype.
        probability: Probability of the category in predicted segments, the same shape;
            undefined in other segments.
    """

    clip: np.ndarray
    category: np.ndarray
    true: np.ndarray
    predicted: np.ndarray
    probability: np.ndarray


def lanes_of(
    predictions: Predictions, thresholds: Sequence[float] | None = None
) -> Lanes:
    """Return the lanes of a split.

    Args:
        predictions: Logits and labels of the split.
        thresholds: For multi-label predictions, the smallest probability at which each
            category is active. Default: 0.5 for each.
    """
    if predictions.multi_label:
        return _multi_label_lanes(predictions, thresholds)
    background = predictions.logits.shape[2] - 1
    real = predictions.is_real
    labels, classes = (
        np.where(real, x, background)
        for x in (predictions.labels, predictions.logits.argmax(axis=2))
    )
    # A dense array (clips, segments, categories) could exceed the memory.
    clips = np.arange(len(labels))[:, np.newaxis] * background
    pairs = np.unique(
        np.concatenate([(clips + x)[x != background] for x in (labels, classes)])
    )
    clip, category = np.divmod(pairs, background)
    largest = np.stack([softmax(x).max(axis=1) for x in predictions.logits])
    return Lanes(
        clip,
        category,
        labels[clip] == category[:, np.newaxis],
        classes[clip] == category[:, np.newaxis],
        largest[clip],
    )


def _multi_label_lanes(
    predictions: Predictions, thresholds: Sequence[float] | None
) -> Lanes:
    logits, true = predictions.logits, predictions.labels == 1
    # One clip at a time saves memory: probabilities are float64.
    predicted = np.stack([active_categories(sigmoid(x), thresholds) for x in logits])
    predicted &= predictions.is_real[..., np.newaxis]
    clip, category = np.nonzero((true | predicted).any(axis=1))
    true, predicted, values = (x[clip, :, category] for x in (true, predicted, logits))
    return Lanes(clip, category, true, predicted, sigmoid(values))


class F1(NamedTuple):
    """Numerator and denominator of the F1 of every lane.

    Attributes:
        lanes: The lanes.
        numerator: Twice the number of correct segments or events, `(num_lanes,)`.
        denominator: The number of true segments or events plus the number of predicted
            segments or events, `(num_lanes,)`.
    """

    lanes: Lanes
    numerator: np.ndarray
    denominator: np.ndarray

    @classmethod
    def of_segments(cls, lanes: Lanes) -> "F1":
        """Count the segments of lanes."""
        counts = count_segments(lanes.true, lanes.predicted)
        return cls(lanes, *(np.asarray(count).sum(axis=1) for count in counts))

    @classmethod
    def of_events(cls, lanes: Lanes, iou: float = 0.5) -> "F1":
        """Count the events of lanes with `metrics.count_events`."""
        if not len(lanes.clip):
            return cls(lanes, lanes.clip, lanes.clip)
        counts = count_events(lanes.true, lanes.predicted, background=0, iou=iou)
        return cls(lanes, *map(np.asarray, counts))

    def micro(self) -> float | None:
        """Return the F1 over all lanes."""
        return ratio(self.numerator.sum(), self.denominator.sum())

    def macro(self) -> float | None:
        """Return the mean F1 of the categories that have a true or predicted event."""
        numerator, denominator = (
            np.bincount(self.lanes.category, counts)
            for counts in (self.numerator, self.denominator)
        )
        if not len(denominator):
            return None
        occurs = denominator > 0
        return float((numerator[occurs] / denominator[occurs]).mean())

    def mean_over_clips(self, num_clips: int) -> float:
        """Return LLP's score: the mean over clips of the mean F1 of their categories.

        The mean of a clip covers the categories that are true or predicted there. A
        clip without categories has an F1 of 1.

        Reference:
            Tian, Li, Xu, Unified Multisensory Perception, ECCV 2020,
            https://arxiv.org/abs/2007.10558: the F-scores of audio-visual events.
        """
        scores = self.numerator / self.denominator
        sums = np.bincount(self.lanes.clip, scores, num_clips)
        counts = np.bincount(self.lanes.clip, minlength=num_clips)
        return float(np.where(counts, sums / np.maximum(counts, 1), 1.0).mean())

    def per_clip(self, num_clips: int) -> tuple[np.ndarray, np.ndarray]:
        """Return numerator and denominator of every clip, `(num_clips,)` each."""
        return tuple(
            np.bincount(self.lanes.clip, counts, num_clips)
            for counts in (self.numerator, self.denominator)
        )


def per_category_of_many(
    lanes: Lanes, real: np.ndarray, categories: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the rows of `segments.per_category` for multi-label predictions.

    A segment without an active category counts as background.

    Args:
        lanes: The lanes.
        real: Which segments are not padding, `(num_clips, num_segments)` bool.
        categories: Names of the categories.
    """
    actives = (lanes.true, lanes.predicted, lanes.true & lanes.predicted)
    counts = [
        np.bincount(lanes.category, active.sum(axis=1), len(categories))
        for active in actives
    ]
    backgrounds = []
    for active in actives[:2]:
        is_background = real.copy()
        lane, segment = np.nonzero(active)
        is_background[lanes.clip[lane], segment] = False
        backgrounds.append(is_background)
    backgrounds.append(backgrounds[0] & backgrounds[1])
    return category_rows(
        categories,
        *(
            np.append(count, background.sum())
            for count, background in zip(counts, backgrounds, strict=True)
        ),
    )
