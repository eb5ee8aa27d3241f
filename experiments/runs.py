"""The trainings behind a table: planned, run as processes, resumed and stopped."""

import argparse
import collections
import contextlib
import dataclasses
import json
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)

from experiments.benchmark.results import describe_code, processor
from avsdn_tf.commands import repeat_command
from avsdn_tf.training.config import Config
from avsdn_tf.training.distribution import num_cores
from avsdn_tf.errors import UserError
from avsdn_tf.files import explain_unwritable
from avsdn_tf.training.signals import handling
from avsdn_tf.models.registry import MODEL_OPTIONS, MODELS
from avsdn_tf.run_folder import RunFolder
from experiments.published import Row, best_changes, load_row

_POLL_S = 0.1
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
TRAIN_AGAIN = "Remove the folder to train it again."


class InterruptedRunsError(Exception):
    """A signal asked for an end, and all trainings have ended.

    Args:
        number: The signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__("interrupted; the same command goes on")
        # What shells and schedulers take as ended by a signal.
        self.exit_code = 128 + number


@dataclasses.dataclass(frozen=True)
class Run:
    """One training: a row's settings with one seed.

    Attributes:
        config: Its settings.
        folder: Its run folder. Rows with the same settings share it.
    """

    config: Config
    folder: pathlib.Path

    @property
    def log(self) -> pathlib.Path:
        """The file beside the folder that takes what the training prints."""
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def source(self) -> pathlib.Path | None:
        """The folder of the run whose encoders it starts from, if it does."""
        return pathlib.Path(self.config.encoders) if self.config.encoders else None

    @property
    def _origins(self) -> pathlib.Path:
        """The file beside the folder that tells where its training took place."""
        return self.folder.with_name(f"{self.folder.name}.origins.jsonl")

    def is_done(self) -> bool:
        """Returns whether the folder holds this run, finished.

        Raises:
            UserError: If it holds another one, or a damaged one.
        """
        if not RunFolder(self.folder).report.is_file():
            return False
        found = _identity(Config.from_dict(self._read_config()["config"]))
        other = [
            f"{name} {found[name]}, not {value}"
            for name, value in _identity(self.config).items()
            if found[name] != value
        ]
        if other:
            raise UserError(
                f"{self.folder}: holds a run with {'; '.join(other)}. Remove it, or "
                "choose another folder by --runs."
            )
        return True

    def check_source(self) -> None:
        """Checks that a finished run started from the encoders that are there now.

        Raises:
            UserError: If its source was trained anew since.
        """
        if self.source is None:
            return
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            now = _digest_of(self.source)
            # The first line tells what it started from, and a later one what it would
            # have, had it not gone on.
            for line in self._origins.read_text().splitlines():
                if json.loads(line)["source"] != now:
                    raise UserError(
                        f"{self.folder}: expected a run that started from the one in "
                        f"{self.source}. Received one from before that was trained "
                        f"anew. {TRAIN_AGAIN}"
                    )

    def command(self) -> list[str]:
        """Returns the command that trains it, or goes on where it was interrupted."""
        return [*shlex.split(repeat_command(self.config)), f"--run={self.folder}"]

    def start(self, origin: dict[str, Any]) -> "subprocess.Popen[bytes]":
        """Starts its training.

        Args:
            origin: What is remembered of where it takes place; of this, `threads` says
                how many threads TensorFlow may use for one operation.

        Raises:
            UserError: If its files can't be written.
        """
        begun = RunFolder(self.folder).config.is_file()
        if self.source is not None:
            origin = {**origin, "source": _digest_of(self.source)}
        with explain_unwritable(self.folder, "Choose another folder by --runs."):
            if not begun:
                shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            # What a run that goes on has said before, is kept.
            how = "a" if begun else "w"
            with self._origins.open(how) as file:
                file.write(json.dumps(origin) + "\n")
            with self.log.open(how) as output:
                return subprocess.Popen(
                    [sys.executable, *self.command()[1:]],
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env={
                        **os.environ,
                        "TF_NUM_INTRAOP_THREADS": str(origin["threads"]),
                    },
                    # Ctrl-C is then for the runner alone, which passes it on: a second
                    # signal would keep a training from saving where it is.
                    start_new_session=True,
                )

    def explain(self, code: int) -> str | None:
        """Returns why its training failed, or None, by the exit code."""
        if code == 0:
            return None
        output = self.log.read_text(errors="replace")
        last = output.strip().splitlines() or ["no output"]
        return f"{self.folder.name}: exit code {code}, {last[-1]} (see {self.log})"

    def describe_origin(self) -> str:
        """Returns by which code, with which packages and where it was trained."""
        text = "{code}, {processor}, {cores} core{s}, threads a run: {threads}"
        try:
            found = map(json.loads, self._origins.read_text().splitlines())
            places = [
                text.format(**place, s="" if place["cores"] == 1 else "s")
                for place in found
            ]
        except (OSError, ValueError, KeyError, TypeError):
            places = ["by an unrecorded commit"]
        versions = self._read_config().get("versions", {})
        named = {"tensorflow": "TensorFlow", "keras": "Keras", "avsdn_tf": "avsdn_tf"}
        packages = [f"{named[n]} {versions[n]}" for n in named if n in versions]
        return ", ".join([", then ".join(dict.fromkeys(places)), *packages])

    def _read_config(self) -> dict[str, Any]:
        path = RunFolder(self.folder).config
        try:
            content = json.loads(path.read_text())
            Config.from_dict(content["config"])
        # A value of a wrong type fails in a comparison.
        except (OSError, ValueError, KeyError, TypeError, UserError) as error:
            raise UserError(
                f"{path}: expected what a training wrote. "
                f"Received: {type(error).__name__}: {error}. {TRAIN_AGAIN}"
            ) from error
        return content


def _digest_of(folder: pathlib.Path) -> str | None:
    """Returns the digest that a finished run keeps of its network."""
    checksums = RunFolder(folder).checksums
    return checksums.read_text() if checksums.is_file() else None


def _identity(config: Config) -> dict[str, Any]:
    """Returns what makes two runs the same, wherever data and runs lie."""
    settings = config.to_dict()
    del settings["data_dir"]
    if config.encoders:
        settings["encoders"] = pathlib.Path(config.encoders).name
    return settings


def plan(row: Row, args: argparse.Namespace) -> list[Run]:
    """Returns a row's runs, one a seed; none if no data set has its features."""
    dataset = next((name for name in args.dataset if row.fits(name)), None)
    if dataset is None:
        return []
    settings = dict(row.settings)
    if row.recipe == "best":
        options = MODELS[row.model].options
        for change in best_changes(row.mode):
            for name, value in change.items():
                if name in options or name not in MODEL_OPTIONS:
                    settings[name] = value
    words = [row.mode, row.model, *(f"{n}={v}" for n, v in sorted(settings.items()))]
    root = pathlib.Path(args.runs) / folder_name(dataset)
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
                "dataset": dataset,
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


def folder_name(dataset: str) -> str:
    """Returns how a data set is called in names of files."""
    return dataset.split("/")[-1].replace(":", "-")


def find_waiting(runs: Sequence[Run]) -> tuple[list[Run], dict[pathlib.Path, str]]:
    """Returns the runs that are to be trained, and why others never can be.

    Args:
        runs: Runs, of which several may share a folder.

    Returns:
        The runs that are not done, a folder once, and by its folder what is wrong with
        a run that is finished but can't be used.
    """
    waiting, failures = [], {}
    for run in {run.folder: run for run in runs}.values():
        try:
            if not run.is_done():
                waiting.append(run)
        except UserError as error:
            failures[run.folder] = str(error)
    return waiting, failures


def train_all(
    runs: Sequence[Run], jobs: int, console: Console
) -> dict[pathlib.Path, str]:
    """Trains runs, several at once, and shows how far they are.

    Args:
        runs: Runs that are not done; one that was interrupted goes on.
        jobs: How many at once; they share the cores.
        console: Where to say what happens.

    Returns:
        Why runs failed, by their folders.

    Raises:
        InterruptedRunsError: If a signal asked for an end. It was passed on, and every
            training has saved where it is.
        UserError: If the files of a run can't be written.
    """
    origin = _here(jobs)
    waiting = list(runs)
    running: dict[Run, subprocess.Popen[bytes]] = {}
    failures = {}
    with _remember_signals() as received, _Show(console, len(runs)) as show:
        try:
            while (waiting or running) and not received:
                for run, process in list(running.items()):
                    code = process.poll()
                    if code is not None:
                        del running[run]
                        failure = run.explain(code)
                        if failure:
                            failures[run.folder] = failure
                        show.ended(run, failure)
                # What a run starts from has to be there first.
                pending = {str(run.folder) for run in (*waiting, *running)}
                ready = [run for run in waiting if run.config.encoders not in pending]
                for run in ready[: jobs - len(running)]:
                    waiting.remove(run)
                    running[run] = run.start(origin)
                    show.started(run)
                time.sleep(_POLL_S)
        finally:
            for process in running.values():
                process.terminate()
            for process in running.values():
                process.wait()
    if received:
        raise InterruptedRunsError(received[0])
    return failures


@contextlib.contextmanager
def _remember_signals() -> Iterator[list[int]]:
    """Collects the signals that ask for an end; the second one acts as usual."""
    received: list[int] = []

    def remember(number: int, restore: Callable[[], None]) -> None:
        received.append(number)
        restore()

    with handling(remember, _SIGNALS):
        yield received


class _Show:
    """Says which runs start and end: lines, and on a terminal a bar below them.

    Args:
        console: Where to write.
        num_runs: How many runs there will be.
    """

    def __init__(self, console: Console, num_runs: int) -> None:
        self._console = console
        self._num_runs = num_runs
        self._num_ended = 0
        self._begun: dict[Run, float] = {}
        self._bar = Progress(
            # Names are no markup.
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=num_runs)

    def __enter__(self) -> "_Show":
        """Shows the bar."""
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Removes the bar."""
        self._bar.stop()

    def started(self, run: Run) -> None:
        """Says that a run has started."""
        self._begun[run] = time.monotonic()
        self._print(f"training {run.folder.name}")

    def ended(self, run: Run, failure: str | None) -> None:
        """Says that a run has ended, and how."""
        minutes, seconds = divmod(round(time.monotonic() - self._begun.pop(run)), 60)
        self._num_ended += 1
        self._print(
            f"{self._num_ended}/{self._num_runs} "
            + (failure or f"done {run.folder.name}, {minutes}:{seconds:02d} min"),
            style="red" if failure else None,
        )

    def _print(self, text: str, style: str | None = None) -> None:
        named = [f"{run.config.model}, seed {run.config.seed}" for run in self._begun]
        self._bar.update(
            self._task, completed=self._num_ended, description=" and ".join(named)
        )
        self._console.print(
            text, style=style, highlight=False, markup=False, soft_wrap=True
        )


def describe_origins(runs: Sequence[Run]) -> list[str]:
    """Returns how finished runs came about: a text, or one each if they differ."""
    origins = collections.Counter(run.describe_origin() for run in runs)
    if len(origins) == 1:
        return [f"Trained {origin}." for origin in origins]
    return [
        f"{count} of {len(runs)} runs trained {origin}."
        for origin, count in origins.items()
    ]


def _here(jobs: int) -> dict[str, Any]:
    """Returns what a result and its wall time depend on besides the settings."""
    cores = num_cores()
    return {
        "code": describe_code(),
        "processor": processor(),
        "cores": cores,
        "threads": max(1, cores // jobs),
    }
