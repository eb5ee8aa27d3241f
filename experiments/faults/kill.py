"""Kill trainings at random moments, and compare the results once they are resumed.

    python -m experiments.faults kill [--times=20] [--jobs=1] [--seed=0]
        [--folder=DIR] [--out=FILE.md]

A training runs unbroken. Then the same training is killed (SIGKILL) at a random moment
of its epochs, and the same command resumes it; again and again. It counts as identical
if the model's weights and all numbers of metrics.csv but the seconds are those of the
unbroken training, bit for bit. The exit code is 1 unless all are.
"""

import concurrent.futures
import csv
import dataclasses
import pathlib
import random
import subprocess
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from avsdn_tf.files import explain_unwritable, write_text
from avsdn_tf.run_folder import RunFolder
from experiments.arguments import Parser, positive
from experiments.programs import Program

# Dropout, averaged weights and weight decay have a state that must survive. A
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
# Lines that a training prints, which the tests of kill look for.
_RESUMED = "going on in "
_FIRST_LINE = "batches an epoch"


@dataclasses.dataclass(frozen=True)
class Attempt:
    """A training that was killed and resumed.

    Attributes:
        killed_at: When, in epochs.
        resumed_in: Where, as the command printed it; empty if nothing was saved.
        is_identical: Whether it ended like the unbroken training.
    """

    killed_at: float
    resumed_in: str
    is_identical: bool

    def __str__(self) -> str:
        where = f"in {self.resumed_in}" if self.resumed_in else "at the beginning"
        verdict = "identical" if self.is_identical else "DIFFERENT"
        return f"killed at epoch {self.killed_at:5.2f}, resumed {where}: {verdict}"


def start(run: pathlib.Path) -> Program:
    """Start the training in a run folder."""
    flags = [*_FLAGS, f"--run={run}"]
    return Program(["-m", "avsdn_tf.main", *flags], stdout=subprocess.PIPE)


def train(run: pathlib.Path) -> list[str]:
    """Train to the end, and return the lines that the training prints.

    Raises:
        UserError: If it fails.
    """
    with start(run) as program:
        lines = list(program.process.stdout)
        program.finish()
    return lines


def kill_at(run: pathlib.Path, moment: float, epoch_s: Sequence[float]) -> None:
    """Start the training, and kill it in an epoch.

    Args:
        run: The run folder.
        moment: When, in epochs: 2.5 is the middle of the third.
        epoch_s: The seconds of each epoch.
    """
    done, share = divmod(moment, 1)
    mark = f"epoch {int(done):3d}/" if done else _FIRST_LINE
    with start(run) as program:
        for line in program.process.stdout:
            if mark in line:
                break
        time.sleep(share * epoch_s[int(done)])


def read_epochs(run: pathlib.Path) -> list[dict[str, str]]:
    """Return metrics.csv, a dictionary an epoch."""
    with RunFolder(run).metrics.open(newline="") as file:
        return list(csv.DictReader(file))


def read_outcome(run: pathlib.Path) -> tuple[list[bytes], list[dict[str, Any]]]:
    """Return all weights, and all metrics but the seconds."""
    model = RunFolder(run).load_model()
    rows = [{**row, "seconds": ""} for row in read_epochs(run)]
    return [weight.tobytes() for weight in model.get_weights()], rows


def attempt(
    run: pathlib.Path, moment: float, epoch_s: Sequence[float], expected: Any
) -> Attempt:
    """Kill and resume one training; see `kill_at`."""
    kill_at(run, moment, epoch_s)
    resumed = [
        line.split(_RESUMED)[1].strip() for line in train(run) if _RESUMED in line
    ]
    return Attempt(moment, "".join(resumed), read_outcome(run) == expected)


def main(argv: Sequence[str]) -> int:
    """Make all attempts, and print a line for each and the count."""
    parser = Parser("experiments.faults kill", __doc__)
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
        train(unbroken)
        expected = read_outcome(unbroken)
        epoch_s = [float(row["seconds"]) for row in read_epochs(unbroken)]

        def try_once(number: int, moment: float) -> Attempt:
            return attempt(folder / f"killed{number:02d}", moment, epoch_s, expected)

        drawn = [moments.uniform(0, len(epoch_s)) for _ in range(args.times)]
        attempts = []
        with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
            for result in pool.map(try_once, range(args.times), drawn):
                attempts.append(result)
                console.print(f"{len(attempts):3d}  {result}")
    count = sum(result.is_identical for result in attempts)
    console.print(f"{count} of {len(attempts)} identical")
    if args.out:
        with explain_unwritable(args.out, "Choose another file by --out."):
            write_text(args.out, _page(args.seed, attempts))
    return int(count != len(attempts))


def _page(seed: int, attempts: Sequence[Attempt]) -> str:
    count = sum(result.is_identical for result in attempts)
    rows = "\n".join(
        f"| {number} | {result.killed_at:.2f} | "
        f"{result.resumed_in or 'nothing saved yet'} | "
        f"{'yes' if result.is_identical else 'NO'} |"
        for number, result in enumerate(attempts, 1)
    )
    return f"""# Runs killed at random moments

```console
python -m experiments.faults kill --times={len(attempts)} --seed={seed}
```

Simulated data (tfds_ave/synthetic). Each run was killed by SIGKILL at a moment drawn
evenly from its epochs (2.50 is the middle of the third), and resumed by the same
command, with the flags `{" ".join(_FLAGS)}`.

**{count} of {len(attempts)} ended in the weights and metrics of the unbroken run, bit
for bit.**

| run | killed at epoch | went on in | identical |
|---|---|---|---|
{rows}
"""
