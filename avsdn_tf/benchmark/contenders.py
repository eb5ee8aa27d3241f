"""Programs that are measured in turns, each in a process of its own."""

import contextlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

from avsdn_tf.errors import UserError

_HERE = pathlib.Path(__file__).resolve().parent
KERAS = "avsdn_tf.benchmark.keras_program"
TORCH = "torch_program"
H5PY = "h5py_program"


class Contender:
    """A program that waits for its turns; a context manager, which ends it.

    Args:
        module: `KERAS`, `TORCH` or `H5PY`.
        work: The name of one of its functions.
        settings: What the function takes.

    Attributes:
        peak_bytes: The most memory that it held at a time, known when it has ended.
    """

    def __init__(self, module: str, work: str, **settings: Any) -> None:
        self.name = f"{module}.{work}"
        self.peak_bytes = 0
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 __exit__ closes it.
        command = [sys.executable, str(_HERE / "turns.py"), module, work]
        self.process = subprocess.Popen(
            [*command, json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=_environment(),
        )

    def take_turn(self, seconds: float) -> list[float]:
        """Lets it repeat its work for a while.

        Returns:
            The seconds of every repetition.

        Raises:
            UserError: If it fails.
        """
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(f"{seconds}\n")
            self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("["):
                return json.loads(line)
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip().splitlines()
        raise UserError(f"benchmark: {self.name} failed.\n" + "\n".join(said[-3:]))

    def __enter__(self) -> "Contender":
        """Returns the program."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends the program."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.peak_bytes = wait_for(self.process)
        self.process.stdout.close()
        self._errors.close()


def take_turns(
    contenders: Mapping[str, Contender], repeats: int, seconds: float = 1.0
) -> dict[str, list[list[float]]]:
    """Lets programs take turns, so that what else the machine does hits them alike.

    Args:
        contenders: The programs by name.
        repeats: How many turns each takes, after one to warm up.
        seconds: Length of a turn.

    Returns:
        By name, for every turn the seconds of every repetition.
    """
    # The first repetition builds graphs and compiles.
    for contender in contenders.values():
        contender.take_turn(seconds)
    times: dict[str, list[list[float]]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, contender in contenders.items():
            times[name].append(contender.take_turn(seconds))
    return times


def medians(turns: Sequence[Sequence[float]]) -> list[float]:
    """Returns the median of every turn."""
    return [statistics.median(turn) for turn in turns]


@contextlib.contextmanager
def command(words: Sequence[str]) -> Iterator[subprocess.Popen]:
    """Starts `python -m avsdn_tf.main` with some words, and ends it if need be.

    Yields:
        The process. `wait_for` tells what it took.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "avsdn_tf.main", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=_environment(),
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            process.wait()
        process.stderr.close()


def run_command(words: Sequence[str]) -> int:
    """Runs `python -m avsdn_tf.main` to its end.

    Returns:
        The most bytes of memory that it held at a time.

    Raises:
        UserError: If it fails.
    """
    with command(words) as process:
        said = process.stderr.read()
        peak_bytes = wait_for(process)
        if process.returncode:
            raise UserError(f"benchmark: {' '.join(words)} failed.\n{said}")
    return peak_bytes


def wait_for(process: subprocess.Popen) -> int:
    """Waits for a process, and returns the most bytes that were resident at a time."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_maxrss * 1024


def _environment() -> dict[str, str]:
    """Returns an environment in which this package is found, installed or not."""
    paths = [str(_HERE.parents[1]), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
