"""Which scores a report shows, in which order and in which words."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Score(NamedTuple):
    """One line of a results table.

    Attributes:
        name: What was measured.
        value: Fraction of 1; None where the data leave it undefined.
        interval: 95 % interval of `value`, or None.
        is_baseline: Whether it belongs to a trivial system, beside the run's own.
        meaning: What it says, for a reader who meets it for the first time.
    """

    name: str
    value: float | None
    interval: tuple[float, float] | None
    is_baseline: bool
    meaning: str


def list_scores(report: Mapping[str, Any]) -> list[Score]:
    """Returns the lines of the results table.

    Args:
        report: What `evaluation.evaluate` or `cross_modality.evaluate`
            returns, and `validation_accuracy`, `selected_epoch` and `epochs_run`.

    Returns:
        The run's accuracy, the trivial systems beside it, and the other scores.
    """
    if is_matching(report):
        return _list_matching_scores(report)
    trivial = report["trivial"]
    return [
        Score(
            "Accuracy",
            report["accuracy"],
            tuple(report["interval"]),
            False,
            f"of all {report['num_segments']:,} segments of {report['num_clips']:,} "
            "clips; the interval resamples clips",
        ),
        Score(
            "Always background",
            trivial["always_background"],
            None,
            True,
            "trivial: its accuracy, without looking or listening",
        ),
        Score(
            "Perfect clip classifier",
            trivial["perfect_clip_classifier"],
            None,
            True,
            "trivial: the true class of the clip in every segment, nothing localized",
        ),
        Score(
            "Partial-clip accuracy",
            report["partial_clip_accuracy"],
            None,
            False,
            "in the clips that hold both event and background",
        ),
        Score(
            "Background recall",
            report["background_recall"],
            None,
            False,
            "of the true background segments, how many are found",
        ),
        Score(
            "Event F1 at IoU 0.5",
            report["event_f1"],
            None,
            False,
            "whole events: same category, overlap of at least a half",
        ),
        Score(
            "Validation accuracy",
            report["validation_accuracy"],
            None,
            False,
            f"of epoch {report['selected_epoch']}, the best of {report['epochs_run']}; "
            "the choice never sees the test split",
        ),
    ]


def is_matching(report: Mapping[str, Any]) -> bool:
    """Returns whether a report is one of cross-modality localization."""
    return "a2v_accuracy" in report


def _list_matching_scores(report: Mapping[str, Any]) -> list[Score]:
    """Returns the lines of cross-modality localization's table."""
    intervals, trivial = report["intervals"], report["baselines"]
    return [
        Score(
            "A2V accuracy",
            report["a2v_accuracy"],
            tuple(intervals["a2v_accuracy"]),
            False,
            "the event's sound is known: how often its start is found in the picture, "
            f"in {report['num_clips']:,} clips; the interval resamples clips",
        ),
        Score(
            "V2A accuracy",
            report["v2a_accuracy"],
            tuple(intervals["v2a_accuracy"]),
            False,
            "the event's picture is known: how often its start is found in the sound",
        ),
        Score(
            "Random window",
            trivial["random_window"],
            None,
            True,
            "trivial: any window of the event's length, on average",
        ),
        Score(
            "Always at the start",
            trivial["always_at_start"],
            None,
            True,
            "trivial: the first window, without looking or listening",
        ),
        Score(
            "Always at the end",
            trivial["always_at_end"],
            None,
            True,
            "trivial: the last window, without looking or listening",
        ),
        Score(
            "Validation accuracy",
            report["validation_accuracy"],
            None,
            False,
            "mean of A2V and V2A on the validation split, of epoch "
            f"{report['selected_epoch']}, the best of {report['epochs_run']}",
        ),
    ]


def percent(value: float | None) -> str:
    """Returns a fraction as a percentage with one decimal, or `"n/a"`."""
    return "n/a" if value is None else f"{value:.1%}".replace("%", " %")
