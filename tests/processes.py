"""Run commands of the package as processes."""

import contextlib
import os
import signal
import subprocess
import sys
import time

TIMEOUT_S = 300


@contextlib.contextmanager
def sigint_reset():
    """Reset SIGINT for child processes.

    A shell starts background jobs with SIGINT ignored, and child processes inherit this
    setting.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def started(*arguments, module="avsdn_tf.main", env=None):
    """Start a command; yield its process, with stderr redirected to stdout."""
    with sigint_reset():
        process = subprocess.Popen(
            [sys.executable, "-m", module, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **(env or {})},
        )
    with process:
        try:
            yield process
        finally:
            # SIGTERM, not SIGKILL: a launcher must stop its workers.
            if process.poll() is None:
                process.terminate()


def run(*arguments, **kwargs):
    """Return the exit code and the output of a command."""
    with started(*arguments, **kwargs) as process:
        output, _ = process.communicate(timeout=TIMEOUT_S)
    return process.returncode, output


def read_until(process, text):
    """Read and return the output lines up to the first that contains a text."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return lines
    raise AssertionError(f"{text!r} was not printed:\n{''.join(lines)}")


def finish(process):
    """Wait for the process; return exit code, remaining output and waiting time (s)."""
    begin = time.monotonic()
    output, _ = process.communicate(timeout=TIMEOUT_S)
    return process.returncode, output, time.monotonic() - begin
