"""Measure speed and memory beside PyTorch and plain Keras programs.

Usage: python -m experiments.benchmark [PART ...] [FLAGS]

Examples:
  python -m experiments.benchmark step --repeats=3
  python -m experiments.benchmark video --videos my_videos --out=video

Parts, by default the first four:
  step          training steps and inference of batches in memory
  latency       one clip, by every way to predict it
  epoch         an epoch of training and validation, and its peak memory
  start         from the command to the first step
  distribution  one device, two logical devices, two workers
  profile       AVSDN's training step, with one optimization removed at a time
  heads         training steps of CMRAN, PSP, CPSP, CMBS and CACE-Net; for
                a data set of feature maps, also the peak memory of training
  video         from videos to features, stage by stage; needs --videos

Programs take turns. The output is a page, its numbers as JSON, and a picture.
"""

import argparse
import importlib.util
import pathlib
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from absl import logging
from rich.console import Console

from avsdn_tf.data.dataset import Dataset, open_dataset
from avsdn_tf.errors import UserError
from avsdn_tf.features.visual import PRECISIONS
from avsdn_tf.files import explain_unwritable, write_json, write_text
from avsdn_tf.report import figures
from avsdn_tf.training.config import Config
from experiments.arguments import Parser, one_line_errors, positive, show
from experiments.benchmark import comparison, machine, parts, video
from experiments.benchmark.comparison import Comparison

_MODULE = "experiments.benchmark"
PARTS: Mapping[str, Callable[..., Iterator[Comparison]]] = {
    "step": parts.measure_step,
    "latency": parts.measure_latency,
    "epoch": parts.measure_epoch,
    "start": parts.measure_start,
    "distribution": parts.measure_distribution,
    "profile": parts.measure_profile,
    "heads": parts.measure_heads,
    "video": video.measure_video,
}
_TO_NAME = ("distribution", "profile", "heads", "video")
_WITHOUT_TORCH = ("distribution", "profile", "video")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(_MODULE, __doc__)
    add = parser.add_argument
    add("parts", nargs="*", type=_part, metavar="PART", help="Part to measure.")
    name = Config().dataset
    add("--dataset", default=name, metavar="NAME", help=f"TFDS name [{name}].")
    text = "TFDS's folder of data sets, if not TFDS's default."
    add("--data_dir", metavar="DIR", help=text)
    text = "Turns of each program [5]."
    add("--repeats", type=positive, default=5, metavar="N", help=text)
    text = "Minimum seconds of a turn [1]."
    add("--seconds", type=float, default=1.0, metavar="X", help=text)
    add("--out", default="benchmark", metavar="DIR", help="Output folder [benchmark].")
    text = "Part video: videos, or folders of videos."
    add("--videos", nargs="+", default=[], metavar="VIDEO", help=text)
    text = "Part video: videos at once [2]."
    add("--workers", type=positive, default=2, metavar="N", help=text)
    for modality in ("audio", "visual"):
        text = "Part video: as in `avsdn extract`."
        add(f"--{modality}_network", metavar="NAME", help=text)
        text = "Part video: as in `avsdn extract`; random weights suffice."
        add(f"--{modality}_weights", metavar="PATH", help=text)
    add(
        "--visual_precision",
        choices=PRECISIONS,
        default=PRECISIONS[0],
        metavar="|".join(PRECISIONS),
        help=f"Part video: as in `avsdn extract` [{PRECISIONS[0]}].",
    )
    args = parser.parse_args(argv)
    defaults = [name for name in PARTS if name not in _TO_NAME]
    args.parts = list(dict.fromkeys(args.parts)) or defaults
    return args


def _part(text: str) -> str:
    if text not in PARTS:
        raise argparse.ArgumentTypeError(
            f"expected {', '.join(PARTS)}. Received: {text}"
        )
    return text


def measure(args: argparse.Namespace, console: Console) -> None:
    """Measure the parts, and write the result after each.

    Raises:
        UserError: If PyTorch or the data set is missing, the data set has other shapes
            than AVE, or a program fails. Results of earlier parts are written.
    """
    if not set(args.parts) <= set(_WITHOUT_TORCH) and not importlib.util.find_spec(
        "torch"
    ):
        raise UserError(
            "Expected PyTorch, the baseline, which the extra `bench` installs: "
            "pip install 'avsdn_tf[bench]'"
        )
    dataset = None
    if args.parts != ["video"]:
        dataset = open_dataset(args.dataset, args.data_dir)
        _check_shapes(dataset)
    header = {
        "command": _command(args),
        "parts": args.parts,
        "machine": machine.describe_machine(),
        "dataset": dataset.name if dataset else "videos",
        "disclaimer": dataset.disclaimer if dataset else None,
        "repeats": args.repeats,
    }
    folder = pathlib.Path(args.out).expanduser()
    comparisons: list[Comparison] = []
    for part in args.parts:
        with console.status(f"[bold]{part}"):
            for found in PARTS[part](args, dataset):
                comparisons.append(found)
                show(console, found.to_markdown())
        # Save each result: the next part may fail, and a part takes minutes.
        _write(folder, header, comparisons)
    show(console, f"Result: {folder}")


def _check_shapes(dataset: Dataset) -> None:
    found = (dataset.audio_width, len(dataset.categories))
    if found != (128, 28):
        raise UserError(
            "The other programs have AVE's audio width, 128, and its 28 categories. "
            f"Received: {found[0]} and {found[1]}. Choose another data set.",
            field="dataset",
            value=dataset.name,
        )


def _command(args: argparse.Namespace) -> str:
    """Return the command line that repeats the measurement."""
    given = {name: value for name, value in vars(args).items() if name != "out"}
    words = ["python", "-m", _MODULE, *given.pop("parts")]
    videos = given.pop("videos")
    defaults = vars(parse([]))
    for name, value in given.items():
        if name in ("dataset", "repeats") or value != defaults[name]:
            words.append(f"--{name}={value}")
    return shlex.join([*words, *(["--videos", *videos] if videos else [])])


def _write(
    folder: pathlib.Path, header: Mapping[str, Any], found: Sequence[Comparison]
) -> None:
    """Write the page, its numbers as JSON, and the picture."""
    with explain_unwritable(folder, "Choose another folder by --out."):
        folder.mkdir(parents=True, exist_ok=True)
        measured = {**header, "comparisons": [each.to_json() for each in found]}
        write_json(folder / "benchmark.json", measured)
        write_text(folder / "benchmark.md", comparison.to_markdown(header, found))
        figure = comparison.draw(found)
        figures.save(figure, folder / "benchmark.png", header["disclaimer"])


def main(argv: Sequence[str]) -> None:
    """Run the command."""
    # TFDS logs warnings about its internals.
    logging.set_verbosity(logging.ERROR)
    with one_line_errors(_MODULE):
        measure(parse(argv), Console())


if __name__ == "__main__":
    main(sys.argv[1:])
