"""Run Python programs as processes, and measure their peak memory."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import NoReturn

from avsdn_tf.errors import UserError

_HERE = pathlib.Path(__file__).resolve().parent
# Removed from the environment, so that programs use all cores.
_THREADS = (
    "MKL_NUM_THREADS",
    "OMP_NUM_THREADS",
    "TF_NUM_INTEROP_THREADS",
    "TF_NUM_INTRAOP_THREADS",
)


class Program:
    """A running Python program, as a context manager that kills it at the end.

    Args:
        arguments: Arguments of `python`.
        stdin: As in `subprocess.Popen`.
        stdout: As in `subprocess.Popen`.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        stdin: int = subprocess.DEVNULL,
        stdout: int = subprocess.DEVNULL,
    ) -> None:
        self.name = " ".join(arguments)
        # `__exit__` closes both files.
        self._peak = tempfile.NamedTemporaryFile("r")  # noqa: SIM115
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        helper = [sys.executable, "-S", str(_HERE / "peak.py"), self._peak.name]
        paths = [str(_HERE.parent), os.environ.get("PYTHONPATH", "")]
        self.process = subprocess.Popen(
            [*helper, sys.executable, *arguments],
            text=True,
            stdin=stdin,
            stdout=stdout,
            stderr=self._errors,
            # A process group, so that one signal kills helper and program.
            start_new_session=True,
            env={
                **{n: v for n, v in os.environ.items() if n not in _THREADS},
                "PYTHONPATH": os.pathsep.join(filter(None, paths)),
                "TF_CPP_MIN_LOG_LEVEL": "3",
            },
        )

    def finish(self) -> int:
        """Wait until the program ends, and return its peak memory in bytes.

        Raises:
            UserError: If the program fails.
        """
        if self.process.wait():
            self.fail()
        self._peak.seek(0)
        return int(self._peak.read())

    def fail(self) -> NoReturn:
        """Raise UserError with the last lines of the program's output."""
        self.process.wait()
        self._errors.seek(0)
        output = self._errors.read().decode(errors="replace").strip().splitlines()
        raise UserError(f"{self.name} failed.\n" + "\n".join(output[-3:]))

    def __enter__(self) -> "Program":
        """Return the program."""
        return self

    def __exit__(self, *_: object) -> None:
        """Kill the program if it still runs."""
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        for file in (self.process.stdin, self.process.stdout, self._peak, self._errors):
            if file:
                with contextlib.suppress(BrokenPipeError):
                    file.close()


def run_command(words: Sequence[str], module: str = "avsdn_tf.main") -> int:
    """Run `python -m MODULE WORDS`, and return its peak memory in bytes.

    Raises:
        UserError: If the program fails.
    """
    with Program(["-m", module, *words]) as program:
        return program.finish()
