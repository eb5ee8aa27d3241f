"""Kills trainings at random moments, and compares what they end in once resumed.

    python -m experiments.kill_runs [--times=20] [--jobs=2] [--seed=0]
        [--out=FILE.md]

A training runs unbroken. Then, again and again, the same training is killed (SIGKILL)
at a moment drawn evenly from the time between its first line and its last epoch, and
the same command is given again. It counts as identical if all weights of the model and
all numbers of metrics.csv but the seconds are those of the unbroken one, bit for bit.
The exit code is 1 unless all are.
"""

import argparse
import concurrent.futures
import csv
import dataclasses
import pathlib
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from avsdn_tf.run_folder import RunFolder

# Dropout, averaged weights and weight decay have a state that must survive; a
# checkpoint is saved after every call into the graph.
_FLAGS = (
    "--units=16",
    "--epochs=40",
    "--patience=40",
    "--dropout=0.3",
    "--ema=0.95",
    "--weight_decay=0.01",
    "--checkpoint_minutes=0.00001",
)
_FIRST_LINE = "batches an epoch"
_LAST_LINE = "kept epoch"


@dataclasses.dataclass(frozen=True)
class Attempt:
    """A training that was killed and resumed.

    Attributes:
        killed_after_s: Seconds from its first line.
        went_on_in: The epoch that it went on in; None if nothing had been saved.
        is_identical: Whether it ended like the unbroken one.
    """

    killed_after_s: float
    went_on_in: int | None
    is_identical: bool


def start(run: pathlib.Path) -> "subprocess.Popen[str]":
    """Starts the training in a run folder."""
    return subprocess.Popen(
        [sys.executable, "-m", "avsdn_tf.main", *_FLAGS, f"--run={run}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(run: pathlib.Path) -> tuple[list[str], float]:
    """Trains to the end.

    Returns:
        What was printed, and the seconds from the first line to the last epoch.

    Raises:
        RuntimeError: If it failed.
    """
    lines, times = [], {}
    with start(run) as process:
        for line in process.stdout:
            lines.append(line)
            for mark in (_FIRST_LINE, _LAST_LINE):
                if mark in line:
                    times[mark] = time.monotonic()
    if process.returncode:
        raise RuntimeError(f"{run}: exit code {process.returncode}\n{''.join(lines)}")
    return lines, times[_LAST_LINE] - times[_FIRST_LINE]


def kill_after(run: pathlib.Path, seconds: float) -> None:
    """Trains, and kills it so many seconds after its first line."""
    with start(run) as process:
        for line in process.stdout:
            if _FIRST_LINE in line:
                break
        time.sleep(seconds)
        process.kill()


def read_outcome(run: pathlib.Path) -> tuple[list[bytes], list[dict[str, Any]]]:
    """Returns all weights and all metrics but the seconds."""
    model = RunFolder(run).load_model()
    with (run / "metrics.csv").open(newline="") as file:
        rows = [{**row, "seconds": ""} for row in csv.DictReader(file)]
    return [weight.tobytes() for weight in model.get_weights()], rows


def attempt(
    folder: pathlib.Path, number: int, moment_s: float, expected: Any
) -> Attempt:
    """Kills and resumes one training."""
    run = folder / f"killed{number:02d}"
    kill_after(run, moment_s)
    lines, _ = finish(run)
    resumed = [line for line in lines if "going on in epoch" in line]
    return Attempt(
        moment_s,
        int(resumed[0].split()[-1]) if resumed else None,
        read_outcome(run) == expected,
    )


def main(argv: Sequence[str]) -> None:
    """Runs all attempts, and prints a line for each and the count."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.kill_runs",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--times", type=int, default=20, help="how many trainings to kill (20)")
    add("--jobs", type=int, default=1, help="trainings at once (1)")
    add("--seed", type=int, default=0, help="seed of the moments (0)")
    add("--folder", type=pathlib.Path, help="where the runs go; a temporary folder")
    add("--out", type=pathlib.Path, help="a Markdown file for the result")
    args = parser.parse_args(argv)
    console = Console(highlight=False, soft_wrap=True)
    moments = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or pathlib.Path(temporary)
        _, length_s = finish(folder / "unbroken")
        expected = read_outcome(folder / "unbroken")
        console.print(f"unbroken: {length_s:.1f} s from the first line to the last")
        drawn = [moments.uniform(0, length_s) for _ in range(args.times)]
        attempts = []
        with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
            for result in pool.map(
                lambda number: attempt(folder, number, drawn[number], expected),
                range(args.times),
            ):
                attempts.append(result)
                console.print(f"{len(attempts):3d}  {_describe(result)}")
    count = sum(result.is_identical for result in attempts)
    console.print(f"{count} of {len(attempts)} identical")
    if args.out:
        args.out.write_text(_page(args, length_s, attempts))
    sys.exit(count != len(attempts))


def _describe(result: Attempt) -> str:
    where = f"in epoch {result.went_on_in}" if result.went_on_in else "at the beginning"
    verdict = "identical" if result.is_identical else "DIFFERENT"
    return f"killed after {result.killed_after_s:5.1f} s, went on {where}: {verdict}"


def _page(args: argparse.Namespace, length_s: float, attempts: list[Attempt]) -> str:
    count = sum(result.is_identical for result in attempts)
    rows = "\n".join(
        f"| {number} | {result.killed_after_s:.1f} | "
        f"{result.went_on_in or 'nothing saved yet'} | "
        f"{'yes' if result.is_identical else 'NO'} |"
        for number, result in enumerate(attempts, 1)
    )
    return f"""# Runs killed at random moments

    python -m experiments.kill_runs --times={args.times} --seed={args.seed}

Simulated data (tfds_ave/synthetic). Each run was killed by SIGKILL at a moment of the
{length_s:.1f} s that the unbroken one takes from its first line to its last epoch
(TensorFlow builds its graphs in the first of them), and was started again by the same
command:
`{" ".join(_FLAGS)}`.

**{count} of {len(attempts)} ended in the weights and metrics of the unbroken run, bit
for bit.**

| run | killed after (s) | went on in epoch | identical |
|---|---|---|---|
{rows}
"""


if __name__ == "__main__":
    main(sys.argv[1:])
