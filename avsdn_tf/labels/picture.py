"""Draw the summary of a manifest."""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from avsdn_tf.labels.files import SPLITS
from avsdn_tf.labels.summary import Summary
from avsdn_tf.report.figures import INK, LINES, MUTED, STYLE, VALIDATION
from avsdn_tf.text import short_name

# A figure with more categories is unreadable.
_MAX_CATEGORIES = 30
_LONGEST_NAME = 32
_COLORS = {"train": "#9a8ad0", "validation": VALIDATION, "test": "#d98a3d"}
_ROW_IN = 0.24


@mpl.rc_context(STYLE)
def draw_summary(summary: Summary) -> Figure:
    """Draw events by category, lengths of clips, and time by kind of label."""
    shown = list(summary.events.items())[:_MAX_CATEGORIES]
    height_in = max(3.6, 1.0 + _ROW_IN * len(shown))
    figure = Figure(figsize=(9, height_in), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1.25, 1))
    _draw_events(left.subplots(), shown, len(summary.events))
    lengths, times = right.subplots(2, 1, height_ratios=(1.4, 1))
    _draw_lengths(lengths, summary.lengths_s)
    _draw_times(times, summary)
    return figure


def _draw_events(
    axes: Axes, shown: Sequence[tuple[str, Mapping[str, int]]], num_categories: int
) -> None:
    rows = np.arange(len(shown))
    starts = np.zeros(len(shown))
    for split in SPLITS:
        counts = np.array([by_split.get(split, 0) for _, by_split in shown])
        axes.barh(rows, counts, left=starts, color=_COLORS[split], label=split)
        starts += counts
    axes.set_yticks(rows, [short_name(name, _LONGEST_NAME) for name, _ in shown])
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.margins(y=0.01)
    axes.invert_yaxis()
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("events")
    more = num_categories - len(shown)
    title = f"Events of the {len(shown)} most frequent of {num_categories} categories"
    axes.set_title(title if more else "Events by category")
    if shown:
        axes.legend(loc="lower right", fontsize=8)


def _draw_lengths(axes: Axes, lengths_s: Sequence[float]) -> None:
    axes.hist(lengths_s, bins=min(40, max(5, len(lengths_s) // 5)), color=LINES)
    axes.set_title("Clips by length")
    axes.set_xlabel("seconds")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))


def _draw_times(axes: Axes, summary: Summary) -> None:
    bars = {
        "one event": (summary.single_s, "#4aa3a2"),
        "overlap": (summary.overlap_s, "#27706f"),
        "unlabelled": (summary.unlabelled_s, MUTED),
        "background clips": (summary.background_s, LINES),
    }
    untimed_s = summary.length_s - sum(time_s for time_s, _ in bars.values())
    if summary.num_untimed:
        bars["weak labels"] = (untimed_s, "#b9dcdb")
    unit, unit_s = "hours", 3600
    if summary.length_s < 2 * unit_s:
        unit, unit_s = "minutes", 60
    times = [time_s / unit_s for time_s, _ in bars.values()]
    axes.barh(list(bars), times, color=[color for _, color in bars.values()])
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.invert_yaxis()
    axes.set_title("Time")
    axes.set_xlabel(unit)
