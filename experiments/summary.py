"""Read the results of a table's runs, check their data, and summarize the results."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from avsdn_tf.cross_modality import Distances, is_scored, right_starts
from avsdn_tf.errors import UserError
from avsdn_tf.evaluation import Predictions
from avsdn_tf.intervals import bootstrap_interval, paired_interval
from avsdn_tf.run_folder import RunFolder
from avsdn_tf.training.config import CROSS_MODAL, Config
from experiments.costs import count_macs, count_parameters
from experiments.published import HEADS, STEPWISE, Row
from experiments.runs import TRAIN_AGAIN, Run

# Scores of systems that label segments, besides the accuracy.
SEGMENT_SCORES = ("partial_clip_accuracy", "background_recall", "event_f1")


@dataclasses.dataclass(frozen=True, eq=False)
class Outcome:
    """The result of one finished run.

    Attributes:
        scores: Scores by name, as fractions of 1 or None if undefined; and `seconds`,
            the time of all epochs.
        trivial: Scores of the trivial systems of the task.
        disclaimer: Text that must accompany every result, or None.
        dataset_hash: Hash of the scored data set, or None if unrecorded.
        clips: Rows of the scored test clips in Annotations.txt, ascending.
        correct: Whether each prediction is correct, `(num_clips, num_segments)` bool;
            `(num_clips, 1)` for cross-modality localization.
    """

    scores: dict[str, float | None]
    trivial: dict[str, float]
    disclaimer: str | None
    dataset_hash: str | None
    clips: np.ndarray
    correct: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
    """The results of one row's seeds.

    Attributes:
        row: The row.
        runs: The runs; none if no data set has the row's features.
        outcomes: The outcomes of finished seeds.
        failed: Error messages of the other seeds.
    """

    row: Row
    runs: list[Run]
    outcomes: list[Outcome]
    failed: dict[int, str]

    @property
    def correct(self) -> np.ndarray | None:
        """Mean of `Outcome.correct` over the seeds, or None without finished seeds."""
        if not self.outcomes:
            return None
        return np.mean([outcome.correct for outcome in self.outcomes], axis=0)


def read_results(
    rows: Sequence[Row], runs: Sequence[list[Run]], failures: Mapping[Any, str]
) -> list[Result]:
    """Read the finished runs of a table.

    Args:
        rows: The rows.
        runs: The runs of each row.
        failures: Error messages of failed runs, by folder.

    Returns:
        One result per row. A run also fails if it can't be read, if it started from
        the encoders of a run that was trained again afterwards, or if it was scored on
        other data than earlier runs or than its own training.
    """
    first: dict[Any, Any] = {}
    results = []
    for row, row_runs in zip(rows, runs, strict=True):
        outcomes, failed = [], {}
        for seed, run in enumerate(row_runs):
            if failure := failures.get(run.source) or failures.get(run.folder):
                failed[seed] = failure
                continue
            try:
                run.check_source()
                outcome = _read_outcome(row, run)
                _check_data(first, row, run, outcome)
                outcomes.append(outcome)
            except (UserError, ValueError) as error:
                failed[seed] = f"{error} {TRAIN_AGAIN}"
        results.append(Result(row, row_runs, outcomes, failed))
    return results


def _read_outcome(row: Row, run: Run) -> Outcome:
    """Read a finished run; raise UserError or ValueError if a file is damaged."""
    folder = RunFolder(run.folder)
    names = (row.metric, "validation_accuracy", "seconds")
    if row.mode != CROSS_MODAL:
        names += SEGMENT_SCORES
    report = folder.read_report()
    try:
        scores = {n: None if report[n] is None else float(report[n]) for n in names}
        trivial = dict(report["baselines" if row.mode == CROSS_MODAL else "trivial"])
        disclaimer, dataset_hash = report["disclaimer"], report.get("dataset_hash")
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder.report}: expected the report of a finished run. "
            f"Received: {type(error).__name__}: {error}."
        ) from error
    if dataset_hash and not folder.matches_dataset(dataset_hash):
        raise UserError(
            f"{run.folder}: scored on another {run.config.dataset} than it was trained "
            "on."
        )
    clips, correct = read_correct(row, folder)
    return Outcome(scores, trivial, disclaimer, dataset_hash, clips, correct)


def _check_data(first: dict[Any, Any], row: Row, run: Run, outcome: Outcome) -> None:
    """Check that a run was scored on the same data as earlier runs.

    `first` holds the data of the earlier runs, and is updated.
    """
    disclaimer = outcome.disclaimer or "none, as on AVE"
    name, dataset_hash = run.config.dataset, outcome.dataset_hash
    for key, value, problem in (
        ("disclaimer", disclaimer, f"has another disclaimer ({disclaimer})"),
        (name, dataset_hash, "its data was built from other files"),
        (row.mode == CROSS_MODAL, tuple(outcome.clips), "scored on other test clips"),
    ):
        if value and value != first.setdefault(key, value):
            raise UserError(f"{run.folder}: {problem} than the runs before.")


def read_correct(row: Row, folder: RunFolder) -> tuple[np.ndarray, np.ndarray]:
    """Return `clips` and `correct` of an `Outcome`.

    Raises:
        ValueError: If the predictions are damaged.
    """
    if row.mode == CROSS_MODAL:
        distances = Distances.load(folder.predictions)
        directions = ("a2v_accuracy", "v2a_accuracy")
        starts = dict(zip(directions, right_starts(distances), strict=True))
        clips = distances.row[is_scored(distances.labels)]
        correct = starts[row.metric][:, None]
    else:
        predictions = Predictions.load(folder.predictions)
        clips = predictions.row
        correct = predictions.logits.argmax(axis=-1) == predictions.labels
    order = np.argsort(clips)
    return clips[order], correct[order]


def trivial_scores(results: Sequence[Result]) -> dict[bool, dict[str, float]]:
    """Return the scores of trivial systems; the key is True for cross-modality."""
    return {
        result.row.mode == CROSS_MODAL: result.outcomes[0].trivial
        for result in results
        if result.outcomes
    }


def summarize(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Return the lines of the table as dictionaries for CSV.

    Scores are fractions of 1. Intervals resample clips, after averaging `correct` over
    the seeds. Differences are paired, on the same clips:

    * `avsdn_minus`: AVSDN with the same recipe minus the row.
    * `gain`: the row minus the same system with the paper's recipe, or in tables of
      `STEPWISE`, minus the previous row.
    * `best_minus`, in tables of `HEADS` only: the most accurate row minus the row.

    Tables of `HEADS` also have `parameters`, `macs` per clip and `peak_bytes` of
    training.
    """
    lines = []
    for index, result in enumerate(results):
        row = result.row
        config = result.runs[0].config if result.runs else None
        note = " ".join(result.failed.values())
        labels = row.settings.get("weak_label", Config().weak_label)
        line: dict[str, Any] = {
            "table": row.table,
            "system": row.system,
            "features": row.features,
            "mode": row.mode,
            "model": row.model,
            "training_labels": labels if row.mode == "weak" else None,
            "recipe": row.recipe,
            "epochs": config.epochs if config else None,
            "patience": config.patience if config else None,
            "paper": None if row.paper is None else row.paper / 100,
            "reported": None if row.reported is None else row.reported / 100,
            "seeds": len(result.outcomes),
            "failed_seeds": " ".join(map(str, result.failed)),
            "note": note if config else f"not run: needs tfds_ave/{row.dataset_config}",
        }
        lines.append(
            line | _scores(result) | _costs(result) | _comparisons(index, results)
        )
    return lines


def _scores(result: Result) -> dict[str, Any]:
    """Return the means over a row's seeds, and the accuracy's interval."""
    if not result.outcomes:
        return {}
    low, high = bootstrap_interval(result.correct.mean(axis=1))
    by_name = {
        name: [outcome.scores[name] for outcome in result.outcomes]
        for name in result.outcomes[0].scores
    }
    accuracies = by_name.pop(result.row.metric)
    return {
        "accuracy": np.mean(accuracies),
        "deviation": np.std(accuracies, ddof=1) if len(accuracies) > 1 else None,
        "interval_low": low,
        "interval_high": high,
        **{
            name: None if None in values else np.mean(values)
            for name, values in by_name.items()
        },
    }


def _costs(result: Result) -> dict[str, Any]:
    """Return parameters, operations and peak memory of a row of `HEADS`, if known."""
    if result.row.table not in HEADS or not result.outcomes:
        return {}
    done = [run for seed, run in enumerate(result.runs) if seed not in result.failed]
    peaks = [run.read_origin().get("peak_bytes") for run in done]
    costs = {"peak_bytes": max(filter(None, peaks), default=None)}
    folder = RunFolder(done[0].folder)
    if folder.model.is_file():
        model = folder.load_model()
        costs |= {"parameters": count_parameters(model), "macs": count_macs(model)}
    return costs


def _comparisons(index: int, results: Sequence[Result]) -> dict[str, Any]:
    """Return the paired differences of row `index`."""
    result = results[index]
    row = result.row
    avsdn = before = best = None
    if row.table in HEADS:
        done = [other for other in results if other.correct is not None]
        best = max(done, key=lambda other: other.correct.mean(), default=None)
    elif row.table in STEPWISE:
        before = results[index - 1] if row.order > 1 else None
    else:
        for other in reversed(results):
            r = other.row
            if (r.model, r.mode, r.recipe) == ("avsdn", row.mode, row.recipe):
                avsdn = other
            if (r.name, r.recipe) == (row.name, "paper"):
                before = other
    differences = {}
    for name, first, second in (
        ("avsdn_minus", avsdn, result),
        ("best_minus", best, result),
        ("gain", result, before),
    ):
        if first is second or not (first and second):
            continue
        if first.correct is None or second.correct is None:
            continue
        low, high = paired_interval(first.correct, second.correct)
        differences |= {
            name: first.correct.mean() - second.correct.mean(),
            f"{name}_low": low,
            f"{name}_high": high,
        }
    return differences
