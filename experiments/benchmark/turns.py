"""What a measured process runs: it prepares a piece of work and does it when asked to.

    python turns.py MODULE WORK SETTINGS_JSON

`MODULE.WORK(**settings)` prepares, and returns a function that does the work once. Each
line on standard input asks for a turn: it is a JSON list of how many seconds the
repetitions are to last together, and of how many there have to be. Each turn is
answered by one line of JSON, the seconds that every repetition took.

It imports nothing of this package, and a program that is compared with it neither: what
such a program does not need may not weigh on it.
"""

import importlib
import json
import sys
import time
from collections.abc import Callable


def take_turn(
    work: Callable[[], int | None], seconds: float, least: int = 1
) -> list[float]:
    """Repeats some work for a while.

    Args:
        work: The work. If it is done several times at once, it returns how often.
        seconds: For how long.
        least: How often in any case.

    Returns:
        The seconds of every repetition, or the mean of those done at once.
    """
    times = []
    end = time.perf_counter() + seconds
    while len(times) < least or time.perf_counter() < end:
        start = time.perf_counter()
        num_times = work() or 1
        times.append((time.perf_counter() - start) / num_times)
    return times


def serve(module: str, work: str, settings: str) -> None:
    """Prepares some work, and takes a turn for each line of standard input."""
    prepared = getattr(importlib.import_module(module), work)(**json.loads(settings))
    for line in sys.stdin:
        # What libraries print may stand before it on the same stream.
        print(json.dumps(take_turn(prepared, *json.loads(line))), flush=True)


if __name__ == "__main__":
    serve(*sys.argv[1:])
