"""Scores predictions as the AVE protocol does, beside trivial baselines and intervals.

Arrays of class indices are `(num_clips, num_segments)` integers: 0 to K - 1 are the
categories, K is background. Scores are fractions of 1. A score that the data leave
undefined (background recall without a background segment) is None, never NaN.
"""

import os
import pickle
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from avsdn_tf.errors import UserError
from avsdn_tf.files import atomic_write
from avsdn_tf.events import number_events


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a network said of a split, and what was true.

    Attributes:
        row: Row of each clip in Annotations.txt, `(num_clips,)` int64.
        logits: `(num_clips, num_segments, K + 1)` float32, before the softmax,
            background last.
        labels: True class of each segment, `(num_clips, num_segments)` int64.
        clip_labels: True class of each clip, `(num_clips,)` int64.

    Raises:
        ValueError: If the shapes do not fit each other.
    """

    row: np.ndarray
    logits: np.ndarray
    labels: np.ndarray
    clip_labels: np.ndarray

    def __post_init__(self) -> None:
        """Brings the arrays to their types and checks their shapes."""
        for name, dtype in _DTYPES.items():
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype))
        fits = (
            self.logits.ndim == 3
            and self.labels.shape == self.logits.shape[:2]
            and self.row.shape == self.clip_labels.shape == self.logits.shape[:1]
        )
        if not fits:
            raise ValueError(
                "Expected row (N,), logits (N, T, K + 1), labels (N, T) and "
                f"clip_labels (N,). Received: row {self.row.shape}, "
                f"logits {self.logits.shape}, labels {self.labels.shape}, "
                f"clip_labels {self.clip_labels.shape}"
            )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the predictions as an npz file, whole or not at all.

        Args:
            path: File to write; a file of that name is replaced. Its folder exists.
        """
        save_arrays(path, {name: getattr(self, name) for name in _DTYPES})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Predictions":
        """Reads what `save` wrote.

        Args:
            path: File to read.

        Returns:
            The predictions.

        Raises:
            ValueError: If the file is missing, broken, or holds something else.
        """
        return load_arrays(path, tuple(_DTYPES), cls)


_DTYPES = {
    "row": np.int64,
    "logits": np.float32,
    "labels": np.int64,
    "clip_labels": np.int64,
}
# All that np.load raises on files that are missing, cut short, overwritten or foreign.
_READ_ERRORS = (
    OSError,
    EOFError,
    KeyError,
    TypeError,
    AttributeError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
    pickle.UnpicklingError,
)


_T = TypeVar("_T")


def num_segments_of(path: str | os.PathLike[str]) -> int:
    """Returns how many segments the clips of saved `Predictions` have.

    Raises:
        UserError: If they can't be read.
    """
    try:
        return Predictions.load(path).labels.shape[1]
    except ValueError as error:
        raise UserError(str(error)) from error


def save_arrays(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Writes an npz file, whole or not at all; a file of that name is replaced."""
    with atomic_write(Path(path)) as tmp_path:
        np.savez(tmp_path, **arrays)


def load_arrays(
    path: str | os.PathLike[str], names: Sequence[str], make: Callable[..., _T]
) -> _T:
    """Reads what `save_arrays` wrote.

    Args:
        path: File to read.
        names: Names of its arrays.
        make: What takes the arrays by their names and returns the result.

    Raises:
        ValueError: If the file is missing, broken, or holds something else.
    """
    try:
        # np.load alone leaves a broken file open.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            return make(**{name: archive[name] for name in names})
    except _READ_ERRORS as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"Expected predictions of a run, with {', '.join(names)}, in {path}. "
            f"Received: {type(error).__name__}: {reason}"
        ) from error


def accuracy(labels: np.ndarray, predicted: np.ndarray) -> float | None:
    """Returns the fraction of all segments whose class is right: AVE's own score."""
    return _ratio((labels == predicted).sum(), labels.size)


def background_recall(
    labels: np.ndarray, predicted: np.ndarray, background: int
) -> float | None:
    """Returns the fraction of the true background segments that are found."""
    true = labels == background
    return _ratio((true & (predicted == background)).sum(), true.sum())


def event_f1(
    labels: np.ndarray, predicted: np.ndarray, background: int, iou: float = 0.5
) -> float | None:
    """Returns the micro-F1 of whole events over a split.

    Events are maximal runs of one non-background class. A predicted event is right if
    it shares its class, and an intersection over union of at least `iou`, with a true
    event of the same clip. From 0.5 upwards no event can match two: two runs that each
    cover half of a third touch, and are one run.

    Args:
        labels: True classes, `(num_clips, num_segments)`.
        predicted: Predicted classes, the same shape.
        background: Index of the background class.
        iou: Least intersection over union, in [0.5, 1].

    Returns:
        2 * right / (true events + predicted events); None if there are no events.

    Raises:
        ValueError: If `iou` is outside [0.5, 1].
    """
    if not 0.5 <= iou <= 1:
        raise ValueError(
            "Expected iou in [0.5, 1], where no two events can match the same one. "
            f"Received: iou={iou}"
        )
    true_events = number_events(labels, background)
    predicted_events = number_events(predicted, background)
    true_lengths = np.bincount(true_events[true_events >= 0])
    predicted_lengths = np.bincount(predicted_events[predicted_events >= 0])
    shared = (labels == predicted) & (labels != background)
    pairs, intersections = np.unique(
        np.stack([true_events[shared], predicted_events[shared]], axis=1),
        axis=0,
        return_counts=True,
    )
    lengths = true_lengths[pairs[:, 0]] + predicted_lengths[pairs[:, 1]]
    right = (intersections / (lengths - intersections) >= iou).sum()
    return _ratio(2 * right, len(true_lengths) + len(predicted_lengths))


def partial_clips(labels: np.ndarray, background: int) -> np.ndarray:
    """Returns which clips hold both event and background segments, `(num_clips,)`."""
    is_background = labels == background
    return is_background.any(axis=1) & ~is_background.all(axis=1)


def partial_clip_accuracy(
    labels: np.ndarray, predicted: np.ndarray, background: int
) -> float | None:
    """Returns the accuracy over all segments of the clips that are only partly event.

    Only in these clips is there anything to localize in time.
    """
    partial = partial_clips(labels, background)
    return accuracy(labels[partial], predicted[partial])


def trivial_baselines(
    labels: np.ndarray, clip_labels: np.ndarray, background: int
) -> dict[str, float | None]:
    """Scores two systems that localize nothing.

    Args:
        labels: True classes, `(num_clips, num_segments)`.
        clip_labels: True class of each clip, `(num_clips,)`.
        background: Index of the background class.

    Returns:
        The accuracy of `"always_background"`, and of `"perfect_clip_classifier"`, which
        gives every segment the true class of its clip.
    """
    return {
        "always_background": accuracy(labels, np.full_like(labels, background)),
        "perfect_clip_classifier": accuracy(labels, clip_labels[:, np.newaxis]),
    }


def bootstrap_interval(
    per_clip_accuracy: np.ndarray,
    num_resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """Returns the percentile bootstrap interval of a mean over clips.

    Clips are resampled, not segments: the segments of one clip are right or wrong
    together, and an interval over segments would be too narrow.

    Args:
        per_clip_accuracy: One value a clip, `(num_clips,)`.
        num_resamples: How many resamples to draw.
        seed: Seed of the draws.
        level: Coverage, in (0, 1).

    Returns:
        Lower and upper bound.

    Raises:
        ValueError: If there is no clip, or `level` is outside (0, 1).
    """
    values = np.asarray(per_clip_accuracy, dtype=np.float64)
    if values.ndim != 1 or not values.size or not 0 < level < 1:
        raise ValueError(
            "Expected one value a clip, of at least one clip, and level in (0, 1). "
            f"Received: shape {values.shape}, level={level}"
        )
    generator = np.random.default_rng(seed)
    means = np.empty(num_resamples)
    # A million draws at a time bound the memory, whatever the size of the split.
    step = max(1, 1_000_000 // values.size)
    for start in range(0, num_resamples, step):
        stop = min(start + step, num_resamples)
        draws = generator.integers(values.size, size=(stop - start, values.size))
        means[start:stop] = values[draws].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_interval(
    correct_a: np.ndarray,
    correct_b: np.ndarray,
    num_resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """Returns the bootstrap interval of accuracy A minus accuracy B, on the same clips.

    Both systems are scored on each resample of clips, so that what makes a clip hard
    for both cancels. An interval that excludes 0 tells the two systems apart.

    Args:
        correct_a: Which segments system A has right, `(num_clips, num_segments)`.
        correct_b: The same of system B, for the same clips in the same order.
        num_resamples: How many resamples to draw.
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
    return bootstrap_interval(difference, num_resamples, seed, level)


def confusion_matrix(
    labels: np.ndarray, predicted: np.ndarray, num_classes: int
) -> np.ndarray:
    """Counts segments by true and predicted class.

    Args:
        labels: True classes, any shape.
        predicted: Predicted classes, the same shape.
        num_classes: How many classes there are, background included.

    Returns:
        `(num_classes, num_classes)` int64: true classes in rows, predicted in columns.
    """
    cells = labels.ravel() * num_classes + predicted.ravel()
    counts = np.bincount(cells, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def per_category(
    labels: np.ndarray, predicted: np.ndarray, categories: Sequence[str]
) -> list[dict[str, Any]]:
    """Scores the segments of every class on their own.

    Args:
        labels: True classes, `(num_clips, num_segments)`.
        predicted: Predicted classes, the same shape.
        categories: Names of the categories.

    Returns:
        One dictionary a class, `"Background"` last: `category`, `segments` (how many
        are true), `predicted` (how many were predicted), `precision`, `recall` and
        `f1`. A ratio over nothing, such as the precision of a class that was never
        predicted, is None.
    """
    names = [*categories, "Background"]
    matrix = confusion_matrix(labels, predicted, len(names))
    counts = zip(
        names, matrix.sum(axis=1), matrix.sum(axis=0), matrix.diagonal(), strict=True
    )
    return [
        {
            "category": name,
            "segments": int(true),
            "predicted": int(guessed),
            "precision": _ratio(right, guessed),
            "recall": _ratio(right, true),
            "f1": _ratio(2 * right, true + guessed),
        }
        for name, true, guessed, right in counts
    ]


def evaluate(predictions: Predictions, categories: Sequence[str]) -> dict[str, Any]:
    """Scores a split.

    A segment's predicted class is the argmax of its own logits, background included.

    Args:
        predictions: What a network said of the split.
        categories: Names of the K categories.

    Returns:
        A JSON-ready dictionary: `accuracy`, its 95 % bootstrap `interval` over clips
        (`[low, high]`), `background_recall`, `event_f1` (at IoU 0.5),
        `partial_clip_accuracy`, `trivial` (see `trivial_baselines`), `num_clips`,
        `num_segments` (of the whole split), `per_category` (see there) and
        `confusion_matrix` (list of rows of segment counts).

    Raises:
        ValueError: If there is no segment, classes and categories do not fit, or a
            logit is not finite; the message names the row of the first such clip.
    """
    logits, labels = predictions.logits, predictions.labels
    background = len(categories)
    if not labels.size:
        raise ValueError(f"Expected at least one segment. Received: {labels.shape}")
    if logits.shape[2] != background + 1:
        raise ValueError(
            f"Expected logits of {background + 1} classes: {background} categories and "
            f"background. Received: {logits.shape[2]}"
        )
    for name, classes in (("labels", labels), ("clip_labels", predictions.clip_labels)):
        if classes.min() < 0 or classes.max() > background:
            raise ValueError(
                f"Expected {name} from 0 to {background}. "
                f"Received: {classes.min()} to {classes.max()}"
            )
    broken = ~np.isfinite(logits).all(axis=(1, 2))
    if broken.any():
        raise ValueError(
            "Expected finite logits. Received: NaN or infinite logits in "
            f"{broken.sum()} of {len(broken)} clips, first in row "
            f"{predictions.row[broken.argmax()]}"
        )
    predicted = logits.argmax(axis=2)
    low, high = bootstrap_interval((labels == predicted).mean(axis=1))
    return {
        "accuracy": accuracy(labels, predicted),
        "interval": [low, high],
        "background_recall": background_recall(labels, predicted, background),
        "event_f1": event_f1(labels, predicted, background),
        "partial_clip_accuracy": partial_clip_accuracy(labels, predicted, background),
        "trivial": trivial_baselines(labels, predictions.clip_labels, background),
        "num_clips": len(labels),
        "num_segments": labels.size,
        "per_category": per_category(labels, predicted, categories),
        "confusion_matrix": confusion_matrix(
            labels, predicted, background + 1
        ).tolist(),
    }


def _ratio(part: int, whole: int) -> float | None:
    return float(part / whole) if whole else None
