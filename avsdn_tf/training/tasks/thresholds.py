"""Thresholds of a multi-label network, chosen on the validation split.

Counts are histograms, so that those of several workers can be summed.
"""

import numpy as np

from avsdn_tf.events import sigmoid

# Multiples of 0.05, from 0.05 to 0.95.
GRID = np.arange(1, 20) / 20


def count(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Count segments by category, label and number of thresholds reached.

    Args:
        logits: `(num_clips, num_segments, num_categories)`.
        labels: 1 where a category is active, else 0, and -1 in padding; of that shape.

    Returns:
        `(num_categories, 2, len(GRID) + 1)`: counts of the inactive and of the active
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
    """Choose, for each category, the threshold with the best F1.

    Of equally good thresholds, the one nearest to 0.5 is chosen.

    Args:
        counts: Sum of the results of `count`.

    Returns:
        The thresholds, and their micro-F1 over all categories; None for it if no
        category is ever active.
    """
    # Segments that reach more than i thresholds reach threshold i.
    passing = counts[..., ::-1].cumsum(axis=-1)[..., ::-1][..., 1:]
    false, right = passing[:, 0], passing[:, 1]
    active = counts[:, 1].sum(axis=-1, keepdims=True)
    predicted_and_true = right + false + active
    f1 = 2 * right / np.maximum(predicted_and_true, 1)
    nearest_first = np.argsort(np.abs(GRID - 0.5), kind="stable")
    best = nearest_first[f1[:, nearest_first].argmax(axis=1)]
    # Without an active segment, no threshold is better than another.
    best = np.where(active[:, 0] > 0, best, nearest_first[0])
    chosen = np.arange(len(best)), best
    whole = predicted_and_true[chosen].sum()
    score = float(2 * right[chosen].sum() / whole) if active.any() else None
    return GRID[best].tolist(), score
