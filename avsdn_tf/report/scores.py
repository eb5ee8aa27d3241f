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
        report: What `evaluation.evaluate` returns, and `validation_accuracy`,
            `selected_epoch` and `epochs_run`.

    Returns:
        The run's accuracy, the trivial systems beside it, and the other scores.
    """
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


def percent(value: float | None) -> str:
    """Returns a fraction as a percentage with one decimal, or `"n/a"`."""
    return "n/a" if value is None else f"{value:.1%}".replace("%", " %")
