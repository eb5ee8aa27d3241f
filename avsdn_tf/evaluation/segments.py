"""Scores of segments that have one class each, by the AVE protocol.

`labels` and `predicted` are class indices, `(num_clips, num_segments)` integers: 0 to
K - 1 are the categories, K is `background`, and a label of -1 is padding.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from avsdn_tf.metrics import count_background, count_events, count_right

_MAX_PAIRS = 30


def accuracy(labels: np.ndarray, predicted: np.ndarray) -> float | None:
    """Return the fraction of all segments whose class is right: AVE's own score."""
    return ratio(*_sum(count_right, labels, predicted))


def background_recall(
    labels: np.ndarray, predicted: np.ndarray, background: int
) -> float | None:
    """Return the fraction of the true background segments that are found."""
    return ratio(*_sum(count_background, labels, predicted, background))


def event_f1(
    labels: np.ndarray, predicted: np.ndarray, background: int, iou: float = 0.5
) -> float | None:
    """Return the micro-F1 of whole events over a split, see `metrics.count_events`.

    That is 2 * right / (true events + predicted events), at an intersection over union
    of `iou` or more, which is in [0.5, 1]; else ValueError is raised.
    """
    return ratio(*_sum(count_events, labels, predicted, background, iou))


def _sum(
    count: Callable[..., tuple[Any, Any]],
    labels: np.ndarray,
    predicted: np.ndarray,
    *args: Any,
) -> tuple[int, int]:
    """Return the two counts of a function of `avsdn_tf.metrics` over a split."""
    part, whole = count(labels, predicted, *args)
    return int(np.asarray(part).sum()), int(np.asarray(whole).sum())


def partial_clips(labels: np.ndarray, background: int) -> np.ndarray:
    """Return which clips have both event and background segments, `(num_clips,)`."""
    is_background = labels == background
    is_event = (labels >= 0) & ~is_background
    return is_background.any(axis=1) & is_event.any(axis=1)


def partial_clip_accuracy(
    labels: np.ndarray, predicted: np.ndarray, background: int
) -> float | None:
    """Return the accuracy over all segments of the clips that are only partly event.

    Only these clips have anything to localize in time.
    """
    partial = partial_clips(labels, background)
    return accuracy(labels[partial], predicted[partial])


def trivial_baselines(
    labels: np.ndarray, clip_labels: np.ndarray, background: int
) -> dict[str, float | None]:
    """Score two systems that localize nothing.

    `"always_background"`, and `"perfect_clip_classifier"`, which gives every segment
    the true class of its clip, `clip_labels` of shape `(num_clips,)`.
    """
    return {
        "always_background": accuracy(labels, np.full_like(labels, background)),
        "perfect_clip_classifier": accuracy(
            labels, np.broadcast_to(clip_labels[:, np.newaxis], labels.shape)
        ),
    }


def confusion_matrix(
    labels: np.ndarray, predicted: np.ndarray, num_classes: int
) -> np.ndarray:
    """Count segments by true and predicted class.

    The result is `(num_classes, num_classes)` int64: true classes in rows, predicted
    ones in columns.
    """
    real = labels >= 0
    cells = labels[real] * num_classes + predicted[real]
    counts = np.bincount(cells, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def per_category(
    labels: np.ndarray, predicted: np.ndarray, categories: Sequence[str]
) -> list[dict[str, Any]]:
    """Score the segments of every class separately.

    Returns:
        One dictionary a class, `"Background"` last: `category`, `segments` (the number
        of true ones), `predicted` (the number of predicted ones), `precision`, `recall`
        and `f1`. A ratio over nothing, such as the precision of a class that was never
        predicted, is None.
    """
    real = labels >= 0
    classes = (labels[real], predicted[real], labels[real & (labels == predicted)])
    counts = [np.bincount(of, minlength=len(categories) + 1) for of in classes]
    return category_rows(categories, *counts)


def category_rows(
    categories: Sequence[str],
    true: np.ndarray,
    predicted: np.ndarray,
    right: np.ndarray,
) -> list[dict[str, Any]]:
    """Return the rows of `per_category`, of the counts of each class's segments."""
    names = [*categories, "Background"]
    return [
        {
            "category": name,
            "segments": int(total),
            "predicted": int(guessed),
            "precision": ratio(found, guessed),
            "recall": ratio(found, total),
            "f1": ratio(2 * found, total + guessed),
        }
        for name, total, guessed, found in zip(
            names, true, predicted, right, strict=True
        )
    ]


def most_confused(
    labels: np.ndarray, predicted: np.ndarray, categories: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the pairs of classes that are confused most, at most 30, most first.

    Returns:
        One dictionary a pair: `category`, the true class, `predicted`, the class that
        was given instead, `segments`, how often, and `of`, the number of true segments.
    """
    names = [*categories, "Background"]
    wrong = (labels != predicted) & (labels >= 0)
    pairs = labels[wrong] * len(names) + predicted[wrong]
    found, counts = np.unique(pairs, return_counts=True)
    most = np.argsort(-counts, kind="stable")[:_MAX_PAIRS]
    totals = np.bincount(labels[labels >= 0], minlength=len(names))
    return [
        {
            "category": names[true],
            "predicted": names[guessed],
            "segments": int(count),
            "of": int(totals[true]),
        }
        for true, guessed, count in zip(
            *np.divmod(found[most], len(names)), counts[most], strict=True
        )
    ]


def ratio(part: float, whole: float) -> float | None:
    """Return a ratio as a float; None of nothing."""
    return float(part / whole) if whole else None
