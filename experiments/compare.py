"""Draw the predictions of several runs for test clips, like the paper's Fig. 3.

Usage: python -m experiments.compare RUN [RUN ...] [FLAGS]

Example:
  python -m experiments.compare runs/avsdn runs/avel --out=comparison.png

All runs must have been scored on the same data set.
"""

import pathlib
import re
import sys
from collections.abc import Sequence

import numpy as np

from avsdn_tf.errors import UserError
from avsdn_tf.evaluation import Predictions
from avsdn_tf.files import explain_unwritable
from avsdn_tf.report import figures
from avsdn_tf.run_folder import RunFolder
from avsdn_tf.training.config import CROSS_MODAL, Config
from experiments.arguments import Parser, one_line_errors, positive

_MODULE = "experiments.compare"
_SUFFIXES = (".png", ".svg", ".pdf")


def compare(runs: Sequence[str], num_clips: int, out: pathlib.Path) -> None:
    """Draw the timelines of test clips, with a row per run.

    Args:
        runs: Run folders. The clips are chosen by the predictions of the first run.
        num_clips: Largest number of clips.
        out: Path of the figure.

    Raises:
        UserError: If the runs were scored on different clips, a folder has no finished
            run that labels segments, or the file can't be written.
    """
    if out.suffix not in _SUFFIXES:
        raise UserError(
            f"Expected a file that ends in one of {', '.join(_SUFFIXES)}.",
            field="out",
            value=out,
        )
    folders = [RunFolder(run) for run in runs]
    models = [_check_run(folder) for folder in folders]
    try:
        predictions = [Predictions.load(folder.predictions) for folder in folders]
    except ValueError as error:
        raise UserError(str(error)) from error
    reports = [folder.read_report() for folder in folders]
    for run, each in zip(runs, predictions, strict=True):
        if each.multi_label:
            raise UserError(f"{run}: expected a run with one class per segment.")
    categories = _check_same(runs, predictions, reports)
    first = predictions[0]
    names = _name_runs([folder.path for folder in folders], models)
    predicted = [each.logits.argmax(axis=-1) for each in predictions]
    chosen = figures.choose_clips(
        first.labels, predicted[0], len(categories), num_clips
    )
    clips = [
        figures.TimelineClip(
            title=f"row {first.row[clip]}",
            truth=first.labels[clip],
            predictions={
                name: classes[clip]
                for name, classes in zip(names, predicted, strict=True)
            },
        )
        for clip in chosen
    ]
    disclaimers = dict.fromkeys(filter(None, (r["disclaimer"] for r in reports)))
    with explain_unwritable(out, "Choose another file by --out."):
        figure = figures.timelines(clips, categories)
        figures.save(figure, out, "\n".join(disclaimers))
    print(f"{out}: {len(clips)} clips, chosen by {names[0]}. {figures.CHOICE_RULE}")


def _check_run(folder: RunFolder) -> str:
    """Check that a finished run labels segments, and return its network's name."""
    if not folder.report.is_file():
        raise UserError(
            f"{folder.path}: expected the folder of a finished run. "
            f"{folder.report.name} is missing."
        )
    config = Config.from_dict(folder.read_settings())
    if config.mode == CROSS_MODAL:
        raise UserError(
            f"{folder.path}: expected a run that labels segments. Received mode "
            f"{CROSS_MODAL}, which compares sound with picture."
        )
    return config.model


def _check_same(
    runs: Sequence[str], predictions: Sequence[Predictions], reports: Sequence[dict]
) -> list[str]:
    """Check that runs were scored on the same clips, and return their categories."""
    first, categories = predictions[0], None
    for run, other, report in zip(runs, predictions, reports, strict=True):
        named = [row["category"] for row in report["per_category"][:-1]]
        categories = categories or named
        if not (
            np.array_equal(other.row, first.row)
            and np.array_equal(other.labels, first.labels)
        ):
            raise UserError(
                f"{run}: expected predictions of the same test clips as {runs[0]}. "
                "Were both scored on the same data set?"
            )
        if named != categories:
            raise UserError(
                f"{run}: expected the categories of {runs[0]}: {', '.join(categories)}."
                f" Received: {', '.join(named)}"
            )
    return categories


def _name_runs(folders: Sequence[pathlib.Path], models: Sequence[str]) -> Sequence[str]:
    """Return a distinct name for each run.

    The names are the networks if these are distinct, else the words in which the paths
    differ, else the paths. Words distinguish runs of `experiments.run`, which puts all
    settings into the folder's name.
    """
    words = [re.split(r"[/,]", folder.as_posix()) for folder in folders]
    shared = set.intersection(*map(set, words))
    differing = [
        ", ".join(word for word in run_words if word not in shared) or model
        for run_words, model in zip(words, models, strict=True)
    ]
    for names in (models, differing):
        if len(set(names)) == len(folders):
            return names
    return [str(folder) for folder in folders]


def main(argv: Sequence[str]) -> None:
    """Parse the command line, and draw the figure."""
    parser = Parser(_MODULE, __doc__)
    add = parser.add_argument
    add("runs", nargs="+", metavar="RUN", help="Folder of a finished run.")
    text = "Maximum number of clips [8]."
    add("--clips", type=positive, default=8, metavar="N", help=text)
    out = pathlib.Path("comparison.png")
    text = f"Output file: .png, .svg or .pdf [{out}]."
    add("--out", type=pathlib.Path, default=out, metavar="FILE", help=text)
    args = parser.parse_args(argv)
    with one_line_errors(_MODULE):
        compare(args.runs, args.clips, args.out)


if __name__ == "__main__":
    main(sys.argv[1:])
