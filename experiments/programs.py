"""Python programs in processes of their own, whose peak memory is measured."""

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
# Without these, every program has as many threads as cores.
_THREADS = (
    "MKL_NUM_THREADS",
    "OMP_NUM_THREADS",
    "TF_NUM_INTEROP_THREADS",
    "TF_NUM_INTRAOP_THREADS",
)


class Program:
    """A Python program; a context manager, which kills it if it still runs.

    The arguments are those of `python`; `stdin` and `stdout` as `Popen` takes them.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        stdin: int = subprocess.DEVNULL,
        stdout: int = subprocess.DEVNULL,
    ) -> None:
        self.name = " ".join(arguments)
        # __exit__ closes both.
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
            # One group, so that one signal ends the helper and the program.
            start_new_session=True,
            env={
                **{n: v for n, v in os.environ.items() if n not in _THREADS},
                "PYTHONPATH": os.pathsep.join(filter(None, paths)),
                "TF_CPP_MIN_LOG_LEVEL": "3",
            },
        )

    def finish(self) -> int:
        """Wait for the end of the program, and return its peak memory in bytes.

        Raises:
            UserError: If it fails.
        """
        if self.process.wait():
            self.fail()
        self._peak.seek(0)
        return int(self._peak.read())

    def fail(self) -> NoReturn:
        """Raise an error with the last lines that the program has printed."""
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
    """Run `python -m MODULE WORDS` to its end, and return its peak memory in bytes.

    Raises:
        UserError: If it fails.
    """
    with Program(["-m", module, *words]) as program:
        return program.finish()
