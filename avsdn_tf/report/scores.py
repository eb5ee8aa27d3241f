"""Names, meanings and order of the scores in a report."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from avsdn_tf.text import count

# Key in the report: name and meaning.
_SEGMENT_SCORES = {
    "accuracy": "Accuracy: of all {segments} of {clips}; the interval resamples clips",
    "always_background": "Always background: trivial: accuracy of predicting "
    "background everywhere",
    "perfect_clip_classifier": "Perfect clip classifier: trivial: the true class of "
    "the clip in every segment, nothing localized",
    "partial_clip_accuracy": "Partial-clip accuracy: in the clips that hold both event "
    "and background",
    "background_recall": "Background recall: share of the true background segments "
    "that are found",
    "segment_f1": "Segment F1: the segments of all categories together, background "
    "left out",
    "event_f1": "Event F1 at IoU 0.5: whole events: same category, overlap of at least "
    "a half",
    "map_mean": "mAP: average precision of events, the mean over categories and over "
    "IoU 0.1 to 0.9",
    "validation_accuracy": "Validation accuracy: of epoch {selected_epoch}, the best "
    "of {epochs_run}; the choice never sees the test split",
}
_MULTI_LABEL_SCORES = {
    "segment_f1": "Segment F1: of all {segments} of {clips}, "
    "categories together; the intervals resample clips",
    "segment_f1_macro": "Segment F1, macro: the mean over categories",
    "event_f1": "Event F1 at IoU 0.5: whole events: same category, overlap of at least "
    "a half",
    "map_0.5": "mAP at IoU 0.5: average precision of events, the mean over categories",
    "map_mean": "mAP: the mean over IoU 0.1 to 0.9",
    "llp_segment_f1": "LLP segment F1: mean over clips of the mean F1 of a clip's "
    "categories",
    "llp_event_f1": "LLP event F1: mean over clips of the mean event F1 of a clip's "
    "categories, at IoU 0.5",
    "background_recall": "Background recall: share of the segments without a category "
    "that are found",
    "validation_f1": "Validation F1: segment F1 of epoch {selected_epoch}, the best of "
    "{epochs_run}; the choice never sees the test split",
}
_CROSS_MODALITY_SCORES = {
    "a2v_accuracy": "A2V accuracy: share of {clips} in which the start of the event is "
    "found in the picture, given its sound; the interval resamples clips",
    "v2a_accuracy": "V2A accuracy: share of clips in which the start of the event is "
    "found in the sound, given its picture",
    "random_window": "Random window: trivial: expected accuracy of a random window of "
    "the event's length",
    "always_at_start": "Always at the start: trivial: always predict the first window",
    "always_at_end": "Always at the end: trivial: always predict the last window",
    "validation_accuracy": "Validation accuracy: mean of A2V and V2A on the validation "
    "split, of epoch {selected_epoch}, the best of {epochs_run}",
}


class Score(NamedTuple):
    """A line of a results table.

    Attributes:
        name: Name of the score.
        value: Score in [0, 1], or None if undefined.
        meaning: Explanation in one line.
        interval: 95 % interval, or None.
        is_baseline: Whether the score is that of a trivial system, not of the run.
    """

    name: str
    value: float | None
    meaning: str
    interval: tuple[float, float] | None
    is_baseline: bool


def title_of(report: Mapping[str, Any]) -> str:
    """Return the title of a run's report."""
    return f"{report['model']}, {report['mode']}, on {report['dataset']}"


def list_scores(report: Mapping[str, Any]) -> list[Score]:
    """Return the lines of the results table: scores of the run and of trivial systems.

    Args:
        report: The result of `evaluation.evaluate` or `cross_modality.evaluate`, with
            `validation_accuracy` or `validation_f1`, `selected_epoch` and `epochs_run`.
            Scores missing from the report, as in older versions, are omitted.
    """
    if is_cross_modality(report):
        lines, trivial = _CROSS_MODALITY_SCORES, report["baselines"]
        intervals = report["intervals"]
    else:
        is_multi = report.get("multi_label", False)
        lines = _MULTI_LABEL_SCORES if is_multi else _SEGMENT_SCORES
        trivial = report["trivial"] or {}
        intervals = {"accuracy": report["interval"], **report.get("intervals", {})}
    # Reports of cross-modality localization count no segments.
    counts = {
        f"{noun}s": count(report[f"num_{noun}s"], noun)
        for noun in ("clip", "segment")
        if f"num_{noun}s" in report
    }
    precisions = {f"map_{iou}": x for iou, x in report.get("map", {}).items()}
    values = {**report, **trivial, **precisions}
    scores = []
    for key, text in lines.items():
        if key not in values:
            continue
        name, _, meaning = text.format_map({**report, **counts}).partition(": ")
        interval = intervals.get(key)
        scores.append(Score(name, values[key], meaning, interval, key in trivial))
    return scores


def is_cross_modality(report: Mapping[str, Any]) -> bool:
    """Return whether a report is of cross-modality localization."""
    return "a2v_accuracy" in report


def percent(value: float | None) -> str:
    """Return a fraction as a percentage with one decimal, or `"n/a"`."""
    return "n/a" if value is None else f"{value:.1%}".replace("%", " %")
