"""Fills a table: trains what is not yet done, and writes our figures down.

    python -m experiments.run TABLE [FLAGS]

TABLE is table1, table2 or table3 of Lin et al.; tian, the other networks of Tian et
al., with AVSDN beside them; changes_supervised or changes_weak, AVSDN's way from the
paper's recipe to the best one, a change a row; or labels, weak AVEL and AVSDN on equal
training labels. Every row is trained once a seed by a command of its own, into a folder
of its own; what is done is not trained again, so an interrupted table goes on where it
stopped. A row that fails is shown as failed, the others go on, and the exit code is 1.

With several data sets, such as --dataset=tfds_ave/resnet152,tfds_ave/vgg19, a row is
trained on the first that has its features, and AVSDN compared with all of them.

The results are a Markdown table, a CSV and a figure in experiments/results. A table
there is replaced by the default settings, or by the seeds, epochs, patience and recipe
that made it; trials with others go to the folder `tables` beside the runs.
"""

import argparse
import dataclasses
import os
import pathlib
import shlex
import signal
import sys
from collections.abc import Sequence
from typing import Any

from absl import logging
from rich.console import Console

from experiments.benchmark.results import describe_code
from avsdn_tf.training.config import CROSS_MODAL
from avsdn_tf.errors import UserError
from avsdn_tf.files import explain_unwritable, write_text
from avsdn_tf.report import figures
from avsdn_tf.report.scores import percent
from avsdn_tf.startup import quiet_startup
from experiments import tables
from experiments.arguments import positive
from experiments.published import (
    CHANGES,
    LABELS,
    PUBLISHED_TABLES,
    RECIPES,
    TITLES,
    Row,
    config_of,
    load_row,
    load_table,
)
from experiments.runs import (
    InterruptedRunsError,
    Run,
    describe_origins,
    find_waiting,
    folder_name,
    plan,
    train_all,
)
from experiments.summary import Result, read_results, summarize, trivial_scores

with quiet_startup():
    import tensorflow as tf

    from avsdn_tf import data

_RESULTS = pathlib.Path("experiments/results")
# What a table's figures depend on besides its name and the data.
_BUDGET = ("seeds", "recipe", "epochs", "patience")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Returns what the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("table", choices=(*PUBLISHED_TABLES, *CHANGES, LABELS))
    add("--seeds", type=positive, default=5, help="seeds a row, from 0 (5)")
    add(
        "--dataset",
        type=_datasets,
        default="tfds_ave/resnet152",
        help="tfds_ave/CONFIG, or several, with commas (resnet152)",
    )
    # No shell turns the tilde of --runs=~/runs into a folder.
    path = os.path.expanduser
    add("--data_dir", type=path, help="where TFDS keeps data sets")
    add("--runs", type=path, default="runs/experiments", help="where the runs are kept")
    add(
        "--results",
        type=path,
        help="where the tables go, whatever made those that are there",
    )
    add(
        "--recipe",
        choices=(*RECIPES, "both"),
        default="both",
        help="as published, with the changes of experiments/best.json, or both (both)",
    )
    add("--epochs", type=positive, default=60, help="most epochs of a run (60)")
    add("--patience", type=positive, default=10, help="patience of a run (10)")
    add("--jobs", type=positive, default=1, help="runs at once, sharing the cores (1)")
    return parser.parse_args(argv)


def _datasets(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text.split(",")))


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


def fill(args: argparse.Namespace, console: Console) -> int:
    """Fills a table; returns how many runs have failed.

    Raises:
        UserError: If nothing can be trained, or the files can't be written.
        InterruptedRunsError: If a signal asked for an end.
    """
    if args.table in CHANGES and args.recipe != "both":
        raise UserError(
            f"--recipe={args.recipe}: expected none with {args.table}, which goes from "
            "one recipe to the other."
        )
    rows = load_rows(args)
    runs = [plan(row, args) for row in rows]
    used = {of_row[0].config.dataset for of_row in runs if of_row}
    for name in args.dataset:
        if name not in used:
            configs = sorted({str(row.dataset_config) for row in rows})
            raise UserError(
                f"--dataset={name}: expected a data set with the features of a row of "
                f"{args.table}{' that no other has' if used else ''}: "
                f"tfds_ave/{', '.join(configs)}."
            )
    waiting, failures = find_waiting(_needed(rows, runs, args))
    for failure in failures.values():
        _print(console, failure, style="red")
    # What starts from a run that can't be used fails with it.
    waiting = [run for run in waiting if run.source not in failures]
    # Here it is one message where data are missing, and one process that makes the
    # simulated ones.
    notices = {
        name: data.open_dataset(name, args.data_dir).notice
        for name in sorted({run.config.dataset for run in waiting})
    }
    if len(set(notices.values())) > 1:
        told = "; ".join(f"{n}: {notice or 'AVE'}" for n, notice in notices.items())
        raise UserError(
            "--dataset: expected data of one kind, since a table compares its rows. "
            f"Received {told}. Fill a table of each."
        )
    if waiting:
        failures |= train_all(waiting, args.jobs, console)
    results = read_results(rows, runs, failures)
    _write(args, results, console)
    # A run that several rows show, or that others start from, is counted once.
    failed = {*failures}
    for result in results:
        failed |= {result.runs[seed].folder for seed in result.failed}
    return len(failed)


def _needed(
    rows: Sequence[Row], runs: Sequence[list[Run]], args: argparse.Namespace
) -> list[Run]:
    """Returns the runs of all rows, and those that they start from."""
    needed = [run for of_row in runs for run in of_row]
    for row, of_row in zip(rows, runs, strict=True):
        if row.encoders and of_row:
            source = dataclasses.replace(load_row(row.encoders), recipe=row.recipe)
            needed += plan(source, args)
    return needed


def _write(
    args: argparse.Namespace, results: Sequence[Result], console: Console
) -> None:
    """Writes the table, and prints its accuracies."""
    outcomes = [outcome for result in results for outcome in result.outcomes]
    notice = (
        outcomes[0].notice
        if outcomes
        else data.open_dataset(args.dataset[0], args.data_dir).notice
    )
    title = f"{TITLES[args.table]}, on {' and '.join(args.dataset)}"
    label = "+".join(map(folder_name, args.dataset))
    if notice:
        is_simulated = "synthetic" in map(config_of, args.dataset)
        kind = "simulated" if is_simulated else "stand-in"
        title += f" ({kind}, not AVE)"
        label += f"-{kind}-not-ave"
    folder = _results_folder(args, f"{args.table}-{label}.md")
    lines, trivial = summarize(results), trivial_scores(results)
    done = {
        run.folder: run
        for result in results
        for seed, run in enumerate(result.runs)
        if seed not in result.failed
    }
    origins = [*describe_origins(list(done.values())), f"Written {describe_code()}."]
    text = tables.to_markdown(title, notice, _command(args), lines, trivial, origins)
    stem = folder / f"{args.table}-{label}"
    with explain_unwritable(folder, "Choose another folder by --results."):
        folder.mkdir(parents=True, exist_ok=True)
        write_text(stem.with_name(f"{stem.name}.md"), text)
        write_text(stem.with_name(f"{stem.name}.csv"), tables.to_csv(lines))
        figures.save(
            tables.draw(title, lines, trivial),
            stem.with_name(f"{stem.name}.png"),
            notice,
        )
    for line in lines:
        ours = percent(line["accuracy"]) if "accuracy" in line else ""
        if line["note"]:
            ours += f" {'failed: ' if line['failed_seeds'] else ''}{line['note']}"
        paper = "" if line["paper"] is None else f"paper {percent(line['paper'])}"
        _print(
            console,
            f"{line['system']:32} {line['features']:12} {line['recipe']:6} {paper:13}"
            f"   ours {ours.strip()}",
        )
    _print(console, f"Table: {stem}.md")
    if not args.results and folder != _RESULTS:
        _print(
            console,
            f"As a trial, it leaves {_RESULTS} as it is; --results={_RESULTS} puts it "
            "there.",
        )


def _results_folder(args: argparse.Namespace, name: str) -> pathlib.Path:
    """Returns where a table goes, so that no trial replaces a table in the results."""
    if args.results:
        return pathlib.Path(args.results)
    budget = _budget(shlex.split(_command(args)))
    there = _RESULTS / name
    if not budget or (there.is_file() and budget == _budget(there.read_text().split())):
        return _RESULTS
    return pathlib.Path(args.runs) / "tables"


def _budget(words: Sequence[str]) -> set[str]:
    """Returns by which settings of `_BUDGET` a command departs from the defaults."""
    defaults = vars(parse([LABELS]))
    given = {name: value for name, _, value in (word.partition("=") for word in words)}
    return {
        f"--{name}={given[f'--{name}']}"
        for name in _BUDGET
        if given.get(f"--{name}", str(defaults[name])) != str(defaults[name])
    }


def _command(args: argparse.Namespace) -> str:
    """Returns the command that fills the table."""
    defaults = vars(parse([args.table]))
    given = {**vars(args), "dataset": ",".join(args.dataset)}
    defaults["dataset"] = ",".join(defaults["dataset"])
    flags = [f"--{n}={v}" for n, v in given.items() if v != defaults[n]]
    return shlex.join(["python", "-m", "experiments.run", args.table, *flags])


def _print(console: Console, text: str, **style: Any) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True, **style)


def main(argv: Sequence[str]) -> None:
    """Fills a table; the exit code is 1 if a run has failed."""
    args = parse(argv)
    try:
        num_failed = fill(args, Console())
    except UserError as error:
        print(f"experiments.run: {error}", file=sys.stderr)
        sys.exit(2)
    except InterruptedRunsError as error:
        print(f"experiments.run: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    # While nothing is trained.
    except KeyboardInterrupt:
        error = InterruptedRunsError(signal.SIGINT)
        print(f"experiments.run: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    if num_failed:
        sys.exit(f"experiments.run: {num_failed} run(s) failed.")


if __name__ == "__main__":
    # TFDS warns of its own internals.
    logging.set_verbosity(logging.ERROR)
    with quiet_startup():
        # The trainings get the GPUs.
        tf.config.set_visible_devices([], "GPU")
    main(sys.argv[1:])
