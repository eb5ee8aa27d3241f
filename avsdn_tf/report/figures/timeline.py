"""Draw timelines of chosen clips with one class per segment."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Patch
from matplotlib.textpath import TextToPath
from matplotlib.ticker import MaxNLocator

from avsdn_tf.evaluation import partial_clips
from avsdn_tf.events import event_spans
from avsdn_tf.report.figures.output import (
    MUTED,
    STYLE,
    TRACK,
    category_colors,
    label_of,
    unknown_glyphs,
)
from avsdn_tf.text import short_name

CHOICE_RULE = (
    "Clips that hold both event and background (all clips if those are too few), "
    "sorted by accuracy and chosen at equal steps, from best to worst."
)

# Bars and their text have the same colours in light and dark pages.
_ON_BAR = "#15181c"
_TRACK_IN = 8.0
_ROW_IN = 0.26
_TITLE_ROWS = 0.75
_GAP_ROWS = 0.7
_FONT_PT = 8
# Limits of a readable figure.
_MAX_SEGMENTS = 1200
_MAX_ENTRIES = 24


@dataclass(frozen=True, eq=False)
class TimelineClip:
    """A clip to draw.

    Attributes:
        title: Title above the rows.
        truth: True classes, `(num_segments,)`; -1 marks padding, which is not drawn.
        predictions: Predicted classes, `(num_segments,)`, by name of the system.
    """

    title: str
    truth: np.ndarray
    predictions: Mapping[str, np.ndarray]


def choose_clips(
    labels: np.ndarray, predicted: np.ndarray, background: int, count: int
) -> list[int]:
    """Choose at most `count` clips by `CHOICE_RULE`, deterministically.

    Args:
        labels: True classes, `(num_clips, num_segments)`; -1 marks padding.
        predicted: Predicted classes, `(num_clips, num_segments)`.
        background: Class of background.
        count: Number of clips.

    Returns:
        Indices of clips, in descending order of accuracy.
    """
    is_real = labels >= 0
    num_correct = (is_real & (labels == predicted)).sum(axis=1)
    accuracy = num_correct / np.maximum(is_real.sum(axis=1), 1)
    return choose_evenly(accuracy, partial_clips(labels, background), count)


def choose_evenly(
    scores: np.ndarray, is_candidate: np.ndarray, count: int
) -> list[int]:
    """Choose at most `count` indices at equal steps from the best score to the worst.

    Args:
        scores: `(num_clips,)`.
        is_candidate: Boolean `(num_clips,)`, True for clips to choose from. If fewer
            than `count` are True, all clips are candidates.
        count: Number of indices.
    """
    candidates = np.flatnonzero(is_candidate)
    if len(candidates) < count:
        candidates = np.arange(len(scores))
    best_first = candidates[np.argsort(-scores[candidates], kind="stable")]
    count = min(count, len(candidates))
    steps = np.linspace(0, len(candidates) - 1, count).round().astype(int)
    return best_first[steps].tolist()


@mpl.rc_context(STYLE)
def timelines(
    clips: Sequence[TimelineClip], categories: Sequence[str], segment_s: float = 1.0
) -> Figure:
    """Draw the true and the predicted events of clips over time.

    As in Fig. 3 of Lin et al., each clip has a row for the truth and a row per system,
    with a bar per event. Rows of systems end with the number of correct segments, and a
    legend lists categories whose names don't fit their bars.

    Raises:
        ValueError: If there is no clip.
    """
    if not clips:
        raise ValueError("Expected at least one clip. Received: none")
    longest = max(np.sum(np.asarray(clip.truth) >= 0) for clip in clips)
    num_rows = (
        sum(_TITLE_ROWS + 1 + len(clip.predictions) + _GAP_ROWS for clip in clips)
        - _GAP_ROWS
    )
    height_in = num_rows * _ROW_IN
    figure = Figure(figsize=(_TRACK_IN, height_in))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, longest * segment_s)
    axes.set_ylim(num_rows, 0)
    ticks: list[tuple[float, str]] = []
    shortened: set[int] = set()
    top = 0.0
    for clip in clips:
        top += _TITLE_ROWS
        shortened |= _draw_clip(axes, top, clip, categories, segment_s)
        for name in ("truth", *clip.predictions):
            ticks.append((top + 0.5, label_of(name)))
            top += 1
        top += _GAP_ROWS
    axes.set_yticks(*zip(*ticks, strict=True))
    axes.tick_params(length=0)
    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    axes.spines[:].set_visible(False)
    axes.set_xlabel("time (s)")
    _draw_legend(axes, categories, sorted(shortened), height_in)
    return figure


def _draw_clip(
    axes: Axes,
    top: float,
    clip: TimelineClip,
    categories: Sequence[str],
    segment_s: float,
) -> set[int]:
    """Draw the rows of one clip; return the categories whose names were shortened."""
    axes.text(0, top - 0.15, short_name(clip.title), size=10, va="baseline")
    truth = np.asarray(clip.truth)
    is_real = truth >= 0
    truth = truth[is_real]
    end_s = len(truth) * segment_s
    shortened = _draw_row(axes, top + 0.5, truth, categories, segment_s)
    for row, predicted in enumerate(map(np.asarray, clip.predictions.values()), 1):
        y, predicted = top + row + 0.5, predicted[is_real]
        shortened |= _draw_row(axes, y, predicted, categories, segment_s)
        axes.annotate(
            f"{(predicted == truth).sum()}/{len(truth)}",
            (end_s, y),
            xytext=(6, 0),
            textcoords="offset points",
            color=MUTED,
            size=_FONT_PT,
            va="center_baseline",
            annotation_clip=False,
        )
    # Faint lines between segments, unless the lines would be too dense.
    bottom = top + 1 + len(clip.predictions)
    seams = np.arange(1, len(truth)) * segment_s
    if len(truth) > _MAX_SEGMENTS // 10:
        seams = seams[:0]
    axes.vlines(
        seams, top + 0.1, bottom - 0.1, colors=_ON_BAR, alpha=0.1, linewidth=0.6
    )
    return shortened


def _draw_row(
    axes: Axes,
    y: float,
    classes: np.ndarray,
    categories: Sequence[str],
    segment_s: float,
) -> set[int]:
    """Draw the events of one row; return the categories whose names were shortened."""
    colors = category_colors(len(categories))
    inches_per_s = _TRACK_IN / axes.get_xlim()[1]
    axes.barh(y, len(classes) * segment_s, height=0.8, color=TRACK)
    shortened = set()
    # Subsample: bars narrower than a pixel take long to draw.
    step = -(-len(classes) // _MAX_SEGMENTS)
    classes, segment_s = classes[::step], segment_s * step
    for first, end in event_spans(classes, background=len(categories)):
        category = int(classes[first])
        start_s, length_s = first * segment_s, (end - first) * segment_s
        name = short_name(categories[category])
        text = _fit_text(name, length_s * inches_per_s - 0.08)
        axes.barh(y, length_s, left=start_s, height=0.8, color=colors[category])
        if text != categories[category]:
            shortened.add(category)
        if text:
            axes.text(
                start_s + length_s / 2,
                y,
                text,
                color=_ON_BAR,
                size=_FONT_PT,
                ha="center",
                va="center_baseline",
            )
    return shortened


def _draw_legend(
    axes: Axes, categories: Sequence[str], shown: Sequence[int], height_in: float
) -> None:
    """Draw a legend below the time axis: background, and the categories in `shown`."""
    colors = category_colors(len(categories))
    handles = [Patch(color=TRACK, label="background")]
    handles += [
        Patch(color=colors[i], label=label_of(categories[i]))
        for i in shown[:_MAX_ENTRIES]
    ]
    if len(shown) > _MAX_ENTRIES:
        text = f"and {len(shown) - _MAX_ENTRIES} more categories"
        handles.append(Patch(alpha=0, label=text))
    widest_in = max(_text_width_in(patch.get_label()) for patch in handles) + 0.6
    axes.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(0, -0.5 / height_in),
        ncols=max(1, int(_TRACK_IN // widest_in)),
        fontsize=_FONT_PT,
        borderpad=0,
        borderaxespad=0,
        handlelength=1.2,
        handleheight=0.9,
    )


def _fit_text(name: str, width_in: float) -> str:
    """Shorten a name to a width; return "" if not even three letters fit."""
    if width_in <= 0:
        return ""
    head = re.split(r",| \(", name)[0]
    shorter = [f"{head[:length].rstrip()}…" for length in range(len(head) - 1, 2, -1)]
    fitting = (t for t in (name, head, *shorter) if _text_width_in(t) <= width_in)
    return next(fitting, "")


def _text_width_in(text: str) -> float:
    """Return the width of a text in the bars' font, in inches."""
    font = FontProperties(family="DejaVu Sans", size=_FONT_PT)
    with unknown_glyphs():
        width_pt, _, _ = TextToPath().get_text_width_height_descent(text, font, False)
    return width_pt / 72
