"""Bootstrap intervals over clips for one system, or for the difference of two."""

import numpy as np

# Number of clip indices drawn at once. The limit saves memory.
_MAX_DRAWS = 1_000_000


def bootstrap_interval(
    per_clip: np.ndarray,
    denominators: np.ndarray | None = None,
    num_resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of a mean over clips, or of a ratio.

    Clips are resampled, not segments: errors of the segments in one clip are
    correlated, so an interval over segments would be too narrow.

    Args:
        per_clip: One value a clip, such as its accuracy, `(num_clips,)`.
        denominators: One value a clip, `(num_clips,)`: the statistic is
            `sum(per_clip) / sum(denominators)`. None for the mean of `per_clip`.
            Resamples whose denominators sum to 0 are dropped.
        num_resamples: Number of resamples.
        seed: Seed of the draws.
        level: Coverage, in (0, 1).

    Returns:
        Lower and upper bound.

    Raises:
        ValueError: If there is no clip, the shapes differ, all `denominators` are 0, or
            `level` is outside (0, 1).
    """
    values = np.asarray(per_clip, dtype=np.float64)
    if denominators is None:
        denominators = np.ones_like(values)
    denominators = np.asarray(denominators, dtype=np.float64)
    fits = values.ndim == 1 and values.shape == denominators.shape
    fits = fits and denominators.any()
    if not fits or not 0 < level < 1:
        raise ValueError(
            "Expected one value a clip, of at least one clip, denominators that are "
            "not all 0, and level in (0, 1). "
            f"Received: shape {values.shape}, level={level}"
        )
    generator = np.random.default_rng(seed)
    means = np.empty(num_resamples)
    step = max(1, _MAX_DRAWS // values.size)
    for start in range(0, num_resamples, step):
        stop = min(start + step, num_resamples)
        draws = generator.integers(values.size, size=(stop - start, values.size))
        divisors = denominators[draws].mean(axis=1)
        means[start:stop] = values[draws].mean(axis=1) / np.where(
            divisors > 0, divisors, np.nan
        )
    means = means[np.isfinite(means)]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_interval(
    correct_a: np.ndarray,
    correct_b: np.ndarray,
    num_resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """Return the bootstrap interval of accuracy A minus accuracy B on the same clips.

    Each resample of clips scores both systems, so the difficulty of a clip cancels. If
    the interval excludes 0, the two systems differ.

    Args:
        correct_a: Whether system A is correct, `(num_clips, num_segments)`.
        correct_b: The same for system B, with the clips in the same order.
        num_resamples: Number of resamples.
        seed: Seed of the draws.
        level: Coverage, in (0, 1).

    Returns:
        Lower and upper bound of the difference.

    Raises:
        ValueError: If the shapes differ, there is no clip, or `level` is outside
            (0, 1).
    """
    correct_a, correct_b = np.asarray(correct_a), np.asarray(correct_b)
    if correct_a.ndim != 2 or correct_a.shape != correct_b.shape:
        raise ValueError(
            "Expected two arrays of the same shape (num_clips, num_segments). "
            f"Received: {correct_a.shape} and {correct_b.shape}"
        )
    difference = correct_a.mean(axis=1) - correct_b.mean(axis=1)
    return bootstrap_interval(difference, None, num_resamples, seed, level)
