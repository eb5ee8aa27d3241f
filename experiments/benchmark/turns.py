"""Repeat a piece of work, in turns that the parent process asks for.

    python -m experiments.benchmark.turns MODULE WORK SETTINGS_JSON

`MODULE.WORK(**settings)` prepares, and returns a function that does the work once. Each
line on standard input is a JSON list of the arguments `seconds` and `least` of
`take_turn`. The answer is one line of JSON, the seconds of every repetition.

This module imports nothing of avsdn_tf: the other programs must not pay for that.
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
    """Repeat work for some seconds, and at least some times.

    Returns:
        The seconds of every repetition. Work that a call does several times returns how
        often, and its seconds are the mean.
    """
    times = []
    end = time.perf_counter() + seconds
    while len(times) < least or time.perf_counter() < end:
        start = time.perf_counter()
        num_times = work() or 1
        times.append((time.perf_counter() - start) / num_times)
    return times


def serve(module: str, work: str, settings: str) -> None:
    """Prepare the work, and take a turn for each line of standard input."""
    given = json.loads(settings)
    given["batch"] = Batch(**given["batch"])
    prepared = getattr(importlib.import_module(module), work)(**given)
    for line in sys.stdin:
        print(json.dumps(take_turn(prepared, *json.loads(line))), flush=True)


if __name__ == "__main__":
    serve(*sys.argv[1:])
