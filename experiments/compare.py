"""Draws test clips as several runs see them, in the manner of the paper's Fig. 3.

    python -m experiments.compare RUN [RUN ...] [--clips=8] [--out=FILE]

RUN is a run folder; all must have been scored on the same data set. The suffix of FILE
decides its kind: .png, .svg or .pdf.
"""

import argparse
import pathlib
import re
import sys
from collections.abc import Sequence

import numpy as np

from avsdn_tf.training.config import CROSS_MODAL
from avsdn_tf.errors import UserError
from avsdn_tf.evaluation import Predictions
from avsdn_tf.files import explain_unwritable
from avsdn_tf.report import figures
from avsdn_tf.run_folder import RunFolder

_SUFFIXES = (".png", ".svg", ".pdf")


def compare(runs: Sequence[str], num_clips: int, out: pathlib.Path) -> None:
    """Draws the clips.

    Args:
        runs: Run folders. The clips are chosen by how well the first one does, and the
            figure says so.
        num_clips: How many clips to draw, at most.
        out: The file to write.

    Raises:
        UserError: If the runs were not scored on the same clips, a folder holds no
            finished run that labels segments, or the file can't be written.
    """
    if num_clips < 1:
        raise UserError(f"--clips: expected 1 or more. Received: {num_clips}")
    if out.suffix not in _SUFFIXES:
        raise UserError(
            f"--out: expected a file that ends in one of {', '.join(_SUFFIXES)}. "
            f"Received: {out}"
        )
    folders = [RunFolder(run) for run in runs]
    for folder in folders:
        if not folder.report.is_file():
            raise UserError(
                f"{folder.path}: expected the folder of a finished run. "
                f"{folder.report.name} is missing."
            )
    configs = [folder.read_config() for folder in folders]
    for folder, config in zip(folders, configs, strict=True):
        if config.mode == CROSS_MODAL:
            raise UserError(
                f"{folder.path}: expected a run that labels segments. Received: one of "
                f"--mode={CROSS_MODAL}, which compares sound with picture."
            )
    try:
        predictions = [Predictions.load(folder.predictions) for folder in folders]
    except ValueError as error:
        raise UserError(str(error)) from error
    first = predictions[0]
    for run, other in zip(runs, predictions, strict=True):
        if not (
            np.array_equal(other.row, first.row)
            and np.array_equal(other.labels, first.labels)
        ):
            raise UserError(
                f"{run}: expected predictions of the same test clips as {runs[0]}. "
                "Were both scored on the same data set?"
            )
    reports = [folder.read_report() for folder in folders]
    categories, *others = (
        [row["category"] for row in report["per_category"][:-1]] for report in reports
    )
    for run, other in zip(runs[1:], others, strict=True):
        if other != categories:
            raise UserError(
                f"{run}: expected the categories of {runs[0]}: {', '.join(categories)}."
                f" Received: {', '.join(other)}"
            )
    names = _name_runs(
        [folder.path for folder in folders], [config.model for config in configs]
    )
    predicted = [each.logits.argmax(axis=-1) for each in predictions]
    clips = figures.choose_clips(first.labels, predicted[0], len(categories), num_clips)
    figure = figures.timelines(
        [
            figures.TimelineClip(
                title=f"row {first.row[clip]}",
                truth=first.labels[clip],
                predictions={
                    name: classes[clip]
                    for name, classes in zip(names, predicted, strict=True)
                },
            )
            for clip in clips
        ],
        categories,
    )
    notices = dict.fromkeys(filter(None, (report["notice"] for report in reports)))
    with explain_unwritable(out, "Choose another file by --out."):
        figures.save(figure, out, "\n".join(notices))
    print(f"{out}: {len(clips)} clips, by {names[0]}. {figures.CHOICE_RULE}")


def _name_runs(folders: Sequence[pathlib.Path], models: Sequence[str]) -> Sequence[str]:
    """Returns what tells runs apart: their networks, or else the words of their paths.

    Folders of `experiments.run` have settings in their names, most of them the same.
    """
    words = [re.split(r"[/,]", folder.as_posix()) for folder in folders]
    shared = set.intersection(*map(set, words))
    differing = [
        ", ".join(word for word in of_run if word not in shared) or model
        for of_run, model in zip(words, models, strict=True)
    ]
    for names in (models, differing):
        if len(set(names)) == len(folders):
            return names
    return [str(folder) for folder in folders]


def main(argv: Sequence[str]) -> None:
    """Draws what the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run folder")
    parser.add_argument("--clips", type=int, default=8, help="how many clips (8)")
    parser.add_argument(
        "--out",
        type=pathlib.Path,
        default="comparison.png",
        help="the file to write (comparison.png)",
    )
    args = parser.parse_args(argv)
    try:
        compare(args.runs, args.clips, args.out)
    except UserError as error:
        print(f"experiments.compare: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main(sys.argv[1:])
