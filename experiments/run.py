"""Fills a table of the paper: trains what is not yet done, and writes our figures down.

    python -m experiments.run TABLE [FLAGS]

TABLE is table1, table2 or table3. Every row is trained once a seed by a command of its
own, into a folder of its own; a folder that holds a report is done, so an interrupted
table goes on where it stopped. A row that fails is shown as failed, the others go on,
and the exit code is 1. The results are a Markdown table, a CSV and a figure.
"""

import argparse
import csv
import dataclasses
import json
import pathlib
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

from avsdn_tf.evaluation import Predictions, bootstrap_interval, paired_interval
from avsdn_tf.models import MODEL_OPTIONS, MODELS
from avsdn_tf.report.scores import percent
from experiments.published import TABLES, Published, load_table

_BEST = pathlib.Path(__file__).with_name("best.json")


@dataclasses.dataclass(frozen=True)
class Result:
    """What the seeds of one row came to.

    Attributes:
        row: The published number.
        reports: The report of every finished seed.
        correct: Share of the seeds that have a segment right, `(num_clips,
            num_segments)`; None without a finished seed.
        failed: Seeds whose training failed.
        reason: Why the row has no result, or "".
    """

    row: Published
    reports: list[dict[str, Any]]
    correct: np.ndarray | None
    failed: list[int]
    reason: str = ""

    @property
    def accuracies(self) -> np.ndarray:
        """Test accuracy of every finished seed."""
        return np.array([report["accuracy"] for report in self.reports])


def train_row(
    row: Published, command: Sequence[str], folder: pathlib.Path
) -> str | None:
    """Trains one seed unless it is done.

    Args:
        row: What to train.
        command: The command that trains it, without its run folder.
        folder: The run folder; what a broken run left there is removed first.

    Returns:
        None if the folder holds a finished run, else why it does not.
    """
    if (folder / "report.json").is_file():
        return None
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    log = folder.with_suffix(".log")
    with log.open("w") as output:
        code = subprocess.run(
            [*command, f"--run={folder}"],
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        ).returncode
    if code == 0:
        return None
    last = log.read_text().strip().splitlines() or ["no output"]
    return f"{row.name}: exit code {code}, {last[-1]} (see {log})"


def read_result(row: Published, folders: Sequence[pathlib.Path]) -> Result:
    """Reads the finished runs among the folders of a row's seeds."""
    reports, correct, failed = [], [], []
    for seed, folder in enumerate(folders):
        if not (folder / "report.json").is_file():
            failed.append(seed)
            continue
        reports.append(json.loads((folder / "report.json").read_text()))
        predictions = Predictions.load(folder / "predictions.npz")
        right = predictions.logits.argmax(axis=-1) == predictions.labels
        correct.append(right[np.argsort(predictions.row)])
    mean = np.mean(correct, axis=0) if correct else None
    return Result(row, reports, mean, failed)


def summarize(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Returns the lines of the table, ready for CSV.

    Accuracies are fractions of 1. The interval resamples clips, with the correctness of
    a segment averaged over the seeds. `difference` is AVSDN minus the row on the same
    clips: AVSDN is the table's last row.
    """
    avsdn = results[-1]
    lines = []
    for result in results:
        line: dict[str, Any] = {
            "system": result.row.system,
            "features": result.row.features,
            "model": result.row.model,
            "paper": result.row.paper / 100,
            "seeds": len(result.reports),
            "failed_seeds": " ".join(map(str, result.failed)),
            "note": result.reason,
        }
        if result.correct is not None:
            accuracies = result.accuracies
            low, high = bootstrap_interval(result.correct.mean(axis=1))
            line.update(
                accuracy=accuracies.mean(),
                deviation=accuracies.std(ddof=1) if len(accuracies) > 1 else None,
                interval_low=low,
                interval_high=high,
                validation_accuracy=np.mean(
                    [report["validation_accuracy"] for report in result.reports]
                ),
                seconds=np.mean([report["seconds"] for report in result.reports]),
            )
            if result is not avsdn and avsdn.correct is not None:
                low, high = paired_interval(avsdn.correct, result.correct)
                line.update(
                    difference=avsdn.correct.mean() - result.correct.mean(),
                    difference_low=low,
                    difference_high=high,
                )
        lines.append(line)
    return lines


def write_markdown(
    path: pathlib.Path,
    title: str,
    notice: str | None,
    command: str,
    lines: Sequence[dict[str, Any]],
    trivial: dict[str, float],
) -> None:
    """Writes the table as people read it."""

    def interval(line: dict[str, Any], name: str) -> str:
        low, high = line[f"{name}_low"], line[f"{name}_high"]
        return f"{100 * low:.1f} to {100 * high:.1f}"

    text = [f"# {title}", ""]
    if notice:
        text += [f"**{notice}.**", ""]
    text += [
        f"    {command}",
        "",
        "Accuracy in % of the test segments: mean and standard deviation over the "
        "seeds, 95 % interval by bootstrap over clips. The difference is AVSDN minus "
        "the row, on the same clips. Selected on validation.",
        "",
        "| system | features | paper (AVE) | ours | 95 % interval | AVSDN minus it "
        "| validation | seeds | s a run |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for line in lines:
        cells = [line["system"], line["features"], f"{100 * line['paper']:.1f}"]
        if "accuracy" in line:
            ours = f"{100 * line['accuracy']:.1f}"
            if line["deviation"] is not None:
                ours += f" ± {100 * line['deviation']:.1f}"
            difference = ""
            if "difference" in line:
                difference = (
                    f"{100 * line['difference']:+.1f} ({interval(line, 'difference')})"
                )
            seeds = str(line["seeds"])
            if line["failed_seeds"]:
                seeds += f" (failed: {line['failed_seeds']})"
            cells += [
                ours,
                interval(line, "interval"),
                difference,
                f"{100 * line['validation_accuracy']:.1f}",
                seeds,
                f"{line['seconds']:.0f}",
            ]
        else:
            cells += [line["note"] or "failed", "", "", "", "0", ""]
        text.append("| " + " | ".join(cells) + " |")
    for name, value in trivial.items():
        text.append(
            f"| trivial: {name.replace('_', ' ')} | | | {100 * value:.1f} | | | | | |"
        )
    path.write_text("\n".join(text) + "\n")


def write_csv(path: pathlib.Path, lines: Sequence[dict[str, Any]]) -> None:
    """Writes the lines of the table as fractions of 1."""
    names = list(dict.fromkeys(name for line in lines for name in line))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=names)
        writer.writeheader()
        writer.writerows(lines)


def draw(title: str, lines: Sequence[dict[str, Any]]) -> Figure:
    """Draws paper's figure beside ours, with our interval."""
    figure = Figure(figsize=(8, 0.6 + 0.5 * len(lines)), layout="constrained")
    axes = figure.subplots()
    for place, line in enumerate(lines):
        axes.plot(100 * line["paper"], place, "D", color="#9a6700", label="paper (AVE)")
        if "accuracy" in line:
            low, high = line["interval_low"], line["interval_high"]
            axes.plot([100 * low, 100 * high], [place, place], color="#2f6fde")
            axes.plot(100 * line["accuracy"], place, "o", color="#2f6fde", label="ours")
    axes.set_yticks(
        range(len(lines)), [f"{line['system']} ({line['features']})" for line in lines]
    )
    axes.invert_yaxis()
    axes.grid(axis="x", color="#d5dae0")
    axes.set_axisbelow(True)
    axes.set_xlabel("accuracy (% of the test segments)")
    axes.set_title(title, loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    axes.legend(handles.values(), handles.keys(), frameon=False)
    return figure


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Returns what the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("table", choices=TABLES)
    add("--seeds", type=int, default=5, help="seeds a row, from 0 (5)")
    add("--dataset", default="tfds_ave/resnet152", help="tfds_ave/CONFIG (resnet152)")
    add("--data_dir", help="where TFDS keeps data sets")
    add("--runs", default="runs/experiments", help="where the runs are kept")
    add("--results", default="experiments/results", help="where the tables go")
    add(
        "--recipe",
        choices=("paper", "best"),
        default="paper",
        help="as published, or with the settings of experiments/best.json (paper)",
    )
    add("--epochs", type=int, default=60, help="most epochs of a run (60)")
    add("--patience", type=int, default=15, help="patience of a run (15)")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> None:
    """Fills a table."""
    console = Console()
    args = parse(argv)
    rows = load_table(args.table)
    config = args.dataset.split("/")[-1]
    best = json.loads(_BEST.read_text()) if args.recipe == "best" else {}
    root = pathlib.Path(args.runs) / config / args.recipe
    common = [f"--dataset={args.dataset}", f"--epochs={args.epochs}"]
    common.append(f"--patience={args.patience}")
    if args.data_dir:
        common.append(f"--data_dir={args.data_dir}")

    folders = {
        row.name: [root / row.name / f"seed{seed}" for seed in range(args.seeds)]
        for row in rows
        if row.fits(args.dataset)
    }
    failures = []
    with Progress(
        "{task.description}",
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    ) as progress:
        task = progress.add_task(args.table, total=sum(map(len, folders.values())))
        for row in rows:
            options = MODELS[row.model].options
            overrides = {
                name: value
                for name, value in best.get(row.mode, {}).items()
                if name in options or name not in MODEL_OPTIONS
            }
            for seed, folder in enumerate(folders.get(row.name, [])):
                progress.update(task, description=f"{row.name}, seed {seed}")
                command = [sys.executable, "-m", "avsdn_tf.main", f"--seed={seed}"]
                command += row.flags(overrides) + common
                failure = train_row(row, command, folder)
                if failure:
                    failures.append(failure)
                    progress.console.print(failure, style="red", highlight=False)
                progress.advance(task)

    results = [
        read_result(row, folders[row.name])
        if row.name in folders
        else Result(row, [], None, [], f"not run: needs tfds_ave/{row.dataset_config}")
        for row in rows
    ]
    reports = [report for result in results for report in result.reports]
    if not reports:
        sys.exit(f"experiments.run: no run of {args.table} has finished.")
    notice = reports[0]["notice"]
    title = f"{args.table}, {args.recipe} recipe, {args.dataset}"
    label = config
    if notice:
        kind = "simulated" if config == "synthetic" else "stand-in"
        title += f" ({kind}, not AVE)"
        label += f"-{kind}-not-ave"
    stem = pathlib.Path(args.results) / f"{args.table}-{args.recipe}-{label}"
    stem.parent.mkdir(parents=True, exist_ok=True)
    command = shlex.join(["python", "-m", "experiments.run", *argv])
    lines = summarize(results)
    markdown = stem.with_name(stem.name + ".md")
    write_markdown(markdown, title, notice, command, lines, reports[0]["trivial"])
    write_csv(stem.with_name(stem.name + ".csv"), lines)
    draw(title, lines).savefig(stem.with_name(stem.name + ".png"), dpi=150)
    for line in lines:
        ours = percent(line["accuracy"]) if "accuracy" in line else line["note"]
        console.print(
            f"{line['system']:32} {line['features']:12} paper {percent(line['paper'])}"
            f"   ours {ours or 'failed'}",
            highlight=False,
        )
    console.print(f"Table: {markdown}", highlight=False, soft_wrap=True)
    if failures:
        sys.exit(f"experiments.run: {len(failures)} run(s) failed.")


if __name__ == "__main__":
    main(sys.argv[1:])
