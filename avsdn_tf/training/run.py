"""A training run: open data and run folder, train, and report."""

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import keras

from avsdn_tf.data.dataset import Dataset, explain_damage, open_dataset
from avsdn_tf.errors import UserError
from avsdn_tf.files import explain_unwritable
from avsdn_tf.run_folder import RunFolder
from avsdn_tf.text import count
from avsdn_tf.training import distribution
from avsdn_tf.training.checkpoints import Checkpoints
from avsdn_tf.training.config import Config
from avsdn_tf.training.distribution import Placement
from avsdn_tf.training.loop import Training, precision_policy, train
from avsdn_tf.training.signals import StopRequest
from avsdn_tf.training.tasks import build_task

_AGAIN = "Make space, and repeat the command."
_LOGGER = logging.getLogger(__name__)
_T = TypeVar("_T")


def train_run(
    config: Config,
    run: str | None,
    *,
    finish: Callable[[RunFolder, Dataset, Training], _T],
    resume: bool = True,
    allow_stale_data: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> _T | None:
    """Train a network in a run folder, or resume an interrupted training there.

    Args:
        config: The settings.
        run: The run folder; None for a new one below runs/.
        finish: Function that writes the report. The chief calls it while the folder is
            locked.
        resume: Whether to resume an interrupted run of the same settings.
        allow_stale_data: Whether to accept a data set whose source has changed after it
            was built.
        callbacks: Keras callbacks of the chief, such as a progress bar. Callbacks that
            are context managers are entered during training.

    Returns:
        The result of `finish`; None in workers other than the chief.

    Raises:
        UserError: If settings, data and folder don't fit, or a file can't be written.
            A new folder without a result is removed.
        TrainingInterruptedError: If a signal ended training; the run can be resumed.
    """
    placement = distribution.place(config.strategy)
    if placement.has_peers and run is None:
        raise UserError(
            f"Expected a folder that {placement.shard.num_workers} workers share.",
            field="run",
        )
    folder = RunFolder(run or new_run_name(config))
    with contextlib.ExitStack() as stack:
        stack.enter_context(distribution.lost_workers(placement))
        # The other workers wait until the chief has built a missing data set.
        if not placement.is_chief:
            placement.wait_for_workers()
        dataset = open_dataset(config.dataset, config.data_dir)
        stack.enter_context(explain_damage(dataset))
        if not allow_stale_data:
            dataset.check_source()
        summary = _check(config, dataset, placement)
        if not placement.is_chief:
            check_settings(folder, config)
            train(config, dataset, folder, (), placement, StopRequest())
            placement.leave()
            return None
        _LOGGER.info("%s", dataset.describe_source())
        _LOGGER.info("%s", summary)
        stack.enter_context(folder.lock())
        is_resumed = prepare_folder(folder, config, dataset, resume)
        placement.wait_for_workers()
        result = _train(config, dataset, folder, callbacks, placement, is_resumed)
        num_later = len(result.history) - result.selected_epoch
        _LOGGER.info(
            "kept epoch %d: the best on validation%s",
            result.selected_epoch,
            f", no better epoch in {num_later} more" if num_later else "",
        )
        finished = finish(folder, dataset, result)
        placement.leave()
        return finished


def _check(config: Config, dataset: Dataset, placement: Placement) -> str:
    """Check settings against data before anything is written; return a summary."""
    with precision_policy(config.precision):
        task = build_task(config, dataset)
    num_clips, num_workers = task.num_clips, placement.shard.num_workers
    if min(num_clips.values()) < num_workers:
        raise UserError(
            f"Expected a clip of each split for each of {num_workers} workers. "
            f"Received: {num_clips}.",
            field="dataset",
            value=config.dataset,
        )
    where = placement.describe()
    # If long clips are cut into windows, splits have more examples than clips.
    own = dataset.builder.info.metadata.get("num_clips", num_clips)
    noun = "clips" if own == num_clips else "examples"
    batches = count(task.num_batches, "batch", "batches")
    return (
        f"{config.model}, {config.mode}, {config.dataset}: train "
        f"{num_clips['train']:,}, validation {num_clips['validation']:,}, test "
        f"{num_clips['test']:,} {noun}; {batches} an epoch"
        + (f"; {where}" if where else "")
    )


def _train(
    config: Config,
    dataset: Dataset,
    folder: RunFolder,
    callbacks: Sequence[keras.callbacks.Callback],
    placement: Placement,
    is_resumed: bool,
) -> Training:
    stop_request = StopRequest()
    # Remove SHA256SUMS, which marks a run whose training has ended.
    with explain_unwritable(folder.path, _AGAIN):
        folder.checksums.unlink(missing_ok=True)
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(stop_request.listen())
            for callback in callbacks:
                if hasattr(callback, "__enter__"):
                    stack.enter_context(callback)
            result = train(config, dataset, folder, callbacks, placement, stop_request)
    except BaseException:
        has_result = folder.model.exists() or Checkpoints(folder.checkpoints).paths()
        if not is_resumed and not has_result:
            folder.discard()
        raise
    with explain_unwritable(folder.path, _AGAIN):
        folder.write_checksums()
    return result


def prepare_folder(
    folder: RunFolder, config: Config, dataset: Dataset, resume: bool = True
) -> bool:
    """Write the settings into a new folder, or check that its run can be resumed.

    Returns:
        Whether there is a run to resume.

    Raises:
        UserError: If the folder holds other files or can't be written, or its run has
            ended or has other settings or data.
    """
    dataset_hash = dataset.content_hash()
    if folder.is_empty():
        try:
            folder.write_config(config.to_dict(), dataset_hash)
        except BaseException:
            folder.discard()
            raise
        return False
    folder.check_startable(resume)
    check_settings(folder, config)
    if not folder.matches_dataset(dataset_hash):
        raise UserError(
            f"{config.dataset} was rebuilt from other data after this run began. Build "
            "it from the same data, or begin in another folder.",
            field="run",
            value=folder.path,
        )
    folder.add_versions()
    return True


def check_settings(folder: RunFolder, config: Config) -> None:
    """Check that a run has the same settings.

    Raises:
        UserError: If settings differ; the message names them.
    """
    if not folder.config.is_file():
        raise UserError(
            f"Expected the {folder.config.name} that the chief has written. Put the "
            "run folder on a disk that all workers share.",
            field="run",
            value=folder.path,
        )
    recorded = Config.from_dict(folder.read_settings(), folder.config).to_dict()
    changed = [
        f"{name} {recorded[name]}, received {value}"
        for name, value in config.to_dict().items()
        if recorded[name] != value
    ]
    if changed:
        raise UserError(
            f"This run has other settings: {'; '.join(changed)}. Use the run's "
            "settings, or choose another folder.",
            field="run",
            value=folder.path,
        )


def new_run_name(config: Config) -> str:
    """Return a new run folder's name, with network, mode, data set, seed and time."""
    dataset = config.dataset.split("/")[-1]
    stamp = time.strftime("%Y%m%d-%H%M%S")
    # The seed distinguishes runs that begin in the same second.
    return f"runs/{config.model}-{config.mode}-{dataset}-seed{config.seed}-{stamp}"
