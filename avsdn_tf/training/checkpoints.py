"""Checkpoints: a resumed run gives the same result as an uninterrupted run."""

import dataclasses
import hashlib
import json
import math
import os
import pathlib
from typing import Annotated, Any, BinaryIO

import keras
import numpy as np
from pydantic import Field

from avsdn_tf.arrays import open_npz, read_npz
from avsdn_tf.errors import UserError
from avsdn_tf.files import (
    atomic_write,
    explain_unwritable,
    open_regular,
    remove_temporary_files,
)
from avsdn_tf.schemas import Schema, parse_json

_MAGIC = b"avsdn_tf checkpoint 1\n"
_HEADER_BYTES = len(_MAGIC) + 2 * hashlib.sha256().digest_size + 1
_READ_BYTES = 1 << 20
_NUM_KEPT = 3
# Enough for 100,000 epochs.
_MAX_PROGRESS_BYTES = 16 * 2**20
# Largest overhead of an array in an npz archive.
_MEMBER_BYTES = 1024
_NAMES = "epoch-[0-9]*-step-[0-9]*.ckpt"


class _StoredProgress(Schema):
    """Schema of a stored `Progress`."""

    epoch: Annotated[int, Field(ge=1, lt=2**31)]
    step: Annotated[int, Field(ge=0, lt=2**31)]
    totals: Annotated[list[float], Field(min_length=3, max_length=3)]
    # Epochs stay integers, so that a resumed run writes the same metrics.csv.
    history: list[dict[str, Annotated[int, Field(ge=0, lt=2**31)] | float]]
    seconds: Annotated[float, Field(ge=0)]


@dataclasses.dataclass
class Progress:
    """Progress of a training.

    Attributes:
        epoch: The current epoch, from 1.
        step: Number of finished steps in this epoch.
        totals: Sums over the finished steps; see `step.Steps`.
        history: One dictionary per finished epoch.
        seconds: Wall time of the current epoch so far.
    """

    epoch: int = 1
    step: int = 0
    totals: list[float] = dataclasses.field(default_factory=lambda: [0.0] * 3)
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)
    seconds: float = 0.0

    def begin_next_epoch(self) -> None:
        """Move to the start of the next epoch."""
        self.epoch += 1
        self.step, self.totals, self.seconds = 0, [0.0] * 3, 0.0

    def means(self) -> dict[str, float]:
        """Return the epoch's mean loss and accuracy so far."""
        loss, accuracy, weight = self.totals
        return {"loss": loss / weight, "accuracy": accuracy / weight}


class Checkpoints:
    """The last checkpoints of a run, one file each.

    A file holds a `Progress` and the values of all variables: weights, random states
    and optimizer state. A header contains the SHA-256 of the rest of the file. Writes
    are atomic.

    Args:
        folder: Folder of the files.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder

    def paths(self) -> list[pathlib.Path]:
        """Return the paths of the files, oldest first."""
        return sorted(self.folder.glob(_NAMES))

    def save(self, progress: Progress, variables: list[keras.Variable]) -> pathlib.Path:
        """Write a checkpoint, and remove all but the last three.

        Raises:
            UserError: If the file can't be written. Earlier checkpoints are kept.
        """
        path = self.folder / f"epoch-{progress.epoch:05d}-step-{progress.step:06d}.ckpt"
        state = json.dumps(dataclasses.asdict(progress)).encode()
        named = {f"v{i}": variable for i, variable in enumerate(variables)}
        with explain_unwritable(path, self.how_to_resume()):
            self.folder.mkdir(exist_ok=True)
            remove_temporary_files(self.folder, _NAMES)
            with atomic_write(path) as tmp_path, tmp_path.open("w+b") as file:
                file.write(bytes(_HEADER_BYTES))
                # savez copies one variable at a time: copying all variables at once
                # would raise training's peak memory.
                np.savez(file, progress=np.frombuffer(state, np.uint8), **named)
                checksum = _checksum(file)
                file.seek(0)
                file.write(_MAGIC + checksum + b"\n")
        for old in self.paths()[:-_NUM_KEPT]:
            old.unlink(missing_ok=True)
        return path

    def restore(
        self, variables: list[keras.Variable], monitor: str | None = None
    ) -> Progress:
        """Assign the values of the latest checkpoint to the variables.

        Args:
            variables: The variables, in the order in which they were saved.
            monitor: Name of a score that the history must contain for each finished
                epoch, or None.

        Returns:
            The progress of training; a new `Progress` if there is no checkpoint.

        Raises:
            UserError: If the file is damaged, or belongs to another network.
        """
        paths = self.paths()
        if not paths:
            return Progress()
        path = paths[-1]
        try:
            progress, values = _read(path, variables)
            if monitor is not None:
                _check_history(progress, monitor)
        except (OSError, ValueError) as error:
            earlier = f" to resume from {paths[-2]}" if paths[1:] else ""
            raise UserError(
                f"{path}: expected a checkpoint of this run, but {error}. Remove "
                f"it{earlier}, or start again in another folder."
            ) from error
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        return progress

    def describe_last(self) -> str:
        """Return a sentence that names the latest checkpoint, for messages."""
        paths = self.paths()
        if not paths:
            return "There is no checkpoint yet"
        return f"The last checkpoint is {paths[-1]}"

    def how_to_resume(self) -> str:
        """Return a sentence on how to resume a stopped run, for messages."""
        if not self.paths():
            return "There is no checkpoint yet; the same command starts again."
        return (
            f"{self.describe_last()}; the same command with the run folder "
            f"{self.folder.parent} resumes from it."
        )


def _read(
    path: pathlib.Path, variables: list[keras.Variable]
) -> tuple[Progress, list[np.ndarray]]:
    expected = {
        f"v{i}": (tuple(variable.shape), np.dtype(variable.dtype))
        for i, variable in enumerate(variables)
    }
    arrays_bytes = sum(
        math.prod(shape) * dtype.itemsize for shape, dtype in expected.values()
    )
    frame_bytes = _MAX_PROGRESS_BYTES + _MEMBER_BYTES * len(variables)
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > arrays_bytes + frame_bytes:
            raise ValueError("it is larger than the network and its optimizer")
        header = file.read(_HEADER_BYTES)
        if header != _MAGIC + _checksum(file) + b"\n":
            raise ValueError("its checksum differs from its content")
        arrays = open_npz(file, max_bytes=arrays_bytes + frame_bytes)
        state = read_npz(arrays, {"progress": (None, np.dtype(np.uint8))})["progress"]
        stored = parse_json(state.tobytes(), _StoredProgress)
        shapes = {name: array.shape for name, array in arrays.items()}
        del shapes["progress"]
        if shapes != {name: shape for name, (shape, _) in expected.items()}:
            raise ValueError("it is of another network or optimizer")
        values = read_npz(arrays, expected)
    return Progress(**stored.model_dump()), list(values.values())


def _check_history(progress: Progress, monitor: str) -> None:
    """Raise ValueError if the score of an epoch or the totals of steps are missing."""
    epochs = [row.get("epoch") for row in progress.history if monitor in row]
    if epochs != list(range(1, progress.epoch)):
        raise ValueError(f"its history lacks {monitor} of an epoch")
    if progress.step and not progress.totals[-1] > 0:
        raise ValueError("its totals lack the finished steps")


def _checksum(file: BinaryIO) -> bytes:
    """Return the SHA-256 of the content after the header, in hexadecimal."""
    digest = hashlib.sha256()
    file.seek(_HEADER_BYTES)
    while content := file.read(_READ_BYTES):
        digest.update(content)
    return digest.hexdigest().encode()


class SaveBest(keras.callbacks.Callback):
    """Callback that saves the model of the best epoch atomically.

    Args:
        path: The file.
        progress: Progress of training, whose history ends with the last validated
            epoch.
        monitor: Name of the score in the history. The first epoch with the highest
            score is the best.
        checkpoints: The run's checkpoints, for the message if saving fails.
    """

    def __init__(
        self,
        path: pathlib.Path,
        progress: Progress,
        monitor: str,
        checkpoints: Checkpoints,
    ) -> None:
        super().__init__()
        self._path = path
        self._progress = progress
        self._monitor = monitor
        self._checkpoints = checkpoints

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Save the model if its score exceeds the scores of all earlier epochs."""
        del epoch, logs
        *earlier, value = [row[self._monitor] for row in self._progress.history]
        if value > max(earlier, default=float("-inf")):
            with (
                explain_unwritable(self._path, self._checkpoints.how_to_resume()),
                atomic_write(self._path) as tmp_path,
            ):
                self.model.save(tmp_path)
