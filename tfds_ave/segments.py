"""Convert features and events to segments of one second; cut clips into windows."""

import dataclasses
import math
from collections.abc import Iterable

import numpy as np

from tfds_ave.configs import SEGMENT_S


@dataclasses.dataclass(frozen=True)
class Span:
    """An event of a clip, in seconds and in segments.

    Attributes:
        category: Index of the category.
        start_s: Start in seconds.
        end_s: End in seconds.
        first: First segment.
        end: Last segment + 1.
    """

    category: int
    start_s: float
    end_s: float
    first: int
    end: int

    def within(self, start: int, stop: int) -> "Span | None":
        """Return the part of the span in a window, or None if there is none.

        Times and segments of the result are relative to the start of the window.

        Args:
            start: First segment of the window.
            stop: Last segment of the window + 1.
        """
        first, end = max(start, self.first), min(stop, self.end)
        if first >= end:
            return None
        return Span(
            self.category,
            max(0.0, self.start_s - start),
            min(stop, self.end_s) - start,
            first - start,
            end - start,
        )


def make_span(category: int, start_s: float, end_s: float, num_segments: int) -> Span:
    """Return an event with its segments.

    A segment belongs to the event if the segment's middle is in the event. An event
    without such a segment gets the segment that it overlaps most (if two overlap
    equally, the first), so that no event is lost.
    """
    first, end = (min(num_segments, math.ceil(s - 0.5)) for s in (start_s, end_s))
    if first >= end:
        first = int(start_s)
        # Round, because 1 - 0.9 and 1.1 - 1 differ in floating point.
        if round(end_s - (first + 1), 6) > round(first + 1 - start_s, 6):
            first += 1
        first = min(first, num_segments - 1)
        end = first + 1
    return Span(category, start_s, end_s, first, end)


def have_overlap(spans: Iterable[Span]) -> bool:
    """Return whether events of two categories share a segment."""
    active = {(t, span.category) for span in spans for t in range(span.first, span.end)}
    return len(active) > len({segment for segment, _ in active})


def to_segments(rows: np.ndarray, hop_s: float, num_segments: int) -> np.ndarray:
    """Resample rows of features to segments, `(num_segments, ...)`.

    A segment is the mean of the rows whose middle is in the segment. A segment without
    such rows is the row nearest to the segment's middle.

    Args:
        rows: `(num_rows, ...)`.
        hop_s: Seconds from one row to the next.
        num_segments: Number of segments.
    """
    if hop_s == SEGMENT_S:
        return rows[:num_segments]
    # Round, because multiples of hops such as 0.1 are inexact.
    middles_s = np.round((np.arange(len(rows)) + 0.5) * hop_s, 6)
    bounds = np.searchsorted(middles_s, np.arange(num_segments + 1))
    result = np.empty((num_segments, *rows.shape[1:]), rows.dtype)
    for segment in range(num_segments):
        first, end = bounds[segment : segment + 2]
        if first == end:
            first = np.argmin(np.abs(middles_s - (segment + 0.5)))
            end = first + 1
        result[segment] = rows[first:end].mean(axis=0)
    return result


def cut_windows(length: int, window: int, hop: int) -> list[tuple[int, int]]:
    """Return the first segment and the last segment + 1 of each window of a clip.

    The last window ends with the clip. A clip shorter than a window is one window.
    """
    last = max(0, length - window)
    starts = [*range(0, last, hop), last]
    return [(start, min(length, start + window)) for start in starts]
