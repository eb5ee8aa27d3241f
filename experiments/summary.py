"""What the runs of a table came to: read, checked against each other, summed up."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from avsdn_tf.training.config import CROSS_MODAL, Config
from avsdn_tf.cross_modality import Distances, is_scored, right_starts
from avsdn_tf.errors import UserError
from avsdn_tf.evaluation import Predictions, bootstrap_interval, paired_interval
from avsdn_tf.run_folder import RunFolder
from experiments.published import STEPWISE, Row
from experiments.runs import TRAIN_AGAIN, Run

# Beside the accuracy, of systems that label segments.
SEGMENT_SCORES = ("partial_clip_accuracy", "background_recall", "event_f1")


@dataclasses.dataclass(frozen=True, eq=False)
class Outcome:
    """What one finished run came to.

    Attributes:
        scores: Scores by name, fractions of 1, None where undefined; and `seconds`.
        trivial: Scores of the trivial systems of its task.
        notice: What must be said wherever a result appears, or None.
        digest: That of the data set that it was scored on; None if none was kept.
        clips: Rows of the scored test clips in Annotations.txt, in their order.
        correct: What is right in these, `(num_clips, samples a clip)`.
    """

    scores: dict[str, float | None]
    trivial: dict[str, float]
    notice: str | None
    digest: str | None
    clips: np.ndarray
    correct: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
    """What the seeds of one row came to.

    Attributes:
        row: The row.
        runs: Its runs; none if the data set lacks its features.
        outcomes: The outcome of every finished seed.
        failed: Why other seeds have none.
    """

    row: Row
    runs: list[Run]
    outcomes: list[Outcome]
    failed: dict[int, str]

    @property
    def correct(self) -> np.ndarray | None:
        """Share of the seeds that have a sample right; None without a finished one."""
        if not self.outcomes:
            return None
        return np.mean([outcome.correct for outcome in self.outcomes], axis=0)


def read_results(
    rows: Sequence[Row], runs: Sequence[list[Run]], failures: dict[Any, str]
) -> list[Result]:
    """Reads the finished runs of a table.

    Args:
        rows: The rows.
        runs: The runs of each.
        failures: Why runs failed, by their folders.

    Returns:
        A result a row. A run has failed that can't be read, was scored on other clips
        than the first one of its task, on other data than the first one of all or of
        its data set, or than it has learnt from, or started from encoders that are
        gone.
    """
    clips: dict[bool, np.ndarray] = {}
    notices: list[str | None] = []
    digests: dict[str, str] = {}
    results = []
    for row, of_row in zip(rows, runs, strict=True):
        outcomes, failed = [], {}
        for seed, run in enumerate(of_row):
            try:
                for folder in (run.source, run.folder):
                    if folder in failures:
                        raise UserError(failures[folder])
                run.check_source()
                outcome = _read_outcome(row, run)
                notices.append(outcome.notice)
                if outcome.notice != notices[0]:
                    told = [notice or "none, as on AVE" for notice in notices]
                    raise UserError(
                        f"{run.folder}: expected a run on the same data as the runs "
                        f"before, whose notice is: {told[0]}. Received another: "
                        f"{told[-1]}. {TRAIN_AGAIN}"
                    )
                if outcome.digest:
                    name = run.config.dataset
                    if outcome.digest != digests.setdefault(name, outcome.digest):
                        raise UserError(
                            f"{run.folder}: expected {name} as the runs before had it. "
                            "Received a run on one that was built from something else. "
                            f"{TRAIN_AGAIN}"
                        )
                expected = clips.setdefault(row.mode == CROSS_MODAL, outcome.clips)
                if not np.array_equal(outcome.clips, expected):
                    raise UserError(
                        f"{run.folder}: scored on other test clips than the runs "
                        f"before. {TRAIN_AGAIN}"
                    )
                outcomes.append(outcome)
            except UserError as error:
                failed[seed] = str(error)
        results.append(Result(row, of_row, outcomes, failed))
    return results


def _read_outcome(row: Row, run: Run) -> Outcome:
    """Reads a finished run.

    Raises:
        UserError: If a file of it is damaged.
    """
    folder = RunFolder(run.folder)
    names = (row.metric, "validation_accuracy", "seconds")
    if row.mode != CROSS_MODAL:
        names += SEGMENT_SCORES
    try:
        report = json.loads(folder.report.read_text())
        scores = {n: None if report[n] is None else float(report[n]) for n in names}
        trivial = dict(report["baselines" if row.mode == CROSS_MODAL else "trivial"])
        notice, digest = report["notice"], report.get("dataset_digest")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder.report}: expected the report of a finished run. "
            f"Received: {type(error).__name__}: {error}. {TRAIN_AGAIN}"
        ) from error
    if digest and not folder.has_learnt_from(digest):
        raise UserError(
            f"{run.folder}: scored on another {run.config.dataset} than it has learnt "
            f"from. {TRAIN_AGAIN}"
        )
    try:
        clips, correct = read_correct(row, folder)
    except ValueError as error:
        raise UserError(f"{error}. {TRAIN_AGAIN}") from error
    return Outcome(scores, trivial, notice, digest, clips, correct)


def read_correct(row: Row, folder: RunFolder) -> tuple[np.ndarray, np.ndarray]:
    """Reads what of the test split is right.

    Args:
        row: The row that the run belongs to.
        folder: The run folder.

    Returns:
        Rows of the scored clips in Annotations.txt, in their order, and what is right
        in these, `(num_clips, samples a clip)`.

    Raises:
        ValueError: If the predictions are damaged.
    """
    if row.mode == CROSS_MODAL:
        distances = Distances.load(folder.predictions)
        directions = ("a2v_accuracy", "v2a_accuracy")
        starts = dict(zip(directions, right_starts(distances), strict=True))
        clips = distances.row[is_scored(distances.labels)]
        right = starts[row.metric][:, None]
    else:
        predictions = Predictions.load(folder.predictions)
        clips = predictions.row
        right = predictions.logits.argmax(axis=-1) == predictions.labels
    order = np.argsort(clips)
    return clips[order], right[order]


def trivial_scores(results: Sequence[Result]) -> dict[bool, dict[str, float]]:
    """Returns the scores of the trivial systems, by whether their task is AVDLN's."""
    return {
        result.row.mode == CROSS_MODAL: result.outcomes[0].trivial
        for result in results
        if result.outcomes
    }


def summarize(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Returns the lines of the table, ready for CSV.

    Scores are fractions of 1. The interval resamples clips, with the correctness of a
    sample averaged over the seeds, and so do those of two paired comparisons on the
    same clips: `avsdn_minus`, AVSDN of the same recipe minus the row, and `gain`, the
    row minus the one that it departs from: the same system with the paper's recipe, or
    in a table of steps the row before.
    """
    lines = []
    for place, result in enumerate(results):
        row = result.row
        line: dict[str, Any] = {
            "table": row.table,
            "system": row.system,
            "features": row.features,
            "mode": row.mode,
            "model": row.model,
            "training_labels": _training_labels(row),
            "recipe": row.recipe,
            "epochs": result.runs[0].config.epochs if result.runs else None,
            "patience": result.runs[0].config.patience if result.runs else None,
            "paper": None if row.paper is None else row.paper / 100,
            "seeds": len(result.outcomes),
            "failed_seeds": " ".join(map(str, result.failed)),
            "note": " ".join(result.failed.values()),
        }
        if not result.runs:
            line["note"] = f"not run: needs tfds_ave/{row.dataset_config}"
        lines.append(line | _scores(result) | _comparisons(place, results))
    return lines


def _training_labels(row: Row) -> str | None:
    """Returns which clip labels a weak system is trained on."""
    if row.mode != "weak":
        return None
    return row.settings.get("weak_label", Config().weak_label)


def _scores(result: Result) -> dict[str, Any]:
    """Returns the means over a row's seeds, and the interval of the first."""
    if not result.outcomes:
        return {}
    low, high = bootstrap_interval(result.correct.mean(axis=1))
    of_seeds = {
        name: [outcome.scores[name] for outcome in result.outcomes]
        for name in result.outcomes[0].scores
    }
    accuracies = of_seeds.pop(result.row.metric)
    means = {
        name: None if None in values else np.mean(values)
        for name, values in of_seeds.items()
    }
    several = len(accuracies) > 1
    return {
        "accuracy": np.mean(accuracies),
        "deviation": np.std(accuracies, ddof=1) if several else None,
        "interval_low": low,
        "interval_high": high,
        **means,
    }


def _comparisons(place: int, results: Sequence[Result]) -> dict[str, Any]:
    """Returns the paired comparisons of the row at a place."""
    result = results[place]
    compared = {}
    for name, better, worse in (
        ("avsdn_minus", _avsdn_of(result, results), result),
        ("gain", result, _departed_from(place, results)),
    ):
        if better is worse or not (better and worse):
            continue
        if better.correct is None or worse.correct is None:
            continue
        low, high = paired_interval(better.correct, worse.correct)
        compared |= {
            name: better.correct.mean() - worse.correct.mean(),
            f"{name}_low": low,
            f"{name}_high": high,
        }
    return compared


def _avsdn_of(result: Result, results: Sequence[Result]) -> Result | None:
    """Returns the AVSDN of a result's task and recipe, in a published table."""
    if result.row.table in STEPWISE:
        return None
    for other in results:
        task = (other.row.mode, other.row.recipe)
        if other.row.model == "avsdn" and task == (result.row.mode, result.row.recipe):
            return other
    return None


def _departed_from(place: int, results: Sequence[Result]) -> Result | None:
    """Returns the result that the one at a place departs from."""
    row = results[place].row
    if row.table in STEPWISE:
        return results[place - 1] if row.order > 1 else None
    for other in results:
        if (other.row.name, other.row.recipe) == (row.name, "paper"):
            return other
    return None
