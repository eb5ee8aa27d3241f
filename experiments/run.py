"""Fill a table: train what is not trained yet, and write our figures down.

    python -m experiments.run TABLE [FLAGS]

TABLE is table1, table2 or table3 of Lin et al.; tian, the other networks of Tian et
al., with AVSDN beside them; heads or weak_heads, the networks that followed, on feature
maps, with those before beside them; changes_supervised or changes_weak, AVSDN's way
from the paper's recipe to the best one, a change a row; or labels, weak AVEL and AVSDN
on equal training labels. Every row and seed is a command of its own with a folder of
its own. Finished runs are not trained again, so an interrupted table goes on where it
stopped. A row that fails is shown as failed, the others go on, and the exit code is 1.

With several data sets, such as --dataset=tfds_ave/resnet152,tfds_ave/vgg19, a row is
trained on the first that has its features, and AVSDN is compared with all of them.

The results are a Markdown table, a CSV and a figure in experiments/results. A table
there is replaced by the default settings, or by the seeds, epochs, patience and recipe
that made it; trials with others go to the folder `tables` beside the runs.
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
# What a table's figures depend on besides its name and the data.
_BUDGET = ("seeds", "recipe", "epochs", "patience")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = Parser(_MODULE, __doc__)
    add = parser.add_argument
    add("table", choices=(*published.PUBLISHED_TABLES, *CHANGES, LABELS))
    add("--seeds", type=positive, default=5, help="seeds a row, from 0 (5)")
    add(
        "--dataset",
        type=_datasets,
        help="tfds_ave/CONFIG, or several, with commas (resnet152; heads: vgg19)",
    )
    # Shells don't expand the tilde of --runs=~/runs.
    path = os.path.expanduser
    add("--data_dir", type=path, help="where TFDS keeps data sets")
    add("--runs", type=path, default="runs/experiments", help="where the runs are kept")
    add("--results", type=path, help="where the tables go; replaces those there")
    add(
        "--recipe",
        choices=(*RECIPES, "both"),
        default="both",
        help="as published, with the changes of experiments/best.json, or both (both)",
    )
    add("--epochs", type=positive, default=60, help="most epochs of a run (60)")
    add("--patience", type=positive, default=10, help="patience of a run (10)")
    add("--jobs", type=positive, default=1, help="runs at once, sharing the cores (1)")
    args = parser.parse_args(argv)
    config = "vgg19" if args.table in HEADS else "resnet152"
    args.dataset = args.dataset or (f"tfds_ave/{config}",)
    return args


def _datasets(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text.split(",")))


def load_rows(args: argparse.Namespace) -> list[Row]:
    """Return the rows that the command line asks for."""
    rows = published.load_table(args.table)
    if args.table in (*CHANGES, *HEADS):
        return rows
    recipes = RECIPES if args.recipe == "both" else [args.recipe]
    return [
        dataclasses.replace(row, recipe=recipe)
        for recipe in recipes
        for row in rows
        # The best recipe is for networks that predict classes.
        if recipe == "paper" or row.mode != CROSS_MODAL
    ]


def fill(args: argparse.Namespace, console: Console) -> int:
    """Fill a table, and return the number of runs that failed.

    Raises:
        UserError: If nothing can be trained, or the files can't be written.
        TrainingInterruptedError: If a signal asked for an end.
    """
    if args.table in (*CHANGES, *HEADS) and args.recipe != "both":
        raise UserError(
            f"{args.table} has recipes of its own, and takes none.",
            field="recipe",
            value=args.recipe,
        )
    rows = load_rows(args)
    planned = [runs.plan(row, args) for row in rows]
    _check_datasets(args, rows, planned)
    needed = [run for of_row in planned for run in of_row]
    for row, of_row in zip(rows, planned, strict=True):
        if row.encoders and of_row:
            needed += runs.plan(runs.source_of(row), args)
    waiting, failures = runs.find_waiting(needed)
    for failure in failures.values():
        show(console, failure, style="red")
    # A run fails with the run that it starts from.
    waiting = [run for run in waiting if run.source not in failures]
    _check_data(waiting, args.data_dir)
    if waiting:
        failures |= runs.train_all(waiting, args.jobs, console)
    results = summary.read_results(rows, planned, failures)
    _write(args, results, console)
    # Rows may share a run, and others start from it: it counts once.
    failed = {*failures}
    for result in results:
        failed |= {result.runs[seed].folder for seed in result.failed}
    return len(failed)


def _check_datasets(
    args: argparse.Namespace, rows: Sequence[Row], planned: Sequence[list[Run]]
) -> None:
    """Check that every data set has the features of a row."""
    used = {of_row[0].config.dataset for of_row in planned if of_row}
    for name in args.dataset:
        if name not in used:
            configs = ", ".join(sorted({str(row.dataset_config) for row in rows}))
            raise UserError(
                f"Expected a data set with the features of a row of {args.table}"
                f"{' that no other has' if used else ''}: tfds_ave/{configs}.",
                field="dataset",
                value=name,
            )


def _check_data(waiting: Sequence[Run], data_dir: str | None) -> None:
    """Check that the data sets are built, before many runs fail for it."""
    names = sorted({run.config.dataset for run in waiting})
    disclaimers = {name: open_dataset(name, data_dir).disclaimer for name in names}
    if len(set(disclaimers.values())) > 1:
        kinds = "; ".join(f"{n}: {text or 'AVE'}" for n, text in disclaimers.items())
        raise UserError(
            "Expected data of one kind, since a table compares its rows. Received "
            f"{kinds}. Fill a table of each.",
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
    # Not a suffix: a version such as 1.1.0 in the name looks like one.
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
            f"As a trial, it leaves {_RESULTS} as it is; --results={_RESULTS} puts it "
            "there.",
        )


def _results_folder(args: argparse.Namespace, name: str) -> pathlib.Path:
    """Return where a table goes, so that no trial replaces a table in the results."""
    if args.results:
        return pathlib.Path(args.results)
    path, default = _RESULTS / name, parse([args.table])
    text = path.read_text() if path.is_file() else ""
    made_by = re.search(f"python -m {_MODULE} (.*)", text)
    for of in (default, parse(shlex.split(made_by[1])) if made_by else default):
        if all(getattr(args, setting) == getattr(of, setting) for setting in _BUDGET):
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
    """Fill a table; the exit code is 1 if a run has failed."""
    args = parse(argv)
    try:
        with one_line_errors(_MODULE):
            num_failed = fill(args, Console())
    except (TrainingInterruptedError, KeyboardInterrupt) as error:
        # Ctrl+C while nothing is trained.
        if isinstance(error, KeyboardInterrupt):
            error = TrainingInterruptedError(signal.SIGINT, runs.INTERRUPTED)
        print(f"{_MODULE}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    if num_failed:
        sys.exit(f"{_MODULE}: {num_failed} run(s) failed.")


if __name__ == "__main__":
    # TFDS warns of its own internals.
    logging.set_verbosity(logging.ERROR)
    # The trainings get the GPUs.
    tf.config.set_visible_devices([], "GPU")
    main(sys.argv[1:])
