"""The results of a table's runs: read, checked against each other, summed up."""

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

# Scores beside the accuracy, of systems that label segments.
SEGMENT_SCORES = ("partial_clip_accuracy", "background_recall", "event_f1")


@dataclasses.dataclass(frozen=True, eq=False)
class Outcome:
    """The result of one finished run.

    Attributes:
        scores: Scores by name, fractions of 1, None where undefined; and `seconds`.
        trivial: Scores of the trivial systems of its task.
        disclaimer: What must be said wherever a result appears, or None.
        dataset_hash: Hash of the data set that it was scored on; None if unrecorded.
        clips: Rows of the scored test clips in Annotations.txt, ascending.
        correct: What is right in these, `(num_clips, samples a clip)`.
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
    rows: Sequence[Row], runs: Sequence[list[Run]], failures: Mapping[Any, str]
) -> list[Result]:
    """Read the finished runs of a table.

    Args:
        rows: The rows.
        runs: The runs of each.
        failures: Why runs failed, by their folders.

    Returns:
        A result a row. A run has failed if it can't be read, was scored on other data
        than the runs before or than it was trained on, or if its source was trained
        again.
    """
    first: dict[Any, Any] = {}
    results = []
    for row, of_row in zip(rows, runs, strict=True):
        outcomes, failed = [], {}
        for seed, run in enumerate(of_row):
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
        results.append(Result(row, of_row, outcomes, failed))
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
    """Check that a run was scored on the data of the `first` runs."""
    disclaimer = outcome.disclaimer or "none, as on AVE"
    name, found = run.config.dataset, outcome.dataset_hash
    for key, value, problem in (
        ("disclaimer", disclaimer, f"has another disclaimer ({disclaimer})"),
        (name, found, "its data was built from other files"),
        (row.mode == CROSS_MODAL, tuple(outcome.clips), "scored on other test clips"),
    ):
        if value and value != first.setdefault(key, value):
            raise UserError(f"{run.folder}: {problem} than the runs before.")


def read_correct(row: Row, folder: RunFolder) -> tuple[np.ndarray, np.ndarray]:
    """Return the scored clips and what is right in these; see `Outcome`.

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
    """Return the scores of the trivial systems, by whether their task is AVDLN's."""
    return {
        result.row.mode == CROSS_MODAL: result.outcomes[0].trivial
        for result in results
        if result.outcomes
    }


def summarize(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Return the lines of the table, ready for CSV.

    Scores are fractions of 1. Intervals resample clips, with the correctness of a
    sample averaged over the seeds. Two comparisons are paired, on the same clips:
    `avsdn_minus`, AVSDN of the same recipe minus the row; and `gain`, the row minus the
    same system with the paper's recipe, or in a table of steps minus the row before.
    In a table of `HEADS`, it is `best_minus`, the most accurate row minus the row; and
    there are `parameters`, `macs` a clip, and `peak_bytes` of the training.
    """
    lines = []
    for place, result in enumerate(results):
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
            line | _scores(result) | _costs(result) | _comparisons(place, results)
        )
    return lines


def _scores(result: Result) -> dict[str, Any]:
    """Return the means over a row's seeds, and the accuracy's interval."""
    if not result.outcomes:
        return {}
    low, high = bootstrap_interval(result.correct.mean(axis=1))
    of_seeds = {
        name: [outcome.scores[name] for outcome in result.outcomes]
        for name in result.outcomes[0].scores
    }
    accuracies = of_seeds.pop(result.row.metric)
    return {
        "accuracy": np.mean(accuracies),
        "deviation": np.std(accuracies, ddof=1) if len(accuracies) > 1 else None,
        "interval_low": low,
        "interval_high": high,
        **{
            name: None if None in values else np.mean(values)
            for name, values in of_seeds.items()
        },
    }


def _costs(result: Result) -> dict[str, Any]:
    """Return what a row of `HEADS` costs, as far as it is known."""
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


def _comparisons(place: int, results: Sequence[Result]) -> dict[str, Any]:
    """Return the paired comparisons of the row at a place."""
    result = results[place]
    row = result.row
    avsdn = before = best = None
    if row.table in HEADS:
        done = [other for other in results if other.correct is not None]
        best = max(done, key=lambda other: other.correct.mean(), default=None)
    elif row.table in STEPWISE:
        before = results[place - 1] if row.order > 1 else None
    else:
        for other in reversed(results):
            of = other.row
            if (of.model, of.mode, of.recipe) == ("avsdn", row.mode, row.recipe):
                avsdn = other
            if (of.name, of.recipe) == (row.name, "paper"):
                before = other
    compared = {}
    for name, better, worse in (
        ("avsdn_minus", avsdn, result),
        ("best_minus", best, result),
        ("gain", result, before),
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
