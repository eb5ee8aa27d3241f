"""Write the report of a run: figures, page and report.json in its folder."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from matplotlib.figure import Figure
from pydantic import Field, ValidationError, model_validator

from avsdn_tf.errors import UserError
from avsdn_tf.evaluation import F1, Predictions, lanes_of
from avsdn_tf.files import explain_unwritable, write_json, write_text
from avsdn_tf.report import figures
from avsdn_tf.report.scores import (
    is_cross_modality,
    list_scores,
    percent,
    title_of,
)
from avsdn_tf.report.templating import render
from avsdn_tf.run_folder import RunFolder
from avsdn_tf.schemas import Schema, describe, read_bytes

_NUM_TIMELINE_CLIPS = 8
# Descriptions of the figures for screen readers.
_DESCRIPTIONS = {
    "learning_curves": "Loss and accuracy of training and the score of validation by "
    "epoch. Their numbers are in metrics.csv",
    "timelines": "Some test clips, second by second: their true events above the "
    "predicted ones. Their numbers are in predictions.npz",
    "attention": "The same clips, second by second: the weights that the network gives "
    "the cells of the picture",
    "confusion": "Predicted classes of the true segments of each class. The numbers "
    "are in report.json",
}
# Enough for 60,000 epochs.
_MAX_METRICS_BYTES = 4 * 2**20
# Tolerate rounding errors in sums of half a million float32 values.
_Fraction = Annotated[float, Field(ge=0, le=1.01)]


class _Epoch(Schema, strict=False, extra="ignore"):
    """A row of metrics.csv, whose values are strings."""

    epoch: Annotated[int, Field(ge=1, lt=2**31)]
    loss: Annotated[float, Field(ge=-1e30, le=1e30)]
    accuracy: _Fraction
    validation_accuracy: _Fraction | None = None
    validation_f1: _Fraction | None = None
    seconds: Annotated[float, Field(ge=0, le=1e12)]

    @model_validator(mode="after")
    def _has_one_score(self) -> "_Epoch":
        if (self.validation_accuracy is None) == (self.validation_f1 is None):
            raise ValueError("Expected validation_accuracy or validation_f1")
        return self


def summarize(
    disclaimer: str | None,
    settings: Mapping[str, Any],
    history: Sequence[Mapping[str, float]],
    scores: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the content of report.json; see `write_run_report`."""
    selection = scores.get("selection", "validation_accuracy")
    selected = max(history, key=lambda epoch: epoch[selection])
    return {
        **scores,
        "selection": selection,
        "selected_epoch": int(selected["epoch"]),
        "epochs_run": len(history),
        "seconds": sum(epoch["seconds"] for epoch in history),
        **{name: settings[name] for name in ("mode", "model", "dataset")},
        "disclaimer": disclaimer,
    }


def write_run_report(
    folder: RunFolder,
    *,
    disclaimer: str | None,
    command: str,
    settings: Mapping[str, Any],
    history: Sequence[Mapping[str, float]],
    scores: Mapping[str, Any],
    predictions: Predictions | None,
    categories: Sequence[str],
    attention_of: Callable[[Sequence[int]], list[np.ndarray] | None] | None = None,
) -> dict[str, Any]:
    """Write the figures, the page and, last, report.json of a run.

    Args:
        folder: Folder of the run.
        disclaimer: Text that must accompany every result, or None.
        command: Command that repeats the run.
        settings: Settings of the run.
        history: Metrics per epoch; see `read_history`.
        scores: Result of `evaluation.evaluate` or `cross_modality.evaluate`, plus
            `dataset_hash`, the validation score (`validation_accuracy` or
            `validation_f1`) and its name as `selection` (default:
            `validation_accuracy`).
        predictions: Predictions on the test split, for timelines and confusion matrix;
            None for cross-modality localization.
        categories: Names of the categories.
        attention_of: Function from indices of clips in `predictions` to the clips'
            attention maps `(num_segments, rows, columns)`, or to None.

    Returns:
        The content of report.json.

    Raises:
        UserError: If a file can't be written.
    """
    report = summarize(disclaimer, settings, history, scores)
    drawn = _draw(report, history, predictions, categories, attention_of)
    with explain_unwritable(folder.path, "Make space, and repeat the command."):
        for name, figure in drawn.items():
            figures.save(figure, folder.path / f"{name}.png", disclaimer)
        page = render_page(
            report,
            drawn,
            title=title_of(report),
            command=command,
            settings=settings,
            versions=folder.read_versions(),
        )
        write_text(folder.page, page)
        # Write report.json last: it marks the run as complete.
        write_json(folder.report, report)
    return report


def render_page(
    report: Mapping[str, Any], drawn: Mapping[str, Figure], **values: Any
) -> str:
    """Return the page of a run as HTML that loads no other files.

    Args:
        report: Content of report.json.
        drawn: Figures by name.
        **values: `title`, `command`, `settings` and `versions`.
    """
    return render(
        "page.html",
        report=report,
        disclaimer=report["disclaimer"],
        scores=list_scores(report),
        is_cross_modality=is_cross_modality(report),
        max_maps=figures.MAX_MAPS,
        choice_rule=figures.MULTI_LABEL_RULE
        if report.get("multi_label")
        else figures.CHOICE_RULE,
        figures={
            name: figures.to_svg(figure, name, _DESCRIPTIONS[name])
            for name, figure in drawn.items()
        },
        **values,
    )


def read_history(folder: RunFolder) -> list[dict[str, float]]:
    """Read metrics.csv as one dictionary of numbers per epoch.

    Raises:
        UserError: If the file is missing, broken or empty.
    """
    try:
        text = read_bytes(folder.metrics, _MAX_METRICS_BYTES).decode("utf-8")
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
        history = [
            _Epoch.model_validate(row).model_dump(exclude_none=True) for row in rows
        ]
    except (OSError, ValueError, csv.Error) as error:
        reason = describe(error) if isinstance(error, ValidationError) else error
        raise UserError(
            f"{folder.metrics}: expected the metrics of each epoch. Received: {reason}"
        ) from error
    if not history:
        raise UserError(f"{folder.metrics}: expected at least one epoch.")
    return history


def _draw(
    report: Mapping[str, Any],
    history: Sequence[Mapping[str, float]],
    predictions: Predictions | None,
    categories: Sequence[str],
    attention_of: Callable[[Sequence[int]], list[np.ndarray] | None] | None,
) -> dict[str, Figure]:
    """Return the figures of a report by name."""
    drawn = {
        "learning_curves": figures.learning_curves(
            history, report["selected_epoch"], report["selection"]
        )
    }
    if predictions is None:
        return drawn
    draw = _draw_lanes if predictions.multi_label else _draw_timelines
    drawn["timelines"], titles = draw(report, predictions, categories)
    maps = attention_of([*titles]) if attention_of else None
    if maps is not None:
        drawn["attention"] = _draw_attention(predictions, titles, maps)
    if not predictions.multi_label:
        matrix = report["confusion_matrix"]
        drawn["confusion"] = (
            figures.most_confused(report["most_confused"])
            if matrix is None
            else figures.confusion(matrix, categories)
        )
    return drawn


def _draw_timelines(
    report: Mapping[str, Any], predictions: Predictions, categories: Sequence[str]
) -> tuple[Figure, dict[int, str]]:
    """Return the timelines, and the titles of their clips by index."""
    labels, predicted = predictions.labels, predictions.logits.argmax(axis=-1)
    chosen = figures.choose_clips(
        labels, predicted, len(categories), _NUM_TIMELINE_CLIPS
    )
    titles = {clip: f"row {predictions.row[clip]}" for clip in chosen}
    clips = [
        figures.TimelineClip(
            title=title,
            truth=labels[clip],
            predictions={report["model"]: predicted[clip]},
        )
        for clip, title in titles.items()
    ]
    return figures.timelines(clips, categories), titles


def _draw_lanes(
    report: Mapping[str, Any], predictions: Predictions, categories: Sequence[str]
) -> tuple[Figure, dict[int, str]]:
    """Return timelines and titles of multi-label clips, as in `_draw_timelines`."""
    lanes = lanes_of(predictions, report["thresholds"])
    numerator, denominator = F1.of_segments(lanes).per_clip(len(predictions.row))
    f1 = numerator / np.maximum(denominator, 1)
    chosen = figures.choose_evenly(f1, denominator > 0, _NUM_TIMELINE_CLIPS)
    titles = {c: f"row {predictions.row[c]}, F1 {percent(f1[c])}" for c in chosen}
    clips = [
        figures.LaneClip(
            title=title,
            num_segments=int(predictions.is_real[clip].sum()),
            lanes={
                int(lanes.category[lane]): (lanes.true[lane], lanes.predicted[lane])
                for lane in np.flatnonzero(lanes.clip == clip)
            },
        )
        for clip, title in titles.items()
    ]
    return figures.lane_timelines(clips, categories, report["model"]), titles


def _draw_attention(
    predictions: Predictions, titles: Mapping[int, str], maps: Sequence[np.ndarray]
) -> Figure:
    if predictions.multi_label:
        is_event = (predictions.labels == 1).any(axis=2)
    else:
        is_event = predictions.labels != predictions.logits.shape[2] - 1
    return figures.attention(
        [
            figures.AttentionClip(title, clip_maps, is_event[clip])
            for (clip, title), clip_maps in zip(titles.items(), maps, strict=True)
        ]
    )
