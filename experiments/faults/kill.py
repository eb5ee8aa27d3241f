"""Kill trainings at random moments, resume them, and compare the results.

Usage: python -m experiments.faults kill [FLAGS]

Example:
  python -m experiments.faults kill --times=5

A training runs without interruption. Then the same training is killed
(SIGKILL) at a random moment, and the same command resumes it. The two results
are identical if the weights and all numbers of metrics.csv, except for the
seconds, are equal bit for bit. The exit code is 1 if any result differs.
"""

import csv
import pathlib
import random
import subprocess
import tempfile
import time
from collections.abc import Sequence

from avsdn_tf.run_folder import RunFolder
from experiments.arguments import Parser, positive
from experiments.programs import Program

# Dropout, averaged weights and weight decay have state that must be restored. The
# checkpoint interval is so small that every call into the graph saves a checkpoint.
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
# Texts in the training's output.
_RESUMED = "resuming in "
_FIRST_LINE = "batches an epoch"


def start(run: pathlib.Path) -> Program:
    """Start the training in a run folder."""
    flags = [*_FLAGS, f"--run={run}"]
    return Program(["-m", "avsdn_tf.main", *flags], stdout=subprocess.PIPE)


def train(run: pathlib.Path) -> str:
    """Train to the end, and return where training resumed, as printed.

    Raises:
        UserError: If the training fails.
    """
    with start(run) as program:
        lines = list(program.process.stdout)
        program.finish()
    resumed = [line.split(_RESUMED)[1].strip() for line in lines if _RESUMED in line]
    return resumed[0] if resumed else "epoch 1, as nothing was saved"


def kill_at(run: pathlib.Path, moment: float, epoch_s: Sequence[float]) -> None:
    """Start the training, and kill it at a moment in epochs, such as 2.5.

    `epoch_s` holds the duration of each epoch in seconds.
    """
    done, fraction = divmod(moment, 1)
    mark = f"epoch {int(done):3d}/" if done else _FIRST_LINE
    with start(run) as program:
        for line in program.process.stdout:
            if mark in line:
                break
        time.sleep(fraction * epoch_s[int(done)])


def read_outcome(run: pathlib.Path) -> tuple[list[bytes], list[dict[str, str]]]:
    """Return all weights, and all metrics except the seconds."""
    with RunFolder(run).metrics.open(newline="") as file:
        epochs = [{**epoch, "seconds": ""} for epoch in csv.DictReader(file)]
    weights = RunFolder(run).load_model().get_weights()
    return [weight.tobytes() for weight in weights], epochs


def main(argv: Sequence[str]) -> int:
    """Run the command, and return the exit code."""
    parser = Parser("experiments.faults kill", __doc__)
    add = parser.add_argument
    text = "Number of trainings to kill [20]."
    add("--times", type=positive, default=20, metavar="N", help=text)
    text = "Random seed of the moments [0]."
    add("--seed", type=int, default=0, metavar="N", help=text)
    args = parser.parse_args(argv)
    moments = random.Random(args.seed)
    num_identical = 0
    with tempfile.TemporaryDirectory() as folder:
        unbroken = pathlib.Path(folder, "unbroken")
        train(unbroken)
        expected = read_outcome(unbroken)
        with RunFolder(unbroken).metrics.open(newline="") as file:
            epoch_s = [float(epoch["seconds"]) for epoch in csv.DictReader(file)]
        for number in range(1, args.times + 1):
            run = pathlib.Path(folder, f"killed{number:02d}")
            moment = moments.uniform(0, len(epoch_s))
            kill_at(run, moment, epoch_s)
            resumed = train(run)
            is_identical = read_outcome(run) == expected
            num_identical += is_identical
            verdict = "identical" if is_identical else "DIFFERENT"
            where = f"killed at epoch {moment:5.2f}, resumed in {resumed}"
            print(f"{number:3d}  {where}: {verdict}", flush=True)
    print(f"{num_identical} of {args.times} identical")
    return int(num_identical != args.times)
