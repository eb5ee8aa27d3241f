"""Plan the runs of a table, and train, resume and stop them as processes."""

import argparse
import collections
import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from avsdn_tf.errors import UserError
from avsdn_tf.files import explain_unwritable
from avsdn_tf.models.registry import MODEL_OPTIONS, MODELS
from avsdn_tf.run_folder import RunFolder
from avsdn_tf.training.config import Config
from avsdn_tf.training.distribution import num_cores
from avsdn_tf.training.signals import TrainingInterruptedError, handle_signals
from experiments.arguments import show
from experiments.benchmark.machine import describe_code, processor
from experiments.costs import peak_bytes
from experiments.published import Row, best_changes, load_row

_POLL_S = 0.1
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# Continues the message "Stopped by SIGTERM ..." of `TrainingInterruptedError`.
INTERRUPTED = "with all trainings; the same command resumes them."
TRAIN_AGAIN = "Remove the folder to train it again."


@dataclasses.dataclass(frozen=True)
class Run:
    """One training: a row's settings with one seed.

    Attributes:
        config: The settings.
        folder: The run folder. Rows with the same settings share a folder.
    """

    config: Config
    folder: pathlib.Path

    @property
    def log(self) -> pathlib.Path:
        """Path of the training's output."""
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def origin(self) -> pathlib.Path:
        """Path of the record of code, machine and peak memory."""
        return self.folder.with_name(f"{self.folder.name}.origin.json")

    @property
    def source(self) -> pathlib.Path | None:
        """Folder of the run whose encoders this run starts from, or None."""
        return pathlib.Path(self.config.encoders) if self.config.encoders else None

    def is_done(self) -> bool:
        """Return whether the run is finished.

        Raises:
            UserError: If the folder has a damaged run, or a run with other settings.
        """
        if not RunFolder(self.folder).report.is_file():
            return False
        recorded = _identity(self._read_config())
        differences = [
            f"{name} {recorded[name]}, not {value}"
            for name, value in _identity(self.config).items()
            if recorded[name] != value
        ]
        if differences:
            raise UserError(
                f"{self.folder}: holds a run with {'; '.join(differences)}. Remove it, "
                "or choose another folder by --runs."
            )
        return True

    def check_source(self) -> None:
        """Check that the run started from the current weights of its source.

        Raises:
            UserError: If the source was trained again afterwards.
        """
        origin = self.read_origin()
        if origin and origin.get("source") != _checksum_of(self.source):
            raise UserError(
                f"{self.folder}: the run started from {self.source}, which was trained "
                "again afterwards."
            )

    def command(self) -> list[str]:
        """Return the command that trains or resumes the run."""
        flags = [*self.config.to_flags(), f"--run={self.folder}"]
        return ["python", "-m", "avsdn_tf.main", *flags]

    def start(self, origin: Mapping[str, Any]) -> "subprocess.Popen[bytes]":
        """Start or resume the training.

        Args:
            origin: Code and machine, to record at the first start. `threads` is the
                number of threads of a TensorFlow operation.

        Raises:
            UserError: If files can't be written.
        """
        is_resumed = RunFolder(self.folder).config.is_file()
        with explain_unwritable(self.folder, "Choose another folder by --runs."):
            if not is_resumed:
                shutil.rmtree(self.folder, ignore_errors=True)
                self.folder.parent.mkdir(parents=True, exist_ok=True)
                source = _checksum_of(self.source)
                self.origin.write_text(json.dumps({**origin, "source": source}))
            with self.log.open("a" if is_resumed else "w") as output:
                return subprocess.Popen(
                    [sys.executable, *self.command()[1:]],
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env={
                        **os.environ,
                        "TF_NUM_INTRAOP_THREADS": str(origin["threads"]),
                    },
                    # The terminal's Ctrl+C must not reach the training, which would
                    # receive a second signal from `train_all` and not save.
                    start_new_session=True,
                )

    def note_peak(self, process: int) -> None:
        """Record the peak memory of the running training in `origin`.

        Args:
            process: Process ID of the training.
        """
        peak, record = peak_bytes(process), self.read_origin()
        if peak and record and peak > record.get("peak_bytes", 0):
            self.origin.write_text(json.dumps({**record, "peak_bytes": peak}))

    def explain(self, code: int) -> str | None:
        """Return an error message for a training's exit code, or None for success."""
        if code == 0:
            return None
        output = self.log.read_text(errors="replace")
        last = output.strip().splitlines() or ["no output"]
        return f"{self.folder.name}: exit code {code}, {last[-1]} (see {self.log})"

    def describe_origin(self) -> str:
        """Return the commit, machine and package versions of the training as text."""
        place = "by an unrecorded commit"
        if origin := self.read_origin():
            place = "{code}, {processor}, cores: {cores}, threads a run: {threads}"
            place = place.format(**origin)
        versions = RunFolder(self.folder).read_versions()
        names = {"tensorflow": "TensorFlow", "keras": "Keras", "avsdn_tf": "avsdn_tf"}
        packages = [f"{names[n]} {versions[n]}" for n in names if n in versions]
        return ", ".join([place, *packages])

    def read_origin(self) -> dict[str, Any]:
        """Return the content of `origin`, or an empty dictionary."""
        with contextlib.suppress(OSError, ValueError):
            return json.loads(self.origin.read_text())
        return {}

    def _read_config(self) -> Config:
        try:
            return Config.from_dict(RunFolder(self.folder).read_settings())
        except UserError as error:
            path = RunFolder(self.folder).config
            raise UserError(f"{path}: {error.message} {TRAIN_AGAIN}") from error


def _checksum_of(folder: pathlib.Path | None) -> str | None:
    """Return the checksum of a finished run's model, or None."""
    path = RunFolder(folder).checksums if folder else None
    return path.read_text() if path and path.is_file() else None


def _identity(config: Config) -> dict[str, Any]:
    """Return the settings that identify a run, without paths."""
    settings = config.to_dict()
    del settings["data_dir"]
    if config.encoders:
        settings["encoders"] = pathlib.Path(config.encoders).name
    return settings


def plan(row: Row, args: argparse.Namespace) -> list[Run]:
    """Return a row's runs, one per seed; none if no data set has the row's features."""
    dataset = next((name for name in args.dataset if row.fits(name)), None)
    if dataset is None:
        return []
    settings = dict(row.settings)
    if row.recipe == "best":
        # Options that the row's model lacks.
        inapplicable = set(MODEL_OPTIONS) - set(MODELS[row.model].options)
        for change in best_changes(row.mode):
            settings |= {n: v for n, v in change.items() if n not in inapplicable}
    words = [row.mode, row.model, *(f"{n}={v}" for n, v in sorted(settings.items()))]
    root = pathlib.Path(args.runs) / folder_name(dataset)
    sources = plan(source_of(row), args) if row.encoders else []
    runs = []
    for seed in range(args.seeds):
        if sources:
            settings["encoders"] = str(sources[seed].folder)
        config = Config(
            mode=row.mode,
            model=row.model,
            dataset=dataset,
            data_dir=args.data_dir,
            seed=seed,
            **{"epochs": args.epochs, "patience": args.patience, **settings},
        )
        runs.append(Run(config, root / f"{','.join(words)},seed={seed}"))
    return runs


def source_of(row: Row) -> Row:
    """Return the row whose trained encoders a row starts from."""
    return dataclasses.replace(load_row(row.encoders), recipe=row.recipe)


def folder_name(dataset: str) -> str:
    """Return a data set's name for file names."""
    return dataset.split("/")[-1].replace(":", "-")


def find_waiting(runs: Sequence[Run]) -> tuple[list[Run], dict[pathlib.Path, str]]:
    """Return the runs to train, and error messages of unusable runs by folder."""
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
    """Train or resume runs, several at once, and print the progress.

    Args:
        runs: Unfinished runs.
        jobs: Number of runs at once. They share the cores.
        console: Terminal for the progress.

    Returns:
        Error messages of failed runs, by folder.

    Raises:
        TrainingInterruptedError: If a signal was received. Every training has saved its
            state.
        UserError: If the files of a run can't be written.
    """
    origin = _describe_origin(jobs)
    waiting = list(runs)
    running: dict[Run, tuple[subprocess.Popen[bytes], float]] = {}
    failures: dict[pathlib.Path, str] = {}
    received: list[int] = []
    # A second signal has its default effect.
    with handle_signals(lambda n, restore: received.append(n) or restore(), _SIGNALS):
        try:
            while (waiting or running) and not received:
                for run, (process, start) in list(running.items()):
                    if (code := process.poll()) is None:
                        run.note_peak(process.pid)
                        continue
                    del running[run]
                    failure = run.explain(code)
                    if failure:
                        failures[run.folder] = failure
                    count = f"{len(runs) - len(waiting) - len(running)}/{len(runs)}"
                    minutes, seconds = divmod(round(time.monotonic() - start), 60)
                    done = f"done {run.folder.name}, {minutes}:{seconds:02d} min"
                    style = "red" if failure else None
                    show(console, f"{count} {failure or done}", style=style)
                # Wait for the runs whose encoders other runs need.
                pending = {str(run.folder) for run in (*waiting, *running)}
                ready = [run for run in waiting if run.config.encoders not in pending]
                for run in ready[: jobs - len(running)]:
                    waiting.remove(run)
                    running[run] = run.start(origin), time.monotonic()
                    show(console, f"training {run.folder.name}")
                time.sleep(_POLL_S)
        finally:
            for process, _ in running.values():
                process.terminate()
            for process, _ in running.values():
                process.wait()
    if received:
        raise TrainingInterruptedError(signal.Signals(received[0]), INTERRUPTED)
    return failures


def _describe_origin(jobs: int) -> dict[str, Any]:
    """Return the code and the machine, for `Run.start`."""
    cores = num_cores()
    return {
        "code": describe_code(),
        "processor": processor(),
        "cores": cores,
        "threads": max(1, cores // jobs),
    }


def describe_origins(runs: Sequence[Run]) -> list[str]:
    """Return sentences about the code and the machines of finished runs."""
    origins = collections.Counter(run.describe_origin() for run in runs)
    if len(origins) == 1:
        return [f"Trained {origin}." for origin in origins]
    return [
        f"{count} of {len(runs)} runs trained {origin}."
        for origin, count in origins.items()
    ]
