"""Convert segment probabilities to events with a start and an end.

An event is a maximal run of segments in which one category is active. With a softmax
over the categories and background, only the most probable class of a segment is active;
background, the last class, is never an event. Multi-label probabilities come from one
sigmoid per category: a category is active where its probability reaches its threshold,
so events of different categories may overlap.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from avsdn_tf.windows import stitch


class Event(NamedTuple):
    """One localized event.

    Attributes:
        start_s: Start in seconds. Time 0 is the start of the clip; for a video file,
            times are those that video players show.
        end_s: End in seconds, exclusive, on the time axis of `start_s`.
        category: Name of the category.
        score: Mean probability of the category over the event's segments, in [0, 1].

    Example:
        >>> event = avsdn_tf.Event(start_s=2.0, end_s=7.0, category="Bark", score=0.93)
        >>> event.end_s - event.start_s
        5.0
    """

    start_s: float
    end_s: float
    category: str
    score: float


@dataclasses.dataclass(frozen=True, eq=False)
class VideoPrediction:
    """The prediction of a network for one video.

    Times are those that video players show: segment i lasts from `start_s + i *
    segment_s` to `start_s + (i + 1) * segment_s`.

    Attributes:
        name: Printable file name of the video.
        categories: Names of the categories, without background.
        probabilities: `(num_segments, num_categories + 1)`, background last; if
            `multi_label`, `(num_segments, num_categories)`.
        segment_s: Length of a segment in seconds.
        events: The localized events, in order of time.
        disclaimer: Text that must accompany every result, or None.
        start_s: Start of the first segment in seconds: 0 in most videos, else the first
            timestamp. See `features.video.Second.start_s`.
        heard_only: Names of the categories that the network detects by sound alone.
        multi_label: Whether each category has its own probability, so that events of
            different categories may overlap.
        thresholds: If `multi_label`, the probability from which each category is
            active; None for 0.5 each.
        attention: Attention weights of the picture's cells, `(num_segments, rows,
            columns)`, from the top left. The weights of each segment sum to 1. None for
            networks without spatial attention.

    Raises:
        ValueError: If there is no segment, the probabilities or thresholds don't fit
            the categories or aren't finite, `segment_s` is not positive, `start_s` is
            negative or not finite, an event has an unknown category, or the attention
            doesn't fit the segments or doesn't sum to 1.
    """

    name: str
    categories: tuple[str, ...]
    probabilities: np.ndarray
    segment_s: float
    events: tuple[Event, ...]
    disclaimer: str | None
    start_s: float = 0.0
    heard_only: tuple[str, ...] = ()
    multi_label: bool = False
    thresholds: tuple[float, ...] | None = None
    attention: np.ndarray | None = None

    def __post_init__(self) -> None:
        shape = np.shape(self.probabilities)
        num_classes = len(self.classes)
        if len(shape) != 2 or shape[0] == 0 or shape[1] != num_classes:
            raise ValueError(
                f"Expected probabilities of shape (num_segments, {num_classes}), of at "
                f"least one segment. Received: shape {shape}"
            )
        if not np.isfinite(self.probabilities).all():
            raise ValueError("Expected finite probabilities. Received: NaN or infinite")
        if not self.segment_s > 0:
            raise ValueError(
                "Expected segment_s to be positive. "
                f"Received: segment_s={self.segment_s}"
            )
        if not 0 <= self.start_s < math.inf:
            raise ValueError(
                "Expected start_s to be finite and at least 0. "
                f"Received: start_s={self.start_s}"
            )
        unknown = {event.category for event in self.events} - {*self.categories}
        if unknown:
            raise ValueError(
                f"Expected events of the {len(self.categories)} categories. "
                f"Received: {sorted(unknown)}"
            )
        if self.multi_label:
            thresholds = check_thresholds(self.thresholds, len(self.categories))
            object.__setattr__(self, "thresholds", tuple(thresholds.tolist()))
        elif self.thresholds is not None:
            raise ValueError("Expected thresholds only for multi_label predictions.")
        if self.attention is not None:
            _check_attention(self.attention, shape[0])

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the columns of `probabilities`."""
        return self.categories if self.multi_label else (*self.categories, "Background")

    @property
    def duration_s(self) -> float:
        """Duration of all segments in seconds."""
        return len(self.probabilities) * self.segment_s

    @property
    def end_s(self) -> float:
        """End of the last segment in seconds, as video players show it."""
        return self.start_s + self.duration_s


def _check_attention(maps: np.ndarray, num_segments: int) -> None:
    shape = np.shape(maps)
    if len(shape) != 3 or shape[0] != num_segments or 0 in shape:
        raise ValueError(
            f"Expected attention of shape ({num_segments}, rows, columns). "
            f"Received: shape {shape}"
        )
    # Half precision: rounding changes the sums by up to 0.01.
    sums = np.sum(maps, axis=(1, 2), dtype=np.float64)
    if not (np.min(maps) >= 0 and np.allclose(sums, 1, rtol=0, atol=0.02)):
        raise ValueError(
            "Expected the attention of every segment to be 0 or more and to sum to 1. "
            f"Received: least weight {np.min(maps)}, sums from {sums.min()} to "
            f"{sums.max()}"
        )


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return the softmax of logits over the last axis, in float64."""
    logits = np.asarray(logits, dtype=np.float64)
    # Shift by the maximum: exp overflows above 709.
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Return the sigmoid of logits, in float64."""
    logits = np.asarray(logits, dtype=np.float64)
    # The exponent is never positive, so exp can't overflow.
    exponentials = np.exp(-np.abs(logits))
    return np.where(logits < 0, exponentials, 1.0) / (1 + exponentials)


def check_thresholds(
    thresholds: Sequence[float] | None, num_categories: int
) -> np.ndarray:
    """Return the threshold of each category, `(num_categories,)` float64.

    Raises:
        ValueError: If `thresholds` is neither None nor one number in (0, 1) per
            category.
    """
    if thresholds is None:
        return np.full(num_categories, 0.5)
    values = np.asarray(thresholds, dtype=np.float64)
    if values.shape != (num_categories,) or not ((values > 0) & (values < 1)).all():
        raise ValueError(
            f"Expected thresholds to be {num_categories} numbers in (0, 1), one a "
            f"category. Received: {thresholds}"
        )
    return values


def active_categories(
    probabilities: np.ndarray, thresholds: Sequence[float] | None = None
) -> np.ndarray:
    """Return a boolean array that marks where each category is active.

    Args:
        probabilities: Multi-label probabilities, `(..., num_categories)`.
        thresholds: As in `check_thresholds`.
    """
    probabilities = np.asarray(probabilities)
    return probabilities >= check_thresholds(thresholds, probabilities.shape[-1])


def number_events(classes: np.ndarray, background: int) -> np.ndarray:
    """Number the events of clips: the maximal runs of one non-background class.

    Args:
        classes: Class index of every segment, `(num_clips, num_segments)`; -1 in
            padding.
        background: Index of the background class.

    Returns:
        Number of the event that each segment belongs to, of the same shape: 0, 1, ...
        in order of clip and time, unique over all clips; -1 for background and padding.
    """
    is_event = (classes != background) & (classes >= 0)
    starts = is_event.copy()
    starts[:, 1:] &= classes[:, 1:] != classes[:, :-1]
    numbers = np.cumsum(starts).reshape(starts.shape) - 1
    return np.where(is_event, numbers, -1)


def event_spans(classes: np.ndarray, background: int) -> list[tuple[int, int]]:
    """Return the first segment and the exclusive end of each event of a clip.

    Args:
        classes: Class index of every segment, `(num_segments,)`; -1 in padding.
        background: Index of the background class.
    """
    numbers = number_events(classes[np.newaxis], background)[0]
    segments = np.flatnonzero(numbers >= 0)
    _, starts, lengths = np.unique(
        numbers[segments], return_index=True, return_counts=True
    )
    firsts = segments[starts]
    return list(zip(firsts.tolist(), (firsts + lengths).tolist(), strict=True))


def active_spans(active: np.ndarray) -> list[tuple[int, int, int]]:
    """Return first segment, exclusive end and category of each event of a clip.

    Args:
        active: Where each category is active, `(num_segments, num_categories)`.

    Returns:
        The spans in order of first segment, then of category.
    """
    padded = np.pad(np.asarray(active).T > 0, [(0, 0), (1, 1)])
    changes = padded[:, 1:] != padded[:, :-1]
    # Within each category, starts and ends alternate.
    categories, edges = np.nonzero(changes)
    firsts, ends, categories = edges[::2], edges[1::2], categories[::2]
    spans = zip(firsts.tolist(), ends.tolist(), categories.tolist(), strict=True)
    return sorted(spans, key=lambda span: (span[0], span[2]))


def events_from_probabilities(
    probabilities: np.ndarray,
    categories: Sequence[str],
    segment_s: float = 1.0,
    multi_label: bool = False,
    thresholds: Sequence[float] | None = None,
) -> list[Event]:
    """Localize the events of one clip.

    Runs of segments with the same most probable category become events; if
    `multi_label`, runs where a category's probability reaches its threshold.

    Args:
        probabilities: `(num_segments, num_categories + 1)`, background last; if
            `multi_label`, `(num_segments, num_categories)`.
        categories: Names of the categories.
        segment_s: Length of a segment in seconds.
        multi_label: Whether each category has its own probability.
        thresholds: If `multi_label`, the probability from which each category is
            active; None for 0.5 each.

    Returns:
        The clip's events, sorted by start and then by position in `categories`; empty
        if no category is active.

    Raises:
        ValueError: If the shape or the thresholds don't fit the categories, a
            probability is not in [0, 1], or `segment_s` is not positive.
    """
    probabilities = np.asarray(probabilities)
    _check_shape("probabilities", probabilities, categories, multi_label)
    # A half-precision softmax may exceed 1 by rounding.
    if not ((probabilities >= 0) & (probabilities <= 1.01)).all():
        raise ValueError(
            "Expected probabilities in [0, 1]; for logits, use events_from_logits. "
            f"Received: values from {probabilities.min()} to {probabilities.max()}"
        )
    if not segment_s > 0:
        raise ValueError(
            f"Expected segment_s to be positive. Received: segment_s={segment_s}"
        )
    if multi_label:
        spans = active_spans(active_categories(probabilities, thresholds))
    else:
        classes = probabilities.argmax(axis=1)
        spans = [
            (first, end, int(classes[first]))
            for first, end in event_spans(classes, background=len(categories))
        ]
    return [
        Event(
            start_s=float(first * segment_s),
            end_s=float(end * segment_s),
            category=categories[category],
            score=min(1.0, float(probabilities[first:end, category].mean())),
        )
        for first, end, category in spans
    ]


def _check_shape(
    name: str, values: np.ndarray, categories: Sequence[str], multi_label: bool
) -> None:
    num_classes = len(categories) + (not multi_label)
    if values.ndim != 2 or values.shape[1] != num_classes:
        background = "" if multi_label else " and background"
        raise ValueError(
            f"Expected {name} of one clip, of shape (num_segments, {num_classes}): "
            f"{len(categories)} categories{background}. "
            f"Received: shape {values.shape}"
        )


def events_from_logits(
    logits: np.ndarray,
    categories: Sequence[str],
    segment_s: float = 1.0,
    multi_label: bool = False,
    thresholds: Sequence[float] | None = None,
) -> list[Event]:
    """Localize the events of one clip from its logits.

    Args:
        logits: `(num_segments, num_categories + 1)`, before the softmax, background
            last; if `multi_label`, `(num_segments, num_categories)`, before the
            sigmoid.
        categories: Names of the categories.
        segment_s: Length of a segment in seconds.
        multi_label: As in `events_from_probabilities`.
        thresholds: As in `events_from_probabilities`.

    Returns:
        The clip's events, sorted by start; empty if no category is active.

    Raises:
        ValueError: If the shape or the thresholds don't fit the categories, a logit is
            not finite, or `segment_s` is not positive.

    Example:
        >>> logits = np.array([[3.0, 0, 0], [3.0, 0, 0], [0, 0, 3.0]])
        >>> for event in avsdn_tf.events_from_logits(logits, categories):
        ...     print(event.start_s, event.end_s, event.category, f"{event.score:.2f}")
        0.0 2.0 Bark 0.91
    """
    logits = np.asarray(logits)
    _check_shape("logits", logits, categories, multi_label)
    if not np.isfinite(logits).all():
        raise ValueError("Expected finite logits. Received: NaN or infinite logits")
    probabilities = sigmoid(logits) if multi_label else softmax(logits)
    return events_from_probabilities(
        probabilities, categories, segment_s, multi_label, thresholds
    )


def stitch_logits(
    model: Any,
    chunks: Iterable[tuple[np.ndarray, np.ndarray]],
    window: int = 10,
) -> np.ndarray:
    """Return the logits of a video of any length, averaged over overlapping windows.

    Args:
        model: Any Keras model that labels segments.
        chunks: As in `windows.stitch`.
        window: As in `windows.stitch`.

    Returns:
        Logits of every segment, `(num_segments, num_classes)`.

    Raises:
        ValueError: If there is no segment, the features don't fit the model, or
            `window` is less than 1.
    """

    def outputs_of(inputs: dict[str, np.ndarray]) -> tuple[np.ndarray]:
        return (np.asarray(model.predict_on_batch(inputs)),)

    return stitch(outputs_of, chunks, window)[0]
