"""Measure programs in turns, each in its own process, on the same work."""

import contextlib
import dataclasses
import json
import statistics
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiments.benchmark.batch import Batch
from experiments.programs import Program

OURS = "experiments.benchmark.our_program"
PLAIN_KERAS = "experiments.benchmark.plain_keras_program"
TORCH = "experiments.benchmark.torch_program"
TORCH_HEADS = "experiments.benchmark.torch_heads"


class Contender(Program):
    """A program that repeats its work on request; see `turns.py`.

    Args:
        module: Name of the program's module.
        work: Name of a function in the module.
        settings: Arguments of the function, including `batch`.
    """

    def __init__(self, module: str, work: str, **settings: Any) -> None:
        words = json.dumps(settings, default=dataclasses.asdict)
        super().__init__(
            ["-m", "experiments.benchmark.turns", module, work, words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.name = f"{module}.{work}"

    def take_turn(self, seconds: float = 0, least: int = 1) -> list[float]:
        """Run one turn, and return each call's seconds per unit of work.

        The arguments are passed to `turns.take_turn`.

        Raises:
            UserError: If the program fails.
        """
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(f"{json.dumps([seconds, least])}\n")
            self.process.stdin.flush()
        # Skip other lines, which libraries may print.
        for line in self.process.stdout:
            if line.startswith("["):
                return json.loads(line)
        self.fail()

    def finish(self) -> int:
        """End the program, and return its peak memory in bytes."""
        self.process.stdin.close()
        return super().finish()


def compete(
    programs: Mapping[str, tuple[str, str, Mapping[str, Any]]],
    batch: Batch,
    repeats: int,
    seconds: float = 1.0,
    least: int = 3,
) -> dict[str, list[list[float]]]:
    """Measure programs in turns, so that other load affects all programs alike.

    Args:
        programs: Module, function and settings of each `Contender`, by name.
        batch: The network and its shapes.
        repeats: Number of turns of each program, after a turn to warm up.
        seconds: Duration of a turn.
        least: Minimum number of calls in a turn. The median of three calls hides the
            first call, which is slow after a pause.

    Returns:
        A list of turns for each name; a turn lists each call's seconds per unit of
        work.
    """
    with contextlib.ExitStack() as stack:
        turns = {}
        for name, (module, work, settings) in programs.items():
            contender = stack.enter_context(
                Contender(module, work, batch=batch, **settings)
            )
            contender.take_turn(seconds, least)
            turns[name] = lambda c=contender: c.take_turn(seconds, least)
        return alternate(turns, repeats)


def alternate(
    work: Mapping[str, Callable[[], Any]], repeats: int
) -> dict[str, list[Any]]:
    """Call functions in turns, and return the results of each function by name.

    Every other round calls the functions in reverse order.
    """
    results: dict[str, list[Any]] = {name: [] for name in work}
    for repeat in range(repeats):
        for name in list(work)[:: -1 if repeat % 2 else 1]:
            results[name].append(work[name]())
    return results


def medians(turns: Sequence[Sequence[float]]) -> list[float]:
    """Return the median of every turn."""
    return [statistics.median(turn) for turn in turns]
