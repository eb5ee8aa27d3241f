"""Accuracy of cross-modality localization: find an event of one modality in the other.

A2V receives the audio segments of an event and finds the event in the visual segments.
V2A receives the visual segments and finds the event in the audio segments. A window as
long as the event slides over the other modality. The prediction is the window with the
smallest summed distance; among equal sums, the earliest window. The prediction is
correct if the window starts exactly where the event starts.

Only clips with exactly one event, shorter than the clip, are scored: an event as long
as the clip fits only one window, and one window can't find several events. All 402
clips of AVE's `test_order_match.h5` are scored. In the validation file, 204 of 402
clips are skipped. Accuracies are in [0, 1].
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from avsdn_tf.evaluation import ClipArrays, interval_over_clips


@dataclass(frozen=True, eq=False)
class Distances(ClipArrays):
    """The distances between the segments of a split's clips, and the labels.

    Attributes:
        row: Row of each clip in Annotations.txt, `(num_clips,)` int64.
        distances: Distance of audio segment i and visual segment j of one clip,
            `(num_clips, num_segments, num_segments)` float32.
        labels: 1 where the segment belongs to the event, else 0,
            `(num_clips, num_segments)` int64.

    Raises:
        ValueError: If the shapes don't fit each other.
    """

    DTYPES: ClassVar = {"row": np.int64, "distances": np.float32, "labels": np.int64}
    row: np.ndarray
    distances: np.ndarray
    labels: np.ndarray

    def __post_init__(self) -> None:
        """Convert the arrays to their dtypes and check their shapes."""
        super().__post_init__()
        if (
            self.labels.ndim != 2
            or self.distances.shape != (*self.labels.shape, self.labels.shape[1])
            or self.row.shape != self.labels.shape[:1]
        ):
            raise ValueError(
                "Expected row (N,), distances (N, T, T) and labels (N, T). Received: "
                f"row {self.row.shape}, distances {self.distances.shape}, "
                f"labels {self.labels.shape}"
            )


def event_windows(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return first segment and length of each clip's event, `(num_clips,)` each."""
    is_event = labels > 0
    return is_event.argmax(axis=1), is_event.sum(axis=1)


def is_scored(labels: np.ndarray) -> np.ndarray:
    """Return a mask `(num_clips,)` of clips with one event, shorter than the clip."""
    is_event = np.asarray(labels) > 0
    begins = is_event & ~np.pad(is_event, [(0, 0), (1, 0)])[:, :-1]
    return (begins.sum(axis=1) == 1) & ~is_event.all(axis=1)


def locate(distances: np.ndarray, start: int, length: int) -> tuple[int, int]:
    """Find a clip's event in each modality, given the event in the other modality.

    Args:
        distances: `(num_segments, num_segments)`, audio segments in rows.
        start: First segment of the event.
        length: Number of segments of the event.

    Returns:
        First segment of the best window for A2V and for V2A.
    """
    distances = np.asarray(distances, np.float64)
    # A window that starts at s pairs segment start + k of one modality with segment
    # s + k of the other modality: a diagonal of the matrix.
    offsets = range(len(distances) - length + 1)
    audio_rows = distances[start : start + length]
    visual_columns = distances[:, start : start + length]
    a2v = int(np.argmin([np.trace(audio_rows, offset) for offset in offsets]))
    v2a = int(np.argmin([np.trace(visual_columns, -offset) for offset in offsets]))
    return a2v, v2a


def baselines(labels: np.ndarray) -> dict[str, float]:
    """Return the accuracies of three systems that ignore the features.

    `"random_window"` is the expected accuracy of a uniformly random window;
    `"always_at_start"` and `"always_at_end"` choose the first and the last window.

    Raises:
        ValueError: If there is no clip to score.
    """
    labels = np.asarray(labels)
    starts, lengths = event_windows(labels[_some_scored(labels)])
    last = labels.shape[1] - lengths
    return {
        "random_window": float((1 / (last + 1)).mean()),
        "always_at_start": float((starts == 0).mean()),
        "always_at_end": float((starts == last).mean()),
    }


def right_starts(predictions: Distances) -> tuple[np.ndarray, np.ndarray]:
    """Return whether A2V and V2A are correct in the scored clips, `(num_scored,)` each.

    Raises:
        ValueError: If there is no clip to score, or a distance is not finite.
    """
    broken = ~np.isfinite(predictions.distances).all(axis=(1, 2))
    if broken.any():
        raise ValueError(
            "Expected finite distances. Received: NaN or infinite distances in "
            f"{broken.sum()} of {len(broken)} clips, first in row "
            f"{predictions.row[broken.argmax()]}"
        )
    scored = np.flatnonzero(_some_scored(predictions.labels))
    starts, lengths = event_windows(predictions.labels[scored])
    found = np.array(
        [
            locate(predictions.distances[clip], start, length)
            for clip, start, length in zip(scored, starts, lengths, strict=True)
        ]
    )
    correct = found == starts[:, None]
    return correct[:, 0], correct[:, 1]


def evaluate(predictions: Distances) -> dict[str, Any]:
    """Score a split.

    Returns:
        A JSON-ready dictionary: `a2v_accuracy`, `v2a_accuracy`, their 95 % bootstrap
        `intervals` over clips (`[low, high]` by the same names, None for one clip),
        `baselines` (see `baselines()`), `num_clips` (scored), `num_clips_left_out`
        (not scored) and `by_length`: one dictionary for every event length, with
        `length`, `clips`, `a2v_accuracy`, `v2a_accuracy` and `random_window`.

    Raises:
        ValueError: If there is no clip to score, or a distance is not finite.
    """
    correct = dict(
        zip(("a2v_accuracy", "v2a_accuracy"), right_starts(predictions), strict=True)
    )
    scored = is_scored(predictions.labels)
    _, lengths = event_windows(predictions.labels[scored])
    num_segments = predictions.labels.shape[1]
    return {
        **{name: float(values.mean()) for name, values in correct.items()},
        "intervals": {
            name: interval_over_clips(values) for name, values in correct.items()
        },
        "baselines": baselines(predictions.labels),
        "num_clips": int(scored.sum()),
        "num_clips_left_out": int((~scored).sum()),
        "by_length": [
            {
                "length": int(length),
                "clips": int((lengths == length).sum()),
                **{
                    name: float(values[lengths == length].mean())
                    for name, values in correct.items()
                },
                "random_window": float(1 / (num_segments - length + 1)),
            }
            for length in np.unique(lengths)
        ],
    }


def _some_scored(labels: np.ndarray) -> np.ndarray:
    scored = is_scored(labels)
    if not scored.any():
        raise ValueError(
            "Expected at least one clip with one event, shorter than the clip. "
            f"Received: none in {len(scored)} clips"
        )
    return scored
