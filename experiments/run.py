"""Fills a table: trains what is not yet done, and writes our figures down.

    python -m experiments.run TABLE [FLAGS]

TABLE is table1, table2 or table3 of Lin et al., tian (what Tian et al. published
besides), or changes_supervised or changes_weak: AVSDN's way from the paper's recipe to
the best one, a change a row. Every row is trained once a seed by a command of its own,
into a folder of its own; what is done is not trained again, so an interrupted table
goes on where it stopped. A row that fails is shown as failed, the others go on, and the
exit code is 1. The results are a Markdown table, a CSV and a figure.
"""

import argparse
import concurrent.futures
import csv
import dataclasses
import json
import os
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

from avsdn_tf.commands import repeat_command
from avsdn_tf.config import CROSS_MODAL, Config
from avsdn_tf.cross_modal_evaluation import Distances, right_starts
from avsdn_tf.errors import UserError
from avsdn_tf.evaluation import Predictions, bootstrap_interval, paired_interval
from avsdn_tf.models import MODEL_OPTIONS, MODELS
from avsdn_tf.report.scores import percent
from experiments.published import (
    CHANGES,
    PUBLISHED_TABLES,
    RECIPES,
    Row,
    best_changes,
    load_row,
    load_table,
)


@dataclasses.dataclass(frozen=True)
class Result:
    """What the seeds of one row came to.

    Attributes:
        row: The row.
        reports: The report of every finished seed.
        correct: Share of the seeds that have a sample right, `(num_clips, samples a
            clip)`; None without a finished seed.
        failed: Seeds whose training failed.
        reason: Why the row has no result, or "".
    """

    row: Row
    reports: list[dict[str, Any]]
    correct: np.ndarray | None
    failed: list[int]
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Run:
    """One training: a row's settings with one seed.

    Attributes:
        config: Its settings.
        folder: Its run folder. Rows with the same settings share it.
    """

    config: Config
    folder: pathlib.Path

    def is_done(self) -> bool:
        """Returns whether the folder holds this run, finished.

        Raises:
            UserError: If it holds another one.
        """
        if not (self.folder / "report.json").is_file():
            return False
        found = json.loads((self.folder / "config.json").read_text())["config"]
        found = Config.from_dict(found).to_dict()
        wanted = self.config.to_dict()
        other = sorted(n for n in wanted if found[n] != wanted[n])
        if other:
            raise UserError(
                f"{self.folder}: holds a run with another {', '.join(other)}. Remove "
                "it, or choose another folder by --runs."
            )
        return True

    def train(self, threads: int) -> str | None:
        """Trains unless it is done; one that was interrupted goes on.

        Args:
            threads: How many threads TensorFlow may use for one operation.

        Returns:
            None if the folder holds a finished run, else why it does not.
        """
        if self.is_done():
            return None
        if not (self.folder / "config.json").is_file():
            shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, *shlex.split(repeat_command(self.config))[1:]]
        log = self.folder.with_name(f"{self.folder.name}.log")
        with log.open("w") as output:
            code = subprocess.run(
                [*command, f"--run={self.folder}"],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "TF_NUM_INTRAOP_THREADS": str(threads)},
                check=False,
            ).returncode
        if code == 0:
            return None
        last = log.read_text().strip().splitlines() or ["no output"]
        return f"{self.folder.name}: exit code {code}, {last[-1]} (see {log})"


def plan(row: Row, args: argparse.Namespace) -> list[Run]:
    """Returns a row's runs, one a seed."""
    settings = dict(row.settings)
    if row.recipe == "best" and args.table not in CHANGES:
        options = MODELS[row.model].options
        for change in best_changes(row.mode):
            for name, value in change.items():
                if name in options or name not in MODEL_OPTIONS:
                    settings[name] = value
    words = [row.mode, row.model, *(f"{n}={v}" for n, v in sorted(settings.items()))]
    root = pathlib.Path(args.runs) / args.dataset.split("/")[-1]
    runs = []
    for seed in range(args.seeds):
        started_from = {}
        if row.encoders:
            source = dataclasses.replace(load_row(row.encoders), recipe=row.recipe)
            started_from["encoders"] = str(plan(source, args)[seed].folder)
        config = Config(
            **{
                "mode": row.mode,
                "model": row.model,
                "dataset": args.dataset,
                "data_dir": args.data_dir,
                "epochs": args.epochs,
                "patience": args.patience,
                "seed": seed,
                **settings,
                **started_from,
            }
        )
        runs.append(Run(config, root / f"{','.join(words)},seed={seed}"))
    return runs


def train_all(
    runs: Sequence[Run], jobs: int, title: str, console: Console
) -> list[str]:
    """Trains what is not done, several at once; returns why runs failed."""
    threads = max(1, (os.cpu_count() or 1) // jobs)
    failures = []
    unique = {run.folder: run for run in runs}.values()
    # What a run starts from has to be there first.
    waves = [
        [run for run in unique if not run.config.encoders],
        [run for run in unique if run.config.encoders],
    ]
    with (
        Progress(
            "{task.description}",
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
        ) as progress,
        concurrent.futures.ThreadPoolExecutor(jobs) as pool,
    ):
        task = progress.add_task(title, total=len(unique))
        for wave in waves:
            waiting = {pool.submit(run.train, threads): run for run in wave}
            try:
                for done in concurrent.futures.as_completed(waiting):
                    failure = done.result()
                    if failure:
                        failures.append(failure)
                        progress.console.print(failure, style="red", highlight=False)
                    progress.update(task, advance=1, description=title)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    return failures


def read_result(row: Row, runs: Sequence[Run]) -> Result:
    """Reads the finished ones of a row's runs."""
    reports, correct, failed = [], [], []
    for seed, run in enumerate(runs):
        if not run.is_done():
            failed.append(seed)
            continue
        reports.append(json.loads((run.folder / "report.json").read_text()))
        correct.append(_read_correct(row, run.folder / "predictions.npz"))
    mean = np.mean(correct, axis=0) if correct else None
    return Result(row, reports, mean, failed)


def _read_correct(row: Row, path: pathlib.Path) -> np.ndarray:
    """Returns what of the test split is right, clip by clip in the order of rows."""
    if row.mode == CROSS_MODAL:
        distances = Distances.load(path)
        order = np.argsort(distances.row)
        in_order = Distances(
            distances.row[order], distances.distances[order], distances.labels[order]
        )
        right = dict(
            zip(("a2v_accuracy", "v2a_accuracy"), right_starts(in_order), strict=True)
        )
        return right[row.metric][:, None]
    predictions = Predictions.load(path)
    right = predictions.logits.argmax(axis=-1) == predictions.labels
    return right[np.argsort(predictions.row)]


def summarize(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Returns the lines of the table, ready for CSV.

    Accuracies are fractions of 1. The interval resamples clips, with the correctness of
    a sample averaged over the seeds, and so do those of two paired comparisons on the
    same clips: `avsdn_minus`, AVSDN of the same recipe minus the row, and `gain`, the
    row minus the one that it departs from: the same system with the paper's recipe, or
    in a table of changes the row before.
    """
    lines = []
    for place, result in enumerate(results):
        row = result.row
        line: dict[str, Any] = {
            "table": row.table,
            "system": row.system,
            "features": row.features,
            "model": row.model,
            "recipe": row.recipe,
            "paper": None if row.paper is None else row.paper / 100,
            "seeds": len(result.reports),
            "failed_seeds": " ".join(map(str, result.failed)),
            "note": result.reason,
        }
        if result.correct is not None:
            accuracies = np.array([report[row.metric] for report in result.reports])
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
            for name, pair in (
                ("avsdn_minus", (_avsdn_of(result, results), result)),
                ("gain", (result, _departed_from(place, results))),
            ):
                better, worse = pair
                if better is worse or better is None or worse is None:
                    continue
                low, high = paired_interval(better.correct, worse.correct)
                line.update(
                    {
                        name: better.correct.mean() - worse.correct.mean(),
                        f"{name}_low": low,
                        f"{name}_high": high,
                    }
                )
        lines.append(line)
    return lines


def _avsdn_of(result: Result, results: Sequence[Result]) -> Result | None:
    """Returns the finished AVSDN with a result's recipe, in a published table."""
    if result.row.table == "changes":
        return None
    for other in results:
        same = (other.row.model, other.row.recipe) == ("avsdn", result.row.recipe)
        if same and other.correct is not None:
            return other
    return None


def _departed_from(place: int, results: Sequence[Result]) -> Result | None:
    """Returns the finished result that the one at a place departs from."""
    row = results[place].row
    if row.recipe == "paper":
        return None
    if row.table == "changes":
        before = results[place - 1]
    else:
        before = next(
            r for r in results if r.row.name == row.name and r.row.recipe == "paper"
        )
    return before if before.correct is not None else None


def write_markdown(
    path: pathlib.Path,
    title: str,
    notice: str | None,
    command: str,
    lines: Sequence[dict[str, Any]],
    trivial: dict[str, float],
) -> None:
    """Writes the table as people read it."""

    def compared(line: dict[str, Any], name: str) -> str:
        if name not in line:
            return ""
        low, high = line[f"{name}_low"], line[f"{name}_high"]
        return f"{100 * line[name]:+.1f} ({100 * low:.1f} to {100 * high:.1f})"

    columns = {
        "system": "system",
        "features": "features",
        "recipe": "recipe",
        "paper": "paper (AVE)",
        "ours": "ours",
        "interval": "95 % interval",
        "gain": "gain",
        "avsdn_minus": "AVSDN minus it",
        "validation": "validation",
        "seeds": "seeds",
        "seconds": "s a run",
    }
    rows = []
    for line in lines:
        cells = dict.fromkeys(columns, "")
        cells.update(
            system=line["system"],
            features=line["features"],
            recipe=line["recipe"],
            paper="" if line["paper"] is None else f"{100 * line['paper']:.1f}",
            ours=line["note"] or "failed",
            seeds=str(line["seeds"]),
        )
        if line["failed_seeds"]:
            cells["seeds"] += f" (failed: {line['failed_seeds']})"
        if "accuracy" in line:
            cells.update(
                ours=f"{100 * line['accuracy']:.1f}",
                interval=(
                    f"{100 * line['interval_low']:.1f} to "
                    f"{100 * line['interval_high']:.1f}"
                ),
                gain=compared(line, "gain"),
                avsdn_minus=compared(line, "avsdn_minus"),
                validation=f"{100 * line['validation_accuracy']:.1f}",
                seconds=f"{line['seconds']:.0f}",
            )
            if line["deviation"] is not None:
                cells["ours"] += f" ± {100 * line['deviation']:.1f}"
        rows.append(cells)
    for name, value in trivial.items():
        cells = dict.fromkeys(columns, "")
        cells["system"] = f"trivial: {name.replace('_', ' ')}"
        cells["ours"] = f"{100 * value:.1f}"
        rows.append(cells)
    # A column that says nothing in this table is not drawn.
    shown = [name for name in columns if any(cells[name] for cells in rows)]
    notes = (
        "Accuracy in % of the test split: mean and standard deviation over the seeds, "
        "95 % interval by bootstrap over clips. Selected on validation."
    )
    if "gain" in shown:
        notes += (
            " Gain: over the row before, on the same clips."
            if lines[0]["table"] == "changes"
            else " Gain: over the same system with the paper's recipe, same clips."
        )
    if "avsdn_minus" in shown:
        notes += " AVSDN minus it: with the same recipe, on the same clips."
    text = [f"# {title}", ""]
    if notice:
        text += [f"**{notice}.**", ""]
    text += [f"    {command}", "", notes, ""]
    text.append("| " + " | ".join(columns[name] for name in shown) + " |")
    text.append("|" + "---|" * len(shown))
    text += ["| " + " | ".join(cells[n] for n in shown) + " |" for cells in rows]
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
    figure = Figure(figsize=(8, 0.9 + 0.45 * len(lines)), layout="constrained")
    axes = figure.subplots()
    colors = {"paper": "#2f6fde", "best": "#1a7f37"}
    for place, line in enumerate(lines):
        if line["paper"] is not None:
            axes.plot(
                100 * line["paper"], place, "D", color="#9a6700", label="paper (AVE)"
            )
        if "accuracy" in line:
            color = colors[line["recipe"]]
            low, high = line["interval_low"], line["interval_high"]
            axes.plot([100 * low, 100 * high], [place, place], color=color)
            label = f"ours, {line['recipe']} recipe"
            axes.plot(100 * line["accuracy"], place, "o", color=color, label=label)
    axes.set_yticks(
        range(len(lines)),
        [
            f"{line['system']} ({line['features']})"
            + (", best" if line["recipe"] == "best" else "")
            for line in lines
        ],
    )
    axes.invert_yaxis()
    axes.grid(axis="x", color="#d5dae0")
    axes.set_axisbelow(True)
    axes.set_xlabel("accuracy (% of the test split)")
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
    add("table", choices=(*PUBLISHED_TABLES, *CHANGES))
    add("--seeds", type=int, default=5, help="seeds a row, from 0 (5)")
    add("--dataset", default="tfds_ave/resnet152", help="tfds_ave/CONFIG (resnet152)")
    add("--data_dir", help="where TFDS keeps data sets")
    add("--runs", default="runs/experiments", help="where the runs are kept")
    add("--results", default="experiments/results", help="where the tables go")
    add(
        "--recipe",
        choices=(*RECIPES, "both"),
        default="both",
        help="as published, with the changes of experiments/best.json, or both (both)",
    )
    add("--epochs", type=int, default=60, help="most epochs of a run (60)")
    add("--patience", type=int, default=10, help="patience of a run (10)")
    add("--jobs", type=int, default=1, help="runs at once, which share the cores (1)")
    return parser.parse_args(argv)


def load_rows(args: argparse.Namespace) -> list[Row]:
    """Returns the rows that the command line asks for."""
    rows = load_table(args.table)
    if args.table in CHANGES:
        return rows
    recipes = RECIPES if args.recipe == "both" else (args.recipe,)
    return [
        dataclasses.replace(row, recipe=recipe)
        for recipe in recipes
        for row in rows
        # The best recipe is one of classes.
        if recipe == "paper" or row.mode != CROSS_MODAL
    ]


def main(argv: Sequence[str]) -> None:
    """Fills a table."""
    console = Console()
    args = parse(argv)
    rows = load_rows(args)
    try:
        runs = [plan(row, args) if row.fits(args.dataset) else [] for row in rows]
        needed = [run for of_row in runs for run in of_row]
        # Where a row starts from another's run, that one is trained too.
        for row in rows:
            if row.encoders and row.fits(args.dataset):
                source = dataclasses.replace(load_row(row.encoders), recipe=row.recipe)
                needed += plan(source, args)
        failures = train_all(needed, args.jobs, args.table, console)
        results = [
            read_result(row, of_row)
            if of_row
            else Result(
                row, [], None, [], f"not run: needs tfds_ave/{row.dataset_config}"
            )
            for row, of_row in zip(rows, runs, strict=True)
        ]
    except UserError as error:
        sys.exit(f"experiments.run: {error}")
    reports = [report for result in results for report in result.reports]
    if not reports:
        sys.exit(f"experiments.run: no run of {args.table} has finished.")
    notice = reports[0]["notice"]
    config = args.dataset.split("/")[-1]
    title = f"{args.table} on {args.dataset}"
    label = config
    if notice:
        kind = "simulated" if config == "synthetic" else "stand-in"
        title += f" ({kind}, not AVE)"
        label += f"-{kind}-not-ave"
    trivial: dict[str, float] = {}
    for report in reports:
        trivial |= report["trivial"] if "trivial" in report else report["baselines"]
    stem = pathlib.Path(args.results) / f"{args.table}-{label}"
    stem.parent.mkdir(parents=True, exist_ok=True)
    command = shlex.join(["python", "-m", "experiments.run", *argv])
    lines = summarize(results)
    markdown = stem.with_name(stem.name + ".md")
    write_markdown(markdown, title, notice, command, lines, trivial)
    write_csv(stem.with_name(stem.name + ".csv"), lines)
    draw(title, lines).savefig(stem.with_name(stem.name + ".png"), dpi=150)
    for line in lines:
        ours = percent(line["accuracy"]) if "accuracy" in line else line["note"]
        paper = "" if line["paper"] is None else f"paper {percent(line['paper'])}"
        console.print(
            f"{line['system']:32} {line['features']:12} {line['recipe']:6} {paper:13}"
            f"   ours {ours or 'failed'}",
            highlight=False,
        )
    console.print(f"Table: {markdown}", highlight=False, soft_wrap=True)
    if failures:
        sys.exit(f"experiments.run: {len(failures)} run(s) failed.")


if __name__ == "__main__":
    main(sys.argv[1:])
