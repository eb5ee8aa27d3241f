"""Scores of a split by the AVE protocol, with trivial baselines and intervals.

`labels` and `predicted` are class indices, `(num_clips, num_segments)` integers: 0 to
K - 1 are the categories, K is `background`. Scores are fractions of 1. A score that the
data leave undefined is None, never NaN: background recall without a background segment,
an interval of one clip.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from avsdn_tf.arrays import open_npz, read_npz
from avsdn_tf.errors import first_line
from avsdn_tf.files import atomic_write, open_regular
from avsdn_tf.intervals import bootstrap_interval
from avsdn_tf.metrics import count_background, count_events, count_right

_T = TypeVar("_T", bound="ClipArrays")
# Classes of the largest confusion matrix that is kept whole.
_MAX_MATRIX_CLASSES = 48
_MAX_PAIRS = 30


class ClipArrays:
    """Base of dataclasses whose fields are arrays with one row a clip."""

    DTYPES: ClassVar[Mapping[str, type]]

    def __post_init__(self) -> None:
        """Convert the arrays to their dtypes."""
        for name, dtype in self.DTYPES.items():
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the arrays as an npz file, atomically."""
        with atomic_write(Path(path)) as tmp_path:
            np.savez(tmp_path, **{name: getattr(self, name) for name in self.DTYPES})

    @classmethod
    def load(cls: type[_T], path: str | os.PathLike[str]) -> _T:
        """Load a file of `save`; raise ValueError if that fails."""
        expected = {name: (None, np.dtype(dtype)) for name, dtype in cls.DTYPES.items()}
        try:
            with open_regular(path) as file:
                return cls(**read_npz(open_npz(file), expected))
        except (OSError, ValueError) as error:
            raise ValueError(
                f"Expected predictions of a run, with {', '.join(cls.DTYPES)}, in "
                f"{path}. Received: {first_line(error)}"
            ) from error


@dataclass(frozen=True, eq=False)
class Predictions(ClipArrays):
    """The logits and the labels of the clips of a split.

    Clips shorter than the longest are padded at their end. In padding, labels are -1
    and logits mean nothing.

    Attributes:
        row: Row of each clip in Annotations.txt, `(num_clips,)` int64.
        logits: `(num_clips, num_segments, K + 1)` float32, background last; of
            multi-label networks `(num_clips, num_segments, K)`.
        labels: True class of each segment, `(num_clips, num_segments)` int64; of
            multi-label data 1 where a category is active, else 0, `(num_clips,
            num_segments, K)` int8.
        clip_labels: True class of each clip, `(num_clips,)` int64.

    Raises:
        ValueError: If the shapes don't fit each other, or multi-label labels are not in
            -1, 0 and 1.
    """

    DTYPES: ClassVar = {
        "row": np.int64,
        "logits": np.float32,
        "labels": np.int64,
        "clip_labels": np.int64,
    }
    row: np.ndarray
    logits: np.ndarray
    labels: np.ndarray
    clip_labels: np.ndarray

    def __post_init__(self) -> None:
        """Convert the arrays to their dtypes and check their shapes."""
        super().__post_init__()
        shape = self.logits.shape
        fits = (
            self.logits.ndim == 3
            and self.labels.shape == (shape if self.multi_label else shape[:2])
            and self.row.shape == self.clip_labels.shape == shape[:1]
        )
        if not fits:
            raise ValueError(
                "Expected row (N,), logits (N, T, K + 1), labels (N, T) and "
                "clip_labels (N,), or logits and labels (N, T, K). Received: row "
                f"{self.row.shape}, logits {shape}, labels {self.labels.shape}, "
                f"clip_labels {self.clip_labels.shape}"
            )
        if self.multi_label:
            if self.labels.size and (self.labels.min() < -1 or self.labels.max() > 1):
                raise ValueError("Expected multi-label labels of -1, 0 and 1.")
            object.__setattr__(self, "labels", self.labels.astype(np.int8))

    @property
    def multi_label(self) -> bool:
        """Whether segments may have several categories."""
        return self.labels.ndim == 3


def accuracy(labels: np.ndarray, predicted: np.ndarray) -> float | None:
    """Return the fraction of all segments whose class is right: AVE's own score."""
    return _ratio(*_sum(count_right, labels, predicted))


def background_recall(
    labels: np.ndarray, predicted: np.ndarray, background: int
) -> float | None:
    """Return the fraction of the true background segments that are found."""
    return _ratio(*_sum(count_background, labels, predicted, background))


def event_f1(
    labels: np.ndarray, predicted: np.ndarray, background: int, iou: float = 0.5
) -> float | None:
    """Return the micro-F1 of whole events over a split, see `metrics.count_events`.

    That is 2 * right / (true events + predicted events), at an intersection over union
    of `iou` or more, which is in [0.5, 1]; else ValueError is raised.
    """
    return _ratio(*_sum(count_events, labels, predicted, background, iou))


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
    return is_background.any(axis=1) & ~is_background.all(axis=1)


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
    cells = labels.ravel() * num_classes + predicted.ravel()
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
    names = [*categories, "Background"]
    classes = (labels, predicted, labels[labels == predicted])
    counts = [np.bincount(of.ravel(), minlength=len(names)) for of in classes]
    return [
        {
            "category": name,
            "segments": int(true),
            "predicted": int(guessed),
            "precision": _ratio(right, guessed),
            "recall": _ratio(right, true),
            "f1": _ratio(2 * right, true + guessed),
        }
        for name, true, guessed, right in zip(names, *counts, strict=True)
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
    wrong = labels != predicted
    pairs = labels[wrong] * len(names) + predicted[wrong]
    found, counts = np.unique(pairs, return_counts=True)
    most = np.argsort(-counts, kind="stable")[:_MAX_PAIRS]
    totals = np.bincount(labels.ravel(), minlength=len(names))
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


def evaluate(predictions: Predictions, categories: Sequence[str]) -> dict[str, Any]:
    """Score a split.

    A segment's predicted class is the argmax of its own logits, background included.

    Args:
        predictions: Logits and labels of the split.
        categories: Names of the K categories.

    Returns:
        A JSON-ready dictionary: `accuracy`, its 95 % bootstrap `interval` over clips
        (`[low, high]`, None for one clip), `background_recall`, `event_f1` (at IoU
        0.5), `partial_clip_accuracy`, `trivial` (see `trivial_baselines`), `num_clips`,
        `num_segments` (of the whole split), `per_category` and `most_confused` (see
        there) and `confusion_matrix` (list of rows of segment counts; None for more
        than 48 classes, since it grows with their square).

    Raises:
        ValueError: If there is no segment, classes and categories don't fit each other,
            or a logit is not finite; the message names the row of the first such clip.
    """
    background = len(categories)
    _check(predictions, background)
    labels, predicted = predictions.labels, predictions.logits.argmax(axis=2)
    return {
        "accuracy": accuracy(labels, predicted),
        "interval": interval_over_clips((labels == predicted).mean(axis=1)),
        "background_recall": background_recall(labels, predicted, background),
        "event_f1": event_f1(labels, predicted, background),
        "partial_clip_accuracy": partial_clip_accuracy(labels, predicted, background),
        "trivial": trivial_baselines(labels, predictions.clip_labels, background),
        "num_clips": len(labels),
        "num_segments": labels.size,
        "per_category": per_category(labels, predicted, categories),
        "most_confused": most_confused(labels, predicted, categories),
        "confusion_matrix": confusion_matrix(labels, predicted, background + 1).tolist()
        if background < _MAX_MATRIX_CLASSES
        else None,
    }


def interval_over_clips(per_clip: np.ndarray) -> list[float] | None:
    """Return the 95 % bootstrap interval `[low, high]` of one value a clip.

    Every resample of one clip is that clip: its interval is None.
    """
    return list(bootstrap_interval(per_clip)) if len(per_clip) > 1 else None


def _check(predictions: Predictions, background: int) -> None:
    """Check that predictions can be scored."""
    logits, labels = predictions.logits, predictions.labels
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


def _ratio(part: int, whole: int) -> float | None:
    return float(part / whole) if whole else None
