"""The scores that a report shows, in their order and words."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Score(NamedTuple):
    """One line of a results table.

    Attributes:
        name: Name of the score.
        value: Fraction of 1; None where the data leave it undefined.
        meaning: Explanation for a reader who meets the score for the first time.
        interval: 95 % interval of `value`, or None.
        is_baseline: Whether it belongs to a trivial system, beside the run's own.
    """

    name: str
    value: float | None
    meaning: str
    interval: tuple[float, float] | None = None
    is_baseline: bool = False


def list_scores(report: Mapping[str, Any]) -> list[Score]:
    """Return the lines of the results table.

    Args:
        report: The result of `evaluation.evaluate` or `cross_modality.evaluate`, and
            `validation_accuracy`, `selected_epoch` and `epochs_run`.

    Returns:
        The run's accuracy, the trivial systems beside it, and the other scores.
    """
    if is_cross_modality(report):
        return _list_cross_modality_scores(report)
    trivial = report["trivial"]
    return [
        Score(
            "Accuracy",
            report["accuracy"],
            f"of all {report['num_segments']:,} segments of {report['num_clips']:,} "
            "clips; the interval resamples clips",
            interval=report["interval"],
        ),
        Score(
            "Always background",
            trivial["always_background"],
            "trivial: its accuracy, without looking or listening",
            is_baseline=True,
        ),
        Score(
            "Perfect clip classifier",
            trivial["perfect_clip_classifier"],
            "trivial: the true class of the clip in every segment, nothing localized",
            is_baseline=True,
        ),
        Score(
            "Partial-clip accuracy",
            report["partial_clip_accuracy"],
            "in the clips that hold both event and background",
        ),
        Score(
            "Background recall",
            report["background_recall"],
            "of the true background segments, how many are found",
        ),
        Score(
            "Event F1 at IoU 0.5",
            report["event_f1"],
            "whole events: same category, overlap of at least a half",
        ),
        Score(
            "Validation accuracy",
            report["validation_accuracy"],
            f"of epoch {report['selected_epoch']}, the best of {report['epochs_run']}; "
            "the choice never sees the test split",
        ),
    ]


def is_cross_modality(report: Mapping[str, Any]) -> bool:
    """Return whether a report is one of cross-modality localization."""
    return "a2v_accuracy" in report


def _list_cross_modality_scores(report: Mapping[str, Any]) -> list[Score]:
    intervals, trivial = report["intervals"], report["baselines"]
    return [
        Score(
            "A2V accuracy",
            report["a2v_accuracy"],
            "the event's sound is known: how often its start is found in the picture, "
            f"in {report['num_clips']:,} clips; the interval resamples clips",
            interval=intervals["a2v_accuracy"],
        ),
        Score(
            "V2A accuracy",
            report["v2a_accuracy"],
            "the event's picture is known: how often its start is found in the sound",
            interval=intervals["v2a_accuracy"],
        ),
        Score(
            "Random window",
            trivial["random_window"],
            "trivial: any window of the event's length, on average",
            is_baseline=True,
        ),
        Score(
            "Always at the start",
            trivial["always_at_start"],
            "trivial: the first window, without looking or listening",
            is_baseline=True,
        ),
        Score(
            "Always at the end",
            trivial["always_at_end"],
            "trivial: the last window, without looking or listening",
            is_baseline=True,
        ),
        Score(
            "Validation accuracy",
            report["validation_accuracy"],
            "mean of A2V and V2A on the validation split, of epoch "
            f"{report['selected_epoch']}, the best of {report['epochs_run']}",
        ),
    ]


def percent(value: float | None) -> str:
    """Return a fraction as a percentage with one decimal, or `"n/a"`."""
    return "n/a" if value is None else f"{value:.1%}".replace("%", " %")
