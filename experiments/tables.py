"""A filled table as Markdown, CSV and a figure."""

import csv
import io
import itertools
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from avsdn_tf.report.figures import LINES, MUTED
from avsdn_tf.text import csv_cell
from avsdn_tf.training.config import CROSS_MODAL
from experiments.markdown import to_table
from experiments.published import HEADS, LABELS, STEPWISE

_COLUMNS = {
    "system": "system",
    "features": "features",
    "training_labels": "labels",
    "recipe": "recipe",
    "paper": "paper (AVE)",
    "reported": "by others (AVE)",
    "accuracy": "ours",
    "interval": "95 % interval",
    "gain": "gain",
    "avsdn_minus": "AVSDN minus it",
    "best_minus": "best minus it",
    "partial_clip_accuracy": "partial clips",
    "background_recall": "background recall",
    "event_f1": "event F1",
    "validation_accuracy": "validation",
    "seeds": "seeds",
    "seconds": "s a run",
    "peak_bytes": "peak GB",
    "parameters": "parameters",
    "macs": "MACs a clip",
}
# How the numbers of a column that holds no percentages are written.
_UNITS = {
    "seconds": lambda value: f"{value:.0f}",
    "peak_bytes": lambda value: f"{value / 1e9:.1f}",
    "parameters": lambda value: f"{value / 1e6:.2f} M",
    "macs": lambda value: f"{value / 1e6:.0f} M",
}
# By whether the task is AVDLN's.
_TASKS = {False: "labelling segments", True: "finding the start"}
_RECIPES = {
    "paper": ("#2f6fde", "paper recipe"),
    "step": ("#8250df", "a step between them"),
    "best": ("#1a7f37", "best recipe"),
}
_PAPER_COLOR = "#9a6700"
_DASHES = ((4, 3), (1, 2), (7, 3, 1, 3), (8, 4), (4, 2, 1, 2, 1, 2))

Trivial = Mapping[bool, Mapping[str, float]]


def to_markdown(
    title: str,
    disclaimer: str | None,
    command: str,
    lines: Sequence[Mapping[str, Any]],
    trivial: Trivial,
    origins: Sequence[str],
) -> str:
    """Return the table as Markdown.

    Args:
        title: Its title.
        disclaimer: What must be said of the data, or None.
        command: The command that fills it.
        lines: What `summary.summarize` returns.
        trivial: What `summary.trivial_scores` returns.
        origins: Sentences on where the runs were trained.
    """
    rows = [_cells(line) for line in lines]
    for is_cross_modal, scores in trivial.items():
        task = f", {_TASKS[is_cross_modal]}" if len(trivial) > 1 else ""
        for name, value in scores.items():
            system = f"trivial{task}: {name.replace('_', ' ')}"
            rows.append({"system": system, "accuracy": percent(value)})
    # Columns that are empty in this table are left out.
    shown = [name for name in _COLUMNS if any(row.get(name) for row in rows)]
    text = [f"# {title}", ""]
    if disclaimer:
        text += [f"**{disclaimer}.**", ""]
    text += ["```console", command, "```", ""]
    text += [" ".join(_notes(lines, shown)), ""]
    cells = [[row.get(name, "") for name in shown] for row in [_COLUMNS, *rows]]
    text += to_table(cells, num_left=shown.index("recipe") + 1)
    failed = [
        f"- {line['system']} ({line['features']}), {line['recipe']}: {line['note']}"
        for line in lines
        if line["failed_seeds"]
    ]
    if failed:
        text += ["", "Failed:", "", *failed]
    text += ["", *(f"- {origin}" for origin in origins)]
    return "\n".join(text) + "\n"


def _cells(line: Mapping[str, Any]) -> dict[str, str]:
    """Return the cells of a line, by the names of their columns."""
    cells = {
        "system": line["system"],
        "features": line["features"],
        "training_labels": line["training_labels"] or "",
        "recipe": line["recipe"],
        "paper": percent(line["paper"]),
        "reported": percent(line["reported"]),
        "accuracy": "failed" if line["failed_seeds"] else line["note"],
        "seeds": str(line["seeds"]),
    }
    if line["failed_seeds"]:
        cells["seeds"] += f" (failed: {line['failed_seeds']})"
    if "accuracy" not in line:
        return cells
    for name in _COLUMNS:
        if name not in cells:
            value = line.get(name)
            write = _UNITS.get(name, percent)
            cells[name] = "" if value is None else write(value)
    cells["accuracy"] = percent(line["accuracy"])
    if line["deviation"] is not None:
        cells["accuracy"] += f" ± {100 * line['deviation']:.1f}"
    low, high = line["interval_low"], line["interval_high"]
    cells["interval"] = f"{100 * low:.1f} to {100 * high:.1f}"
    for name in ("gain", "avsdn_minus", "best_minus"):
        if name in line:
            low, high = line[f"{name}_low"], line[f"{name}_high"]
            spread = f"({100 * low:.1f} to {100 * high:.1f})"
            cells[name] = f"{100 * line[name]:+.1f} {spread}"
    return cells


def to_line(line: Mapping[str, Any]) -> str:
    """Return a line of the table for the terminal."""
    cells = _cells(line)
    ours = cells["accuracy"]
    if line["failed_seeds"]:
        ours += f", {line['note']}"
    paper = f"paper {cells['paper']}" if cells["paper"] else ""
    system = f"{line['system']:32} {line['features']:12} {line['recipe']:6}"
    return f"{system} {paper:13} ours {ours}"


def percent(value: float | None) -> str:
    """Return a fraction in percent, or `""`."""
    return "" if value is None else f"{100 * value:.1f}"


def _notes(lines: Sequence[Mapping[str, Any]], shown: Sequence[str]) -> list[str]:
    """Return the sentences that explain the columns."""
    modes = {line["mode"] for line in lines}
    several = any(line["seeds"] > 1 for line in lines)
    notes = [
        "Accuracy in % of the test split: "
        + ("mean and standard deviation over the seeds" if several else "one seed")
        + ", 95 % interval by bootstrap over clips. Selected on validation."
    ]
    if "gain" in shown:
        notes.append(
            "Gain: over the row before, on the same clips."
            if lines[0]["table"] in STEPWISE
            else "Gain: over the same system with the paper's recipe, same clips."
        )
    if "avsdn_minus" in shown:
        notes.append("AVSDN minus it: with the same recipe, on the same clips.")
    if "best_minus" in shown:
        notes.append("Best minus it: the most accurate row, on the same clips.")
    if "reported" in shown:
        notes.append(
            "By others: with the system's program; the papers' own figures of CMRAN, "
            "PSP, CMBS and CACE-Net are selected on the test split."
        )
    if "macs" in shown:
        notes.append(
            "Peak: largest of the trainings' processes. MACs: multiplications of "
            "matrices that a prediction takes."
        )
    if "event_f1" in shown:
        notes.append(
            "Partial clips: accuracy in the clips that are only partly event. "
            "Background recall: of the true background segments, how many are found. "
            "Event F1: whole events, at IoU 0.5."
        )
    if CROSS_MODAL in modes:
        notes.append(
            "AVDLN: of the test clips with one event, in how many it is found exactly "
            "where it starts; its validation figure is the mean of A2V and V2A."
        )
    if len({line["training_labels"] for line in lines}) > 1 and "weak" in modes:
        notes.append(
            "Labels: AVSDN's paper trains on the mean of the segment labels "
            "(`average`), which tells how long the event lasts; AVEL trains on the "
            "event's category and on background clips (`mil_background`)."
        )
        if lines[0]["table"] in HEADS:
            notes.append(
                "PSP trains on the mean and on background clips "
                "(`average_background`), the others as AVEL."
            )
        elif lines[0]["table"] != LABELS:
            notes.append(
                "So AVSDN is compared on unequal labels here; `python -m "
                "experiments.run labels` compares it on equal ones."
            )
    notes.append(_limits(lines))
    return notes


def _limits(lines: Sequence[Mapping[str, Any]]) -> str:
    """Return the sentence on the number of epochs."""
    models: dict[int, dict[str, None]] = {}
    for line in lines:
        if line["epochs"]:
            models.setdefault(line["epochs"], {})[line["model"]] = None
            patience = line["patience"]
    epochs = " or ".join(
        f"{limit} ({', '.join(of)})" if len(models) > 1 else str(limit)
        for limit, of in models.items()
    )
    return (
        f"At most {epochs} epochs a run, fewer where {patience} bring no better "
        "validation accuracy; AVEL's program trains up to 300, AVSDN's paper states no "
        "number."
    )


def to_csv(lines: Sequence[Mapping[str, Any]]) -> str:
    """Return the lines of the table as CSV: fractions of 1, to four digits."""
    names = list(dict.fromkeys(name for line in lines for name in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=names, lineterminator="\n")
    writer.writeheader()
    for line in lines:
        rounded = {
            n: round(v, 4) if isinstance(v, float) else v for n, v in line.items()
        }
        writer.writerow({name: csv_cell(value) for name, value in rounded.items()})
    return text.getvalue()


def draw(title: str, lines: Sequence[Mapping[str, Any]], trivial: Trivial) -> Figure:
    """Draw the paper's figure beside ours, with our interval; see `to_markdown`.

    Trivial systems are dashed lines beside the rows of their task.
    """
    figure = Figure(figsize=(9, 1.6 + 0.36 * len(lines)), layout="constrained")
    axes = figure.subplots()
    systems = [name for scores in trivial.values() for name in scores]
    dashes = dict(zip(systems, itertools.cycle(_DASHES), strict=False))
    names = []
    for place, line in enumerate(lines):
        best = ", best" if line["recipe"] == "best" else ""
        names.append(f"{line['system']} ({line['features']}){best}")
        _draw_line(axes, place, line)
        for system, value in trivial.get(line["mode"] == CROSS_MODAL, {}).items():
            axes.plot(
                [100 * value] * 2,
                [place - 0.5, place + 0.5],
                color=MUTED,
                linestyle=(0, dashes[system]),
                linewidth=1,
                zorder=1,
                label=f"trivial: {system.replace('_', ' ')}",
            )
    axes.set_yticks(range(len(lines)), names)
    axes.set_ylim(len(lines) - 0.5, -0.5)
    axes.tick_params(length=0)
    axes.grid(axis="x", color=LINES)
    axes.set_axisbelow(True)
    axes.set_xlabel("accuracy (% of the test split)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(textwrap.fill(title, 100), x=0.01, ha="left", fontsize=10)
    labels = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    # Below the axes, where no part of it looks like data.
    below = {"loc": "outside lower center", "ncols": 3, "frameon": False}
    figure.legend(labels.values(), labels.keys(), fontsize=8, **below)
    return figure


def _draw_line(axes: Axes, place: int, line: Mapping[str, Any]) -> None:
    """Draw one row: the paper's figure, ours, and whether some is missing."""
    if line["paper"] is not None:
        paper = {"color": _PAPER_COLOR, "markersize": 5, "label": "paper (AVE)"}
        axes.plot(100 * line["paper"], place, "D", **paper)
    missing = f"failed: {line['failed_seeds']}" if line["failed_seeds"] else ""
    if "accuracy" in line:
        color, name = _RECIPES[line["recipe"]]
        interval = [100 * line["interval_low"], 100 * line["interval_high"]]
        axes.plot(interval, [place, place], color=color)
        ours = {"color": color, "label": f"ours, {name}"}
        axes.plot(100 * line["accuracy"], place, "o", **ours)
    elif not missing:
        missing = "not run"
    style = {"color": MUTED, "fontsize": 8, "va": "center"}
    if missing:
        # Beside the axes.
        place_of = axes.get_yaxis_transform()
        axes.text(1.01, place, missing, transform=place_of, **style)
