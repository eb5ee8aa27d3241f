"""Write a table as Markdown, CSV and a figure."""

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
    "avsdn_minus": "AVSDN minus row",
    "best_minus": "best row minus row",
    "partial_clip_accuracy": "partial clips",
    "background_recall": "background recall",
    "event_f1": "event F1",
    "validation_accuracy": "validation",
    "seeds": "seeds",
    "seconds": "seconds a run",
    "peak_bytes": "peak GB",
    "parameters": "parameters",
    "macs": "MACs a clip",
}
# Formats of the columns that are not percentages.
_UNITS = {
    "seconds": lambda value: f"{value:.0f}",
    "peak_bytes": lambda value: f"{value / 1e9:.1f}",
    "parameters": lambda value: f"{value / 1e6:.2f} M",
    "macs": lambda value: f"{value / 1e6:.0f} M",
}
# Names of tasks. The key is True for cross-modality localization.
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
    figure: str,
) -> str:
    """Return the table as Markdown.

    Args:
        title: Title of the page.
        disclaimer: Disclaimer of the data, or None.
        command: The command that computes the table.
        lines: Result of `summary.summarize`.
        trivial: Result of `summary.trivial_scores`.
        origins: Sentences about the machines and the code of the runs.
        figure: File name of the figure of `draw`, in the page's folder.
    """
    rows = [_cells(line) for line in lines]
    for is_cross_modal, scores in trivial.items():
        task = f", {_TASKS[is_cross_modal]}" if len(trivial) > 1 else ""
        for name, value in scores.items():
            system = f"trivial{task}: {name.replace('_', ' ')}"
            rows.append({"system": system, "accuracy": percent(value)})
    # Omit empty columns.
    shown = [name for name in _COLUMNS if any(row.get(name) for row in rows)]
    text = [f"# {title}", ""]
    if disclaimer:
        text += [f"**{disclaimer}.**", ""]
    text += ["```console", command, "```", ""]
    cells = [[row.get(name, "") for name in shown] for row in [_COLUMNS, *rows]]
    text += to_table(cells, num_left=shown.index("recipe") + 1)
    failed = [
        f"- {line['system']} ({line['features']}), {line['recipe']}: {line['note']}"
        for line in lines
        if line["failed_seeds"]
    ]
    if failed:
        text += ["", "Failed:", "", *failed]
    text += ["", f"![The accuracies with their intervals]({figure})", ""]
    text += ["Scores are in %, on the test split unless noted.", ""]
    notes = _notes(lines, trivial)
    text += [f"- **{_COLUMNS[n]}**: {notes[n]}." for n in shown if n in notes]
    text += ["", _limits(lines), "", *(f"- {origin}" for origin in origins)]
    return "\n".join(text) + "\n"


def _cells(line: Mapping[str, Any]) -> dict[str, str]:
    """Return the cells of a line by column."""
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
    """Return a line of the table as text for the terminal."""
    cells = _cells(line)
    ours = cells["accuracy"]
    if line["failed_seeds"]:
        ours += f", {line['note']}"
    paper = f"paper {cells['paper']}" if cells["paper"] else ""
    system = f"{line['system']:32} {line['features']:12} {line['recipe']:6}"
    return f"{system} {paper:13} ours {ours}"


def percent(value: float | None) -> str:
    """Return a fraction in percent, or `""` for None."""
    return "" if value is None else f"{100 * value:.1f}"


def _notes(lines: Sequence[Mapping[str, Any]], trivial: Trivial) -> dict[str, str]:
    """Return explanations by column."""
    table = lines[0]["table"]
    several = any(line["seeds"] > 1 for line in lines)
    notes = {
        "recipe": "`paper` is the published recipe",
        "paper": "as published, on AVE's released features",
        "reported": (
            "accuracy that other papers report for the network's released program. The "
            "papers of CMRAN, PSP, CMBS and CACE-Net select on the test split"
        ),
        "accuracy": (
            "accuracy, "
            + ("mean ± standard deviation over the seeds" if several else "one seed")
            + ". Every run keeps the epoch that is best on validation"
        ),
        "interval": "by bootstrap over the test clips, like the intervals in brackets",
        "gain": (
            "over the row before, on the same clips"
            if table in STEPWISE
            else "over the same system with the paper's recipe, on the same clips"
        ),
        "avsdn_minus": "AVSDN with the same recipe minus the row, on the same clips",
        "best_minus": "the most accurate row minus the row, on the same clips",
        "partial_clip_accuracy": "accuracy in clips with both event and background",
        "background_recall": "share of the background segments that are found",
        "event_f1": "F1 of whole events, matched at an IoU of 0.5",
        "validation_accuracy": "accuracy on the validation split",
        "seconds": "wall time, while other programs ran",
        "peak_bytes": "the largest memory of the trainings' processes",
        "macs": "multiply-accumulates of matrix products in a prediction",
    }
    if any(line["recipe"] == "best" for line in lines):
        notes["recipe"] += ", `best` adds the changes of `experiments/best.json`"
    if any(line["recipe"] == "step" for line in lines):
        notes["recipe"] += ", each `step` adds one of them to the row before"
    if True in trivial:
        notes["accuracy"] += (
            ". AVDLN's accuracy is the share of the clips with one event in which "
            "AVDLN finds the exact start of the event"
        )
        notes["validation_accuracy"] += ", for AVDLN the mean of A2V and V2A"
    if any("perfect_clip_classifier" in scores for scores in trivial.values()):
        notes["system"] = (
            "a perfect clip classifier knows the event of each clip, and labels all "
            "its segments with it"
        )
    notes["training_labels"] = "`--weak_label`"
    if len({line["training_labels"] for line in lines}) > 1:
        notes["training_labels"] += (
            ". AVSDN's paper trains on the mean of the segment labels (`average`), "
            "which reveals how long the event lasts; AVEL trains on the event's "
            "category and on background clips (`mil_background`)"
        )
        if table in HEADS:
            notes["training_labels"] += (
                ". PSP trains on the mean and on background clips "
                "(`average_background`), the others as AVEL"
            )
        elif table != LABELS:
            notes["training_labels"] += (
                ". So AVSDN is compared on unequal labels here; `python -m "
                "experiments.run labels` compares it on equal ones"
            )
    return notes


def _limits(lines: Sequence[Mapping[str, Any]]) -> str:
    """Return a sentence about the number of epochs."""
    models: dict[int, dict[str, None]] = {}
    for line in lines:
        if line["epochs"]:
            models.setdefault(line["epochs"], {})[line["model"]] = None
            patience = line["patience"]
    epochs = " or ".join(
        f"{limit} ({', '.join(names)})" if len(models) > 1 else str(limit)
        for limit, names in models.items()
    )
    return (
        f"At most {epochs} epochs a run; a run ends early after {patience} epochs "
        "without better validation accuracy. AVEL's program trains up to 300; AVSDN's "
        "paper states no number."
    )


def to_csv(lines: Sequence[Mapping[str, Any]]) -> str:
    """Return the lines of the table as CSV, with floats rounded to four decimals."""
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
    """Draw the published accuracies, and ours with intervals.

    Accuracies of trivial systems are dashed lines in the rows of their task. Arguments
    are those of `to_markdown`.
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
    options = {"loc": "outside lower center", "ncols": 3, "frameon": False}
    figure.legend(labels.values(), labels.keys(), fontsize=8, **options)
    return figure


def _draw_line(axes: Axes, place: int, line: Mapping[str, Any]) -> None:
    """Draw a row: the published accuracy, and ours, or a note if ours is missing."""
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
        # To the right of the axes.
        transform = axes.get_yaxis_transform()
        axes.text(1.01, place, missing, transform=transform, **style)
