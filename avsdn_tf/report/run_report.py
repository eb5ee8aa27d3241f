"""The report of a run: figures, page and report.json in its folder."""

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
# What screen readers say of the figures.
_DESCRIPTIONS = {
    "learning_curves": "Loss and accuracy of training and the score of validation by "
    "epoch. Their numbers are in metrics.csv",
    "timelines": "Some test clips, second by second: their true events above the "
    "predicted ones. Their numbers are in predictions.npz",
    "attention": "The same clips, second by second: the weights that the network gives "
    "the cells of the picture",
    "confusion": "Which classes were given to the true segments of others. The "
    "numbers are in report.json",
}
# 60,000 epochs.
_MAX_METRICS_BYTES = 4 * 2**20
# Sums of half a million float32 round.
_Share = Annotated[float, Field(ge=0, le=1.01)]
_Positive = Annotated[float, Field(ge=0, le=1e12)]


class _Epoch(Schema, strict=False, extra="ignore"):
    """A row of metrics.csv. Its values are texts."""

    epoch: Annotated[int, Field(ge=1, lt=2**31)]
    loss: Annotated[float, Field(ge=-1e30, le=1e30)]
    accuracy: _Share
    validation_accuracy: _Share | None = None
    validation_f1: _Share | None = None
    seconds: _Positive

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
    """Return what report.json holds; see `write_run_report`."""
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
    """Write the figures, the page and, last, report.json of a run; return the report.

    `scores` is the result of `evaluation.evaluate` or `cross_modality.evaluate`, with
    `dataset_hash`, the score that selected the epoch (`validation_accuracy` or
    `validation_f1`) and its name (`selection`; default the former), and `predictions`
    is what they are of; None for cross-modality localization, whose report has neither
    timelines nor a confusion matrix. That of multi-label networks has no confusion
    matrix, either. `attention_of` returns the attention maps `(num_segments, rows,
    columns)` of clips by their index in `predictions`, or None.

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
        # The last file: its presence says that the run has ended.
        write_json(folder.report, report)
    return report


def render_page(
    report: Mapping[str, Any], drawn: Mapping[str, Figure], **values: Any
) -> str:
    """Return the page of a run: one HTML file that loads nothing from elsewhere.

    `drawn` holds the figures; `values` are `title`, `command`, `settings` and
    `versions`.
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
    """Return metrics.csv as one dictionary of numbers per epoch.

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
    """Return the figures of a report by the names of their files."""
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
    """Return the timelines, and the titles of the clips in them by their index."""
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
    """Return what `_draw_timelines` does, of multi-label predictions."""
    lanes = lanes_of(predictions, report["thresholds"])
    part, whole = F1.of_segments(lanes).per_clip(len(predictions.row))
    f1 = part / np.maximum(whole, 1)
    chosen = figures.choose_evenly(f1, whole > 0, _NUM_TIMELINE_CLIPS)
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
