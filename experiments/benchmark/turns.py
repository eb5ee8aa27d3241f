"""Run a piece of work again and again, in turns that the parent process asks for.

    python -m experiments.benchmark.turns MODULE WORK SETTINGS_JSON

`MODULE.WORK(**settings)` prepares, and returns a function that does the work once. Each
line on standard input asks for a turn: a JSON list of the seconds that all repetitions
last together, and of the least number of repetitions. Each turn is answered by one line
of JSON, the seconds that every repetition took.

This module imports nothing of avsdn_tf: the programs that it is compared with must not
pay for its imports.
"""

import importlib
import json
import sys
import time
from collections.abc import Callable

from experiments.benchmark.batch import Batch


def take_turn(
    work: Callable[[], int | None], seconds: float, least: int = 1
) -> list[float]:
    """Repeat some work for a while.

    Args:
        work: The work. If a call does it several times, it returns how often.
        seconds: For how long.
        least: The least number of repetitions.

    Returns:
        The seconds of every repetition, or their mean where a call does several.
    """
    times = []
    end = time.perf_counter() + seconds
    while len(times) < least or time.perf_counter() < end:
        start = time.perf_counter()
        num_times = work() or 1
        times.append((time.perf_counter() - start) / num_times)
    return times


def serve(module: str, work: str, settings: str) -> None:
    """Prepare some work, and take a turn for each line of standard input."""
    given = json.loads(settings)
    if "batch" in given:
        given["batch"] = Batch(**given["batch"])
    prepared = getattr(importlib.import_module(module), work)(**given)
    for line in sys.stdin:
        print(json.dumps(take_turn(prepared, *json.loads(line))), flush=True)


if __name__ == "__main__":
    serve(*sys.argv[1:])
