"""Fill a table of the papers: train its rows, and write their scores.

Usage: python -m experiments.run TABLE [FLAGS]

Examples:
  python -m experiments.run table1 --dataset=tfds_ave/resnet152 --jobs=2
  python -m experiments.run heads --seeds=1

Tables:
  table1, table2, table3    of Lin et al.
  tian                      of Tian et al., beside AVSDN
  heads, weak_heads         later networks, on feature maps
  changes_supervised, changes_weak
                            AVSDN from the paper's recipe to the best one
  labels                    weak AVEL and AVSDN on the same training labels

Each row and seed is a run folder. Finished runs are kept, so the same command
resumes a table. If a row fails, the others go on and the exit code is 1.

If --dataset names several data sets, each row uses the first data set that has
the row's features.

A table is written to experiments/results if seeds, epochs, patience and recipe
are the defaults or match the table in experiments/results. Otherwise it is
written to `tables` beside the runs.
"""

import argparse
import dataclasses
import os
import pathlib
import re
import shlex
import signal
import sys
from collections.abc import Sequence

import tensorflow as tf
from absl import logging
from rich.console import Console

from avsdn_tf.data.dataset import open_dataset
from avsdn_tf.errors import UserError
from avsdn_tf.files import explain_unwritable, write_text
from avsdn_tf.report import figures
from avsdn_tf.training.config import CROSS_MODAL
from avsdn_tf.training.signals import TrainingInterruptedError
from experiments import published, runs, summary, tables
from experiments.arguments import Parser, one_line_errors, positive, show
from experiments.benchmark.machine import describe_code
from experiments.published import CHANGES, HEADS, LABELS, RECIPES, Row
from experiments.runs import Run
from experiments.summary import Result

_MODULE = "experiments.run"
_RESULTS = pathlib.Path("experiments/results")
# Flags that change a table's results, besides the table's name and the data set.
_BUDGET = ("seeds", "recipe", "epochs", "patience")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(_MODULE, __doc__)
    add = parser.add_argument
    known = (*published.PUBLISHED_TABLES, *CHANGES, LABELS)
    add("table", choices=known, metavar="TABLE", help="One of the tables above.")
    text = "Number of seeds of each row; the first seed is 0 [5]."
    add("--seeds", type=positive, default=5, metavar="N", help=text)
    add(
        "--dataset",
        type=_datasets,
        metavar="NAME,...",
        help="TFDS names [tfds_ave/resnet152; heads: tfds_ave/vgg19].",
    )
    # Shells don't expand the tilde of --runs=~/runs.
    path = os.path.expanduser
    text = "TFDS's folder of data sets, if not TFDS's default."
    add("--data_dir", type=path, metavar="DIR", help=text)
    text = "Folder of the runs [runs/experiments]."
    add("--runs", type=path, default="runs/experiments", metavar="DIR", help=text)
    text = "Folder of the tables, which are overwritten."
    add("--results", type=path, metavar="DIR", help=text)
    add(
        "--recipe",
        choices=(*RECIPES, "both"),
        default="both",
        metavar="|".join((*RECIPES, "both")),
        help="Settings of the paper, the best ones, or both [both].",
    )
    text = "Maximum number of epochs [60]."
    add("--epochs", type=positive, default=60, metavar="N", help=text)
    text = "Epochs to wait for a better validation score [10]."
    add("--patience", type=positive, default=10, metavar="N", help=text)
    text = "Number of runs at once, which share the cores [1]."
    add("--jobs", type=positive, default=1, metavar="N", help=text)
    args = parser.parse_args(argv)
    config = "vgg19" if args.table in HEADS else "resnet152"
    args.dataset = args.dataset or (f"tfds_ave/{config}",)
    return args


def _datasets(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text.split(",")))


def load_rows(args: argparse.Namespace) -> list[Row]:
    """Return the rows to fill."""
    rows = published.load_table(args.table)
    if args.table in (*CHANGES, *HEADS):
        return rows
    recipes = RECIPES if args.recipe == "both" else [args.recipe]
    return [
        dataclasses.replace(row, recipe=recipe)
        for recipe in recipes
        for row in rows
        # There is no best recipe for cross-modality localization.
        if recipe == "paper" or row.mode != CROSS_MODAL
    ]


def fill(args: argparse.Namespace, console: Console) -> int:
    """Fill a table, and return the number of failed runs.

    Raises:
        UserError: If nothing can be trained, or files can't be written.
        TrainingInterruptedError: If a signal was received.
    """
    if args.table in (*CHANGES, *HEADS) and args.recipe != "both":
        raise UserError(
            f"{args.table} has fixed recipes. Expected no recipe.",
            field="recipe",
            value=args.recipe,
        )
    rows = load_rows(args)
    planned = [runs.plan(row, args) for row in rows]
    _check_datasets(args, rows, planned)
    needed = [run for row_runs in planned for run in row_runs]
    for row, row_runs in zip(rows, planned, strict=True):
        if row.encoders and row_runs:
            needed += runs.plan(runs.source_of(row), args)
    waiting, failures = runs.find_waiting(needed)
    for failure in failures.values():
        show(console, failure, style="red")
    # If a run's source failed, the run fails, too.
    waiting = [run for run in waiting if run.source not in failures]
    _check_data(waiting, args.data_dir)
    if waiting:
        failures |= runs.train_all(waiting, args.jobs, console)
    results = summary.read_results(rows, planned, failures)
    _write(args, results, console)
    # A set, because rows may share runs.
    failed = {*failures}
    for result in results:
        failed |= {result.runs[seed].folder for seed in result.failed}
    return len(failed)


def _check_datasets(
    args: argparse.Namespace, rows: Sequence[Row], planned: Sequence[list[Run]]
) -> None:
    """Check that every data set has the features of a row."""
    used = {row_runs[0].config.dataset for row_runs in planned if row_runs}
    for name in args.dataset:
        if name not in used:
            configs = ", ".join(sorted({str(row.dataset_config) for row in rows}))
            raise UserError(
                f"Expected a data set with the features of a row of {args.table}"
                f"{', and one data set for each kind of features' if used else ''}"
                f": tfds_ave/{configs}.",
                field="dataset",
                value=name,
            )


def _check_data(waiting: Sequence[Run], data_dir: str | None) -> None:
    """Check that the data sets are built and of one kind, before any training."""
    names = sorted({run.config.dataset for run in waiting})
    disclaimers = {name: open_dataset(name, data_dir).disclaimer for name in names}
    if len(set(disclaimers.values())) > 1:
        kinds = "; ".join(f"{n}: {text or 'AVE'}" for n, text in disclaimers.items())
        raise UserError(
            "Expected data of one kind, since a table compares its rows. Received "
            f"{kinds}. Fill one table for each kind.",
            field="dataset",
        )


def _write(
    args: argparse.Namespace, results: Sequence[Result], console: Console
) -> None:
    """Write the table, and print its accuracies."""
    outcomes = [outcome for result in results for outcome in result.outcomes]
    source = outcomes[0] if outcomes else open_dataset(args.dataset[0], args.data_dir)
    disclaimer = source.disclaimer
    title = f"{published.TITLES[args.table]}, on {' and '.join(args.dataset)}"
    # `with_suffix` would cut a version such as 1.1.0.
    stem = f"{args.table}-{'+'.join(map(runs.folder_name, args.dataset))}"
    if disclaimer:
        is_simulated = "synthetic" in map(published.config_of, args.dataset)
        kind = "simulated" if is_simulated else "stand-in"
        title += f" ({kind}, not AVE)"
        stem += f"-{kind}-not-ave"
    lines, trivial = summary.summarize(results), summary.trivial_scores(results)
    done = {
        run.folder: run
        for result in results
        for seed, run in enumerate(result.runs)
        if seed not in result.failed
    }
    origins = [*runs.describe_origins([*done.values()]), f"Written {describe_code()}."]
    text = tables.to_markdown(
        title, disclaimer, _command(args), lines, trivial, origins, f"{stem}.png"
    )
    folder = _results_folder(args, f"{stem}.md")
    with explain_unwritable(folder, "Choose another folder by --results."):
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / f"{stem}.md", text)
        write_text(folder / f"{stem}.csv", tables.to_csv(lines))
        figure = tables.draw(title, lines, trivial)
        figures.save(figure, folder / f"{stem}.png", disclaimer)
    for line in lines:
        show(console, tables.to_line(line))
    show(console, f"Table: {folder / stem}.md")
    if not args.results and folder != _RESULTS:
        show(
            console,
            f"With these settings, {_RESULTS} is not changed; --results={_RESULTS} "
            "writes the table there.",
        )


def _results_folder(args: argparse.Namespace, name: str) -> pathlib.Path:
    """Return the folder for the table.

    This is `_RESULTS` if the flags of `_BUDGET` are the defaults or match the table in
    `_RESULTS`, else `tables` beside the runs. `--results` overrides both.
    """
    if args.results:
        return pathlib.Path(args.results)
    path, default = _RESULTS / name, parse([args.table])
    text = path.read_text() if path.is_file() else ""
    command = re.search(f"python -m {_MODULE} (.*)", text)
    for other in (default, parse(shlex.split(command[1])) if command else default):
        if all(getattr(args, flag) == getattr(other, flag) for flag in _BUDGET):
            return _RESULTS
    return pathlib.Path(args.runs) / "tables"


def _command(args: argparse.Namespace) -> str:
    """Return the command that fills the table."""
    defaults = vars(parse([args.table]))
    given = {n: v for n, v in vars(args).items() if v != defaults[n]}
    if "dataset" in given:
        given["dataset"] = ",".join(args.dataset)
    flags = [f"--{name}={value}" for name, value in given.items()]
    return shlex.join(["python", "-m", _MODULE, args.table, *flags])


def main(argv: Sequence[str]) -> None:
    """Fill a table; exit with code 1 if a run failed."""
    args = parse(argv)
    try:
        with one_line_errors(_MODULE):
            num_failed = fill(args, Console())
    except (TrainingInterruptedError, KeyboardInterrupt) as error:
        # Ctrl+C before or after the training.
        if isinstance(error, KeyboardInterrupt):
            error = TrainingInterruptedError(signal.SIGINT, runs.INTERRUPTED)
        print(f"{_MODULE}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    if num_failed:
        sys.exit(f"{_MODULE}: {num_failed} run(s) failed.")


if __name__ == "__main__":
    # Hide TFDS's warnings about its internals.
    logging.set_verbosity(logging.ERROR)
    # Leave the GPUs to the trainings.
    tf.config.set_visible_devices([], "GPU")
    main(sys.argv[1:])
