"""Time a function whenever the parent process requests a turn.

    python -m experiments.benchmark.turns MODULE WORK SETTINGS_JSON

`MODULE.WORK(**settings)` prepares the work, and returns the function to time. Each line
on standard input requests a turn: a JSON list of the arguments `seconds` and `least` of
`take_turn`. The program prints the result of `take_turn` as a line of JSON.

The module doesn't import avsdn_tf, because the baselines run in its process.
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
    """Call a function repeatedly for `seconds`, but at least `least` times.

    Args:
        work: The function to time. It may return the number of steps in the call.
        seconds: Duration of the turn.
        least: Minimum number of calls.

    Returns:
        The seconds per step of each call; a call without a number counts as one step.
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
    arguments = json.loads(settings)
    arguments["batch"] = Batch(**arguments["batch"])
    function = getattr(importlib.import_module(module), work)(**arguments)
    for line in sys.stdin:
        print(json.dumps(take_turn(function, *json.loads(line))), flush=True)


if __name__ == "__main__":
    serve(*sys.argv[1:])
