"""Runs commands of the package as processes, the way people do."""

import contextlib
import os
import signal
import subprocess
import sys
import time

TIMEOUT_S = 300


@contextlib.contextmanager
def started(*arguments, module="avsdn_tf.main", env=None):
    """Starts a command; its output, both streams, can be read line by line."""
    # Ctrl-C reaches it even where a shell has started the tests in the background: then
    # they ignore it, and so would all that they start.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **(env or {})},
        )
    finally:
        signal.signal(signal.SIGINT, before)
    with process:
        try:
            yield process
        finally:
            # Asked, since a launcher then ends its workers.
            if process.poll() is None:
                process.terminate()


def run(*arguments, **kwargs):
    """Returns the exit code and the output of a command."""
    with started(*arguments, **kwargs) as process:
        output, _ = process.communicate(timeout=TIMEOUT_S)
    return process.returncode, output


def read_until(process, text):
    """Reads a command's output up to a line that holds a text."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return lines
    raise AssertionError(f"{text!r} was not printed:\n{''.join(lines)}")


def finish(process):
    """Returns the exit code, the rest of the output, and how long that took."""
    begin = time.monotonic()
    output, _ = process.communicate(timeout=TIMEOUT_S)
    return process.returncode, output, time.monotonic() - begin
