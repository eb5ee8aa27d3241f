"""Draw timelines of chosen multi-label clips, one lane per category."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from avsdn_tf.events import active_spans
from avsdn_tf.report.figures.output import STYLE, TRACK, category_colors, label_of
from avsdn_tf.text import short_name

MULTI_LABEL_RULE = (
    "Clips with a true or a predicted event (all clips if those are too few), sorted "
    "by segment F1 and chosen at equal steps, from best to worst. In each row, the "
    "truth is above the prediction."
)

_TRACK_IN = 8.0
_ROW_IN = 0.3
_TITLE_ROWS = 0.75
_GAP_ROWS = 0.6
# Limits of a readable figure.
_MAX_LANES = 12
_MAX_SEGMENTS = 1200


@dataclass(frozen=True, eq=False)
class LaneClip:
    """A clip to draw.

    Attributes:
        title: Title above the lanes.
        num_segments: Number of segments.
        lanes: Maps the index of each category with events to its true and its predicted
            activity, two bool arrays. Elements after `num_segments` are padding.
    """

    title: str
    num_segments: int
    lanes: Mapping[int, tuple[np.ndarray, np.ndarray]]

    def shown(self) -> list[int]:
        """Return the categories to draw, in order: at most 12, those active longest."""
        lengths = {category: np.sum(lane) for category, lane in self.lanes.items()}
        longest = sorted(lengths, key=lengths.get, reverse=True)[:_MAX_LANES]
        return sorted(longest)


@mpl.rc_context(STYLE)
def lane_timelines(
    clips: Sequence[LaneClip],
    categories: Sequence[str],
    system: str,
    segment_s: float = 1.0,
) -> Figure:
    """Draw the true and the predicted events of clips, one lane per category.

    Each lane has the truth above the predictions of `system`. A clip with more than 12
    categories has lanes for the 12 that are active longest.

    Raises:
        ValueError: If there is no clip.
    """
    if not clips:
        raise ValueError("Expected at least one clip. Received: none")
    num_lanes = sum(max(1, len(clip.shown())) for clip in clips)
    num_rows = num_lanes + len(clips) * (_TITLE_ROWS + _GAP_ROWS) - _GAP_ROWS
    figure = Figure(figsize=(_TRACK_IN, num_rows * _ROW_IN))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, max(clip.num_segments for clip in clips) * segment_s)
    axes.set_ylim(num_rows, 0)
    ticks: list[tuple[float, str]] = []
    top = 0.0
    for clip in clips:
        top += _TITLE_ROWS
        more = len(clip.lanes) - len(clip.shown())
        title = clip.title + (f" ({more} more categories not shown)" if more else "")
        axes.text(0, top - 0.15, short_name(title, 80), size=10, va="baseline")
        for category in clip.shown() or [None]:
            name = "no event" if category is None else categories[category]
            ticks.append((top + 0.5, label_of(name)))
            _draw_lane(axes, top, clip, category, len(categories), segment_s)
            top += 1
        top += _GAP_ROWS
    axes.set_yticks(*zip(*ticks, strict=True))
    axes.tick_params(length=0)
    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    axes.spines[:].set_visible(False)
    axes.set_xlabel(f"time (s)\neach row: truth above, {label_of(system)} below")
    return figure


def _draw_lane(
    axes: Axes,
    top: float,
    clip: LaneClip,
    category: int | None,
    num_categories: int,
    segment_s: float,
) -> None:
    """Draw the tracks of a lane and, unless the category is None, its events."""
    # Subsample: drawing many bars that are narrower than a pixel is slow.
    step = -(-clip.num_segments // _MAX_SEGMENTS)
    for row in range(2):
        y = top + 0.3 + 0.4 * row
        axes.barh(y, clip.num_segments * segment_s, height=0.36, color=TRACK)
        if category is None:
            continue
        active = np.asarray(clip.lanes[category][row])[: clip.num_segments : step]
        spans = [
            (first * step * segment_s, (end - first) * step * segment_s)
            for first, end, _ in active_spans(active[:, np.newaxis])
        ]
        color = category_colors(num_categories)[category]
        axes.broken_barh(spans, (y - 0.18, 0.36), color=color)
