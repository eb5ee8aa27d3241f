"""Train, evaluate and predict, as the commands of the same names do.

The functions log to the logger `avsdn_tf`. In a notebook,
`logging.getLogger("avsdn_tf").setLevel("INFO")` shows each epoch.
"""

import contextlib
import dataclasses
import functools
import logging
import os
import pathlib
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
from absl import logging as absl_logging

from avsdn_tf import zero_shot
from avsdn_tf.backbones import Backbones
from avsdn_tf.data.dataset import (
    Dataset,
    NotBuiltError,
    explain_damage,
    open_dataset_of_run,
)
from avsdn_tf.errors import UserError
from avsdn_tf.evaluation import Predictions
from avsdn_tf.events import VideoPrediction
from avsdn_tf.files import explain_unwritable
from avsdn_tf.hub import fetch_run, is_address
from avsdn_tf.models import LateFusion
from avsdn_tf.report.prediction import check_prediction, write_prediction
from avsdn_tf.report.run_report import read_history, summarize, write_run_report
from avsdn_tf.run_folder import RunFolder
from avsdn_tf.startup import check_backend
from avsdn_tf.training.config import CROSS_MODAL, Config
from avsdn_tf.training.loop import Training
from avsdn_tf.training.run import train_run
from avsdn_tf.training.tasks import restore_task
from avsdn_tf.training.tasks.attention import attention_of_clips

_LOGGER = logging.getLogger(__name__)
_SIMULATED = "tfds_ave/synthetic"


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedRun:
    """Result of `train`.

    Attributes:
        folder: The run folder.
        model: The model of the selected epoch.
        history: A dictionary per epoch: `epoch` (from 1), `loss`, `accuracy`,
            `validation_accuracy` (multi-label: `validation_f1`) and `seconds`.
        report: Scores of the test split, as in report.json.

    Example:
        >>> run = avsdn_tf.train(epochs=1, run="runs/short")
        >>> run.folder.name
        'short'
        >>> run.model.save("short.keras")
    """

    folder: pathlib.Path
    model: keras.Model
    history: list[dict[str, float]]
    report: dict[str, Any]


@contextlib.contextmanager
def _without_tfds_warnings() -> Iterator[None]:
    """Silence TFDS, which logs warnings about its internals through absl."""
    before = absl_logging.get_verbosity()
    absl_logging.set_verbosity(absl_logging.ERROR)
    try:
        yield
    finally:
        absl_logging.set_verbosity(before)


@_without_tfds_warnings()
def train(
    config: Config | Mapping[str, Any] | None = None,
    *,
    run: str | os.PathLike[str] | None = None,
    resume: bool = True,
    allow_stale_data: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    **settings: Any,
) -> TrainedRun | None:
    """Train a network, score the test split once, and write a run folder.

    Args:
        config: The settings, as a `Config` or a dictionary. Default: `settings`.
        run: The run folder; default: a new one below runs/.
        resume: Whether to resume an interrupted run with the same settings.
        allow_stale_data: Whether to accept a data set whose source, such as
            manifest.csv, changed after it was built.
        callbacks: Additional Keras callbacks.
        **settings: Fields of `Config`, such as `mode="weak"`.

    Returns:
        The run. In multi-worker training, None in all workers but the chief.

    Raises:
        UserError: If settings, data and folder don't match, or a file can't be written.
        TrainingInterruptedError: If a signal ended training; the run can be resumed.
        TypeError: If both `config` and `settings` are given.

    Example:
        >>> run = avsdn_tf.train(mode="weak", epochs=2, run="runs/weak")
        >>> len(run.history)
        2
        >>> accuracy = run.report["accuracy"]
    """
    if config is not None and settings:
        raise TypeError(
            "Expected a Config or its fields, not both. "
            f"Received: a Config and {', '.join(settings)}"
        )
    check_backend()
    if not isinstance(config, Config):
        config = Config(**(config or settings))
    if run is not None and is_address(run):
        message = "Expected a folder on this machine. `avsdn push` shares a run."
        raise UserError(message, field="run", value=run)

    def finish(folder: RunFolder, dataset: Dataset, training: Training) -> TrainedRun:
        report = _report(folder, config, dataset, training.model)
        return TrainedRun(folder.path, training.model, training.history, report)

    return train_run(
        config,
        run,
        finish=finish,
        resume=resume,
        allow_stale_data=allow_stale_data,
        callbacks=callbacks,
    )


@_without_tfds_warnings()
def evaluate(
    run: str | os.PathLike[str], data_dir: str | os.PathLike[str] | None = None
) -> dict[str, Any]:
    """Score a run on the test split again, and rewrite its report.

    If the folder is read-only, log a warning and only return the report.

    Args:
        run: The folder of a run whose training has ended.
        data_dir: TFDS's folder of data sets; default: the folder used in training.

    Returns:
        The report, as in report.json.

    Raises:
        UserError: If the run or its data set can't be read or don't fit each other,
            outputs are not finite, or the disk is full.

    Example:
        >>> report = avsdn_tf.evaluate("runs/first")
        >>> accuracy, event_f1 = report["accuracy"], report["event_f1"]
    """
    check_backend()
    folder, config, model = open_run(run)
    try:
        dataset = open_dataset_of_run(config.dataset, config.data_dir, data_dir)
    except NotBuiltError as error:
        if data_dir or not config.data_dir:
            raise
        raise UserError(
            f"{config.dataset} is not built in {config.data_dir}, where the run was "
            "trained. Expected TFDS's folder of data sets on this machine.",
            field="data_dir",
        ) from error
    # A lock file can't be created in a read-only folder.
    can_write = os.access(folder.path, os.W_OK)
    lock = folder.lock() if can_write else contextlib.nullcontext()
    with lock, explain_damage(dataset):
        if not folder.matches_dataset(dataset.content_hash()):
            _LOGGER.warning(
                "%s differs from the data set that this run was trained on.",
                config.dataset,
            )
        return _report(folder, config, dataset, model, must_write=can_write)


def predict(
    run: str | os.PathLike[str] | keras.Model,
    videos: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    out: str | os.PathLike[str] | None = None,
    min_score: float = 0.0,
    empty: str | None = None,
    skip_errors: bool = False,
    **backbones: str | None,
) -> list[VideoPrediction]:
    """Localize the events of videos with a run's network.

    Args:
        run: The folder of a run whose training has ended; the address of a shared run,
            `hf://USER/NAME`; or a network, such as `avsdn_tf.zero_shot.load()`, which
            needs no training.
        videos: A video or folder of videos, or several.
        out: Folder for the output files of each video: a page, a picture, and the
            events as JSON, CSV and subtitles. Default: write no files.
        min_score: Drop events of a lower score.
        empty: A modality that a video may lack, `"audio"` or `"visual"`.
        skip_errors: Whether to log the error of a failed video and continue.
        **backbones: Fields of `Backbones` to use instead of the recorded ones.

    Returns:
        The predictions in the order of the videos.

    Raises:
        UserError: If run, backbones and videos don't match, or a file can't be written.
        VideoError: If a video can't be read, or lacks a modality.

    Example:
        >>> for video in avsdn_tf.predict("runs/first", ["dog.mp4"]):
        ...     print(video.name, len(video.probabilities), "seconds")
        dog.mp4 10 seconds
    """
    check_backend()
    # Imported late: needs the optional dependencies of the extra `video`.
    from avsdn_tf.features.video import VideoError, find_videos

    is_one = isinstance(videos, (str, os.PathLike))
    found_videos = find_videos([videos] if is_one else videos)
    predictor = open_predictor(run, empty=empty, min_score=min_score, **backbones)
    predictions = []
    for video in found_videos:
        try:
            if out is None:
                prediction = predictor(video)
            else:
                prediction, _ = predict_to(out, predictor, video)
        except (UserError, VideoError) as error:
            if not skip_errors:
                raise
            _LOGGER.error("%s", error)
            continue
        predictions.append(prediction)
    return predictions


def predict_to(
    out: str | os.PathLike[str],
    predictor: Callable[[pathlib.Path], VideoPrediction],
    video: pathlib.Path,
) -> tuple[VideoPrediction, pathlib.Path]:
    """Predict a video and write its files; return the prediction and the page's path.

    Raises the errors of `predict`.
    """
    check_prediction(out, video)
    prediction = predictor(video)
    return prediction, write_prediction(out, video, prediction)


def open_run(
    run: str | os.PathLike[str], labels_segments: bool = False
) -> tuple[RunFolder, Config, keras.Model]:
    """Open a run whose training has ended.

    Args:
        run: The run folder, or the address of a shared run.
        labels_segments: Whether the network must label segments.

    Returns:
        The folder, the settings and the model, not compiled.

    Raises:
        UserError: If the run is missing or can't be read, or if its network must label
            segments but doesn't.
    """
    folder = RunFolder(fetch_run(run) if is_address(run) else run)
    folder.check_ended()
    config = Config.from_dict(folder.read_settings(), folder.config)
    if labels_segments and config.mode == CROSS_MODAL:
        raise UserError(
            f"Expected a run that labels segments. Received a run of mode "
            f"{CROSS_MODAL}, whose network compares sound with picture.",
            field="run",
            value=run,
        )
    return folder, config, folder.load_model()


def open_predictor(
    run: str | os.PathLike[str] | keras.Model,
    *,
    empty: str | None = None,
    min_score: float = 0.0,
    **backbones: str | None,
) -> Callable[[pathlib.Path], VideoPrediction]:
    """Return a function that localizes the events of a video with a run's network.

    Args and errors are those of `predict`.
    """
    # Imported late: needs the optional dependencies of the extra `video`.
    from avsdn_tf.videos import extractor_for, predict_video

    if isinstance(run, keras.Model):
        model, disclaimers = run, []
    else:
        folder, config, model = open_run(run, labels_segments=True)
        disclaimers = _run_disclaimers(folder, config)
    disclaimers += _model_disclaimers(model, backbones)
    return functools.partial(
        predict_video,
        model,
        extractor_for(model, empty, **backbones),
        min_score=min_score,
        disclaimer=". ".join(disclaimers) or None,
    )


def disclaimer_of(folder: RunFolder) -> str | None:
    """Return the text that must accompany all results of a run, or None."""
    report = folder.read_report()
    # Reports of early versions name the disclaimer "notice".
    return report.get("disclaimer") or report.get("notice")


def _run_disclaimers(folder: RunFolder, config: Config) -> list[str]:
    """Return disclaimers that follow from the run of a network."""
    if config.dataset == _SIMULATED:
        return [
            "The network was trained on simulated features, not on real features: "
            "these events mean nothing"
        ]
    trained_on = disclaimer_of(folder)
    if trained_on is None:
        return []
    return [f"The network's run has this disclaimer: {trained_on}"]


def _model_disclaimers(
    model: keras.Model, given: Mapping[str, str | None]
) -> list[str]:
    """Return disclaimers that follow from the network itself."""
    if isinstance(model, LateFusion):
        return [zero_shot.DISCLAIMER]
    recorded = Backbones.from_dict(getattr(model, "backbones", None))
    if recorded.override(**given).is_complete:
        return []
    return [
        "The backbones of the network's training data are not recorded; unless this "
        "video's features come from the same backbones, these events mean nothing"
    ]


def _report(
    folder: RunFolder,
    config: Config,
    dataset: Dataset,
    model: keras.Model,
    must_write: bool = True,
) -> dict[str, Any]:
    """Score the test split, write outputs and report, and return the report.

    Without `must_write`, log a warning if a file can't be written.
    """
    task = restore_task(model, config, dataset)
    history = read_history(folder)
    scores, outputs = task.evaluate("test")
    validation = task.score_validation(task.count_validation())
    summary = {
        "disclaimer": dataset.disclaimer,
        "settings": config.to_dict(),
        "history": history,
        "scores": {
            **scores,
            task.selection: validation,
            "selection": task.selection,
            "dataset_hash": dataset.content_hash(),
        },
    }
    folder.check_in_place()
    again = "Make space, and repeat the command."
    try:
        with explain_unwritable(folder.predictions, again):
            outputs.save(folder.predictions)
        return write_run_report(
            folder,
            **summary,
            command=shlex.join(["python", "-m", "avsdn_tf.main", *config.to_flags()]),
            predictions=outputs if isinstance(outputs, Predictions) else None,
            categories=dataset.categories,
            attention_of=functools.partial(attention_of_clips, model, dataset, "test"),
        )
    except UserError as error:
        if must_write:
            raise
        _LOGGER.warning("%s The report in the folder has other scores.", error)
        return summarize(**summary)
