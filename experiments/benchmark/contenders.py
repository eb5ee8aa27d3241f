"""Programs that are measured in turns, each in a process of its own."""

import contextlib
import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

from avsdn_tf.errors import UserError

_HERE = pathlib.Path(__file__).resolve().parent
KERAS = "experiments.benchmark.keras_program"
TORCH = "torch_program"
H5PY = "h5py_program"
# What would give one of the programs fewer threads than another.
_THREADS = (
    "MKL_NUM_THREADS",
    "OMP_NUM_THREADS",
    "TF_NUM_INTEROP_THREADS",
    "TF_NUM_INTRAOP_THREADS",
)


class Program:
    """A Python program that was started, whose peak memory is known at its end.

    Args:
        arguments: What `python` is given.
        streams: Where its streams go, as `subprocess.Popen` takes them.

    Attributes:
        process: The process, text streams and all.
    """

    def __init__(self, arguments: Sequence[str], **streams: Any) -> None:
        self._peak = tempfile.NamedTemporaryFile("r")  # noqa: SIM115 wait closes it.
        helper = [sys.executable, "-S", str(_HERE / "peak.py"), self._peak.name]
        paths = [str(_HERE.parents[1]), os.environ.get("PYTHONPATH", "")]
        self.process = subprocess.Popen(
            [*helper, sys.executable, *arguments],
            text=True,
            # The helper and the program, to end both.
            start_new_session=True,
            env={
                **{n: v for n, v in os.environ.items() if n not in _THREADS},
                # This package is found, installed or not.
                "PYTHONPATH": os.pathsep.join(filter(None, paths)),
                "TF_CPP_MIN_LOG_LEVEL": "3",
            },
            **streams,
        )

    def wait(self) -> int:
        """Waits for its end, and returns the most bytes that it held; 0 if killed."""
        self.process.wait()
        with self._peak as file:
            return int(file.read() or 0)

    def kill(self) -> None:
        """Ends it at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


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
        self._program = Program(
            [str(_HERE / "turns.py"), module, work, json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )

    def take_turn(self, seconds: float = 0, least: int = 1) -> list[float]:
        """Lets it repeat its work for a while.

        Args:
            seconds: For how long.
            least: How often in any case.

        Returns:
            The seconds of every repetition.

        Raises:
            UserError: If it fails.
        """
        process = self._program.process
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(f"{json.dumps([seconds, least])}\n")
            process.stdin.flush()
        for line in process.stdout:
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
        if kind is not None:
            self._program.kill()
        process = self._program.process
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        self.peak_bytes = self._program.wait()
        process.stdout.close()
        self._errors.close()


def take_turns(
    contenders: Mapping[str, Contender],
    repeats: int,
    seconds: float = 1.0,
    least: int = 3,
) -> dict[str, list[list[float]]]:
    """Lets programs take turns, so that what else the machine does hits them alike.

    Args:
        contenders: The programs by name.
        repeats: How many turns each takes, after one to warm up: forth, back, and so
            on.
        seconds: Length of a turn.
        least: Repetitions in a turn, however long they take: the first one of a program
            that has waited is slow, which the median of three does not show.

    Returns:
        By name, for every turn the seconds of every repetition.
    """
    # The first repetition builds graphs and compiles.
    for contender in contenders.values():
        contender.take_turn(seconds, least)
    times: dict[str, list[list[float]]] = {name: [] for name in contenders}
    names = list(contenders)
    for repeat in range(repeats):
        for name in names[:: -1 if repeat % 2 else 1]:
            times[name].append(contenders[name].take_turn(seconds, least))
    return times


def medians(turns: Sequence[Sequence[float]]) -> list[float]:
    """Returns the median of every turn."""
    return [statistics.median(turn) for turn in turns]


@contextlib.contextmanager
def command(words: Sequence[str]) -> Iterator[Program]:
    """Starts `python -m avsdn_tf.main` with some words, and ends it if need be."""
    program = Program(
        ["-m", "avsdn_tf.main", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        yield program
    finally:
        if program.process.poll() is None:
            program.kill()
            program.wait()
        program.process.stderr.close()


def run_command(words: Sequence[str]) -> int:
    """Runs `python -m avsdn_tf.main` to its end.

    Returns:
        The most bytes of memory that it held at a time.

    Raises:
        UserError: If it fails.
    """
    with command(words) as program:
        said = program.process.stderr.read()
        peak_bytes = program.wait()
        if program.process.returncode:
            raise UserError(f"benchmark: {' '.join(words)} failed.\n{said}")
    return peak_bytes
