"""Kills trainings at random moments, and compares what they end in once resumed.

    python -m experiments.kill_runs [--times=20] [--jobs=1] [--seed=0]
        [--folder=DIR] [--out=FILE.md]

A training runs unbroken. Then, again and again, the same training is killed (SIGKILL)
at a moment drawn evenly from its epochs, and the same command is given again. It counts
as identical if all weights of the model and all numbers of metrics.csv but the seconds
are those of the unbroken one, bit for bit. The exit code is 1 unless all are.
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
from experiments.arguments import positive

# Dropout, averaged weights and weight decay have a state that must survive; a
# checkpoint is saved after every call into the graph, several times an epoch.
_FLAGS = (
    "--units=16",
    "--batch_size=8",
    "--epochs=12",
    "--patience=12",
    "--dropout=0.3",
    "--ema=0.95",
    "--weight_decay=0.01",
    "--checkpoint_minutes=0.00001",
)
_GOING_ON = "going on in "
_FIRST_LINE = "batches an epoch"


@dataclasses.dataclass(frozen=True)
class Attempt:
    """A training that was killed and resumed.

    Attributes:
        killed_at: When, in epochs.
        went_on: Where, as the command said it; empty if nothing had been saved.
        is_identical: Whether it ended like the unbroken one.
    """

    killed_at: float
    went_on: str
    is_identical: bool


def start(run: pathlib.Path) -> "subprocess.Popen[str]":
    """Starts the training in a run folder."""
    return subprocess.Popen(
        [sys.executable, "-m", "avsdn_tf.main", *_FLAGS, f"--run={run}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(run: pathlib.Path) -> list[str]:
    """Trains to the end, and returns the lines that were printed.

    Raises:
        RuntimeError: If it failed.
    """
    with start(run) as process:
        lines = list(process.stdout)
    if process.returncode:
        raise RuntimeError(f"{run}: exit code {process.returncode}\n{''.join(lines)}")
    return lines


def kill_at(run: pathlib.Path, moment: float, epoch_s: Sequence[float]) -> None:
    """Trains, and kills it in an epoch.

    Args:
        run: The run folder.
        moment: When, in epochs: 2.5 is the middle of the third.
        epoch_s: How long each epoch takes.
    """
    done, share = divmod(moment, 1)
    mark = f"epoch {int(done):3d}/" if done else _FIRST_LINE
    with start(run) as process:
        for line in process.stdout:
            if mark in line:
                break
        time.sleep(share * epoch_s[int(done)])
        process.kill()


def read_epochs(run: pathlib.Path) -> list[dict[str, str]]:
    """Returns metrics.csv, a dictionary an epoch."""
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def read_outcome(run: pathlib.Path) -> tuple[list[bytes], list[dict[str, Any]]]:
    """Returns all weights and all metrics but the seconds."""
    model = RunFolder(run).load_model()
    rows = [{**row, "seconds": ""} for row in read_epochs(run)]
    return [weight.tobytes() for weight in model.get_weights()], rows


def attempt(
    run: pathlib.Path, moment: float, epoch_s: Sequence[float], expected: Any
) -> Attempt:
    """Kills and resumes one training; see `kill_at`."""
    kill_at(run, moment, epoch_s)
    said = [
        line.split(_GOING_ON)[1].strip() for line in finish(run) if _GOING_ON in line
    ]
    return Attempt(moment, "".join(said).strip(), read_outcome(run) == expected)


def main(argv: Sequence[str]) -> None:
    """Runs all attempts, and prints a line for each and the count."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.kill_runs",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--times", type=positive, default=20, help="how many trainings to kill (20)")
    add("--jobs", type=positive, default=1, help="trainings at once (1)")
    add("--seed", type=int, default=0, help="seed of the moments (0)")
    add("--folder", type=pathlib.Path, help="where the runs go; a temporary folder")
    add("--out", type=pathlib.Path, help="a Markdown file for the result")
    args = parser.parse_args(argv)
    console = Console(highlight=False, soft_wrap=True)
    moments = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or pathlib.Path(temporary)
        unbroken = folder / "unbroken"
        finish(unbroken)
        expected = read_outcome(unbroken)
        epoch_s = [float(row["seconds"]) for row in read_epochs(unbroken)]
        drawn = [moments.uniform(0, len(epoch_s)) for _ in range(args.times)]
        attempts = []
        with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
            for result in pool.map(
                lambda number: attempt(
                    folder / f"killed{number:02d}", drawn[number], epoch_s, expected
                ),
                range(args.times),
            ):
                attempts.append(result)
                console.print(f"{len(attempts):3d}  {_describe(result)}")
    count = sum(result.is_identical for result in attempts)
    console.print(f"{count} of {len(attempts)} identical")
    if args.out:
        args.out.write_text(_page(args, attempts))
    sys.exit(count != len(attempts))


def _describe(result: Attempt) -> str:
    where = f"in {result.went_on}" if result.went_on else "at the beginning"
    verdict = "identical" if result.is_identical else "DIFFERENT"
    return f"killed at epoch {result.killed_at:5.2f}, went on {where}: {verdict}"


def _page(args: argparse.Namespace, attempts: list[Attempt]) -> str:
    count = sum(result.is_identical for result in attempts)
    rows = "\n".join(
        f"| {number} | {result.killed_at:.2f} | "
        f"{result.went_on or 'nothing saved yet'} | "
        f"{'yes' if result.is_identical else 'NO'} |"
        for number, result in enumerate(attempts, 1)
    )
    return f"""# Runs killed at random moments

    python -m experiments.kill_runs --times={args.times} --seed={args.seed}

Simulated data (tfds_ave/synthetic). Each run was killed by SIGKILL at a moment drawn
evenly from its epochs (2.50 is the middle of the third), and was started again by the
same command, with the flags `{" ".join(_FLAGS)}`.

**{count} of {len(attempts)} ended in the weights and metrics of the unbroken run, bit
for bit.**

| run | killed at epoch | went on in | identical |
|---|---|---|---|
{rows}
"""


if __name__ == "__main__":
    main(sys.argv[1:])
