"""The page of a run: one HTML file that loads nothing from elsewhere."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from avsdn_tf.files import write_text
from avsdn_tf.report.figures import CHOICE_RULE, to_svg
from avsdn_tf.report.scores import is_cross_modality, list_scores
from avsdn_tf.report.templating import render

# What screen readers say of the figures.
_DESCRIPTIONS = {
    "learning_curves": "Loss and accuracy of training and the accuracy of validation "
    "by epoch. Their numbers are in metrics.csv",
    "timelines": "Some test clips, second by second: their true events above the "
    "predicted ones. Their numbers are in predictions.npz",
    "confusion": "How many of each class's true segments were given each class. Their "
    "numbers are in report.json",
}


def write_page(
    path: str | os.PathLike[str],
    *,
    title: str,
    disclaimer: str | None,
    command: str,
    settings: Mapping[str, Any],
    versions: Mapping[str, str],
    report: Mapping[str, Any],
    figures: Mapping[str, Figure],
) -> None:
    """Write the page of a run atomically.

    Args:
        path: File to write.
        title: Title of the run.
        disclaimer: A sentence on the data above the scores, or None.
        command: The command that repeats the run.
        settings: All settings of the run.
        versions: Versions of the libraries.
        report: The result of `evaluation.evaluate` or `cross_modality.evaluate`, and
            `validation_accuracy`, `selected_epoch`, `epochs_run` and `seconds`.
        figures: `"learning_curves"`; for a report of `evaluation.evaluate` also
            `"timelines"` and `"confusion"`.
    """
    minutes, seconds = divmod(round(report["seconds"]), 60)
    page = render(
        "page.html",
        title=title,
        disclaimer=disclaimer,
        command=command,
        settings=settings,
        versions=versions,
        report=report,
        scores=list_scores(report),
        is_cross_modality=is_cross_modality(report),
        minutes=minutes,
        seconds=seconds,
        choice_rule=CHOICE_RULE,
        figures={
            name: to_svg(figure, name, _DESCRIPTIONS[name])
            for name, figure in figures.items()
        },
    )
    write_text(pathlib.Path(path), page)
