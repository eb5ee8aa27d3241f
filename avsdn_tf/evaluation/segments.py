"""Scores of segments with one class each, by AVE's protocol.

`labels` and `predicted` are class indices, `(num_clips, num_segments)` integers: 0 to
K - 1 are the categories, K is `background`, and a label of -1 is padding.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from avsdn_tf.metrics import count_background, count_events, count_right

_MAX_PAIRS = 30


def accuracy(labels: np.ndarray, predicted: np.ndarray) -> float | None:
    """Return the fraction of segments whose class is correct: AVE's score."""
    return ratio(*_sum(count_right, labels, predicted))


def background_recall(
    labels: np.ndarray, predicted: np.ndarray, background: int
) -> float | None:
    """Return the fraction of background segments that are predicted as background."""
    return ratio(*_sum(count_background, labels, predicted, background))


def event_f1(
    labels: np.ndarray, predicted: np.ndarray, background: int, iou: float = 0.5
) -> float | None:
    """Return the micro-F1 of whole events, 2 * correct / (true + predicted).

    `metrics.count_events` defines a correct event. Raises ValueError if `iou` is
    outside [0.5, 1].
    """
    return ratio(*_sum(count_events, labels, predicted, background, iou))


def _sum(
    count: Callable[..., tuple[Any, Any]],
    labels: np.ndarray,
    predicted: np.ndarray,
    *args: Any,
) -> tuple[int, int]:
    """Return both counts of a function of `avsdn_tf.metrics`, summed over a split."""
    numerator, denominator = count(labels, predicted, *args)
    return int(np.asarray(numerator).sum()), int(np.asarray(denominator).sum())


def partial_clips(labels: np.ndarray, background: int) -> np.ndarray:
    """Return a mask of clips with both events and background, `(num_clips,)`."""
    is_background = labels == background
    is_event = (labels >= 0) & ~is_background
    return is_background.any(axis=1) & is_event.any(axis=1)


def partial_clip_accuracy(
    labels: np.ndarray, predicted: np.ndarray, background: int
) -> float | None:
    """Return the accuracy on `partial_clips`, the only clips that test localization."""
    partial = partial_clips(labels, background)
    return accuracy(labels[partial], predicted[partial])


def trivial_baselines(
    labels: np.ndarray, clip_labels: np.ndarray, background: int
) -> dict[str, float | None]:
    """Return the accuracies of two systems that don't localize.

    `"always_background"` predicts background; `"perfect_clip_classifier"` predicts the
    true class of the clip, `clip_labels` of shape `(num_clips,)`, in every segment.
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
    """Count segments by true class (rows) and predicted class (columns).

    Returns:
        `(num_classes, num_classes)` int64.
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
        One dictionary per class, `"Background"` last: `category`, `segments` (number of
        true segments), `predicted` (number of predicted segments), `precision`,
        `recall` and `f1`. Undefined ratios, such as the precision of a class that was
        never predicted, are None.
    """
    real = labels >= 0
    classes = (labels[real], predicted[real], labels[real & (labels == predicted)])
    counts = [np.bincount(x, minlength=len(categories) + 1) for x in classes]
    return category_rows(categories, *counts)


def category_rows(
    categories: Sequence[str],
    true: np.ndarray,
    predicted: np.ndarray,
    correct: np.ndarray,
) -> list[dict[str, Any]]:
    """Return the rows of `per_category`, given each class's numbers of segments."""
    names = [*categories, "Background"]
    return [
        {
            "category": name,
            "segments": int(num_true),
            "predicted": int(num_predicted),
            "precision": ratio(num_correct, num_predicted),
            "recall": ratio(num_correct, num_true),
            "f1": ratio(2 * num_correct, num_true + num_predicted),
        }
        for name, num_true, num_predicted, num_correct in zip(
            names, true, predicted, correct, strict=True
        )
    ]


def most_confused(
    labels: np.ndarray, predicted: np.ndarray, categories: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the 30 most confused pairs of classes, in descending order.

    Returns:
        One dictionary per pair: `category` (true class), `predicted` (predicted class),
        `segments` (number of segments of this pair), `of` (number of segments of the
        true class).
    """
    names = [*categories, "Background"]
    wrong = (labels != predicted) & (labels >= 0)
    pairs = labels[wrong] * len(names) + predicted[wrong]
    unique_pairs, counts = np.unique(pairs, return_counts=True)
    most = np.argsort(-counts, kind="stable")[:_MAX_PAIRS]
    totals = np.bincount(labels[labels >= 0], minlength=len(names))
    return [
        {
            "category": names[true],
            "predicted": names[predicted_class],
            "segments": int(count),
            "of": int(totals[true]),
        }
        for true, predicted_class, count in zip(
            *np.divmod(unique_pairs[most], len(names)), counts[most], strict=True
        )
    ]


def ratio(numerator: float, denominator: float) -> float | None:
    """Return a ratio as a float, or None if the denominator is 0."""
    return float(numerator / denominator) if denominator else None
