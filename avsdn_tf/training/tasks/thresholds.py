"""Choose thresholds of a multi-label network on the validation split.

The counts are histograms, which can be summed over workers.
"""

import numpy as np

from avsdn_tf.events import sigmoid

# Multiples of 0.05, from 0.05 to 0.95.
GRID = np.arange(1, 20) / 20


def count(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Count segments by category, label and number of reached thresholds.

    Args:
        logits: `(num_clips, num_segments, num_categories)`.
        labels: 1 where a category is active, else 0; -1 in padding. Shape as `logits`.

    Returns:
        `(num_categories, 2, len(GRID) + 1)`; index 1 on the second axis counts active
        segments.
    """
    num_categories, num_bins = labels.shape[2], len(GRID) + 1
    is_real = labels[..., 0] >= 0
    passed = np.searchsorted(GRID, sigmoid(logits[is_real]), side="right")
    cells = 2 * np.arange(num_categories) + labels[is_real].astype(np.int64)
    counts = np.bincount(
        (cells * num_bins + passed).ravel(), minlength=2 * num_categories * num_bins
    )
    return counts.reshape(num_categories, 2, num_bins)


def choose(counts: np.ndarray) -> tuple[list[float], float | None]:
    """Choose the threshold with the best F1 for each category.

    Of equally good thresholds, the nearest to 0.5 is chosen.

    Args:
        counts: Sum of the results of `count`.

    Returns:
        The thresholds, and their micro-F1 over all categories, or None if no category
        is ever active.
    """
    # At threshold i, a segment that reaches more than i thresholds is predicted active.
    predicted = counts[..., ::-1].cumsum(axis=-1)[..., ::-1][..., 1:]
    false_positives, true_positives = predicted[:, 0], predicted[:, 1]
    active = counts[:, 1].sum(axis=-1, keepdims=True)
    denominators = true_positives + false_positives + active
    f1 = 2 * true_positives / np.maximum(denominators, 1)
    nearest_first = np.argsort(np.abs(GRID - 0.5), kind="stable")
    best = nearest_first[f1[:, nearest_first].argmax(axis=1)]
    # Without active segments, all thresholds are equally good: choose 0.5.
    best = np.where(active[:, 0] > 0, best, nearest_first[0])
    chosen = np.arange(len(best)), best
    score = None
    if active.any():
        score = float(2 * true_positives[chosen].sum() / denominators[chosen].sum())
    return GRID[best].tolist(), score
