"""Scores of the segments and events of categories, of one or several a segment.

A lane is one category in one clip: the segments in which it truly is active, and those
in which it is predicted. All scores here are sums over lanes. Padding is active in no
lane, and background is no category.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from avsdn_tf.evaluation.predictions import Predictions
from avsdn_tf.evaluation.segments import category_rows, ratio
from avsdn_tf.events import active_categories, sigmoid, softmax
from avsdn_tf.metrics import count_events, count_segments


class Lanes(NamedTuple):
    """The lanes of a split in order of clip and category; those without events lack.

    Attributes:
        clip: Index of the clip, `(num_lanes,)`.
        category: Index of the category, `(num_lanes,)`.
        true: Where it truly is active, `(num_lanes, num_segments)` bool.
        predicted: Where it is predicted, of the same shape.
        probability: That of the category where it is predicted, of the same shape.
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
        thresholds: Of multi-label predictions, the probability from which each category
            is active; None for 0.5 each.
    """
    if predictions.multi_label:
        return _lanes_of_many(predictions, thresholds)
    background = predictions.logits.shape[2] - 1
    real = predictions.is_real
    labels, classes = (
        np.where(real, x, background)
        for x in (predictions.labels, predictions.logits.argmax(axis=2))
    )
    # A day of a video, or ten thousand categories: never an array of both.
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


def _lanes_of_many(
    predictions: Predictions, thresholds: Sequence[float] | None
) -> Lanes:
    logits, true = predictions.logits, predictions.labels == 1
    # Clip by clip: probabilities have 64 bits.
    found = np.stack([active_categories(sigmoid(x), thresholds) for x in logits])
    found &= predictions.is_real[..., np.newaxis]
    clip, category = np.nonzero((true | found).any(axis=1))
    true, found, values = (x[clip, :, category] for x in (true, found, logits))
    return Lanes(clip, category, true, found, sigmoid(values))


class F1(NamedTuple):
    """Twice the right ones, and the true plus the predicted ones, of every lane.

    Attributes:
        lanes: The lanes.
        part: The first count, `(num_lanes,)`.
        whole: The second.
    """

    lanes: Lanes
    part: np.ndarray
    whole: np.ndarray

    @classmethod
    def of_segments(cls, lanes: Lanes) -> "F1":
        """Count the segments of lanes."""
        part, whole = count_segments(lanes.true, lanes.predicted)
        return cls(lanes, np.asarray(part).sum(axis=1), np.asarray(whole).sum(axis=1))

    @classmethod
    def of_events(cls, lanes: Lanes, iou: float = 0.5) -> "F1":
        """Count the events of lanes, see `metrics.count_events`."""
        if not len(lanes.clip):
            return cls(lanes, lanes.clip, lanes.clip)
        counts = count_events(lanes.true, lanes.predicted, background=0, iou=iou)
        return cls(lanes, *map(np.asarray, counts))

    def micro(self) -> float | None:
        """Return the F1 over all lanes."""
        return ratio(self.part.sum(), self.whole.sum())

    def macro(self) -> float | None:
        """Return the mean F1 of the categories that have an event, or a predicted one.

        A category that neither has is left out.
        """
        part, whole = (
            np.bincount(self.lanes.category, x) for x in (self.part, self.whole)
        )
        return (
            float((part[whole > 0] / whole[whole > 0]).mean()) if len(whole) else None
        )

    def mean_over_clips(self, num_clips: int) -> float:
        """Return LLP's score: the mean over clips of the mean over a clip's categories.

        A clip's categories are those that are true or predicted in it. A clip without
        any has an F1 of 1.

        Reference:
            Tian, Li, Xu, Unified Multisensory Perception, ECCV 2020,
            https://arxiv.org/abs/2007.10558, for audio-visual labels.
        """
        sums = np.bincount(self.lanes.clip, self.part / self.whole, num_clips)
        counts = np.bincount(self.lanes.clip, minlength=num_clips)
        return float(np.where(counts, sums / np.maximum(counts, 1), 1.0).mean())

    def per_clip(self, num_clips: int) -> tuple[np.ndarray, np.ndarray]:
        """Return both counts of every clip, `(num_clips,)` each."""
        return tuple(
            np.bincount(self.lanes.clip, x, num_clips) for x in (self.part, self.whole)
        )


def per_category_of_many(
    lanes: Lanes, real: np.ndarray, categories: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the rows of `segments.per_category` of multi-label predictions.

    Background is where no category is active. `real` is where clips have segments,
    `(num_clips, num_segments)`.
    """
    actives = (lanes.true, lanes.predicted, lanes.true & lanes.predicted)
    counts = [
        np.bincount(lanes.category, active.sum(axis=1), len(categories))
        for active in actives
    ]
    free = []
    for active in actives[:2]:
        is_free = real.copy()
        lane, segment = np.nonzero(active)
        is_free[lanes.clip[lane], segment] = False
        free.append(is_free)
    background = [x.sum() for x in (*free, free[0] & free[1])]
    return category_rows(
        categories, *(np.append(*pair) for pair in zip(counts, background, strict=True))
    )
