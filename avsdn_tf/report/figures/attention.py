"""Draw the attention maps of chosen clips, segment by segment."""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from avsdn_tf.report.figures.output import MUTED, STYLE, VALIDATION
from avsdn_tf.report.scores import percent
from avsdn_tf.text import short_name

# The colours get lighter with the weight, so that a print in greyscale is readable.
_COLORS = "inferno"
_WIDTH_IN = 8.0
_GAP_IN = 0.08
# Heights below a map: gap, bar of a true event, text.
_BAR_GAP_IN = 0.03
_BAR_IN = 0.05
_TEXT_IN = 0.22
_TITLE_IN = 0.3
# More maps per clip would be too small to read.
MAX_MAPS = 10


@dataclass(frozen=True, eq=False)
class AttentionClip:
    """A clip to draw.

    Attributes:
        title: Title above the maps.
        maps: Weights of the cells, `(num_segments, rows, columns)`.
        is_event: Whether each segment has a true event, `(num_segments,)` bool.
    """

    title: str
    maps: np.ndarray
    is_event: np.ndarray


def attention_colors(count: int) -> list[str]:
    """Return `count` colours as hex, from weight 0 to the largest weight."""
    colors = mpl.colormaps[_COLORS](np.linspace(0, 1, count))
    return [mpl.colors.to_hex(color) for color in colors]


@mpl.rc_context(STYLE)
def attention(clips: Sequence[AttentionClip], segment_s: float = 1.0) -> Figure:
    """Draw the attention maps of clips over time, one row per clip.

    Each map is scaled to its strongest cell, and labelled with its time and that cell's
    weight in percent. A blue bar marks true events. In a clip of more than `MAX_MAPS`
    segments, `MAX_MAPS` evenly spaced segments are drawn.

    Raises:
        ValueError: If there is no clip.
    """
    if not clips:
        raise ValueError("Expected at least one clip. Received: none")
    _, rows, columns = clips[0].maps.shape
    size_in = (_WIDTH_IN + _GAP_IN) / MAX_MAPS - _GAP_IN
    map_in = size_in * rows / columns
    clip_in = _TITLE_IN + map_in + _BAR_GAP_IN + _BAR_IN + _TEXT_IN
    height_in = len(clips) * clip_in
    figure = Figure(figsize=(_WIDTH_IN, height_in))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    for number, clip in enumerate(clips):
        top = number * clip_in + _TITLE_IN
        title = short_name(clip.title, 80)
        axes.text(0, top - 0.08, title, size=10, va="baseline")
        count = len(clip.maps)
        shown = np.linspace(0, count - 1, min(count, MAX_MAPS)).round().astype(int)
        for column, segment in enumerate(shown):
            left = column * (size_in + _GAP_IN)
            box = left, left + size_in, top + map_in, top
            time_s = segment * segment_s
            _draw_map(axes, box, clip.maps[segment], clip.is_event[segment], time_s)
    legend = (
        "below each map: time, and the strongest cell's share of the weight "
        f"({percent(1 / (rows * columns))} if all are equal); blue: a true event"
    )
    axes.text(0, height_in + 0.2, legend, color=MUTED)
    axes.set_aspect("auto")
    axes.set_xlim(0, _WIDTH_IN)
    axes.set_ylim(height_in, 0)
    return figure


def _draw_map(
    axes: Axes,
    box: tuple[float, float, float, float],
    weights: np.ndarray,
    is_event: bool,
    time_s: float,
) -> None:
    """Draw a map into a box (left, right, bottom, top), and its label below."""
    left, right, bottom, _ = box
    axes.imshow(
        weights,
        _COLORS,
        vmin=0,
        vmax=weights.max(),
        extent=box,
        # Interpolation blurs the cells in browsers.
        interpolation="none",
    )
    top = bottom + _BAR_GAP_IN
    if is_event:
        middle = top + _BAR_IN / 2
        axes.barh(middle, right - left, _BAR_IN, left, color=VALIDATION)
    axes.text(
        left,
        top + _BAR_IN + 0.03,
        f"{time_s:g} s: {100 * weights.max():.0f} %",
        size=7,
        color=MUTED,
        va="top",
    )
