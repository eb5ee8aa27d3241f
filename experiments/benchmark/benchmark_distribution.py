"""Measures how fast one device, two devices and two workers train on this machine.

    python -m experiments.benchmark_distribution [--dataset=NAME] [--repeats=3]
        [--epochs=16] [--out=FILE.md]

They take turns. An epoch's time is that of metrics.csv, validation included; the first
epoch of a run, in which TensorFlow builds its graphs, is left out.
"""

import argparse
import csv
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence

from rich.console import Console

from avsdn_tf import data
from experiments.benchmark.results import processor
from avsdn_tf.training.distribution import num_cores
from avsdn_tf.errors import UserError
from avsdn_tf.run_folder import versions
from experiments.arguments import positive

_MEANING = """\
The cores are the same everywhere. Two logical devices or two workers compute what one
device computes, in halves, and besides sum up all gradients after every step and update
two copies of the weights. So a ratio of 1 is the best that can be had here, and what
lacks is the price of distribution for a small network with small batches; nothing can
be told from it of several GPUs or machines, which bring cores of their own.
"""
_PLACES = ("one device", "two logical devices", "two workers")


def command(place: str, run: pathlib.Path, settings: dict[str, object]) -> list[str]:
    """Returns the command that trains at a place, as `python -m` takes it."""
    if place == "two logical devices":
        return ["experiments.two_devices", str(run), json.dumps(settings)]
    flags = [f"--{name}={value}" for name, value in settings.items()]
    if place == "two workers":
        flags.append("--local_workers=2")
    return ["avsdn_tf.main", *flags, f"--run={run}"]


def epoch_times(place: str, settings: dict[str, object]) -> list[float]:
    """Trains at a place, and returns the seconds of every epoch but the first.

    Raises:
        UserError: If it fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = pathlib.Path(folder) / "run"
        done = subprocess.run(
            [sys.executable, "-m", *command(place, run, settings)],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise UserError(f"{place}: exit code {done.returncode}\n{done.stderr}")
        with (run / "metrics.csv").open(newline="") as file:
            return [float(row["seconds"]) for row in csv.DictReader(file)][1:]


def main(argv: Sequence[str]) -> None:
    """Measures all places in turn, and prints a Markdown table."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmark_distribution",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--dataset", default="tfds_ave/synthetic")
    add("--repeats", type=positive, default=3)
    add("--epochs", type=positive, default=16)
    add("--out", type=pathlib.Path)
    args = parser.parse_args(argv)
    if args.epochs < 2:
        parser.error("--epochs: expected 2 or more, since the first is not counted")
    settings = {"dataset": args.dataset, "epochs": args.epochs, "patience": args.epochs}
    times: dict[str, list[float]] = {place: [] for place in _PLACES}
    try:
        dataset = data.open_dataset(args.dataset)
        for _ in range(args.repeats):
            for place in _PLACES:
                times[place] += epoch_times(place, settings)
    except UserError as error:
        sys.exit(f"experiments.benchmark_distribution: {error}")
    num_clips = dataset.num_clips("train")
    rates = {place: num_clips / statistics.median(of) for place, of in times.items()}
    flags = "".join(f" --{n}={v}" for n, v in vars(args).items() if n != "out")
    lines = [
        "# One device, two devices and two workers",
        "",
        f"    python -m experiments.benchmark_distribution{flags}",
        "",
        f"AVSDN, supervised, {args.dataset}, batch 64, {num_cores()} cores of "
        f"{processor()}, TensorFlow {versions()['tensorflow']}"
        + (f". {dataset.notice}" if dataset.notice else ""),
        "",
        "Training clips by the time of an epoch, reading and validation included.",
        "",
        "| place | clips a second | ratio to one device | spread of epochs |",
        "|---|---|---|---|",
    ]
    for place, of in times.items():
        spread = (max(of) - min(of)) / statistics.median(of)
        ratio = rates[place] / rates[_PLACES[0]]
        lines.append(f"| {place} | {rates[place]:.0f} | {ratio:.2f} | {spread:.0%} |")
    text = "\n".join([*lines, "", _MEANING])
    Console(highlight=False, soft_wrap=True).print(text, markup=False)
    if args.out:
        args.out.write_text(text)


if __name__ == "__main__":
    main(sys.argv[1:])
