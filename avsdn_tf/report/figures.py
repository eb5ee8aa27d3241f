"""Figures of a run: learning curves, timelines, confusion matrix.

Every function returns a matplotlib `Figure` of its own; nothing touches pyplot's state.
The colours below are few and exact, so that a page can swap them in dark mode.
"""

import colorsys
import contextlib
import pathlib
import re
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Patch, Rectangle
from matplotlib.textpath import TextToPath
from matplotlib.ticker import MaxNLocator

from avsdn_tf.evaluation import partial_clips
from avsdn_tf.files import atomic_write
from avsdn_tf.events import number_events
from avsdn_tf.events import VideoPrediction

INK = "#1f2328"
MUTED = "#656d76"
LINES = "#d5dae0"
TRACK = "#e9ecef"
TRAINING = "#9a8ad0"
VALIDATION = "#2f6fde"
CELL = "#1a56c4"
# On the coloured bars and cells, which are the same in light and dark mode.
ON_BAR = "#15181c"
ON_CELL = "#ffffff"

CHOICE_RULE = (
    "Chosen by rule, not by looks: the clips that hold both event and background (all "
    "clips, if those are too few), ordered by how many segments are right, at equal "
    "steps from the best to the worst."
)

_STYLE = {
    "axes.edgecolor": LINES,
    "axes.labelcolor": MUTED,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "grid.color": LINES,
    "legend.frameon": False,
    "text.color": INK,
    # A dollar sign in a category's name is a dollar sign.
    "text.parse_math": False,
    "xtick.color": LINES,
    "xtick.labelcolor": MUTED,
    "ytick.color": LINES,
    "ytick.labelcolor": MUTED,
}


@dataclass(frozen=True, eq=False)
class TimelineClip:
    """One clip of a timeline figure.

    Attributes:
        title: What stands above the clip.
        truth: True class of every segment, `(num_segments,)`.
        predictions: Predicted classes, of the same shape, by the name of the system.
    """

    title: str
    truth: np.ndarray
    predictions: Mapping[str, np.ndarray]


@contextlib.contextmanager
def unknown_glyphs() -> Iterator[None]:
    """Draws a name in a script that the font lacks as boxes, and says nothing.

    The tables of the pages hold it.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        yield


def save(figure: Figure, path: pathlib.Path, disclaimer: str | None = None) -> None:
    """Writes a figure as a PNG, whole or not at all.

    Args:
        figure: The figure, which stays as it is.
        path: The file.
        disclaimer: What must be said of its data, or None. It stands below the figure.
    """
    size = {"bbox_inches": "tight", "pad_inches": 0.1} if disclaimer else {}
    with atomic_write(path) as tmp_path, unknown_glyphs(), _noticed(figure, disclaimer):
        figure.savefig(tmp_path, dpi=150, facecolor="white", **size)


@contextlib.contextmanager
def _noticed(figure: Figure, disclaimer: str | None) -> Iterator[None]:
    """Puts a disclaimer below a figure, where it covers nothing: the picture grows."""
    if not disclaimer:
        yield
        return
    # All else stays where it is without it. Legends that a layout has placed would be
    # placed anew in the picture that has grown, on the disclaimer.
    figure.draw_without_rendering()
    engine = figure.get_layout_engine()
    placed = [] if engine is None else figure.legends
    figure.set_layout_engine("none")
    for legend in placed:
        legend.set_bbox_to_anchor((0, 0, 1, 1), figure.transFigure)
    style = {"size": 8, "color": MUTED, "ha": "center", "va": "top", "wrap": True}
    text = figure.text(0.5, -0.01, disclaimer, parse_math=False, **style)
    try:
        yield
    finally:
        text.remove()
        for legend in placed:
            legend.set_bbox_to_anchor(None)
        figure.set_layout_engine(engine)


def choose_clips(
    labels: np.ndarray, predicted: np.ndarray, background: int, count: int
) -> list[int]:
    """Chooses the clips that a report shows, by the rule that `CHOICE_RULE` states.

    Args:
        labels: True classes, `(num_clips, num_segments)`.
        predicted: Predicted classes, the same shape.
        background: Index of the background class.
        count: How many clips to choose, at most.

    Returns:
        Indices of clips, the best first. The same for the same input.
    """
    candidates = np.flatnonzero(partial_clips(labels, background))
    if len(candidates) < count:
        candidates = np.arange(len(labels))
    right = (labels == predicted).mean(axis=1)[candidates]
    best_first = candidates[np.argsort(-right, kind="stable")]
    count = min(count, len(candidates))
    steps = np.linspace(0, len(candidates) - 1, count).round().astype(int)
    return best_first[steps].tolist()


def category_colors(num_categories: int) -> list[str]:
    """Returns one light colour a category, as hex, far in hue from its neighbours."""
    colors = []
    for index in range(num_categories):
        # The golden ratio spreads any number of hues; three shades part close ones.
        hue = (0.58 + index * 0.381966) % 1.0
        lightness = (0.72, 0.80, 0.64)[index % 3]
        rgb = colorsys.hls_to_rgb(hue, lightness, 0.62)
        colors.append(mpl.colors.to_hex(rgb))
    return colors


@mpl.rc_context(_STYLE)
def learning_curves(
    history: Sequence[Mapping[str, Any]], selected_epoch: int
) -> Figure:
    """Draws loss and accuracy over the epochs.

    Args:
        history: One dictionary an epoch, with `epoch`, and any of `loss`, `accuracy`
            and `validation_accuracy` (fractions of 1).
        selected_epoch: The epoch whose weights were kept.

    Returns:
        A figure of two panels, both with the selected epoch marked.
    """
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    _draw_curve(loss, history, "loss", "training", TRAINING)
    _draw_curve(accuracy, history, "accuracy", "training", TRAINING, scale=100)
    _draw_curve(
        accuracy, history, "validation_accuracy", "validation", VALIDATION, scale=100
    )
    for axes, label in ((loss, "loss"), (accuracy, "accuracy (%)")):
        axes.axvline(
            selected_epoch,
            color=MUTED,
            linestyle=(0, (4, 3)),
            linewidth=1,
            label=f"selected: epoch {selected_epoch}",
            zorder=1,
        )
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
        axes.xaxis.set_major_locator(
            MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10])
        )
        axes.grid(axis="y", linewidth=0.6)
    # Above the panels, where it covers no curve. Either panel may lack a curve.
    legend = {
        label: handle
        for axes in (loss, accuracy)
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        legend.values(), legend.keys(), loc="outside upper left", ncols=len(legend)
    )
    return figure


def _draw_curve(
    axes: Axes,
    history: Sequence[Mapping[str, Any]],
    key: str,
    label: str,
    color: str,
    scale: float = 1,
) -> None:
    """Draws one measure of the epochs that have it."""
    points = [
        (epoch["epoch"], epoch[key] * scale)
        for epoch in history
        if epoch.get(key) is not None
    ]
    if points:
        # A line through a single point is invisible.
        marker = "o" if len(points) == 1 else None
        axes.plot(*zip(*points, strict=True), color=color, label=label, marker=marker)


@mpl.rc_context(_STYLE)
def timelines(
    clips: Sequence[TimelineClip], categories: Sequence[str], segment_s: float = 1.0
) -> Figure:
    """Draws what is true of clips and what systems predict, over time.

    In the manner of Fig. 3 of Lin et al.: one group of rows a clip, the truth above
    every prediction; a bar an event, with the name of its category. Beside a prediction
    stands how many of its segments are right. A legend names the categories whose name
    a bar was too short for. A system's name that is too long loses its middle.

    Args:
        clips: The clips, from top to bottom.
        categories: Names of the categories; the class after the last is background.
        segment_s: Length of a segment in seconds.

    Returns:
        A figure that grows with the number of rows.

    Raises:
        ValueError: If there is no clip.
    """
    if not clips:
        raise ValueError("Expected at least one clip. Received: none")
    names = {"truth"}.union(*(clip.predictions for clip in clips))
    shown = {name: _fit_name(name) for name in names}
    left_in = max(_text_width_in(name, _NAME_FONT_PT) for name in shown.values()) + 0.15
    width_in = _TIMELINE_WIDTH_IN - left_in - 0.6
    duration_s = max(len(clip.truth) for clip in clips) * segment_s
    inches_per_s = width_in / duration_s
    groups = []
    for clip in clips:
        rows = [np.asarray(clip.truth), *map(np.asarray, clip.predictions.values())]
        groups.append(
            [_event_bars(row, categories, segment_s, inches_per_s) for row in rows]
        )
    shortened = {
        bar.category
        for group in groups
        for bars in group
        for bar in bars
        if bar.text != categories[bar.category]
    }
    colors = category_colors(len(categories))
    legend = [Patch(color=TRACK, label="background")] + [
        Patch(color=colors[category], label=categories[category])
        for category in sorted(shortened)
    ]
    widest_in = max(_text_width_in(patch.get_label(), 8) for patch in legend) + 0.6
    columns = max(1, int(width_in // widest_in))
    foot_in = 0.55 + 0.2 * -(-len(legend) // columns)
    heights_in = [_ROW_IN * len(group) for group in groups]
    height_in = sum(heights_in) + len(groups) * _TITLE_IN + foot_in

    figure = Figure(figsize=(_TIMELINE_WIDTH_IN, height_in))
    bottom_in = height_in
    for clip, group, group_in in zip(clips, groups, heights_in, strict=True):
        bottom_in -= _TITLE_IN + group_in
        axes = figure.add_axes(
            (
                left_in / _TIMELINE_WIDTH_IN,
                bottom_in / height_in,
                width_in / _TIMELINE_WIDTH_IN,
                group_in / height_in,
            )
        )
        axes.set_title(clip.title, pad=3)
        axes.set_xlim(0, duration_s)
        axes.set_ylim(len(group) - 0.5, -0.5)
        axes.set_yticks(
            range(len(group)), [shown[name] for name in ("truth", *clip.predictions)]
        )
        axes.tick_params(length=0, labelbottom=clip is clips[-1])
        axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
        axes.spines[:].set_visible(False)
        clip_s = len(clip.truth) * segment_s
        for row, bars in enumerate(group):
            axes.barh(row, clip_s, height=0.8, color=TRACK)
            for bar in bars:
                axes.barh(
                    row,
                    bar.length_s,
                    left=bar.start_s,
                    height=0.8,
                    color=colors[bar.category],
                )
                axes.text(
                    bar.start_s + bar.length_s / 2,
                    row,
                    bar.text,
                    color=ON_BAR,
                    fontsize=_BAR_FONT_PT,
                    ha="center",
                    va="center_baseline",
                )
        for row, predicted in enumerate(clip.predictions.values(), start=1):
            right = (np.asarray(predicted) == clip.truth).sum()
            axes.text(
                clip_s + 0.08 / inches_per_s,
                row,
                f"{right}/{len(clip.truth)}",
                color=MUTED,
                fontsize=8,
                va="center_baseline",
            )
        # Faint seams let a reader count segments without breaking up the events.
        seams = np.arange(1, len(clip.truth)) * segment_s
        axes.vlines(
            seams, -0.4, len(group) - 0.6, colors=ON_BAR, alpha=0.1, linewidth=0.6
        )
    axes.set_xlabel("time (s)")
    figure.legend(
        handles=legend,
        loc="lower left",
        bbox_to_anchor=((left_in - 0.05) / _TIMELINE_WIDTH_IN, 0.04 / height_in),
        ncols=columns,
        fontsize=8,
        borderpad=0,
        borderaxespad=0,
        handlelength=1.2,
        handleheight=0.9,
    )
    return figure


_TIMELINE_WIDTH_IN = 9.0
_ROW_IN = 0.26
_TITLE_IN = 0.38
_BAR_FONT_PT = 8
_NAME_FONT_PT = 9
_WIDEST_NAME_IN = 3.5


@mpl.rc_context(_STYLE)
def prediction(found: VideoPrediction) -> Figure:
    """Draws what a network says of one video: events above, probabilities below.

    Args:
        found: What it says.

    Returns:
        A figure of two panels over the video's time, with a curve for every category
        that is an event somewhere, and one for background.
    """
    events = found.events
    names = [name for name in found.categories if name in {e.category for e in events}]
    colors = dict(
        zip(found.categories, category_colors(len(found.categories)), strict=True)
    )
    lanes_in = 0.3 * max(1, len(names))
    figure = Figure(figsize=(_TIMELINE_WIDTH_IN, 2.9 + lanes_in), layout="constrained")
    lanes, curves = figure.subplots(
        2, sharex=True, gridspec_kw={"height_ratios": [lanes_in, 2.0]}
    )
    for lane, name in enumerate(names):
        bars = [(e.start_s, e.end_s - e.start_s) for e in events if e.category == name]
        lanes.broken_barh(bars, (lane - 0.4, 0.8), color=colors[name])
    lanes.set_yticks(range(len(names)), names)
    lanes.set_ylim(max(1, len(names)) - 0.5, -0.5)
    lanes.set_title(found.name, loc="left")
    lanes.tick_params(length=0)
    if not names:
        lanes.text(
            0.5, 0.5, "no event", transform=lanes.transAxes, ha="center", va="center"
        )
    segments = np.arange(len(found.probabilities))
    middles_s = found.start_s + (segments + 0.5) * found.segment_s
    drawn = {}
    for index, name in enumerate(found.classes):
        if name in names or index == len(found.categories):
            (drawn[name],) = curves.plot(
                middles_s,
                100 * found.probabilities[:, index],
                color=colors.get(name, MUTED),
                linestyle="-" if name in names else "--",
                marker="o",
                markersize=2,
            )
    curves.set_xlim(found.start_s, found.end_s)
    curves.set_ylim(0, 102)
    curves.set_xlabel("seconds")
    curves.set_ylabel("probability (%)")
    curves.grid(axis="y", linewidth=0.6)
    # Left to itself, the legend leaves out what begins with an underscore.
    figure.legend(drawn.values(), drawn.keys(), loc="outside lower left", ncols=3)
    return figure


class _Bar(NamedTuple):
    """One event as the figure draws it."""

    start_s: float
    length_s: float
    category: int
    text: str


def _event_bars(
    classes: np.ndarray,
    categories: Sequence[str],
    segment_s: float,
    inches_per_s: float,
) -> list[_Bar]:
    """Returns the events of one row `(num_segments,)`, each with what fits on it."""
    numbers = number_events(classes[np.newaxis], background=len(categories))[0]
    bars = []
    for number in range(numbers.max(initial=-1) + 1):
        segments = np.flatnonzero(numbers == number)
        category = int(classes[segments[0]])
        length_s = len(segments) * segment_s
        text = _fit_text(categories[category], length_s * inches_per_s - 0.08)
        bars.append(_Bar(segments[0] * segment_s, length_s, category, text))
    return bars


def _fit_text(name: str, width_in: float) -> str:
    """Shortens a name to a width: to its first part, then letter by letter.

    The first part ends before a comma or a parenthesis. Less than three letters tell
    nothing: then there is no text at all.
    """
    head = re.split(r",| \(", name)[0]
    shorter = [f"{head[:length].rstrip()}…" for length in range(len(head) - 1, 2, -1)]
    for text in (name, head, *shorter):
        if _text_width_in(text, _BAR_FONT_PT) <= width_in:
            return text
    return ""


def _fit_name(name: str) -> str:
    """Returns a name that a timeline has place for, without its middle if need be."""
    shorter = (f"{name[:n]}…{name[-n:]}" for n in range(len(name) // 2, 0, -1))
    return next(
        text
        for text in (name, *shorter)
        if _text_width_in(text, _NAME_FONT_PT) <= _WIDEST_NAME_IN
    )


def _text_width_in(text: str, size_pt: float) -> float:
    """Returns how wide a text is drawn, in inches."""
    font = FontProperties(family="DejaVu Sans", size=size_pt)
    with unknown_glyphs():
        width_pt, _, _ = TextToPath().get_text_width_height_descent(text, font, False)
    return width_pt / 72


@mpl.rc_context(_STYLE)
def confusion(matrix: np.ndarray, categories: Sequence[str]) -> Figure:
    """Draws a confusion matrix, each row as percentages of the class's true segments.

    Args:
        matrix: Segment counts, `(K + 1, K + 1)`: true classes in rows, predicted ones
            in columns, background last.
        categories: Names of the K categories.

    Returns:
        A figure with the percentage written into every cell that rounds to 1 or more.
        A class without a true segment has an empty row.

    Raises:
        ValueError: If the matrix does not fit the categories.
    """
    matrix = np.asarray(matrix)
    names = [*categories, "Background"]
    num_classes = len(names)
    if matrix.shape != (num_classes, num_classes):
        raise ValueError(
            f"Expected a matrix of shape {(num_classes, num_classes)}. "
            f"Received: {matrix.shape}"
        )
    totals = matrix.sum(axis=1)
    fractions = matrix / np.maximum(totals, 1)[:, np.newaxis]
    row_names = [f"{name} ({total})" for name, total in zip(names, totals, strict=True)]
    top_in = max(_text_width_in(name, 8) for name in names) + 0.4
    left_in = max(_text_width_in(name, 8) for name in row_names) + 0.4
    cells_in = max(2.0, 0.27 * num_classes)
    width_in, height_in = left_in + cells_in + 0.1, top_in + cells_in + 0.1
    figure = Figure(figsize=(width_in, height_in))
    axes = figure.add_axes(
        (
            left_in / width_in,
            0.1 / height_in,
            cells_in / width_in,
            cells_in / height_in,
        )
    )
    axes.set_xlim(-0.5, num_classes - 0.5)
    axes.set_ylim(num_classes - 0.5, -0.5)
    axes.spines[:].set_visible(True)
    for true, predicted in zip(*np.nonzero(fractions), strict=True):
        fraction = fractions[true, predicted]
        # Opacity, not a colour map: what is zero has the colour of the page behind it.
        cell = (predicted - 0.5, true - 0.5)
        axes.add_patch(Rectangle(cell, 1, 1, color=CELL, alpha=fraction, linewidth=0))
        if round(100 * fraction) >= 1:
            axes.text(
                predicted,
                true,
                f"{100 * fraction:.0f}",
                color=ON_CELL if fraction > 0.75 else INK,
                fontsize=7,
                ha="center",
                va="center_baseline",
            )
    ticks = range(num_classes)
    axes.set_xticks(ticks, names, rotation=90)
    axes.set_yticks(ticks, row_names)
    axes.tick_params(
        length=0, labelsize=8, top=True, labeltop=True, bottom=False, labelbottom=False
    )
    # Lines between classes lead the eye from a name to its cells.
    axes.set_xticks(np.arange(0.5, num_classes - 1), minor=True)
    axes.set_yticks(np.arange(0.5, num_classes - 1), minor=True)
    axes.tick_params(which="minor", length=0)
    axes.grid(which="minor", linewidth=0.4)
    axes.set_axisbelow(True)
    axes.set_xlabel("predicted class (% of row)")
    axes.xaxis.set_label_position("top")
    axes.set_ylabel("true class (segments)")
    return figure


@mpl.rc_context(_STYLE)
def ratio_bars(
    panels: Sequence[tuple[str, Sequence[tuple[str, float, str]]]],
) -> Figure:
    """Draws how many times as good as a baseline programs are.

    Args:
        panels: Pairs of a title and its bars: the program, its ratio to the baseline,
            which is the first one, and what it reached, as text.

    Returns:
        A figure with a panel below the other.
    """
    heights = [1 + len(bars) for _, bars in panels]
    figure = Figure(figsize=(8, 0.3 * sum(heights) + 0.3), layout="constrained")
    all_axes = figure.subplots(len(panels), squeeze=False, height_ratios=heights)
    for axes, (title, bars) in zip(all_axes[:, 0], panels, strict=True):
        names, ratios, texts = zip(*bars, strict=True)
        places = range(len(bars))
        # As grey as the baseline are its variants: its name, a comma, and what differs.
        programs = [name.split(",")[0] for name in names]
        colors = [LINES if name == programs[0] else VALIDATION for name in programs]
        drawn = axes.barh(places, ratios, color=colors, height=0.7)
        axes.bar_label(
            drawn,
            [
                f"{ratio:.2f}   {text}"
                for ratio, text in zip(ratios, texts, strict=True)
            ],
            padding=4,
            color=INK,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )
        axes.axvline(1, color=MUTED, linewidth=0.8, zorder=0)
        axes.set_yticks(places, names)
        axes.tick_params(axis="y", labelcolor=INK, length=0)
        axes.invert_yaxis()
        axes.set_xticks([])
        axes.set_xlim(0, 1.6 * max(ratios))
        axes.spines[["bottom"]].set_visible(False)
        # Beside the names, a long one would leave the figure.
        axes.set_title(textwrap.fill(title, 64))
    return figure
