"""The figure of a benchmark: every program's ratio to the baseline."""

import textwrap
from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.figure import Figure

from avsdn_tf.report.figures import INK, LINES, MUTED, STYLE, VALIDATION


@mpl.rc_context(STYLE)
def ratio_bars(
    panels: Sequence[tuple[str, Sequence[tuple[str, float, str]]]],
) -> Figure:
    """Draw how many times as good as a baseline programs are.

    Args:
        panels: Pairs of a title and its bars: the program, its ratio to the baseline
            (the first bar), and what it reached, as text.

    Returns:
        A figure with the panels below each other.
    """
    heights = [1 + len(bars) for _, bars in panels]
    figure = Figure(figsize=(8, 0.3 * sum(heights) + 0.3), layout="constrained")
    all_axes = figure.subplots(len(panels), squeeze=False, height_ratios=heights)
    for axes, (title, bars) in zip(all_axes[:, 0], panels, strict=True):
        names, ratios, texts = zip(*bars, strict=True)
        # Variants of the baseline, named "BASELINE, VARIANT", share its grey.
        programs = [name.split(",")[0] for name in names]
        colors = [LINES if name == programs[0] else VALIDATION for name in programs]
        drawn = axes.barh(range(len(bars)), ratios, color=colors, height=0.7)
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
        axes.set_yticks(range(len(bars)), names)
        axes.tick_params(axis="y", labelcolor=INK, length=0)
        axes.invert_yaxis()
        axes.set_xticks([])
        axes.set_xlim(0, 1.6 * max(ratios))
        axes.spines[["bottom"]].set_visible(False)
        # Beside the names, a long title would leave the figure.
        axes.set_title(textwrap.fill(title, 64))
    return figure
