"""Draw the learning curves and the confusion of a run."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from avsdn_tf.report.figures.output import INK, MUTED, STYLE, TRAINING, VALIDATION
from avsdn_tf.text import short_name

_CELL = "#1a56c4"
_ON_CELL = "#ffffff"
_LONGEST_NAME = 40


@mpl.rc_context(STYLE)
def learning_curves(
    history: Sequence[Mapping[str, Any]],
    selected_epoch: int,
    selection: str = "validation_accuracy",
) -> Figure:
    """Draw loss and accuracy over the epochs, and mark the selected epoch.

    Args:
        history: One dictionary per epoch, with `epoch` and any of `loss`, `accuracy`
            and the validation score. Accuracy and score are in [0, 1].
        selected_epoch: The selected epoch.
        selection: Name of the validation score.
    """
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    _draw_curve(loss, history, "loss", "training", TRAINING, 1)
    _draw_curve(accuracy, history, "accuracy", "training", TRAINING, 100)
    is_accuracy = selection == "validation_accuracy"
    label = "validation" if is_accuracy else "validation F1"
    _draw_curve(accuracy, history, selection, label, VALIDATION, 100)
    handles = {}
    score = "accuracy (%)" if is_accuracy else "accuracy, validation F1 (%)"
    for axes, label in ((loss, "loss"), (accuracy, score)):
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
        # The dictionary keeps one entry for the selected epoch, which both panels mark.
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            handles[name] = handle
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
    """Draw a metric over the epochs that have it."""
    points = [
        (epoch["epoch"], epoch[key] * scale)
        for epoch in history
        if epoch.get(key) is not None
    ]
    if points:
        # A line through a single point is invisible.
        marker = "o" if len(points) == 1 else None
        axes.plot(*zip(*points, strict=True), color=color, label=label, marker=marker)


@mpl.rc_context(STYLE)
def confusion(matrix: np.ndarray, categories: Sequence[str]) -> Figure:
    """Draw a confusion matrix in percent of each class's true segments.

    Args:
        matrix: Numbers of segments, `(K + 1, K + 1)`: true classes in rows, predicted
            classes in columns, background last.
        categories: Names of the K categories.

    Raises:
        ValueError: If the matrix has another shape.
    """
    matrix = np.asarray(matrix)
    names = [short_name(name, _LONGEST_NAME) for name in (*categories, "Background")]
    num_classes = len(names)
    if matrix.shape != (num_classes, num_classes):
        raise ValueError(
            f"Expected a matrix of shape {(num_classes, num_classes)}. "
            f"Received: {matrix.shape}"
        )
    totals = matrix.sum(axis=1)
    fractions = matrix / np.maximum(totals, 1)[:, np.newaxis]
    # The size excludes the class names: saving extends the figure to include them.
    size_in = max(2.0, 0.27 * num_classes)
    figure = Figure(figsize=(size_in, size_in))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(-0.5, num_classes - 0.5)
    axes.set_ylim(num_classes - 0.5, -0.5)
    axes.spines[:].set_visible(True)
    _draw_cells(axes, fractions)
    ticks = range(num_classes)
    axes.set_xticks(ticks, names, rotation=90)
    axes.set_yticks(
        ticks, [f"{name} ({total})" for name, total in zip(names, totals, strict=True)]
    )
    axes.tick_params(
        length=0, labelsize=8, top=True, labeltop=True, bottom=False, labelbottom=False
    )
    # Minor ticks draw the grid lines between classes.
    axes.set_xticks(np.arange(0.5, num_classes - 1), minor=True)
    axes.set_yticks(np.arange(0.5, num_classes - 1), minor=True)
    axes.tick_params(which="minor", length=0)
    axes.grid(which="minor", linewidth=0.4)
    axes.set_axisbelow(True)
    axes.set_xlabel("predicted class (% of row)")
    axes.xaxis.set_label_position("top")
    axes.set_ylabel("true class (segments)")
    return figure


@mpl.rc_context(STYLE)
def most_confused(pairs: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw the most confused pairs of classes, where a matrix would be too large.

    `pairs` is the result of `evaluation.most_confused`.
    """
    figure = Figure(figsize=(9, 0.8 + 0.27 * max(1, len(pairs))), layout="constrained")
    axes = figure.subplots()
    names = []
    for row, pair in enumerate(pairs):
        true, predicted = (
            short_name(pair[key], _LONGEST_NAME) for key in ("category", "predicted")
        )
        names.append(f"{true} → {predicted}")
        axes.barh(row, pair["segments"], height=0.7, color=_CELL)
        fraction = pair["segments"] / pair["of"]
        axes.annotate(
            f"{100 * fraction:.0f} % of {pair['of']}",
            (pair["segments"], row),
            xytext=(4, 0),
            textcoords="offset points",
            color=MUTED,
            fontsize=7,
            va="center_baseline",
        )
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(max(1, len(names)) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0, labelsize=8)
    axes.margins(x=0.12)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("segments" if names else "segments: none was given a wrong class")
    return figure


def _draw_cells(axes: Axes, fractions: np.ndarray) -> None:
    """Draw a square for each fraction above 0, and its percentage if at least 1."""
    for true, predicted in zip(*np.nonzero(fractions), strict=True):
        fraction = fractions[true, predicted]
        # Use opacity instead of a colour map, so that cells suit dark pages.
        cell = (predicted - 0.5, true - 0.5)
        axes.add_patch(Rectangle(cell, 1, 1, color=_CELL, alpha=fraction, linewidth=0))
        if round(100 * fraction) >= 1:
            axes.text(
                predicted,
                true,
                f"{100 * fraction:.0f}",
                color=_ON_CELL if fraction > 0.75 else INK,
                fontsize=7,
                ha="center",
                va="center_baseline",
            )
