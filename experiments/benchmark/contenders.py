"""Programs that do the same work in turns, each in a process of its own."""

import contextlib
import dataclasses
import json
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.programs import Program

OUR_PROGRAM = "experiments.benchmark.our_program"
PLAIN_KERAS = "experiments.benchmark.plain_keras_program"
TORCH = "experiments.benchmark.torch_program"
H5PY = "experiments.benchmark.h5py_program"


class Contender(Program):
    """A program that does its work when asked to; see `turns.py`.

    Args:
        module: Name of the program's module.
        work: Name of one of its functions.
        settings: Arguments of the function.
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
        """Let the program repeat its work for a while.

        Args:
            seconds: For how long.
            least: The least number of repetitions.

        Returns:
            The seconds of every repetition.

        Raises:
            UserError: If the program fails.
        """
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(f"{json.dumps([seconds, least])}\n")
            self.process.stdin.flush()
        # Libraries may print other lines.
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
    repeats: int,
    seconds: float = 1.0,
    least: int = 3,
) -> dict[str, list[list[float]]]:
    """Let programs take turns, so that the machine's other load hits them alike.

    Args:
        programs: By name the module, the function and the settings of a `Contender`.
        repeats: Number of turns of each program, after one to warm up. Every other
            round goes through the programs backwards.
        seconds: Length of a turn.
        least: The least number of repetitions in a turn: the median of three hides the
            first one, which is slow where a program has waited.

    Returns:
        By name, for every turn the seconds of every repetition.
    """
    with contextlib.ExitStack() as stack:
        contenders = {
            name: stack.enter_context(Contender(module, work, **settings))
            for name, (module, work, settings) in programs.items()
        }
        for contender in contenders.values():
            contender.take_turn(seconds, least)
        times: dict[str, list[list[float]]] = {name: [] for name in contenders}
        for repeat in range(repeats):
            for name in forth_and_back(list(contenders), repeat):
                times[name].append(contenders[name].take_turn(seconds, least))
    return times


def forth_and_back(names: Sequence[Any], repeat: int) -> Sequence[Any]:
    """Return the order of a round: backwards in every other one."""
    return names[::-1] if repeat % 2 else names


def medians(turns: Sequence[Sequence[float]]) -> list[float]:
    """Return the median of every turn."""
    return [statistics.median(turn) for turn in turns]
