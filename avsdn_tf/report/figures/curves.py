"""Learning curves: loss and accuracy over the epochs."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from avsdn_tf.report.figures.style import MUTED, STYLE, TRAINING, VALIDATION


@mpl.rc_context(STYLE)
def learning_curves(
    history: Sequence[Mapping[str, Any]], selected_epoch: int
) -> Figure:
    """Draw loss and accuracy over the epochs, with the selected epoch marked.

    `history` has one dictionary per epoch, with `epoch`, and any of `loss`, `accuracy`
    and `validation_accuracy` (fractions of 1).
    """
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    _draw_curve(loss, history, "loss", "training", TRAINING, 1)
    _draw_curve(accuracy, history, "accuracy", "training", TRAINING, 100)
    _draw_curve(accuracy, history, "validation_accuracy", "validation", VALIDATION, 100)
    handles = {}
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
        # Either panel may lack a curve.
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            handles[name] = handle
    # Above the panels, where the legend covers no curve.
    figure.legend(
        handles.values(), handles.keys(), loc="outside upper left", ncols=len(handles)
    )
    return figure


def _draw_curve(
    axes: Axes,
    history: Sequence[Mapping[str, Any]],
    key: str,
    label: str,
    color: str,
    scale: float,
) -> None:
    """Draw one metric over the epochs that have it."""
    points = [
        (epoch["epoch"], epoch[key] * scale)
        for epoch in history
        if epoch.get(key) is not None
    ]
    if points:
        # A line through a single point is invisible.
        marker = "o" if len(points) == 1 else None
        axes.plot(*zip(*points, strict=True), color=color, label=label, marker=marker)
