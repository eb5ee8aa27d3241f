"""Checkpoints: all that a run needs to go on as if it had never been interrupted."""

import dataclasses
import hashlib
import json
import pathlib
from typing import Any, BinaryIO

import keras
import numpy as np

from avsdn_tf.errors import UserError
from avsdn_tf.files import explain_unwritable, atomic_write

_MAGIC = b"avsdn_tf checkpoint 1\n"
_HEADER_BYTES = len(_MAGIC) + 2 * hashlib.sha256().digest_size + 1
_READ_BYTES = 1 << 20
_KEPT = 3


@dataclasses.dataclass
class Progress:
    """How far a training is.

    Attributes:
        epoch: The epoch that it is in, from 1.
        step: Batches of that epoch that are done.
        totals: Sums over them, as `training` adds them up.
        history: One dictionary for every finished epoch.
        seconds: Wall time of this epoch so far.
    """

    epoch: int = 1
    step: int = 0
    totals: list[float] = dataclasses.field(default_factory=list)
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)
    seconds: float = 0.0


class Checkpoints:
    """The last checkpoints of a run, one file each.

    A file holds a `Progress` and the values of all variables: weights, random states,
    the optimizer's. It begins with a digest of what follows, so that no changed byte
    goes unnoticed. It is written tmp_path and renamed: it is whole, or not there.

    Args:
        folder: Where they lie.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder

    def paths(self) -> list[pathlib.Path]:
        """Returns the files, the latest last."""
        return sorted(self.folder.glob("epoch-*.ckpt"))

    def save(self, progress: Progress, variables: list[keras.Variable]) -> pathlib.Path:
        """Writes a checkpoint, and removes all but the last ones.

        Returns:
            The file.

        Raises:
            UserError: If it can't be written; the earlier ones are whole then.
        """
        path = self.folder / f"epoch-{progress.epoch:05d}-step-{progress.step:06d}.ckpt"
        state = json.dumps(dataclasses.asdict(progress)).encode()
        named = {f"v{i}": variable for i, variable in enumerate(variables)}
        with explain_unwritable(path, self.how_to_go_on()):
            self.folder.mkdir(exist_ok=True)
            with atomic_write(path) as tmp_path, tmp_path.open("w+b") as file:
                file.write(bytes(_HEADER_BYTES))
                # Straight to the file, which copies one variable at a time: all of them
                # at once would be the most memory that training takes.
                np.savez(file, progress=np.frombuffer(state, np.uint8), **named)
                digest = _digest(file)
                file.seek(0)
                file.write(_MAGIC + digest + b"\n")
        # With what killed processes began.
        for old in (*self.paths()[:-_KEPT], *self.folder.glob(".tmp-*")):
            old.unlink(missing_ok=True)
        return path

    def describe_last(self) -> str:
        """Returns where the latest checkpoint is, for a message."""
        paths = self.paths()
        return f"The last checkpoint is {paths[-1]}" if paths else "There is none yet"

    def how_to_go_on(self) -> str:
        """Returns what is left of a run that has stopped, for a message."""
        if not self.paths():
            return "Nothing has been saved yet; the same command begins anew."
        return (
            f"{self.describe_last()}; the same command with "
            f"--run={self.folder.parent} goes on from it."
        )

    def restore(self, variables: list[keras.Variable]) -> Progress:
        """Gives variables the values of the latest checkpoint.

        Returns:
            How far the training was; at its beginning without a checkpoint.

        Raises:
            UserError: If a byte of it was changed, or it is of another network.
        """
        paths = self.paths()
        if not paths:
            return Progress()
        path = paths[-1]
        try:
            with path.open("rb") as file:
                header = file.read(_HEADER_BYTES)
                if header != _MAGIC + _digest(file) + b"\n":
                    raise ValueError("its bytes are not those that were written")
                file.seek(_HEADER_BYTES)
                with np.load(file, allow_pickle=False) as arrays:
                    progress = Progress(**json.loads(arrays["progress"].tobytes()))
                    values = [arrays[f"v{i}"] for i in range(len(arrays.files) - 1)]
            expected = [tuple(variable.shape) for variable in variables]
            if expected != [value.shape for value in values]:
                raise ValueError("it is of another network or optimizer")
        except (OSError, ValueError) as error:
            earlier = f", and training goes on from {paths[-2]}" if paths[1:] else ""
            raise UserError(
                f"{path}: expected a checkpoint of this run. Received: {error}. "
                f"Remove it{earlier}, or start anew in another folder."
            ) from error
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        return progress


def _digest(file: BinaryIO) -> bytes:
    """Returns the SHA-256 of what follows a checkpoint's header, in hexadecimal."""
    digest = hashlib.sha256()
    file.seek(_HEADER_BYTES)
    while content := file.read(_READ_BYTES):
        digest.update(content)
    return digest.hexdigest().encode()


class SaveBest(keras.callbacks.Callback):
    """Saves the model of the best epoch, whole or not at all.

    Args:
        path: The file.
        history: The epochs so far; the trainer appends to it before this is called.
        monitor: Which of their numbers decides; more is better, and of equal ones the
            first wins.
        checkpoints: What is left if saving fails.
    """

    def __init__(
        self,
        path: pathlib.Path,
        history: list[dict[str, float]],
        monitor: str,
        checkpoints: Checkpoints,
    ) -> None:
        super().__init__()
        self._path = path
        self._history = history
        self._monitor = monitor
        self._checkpoints = checkpoints

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Saves the model if no earlier epoch was as good."""
        del epoch, logs
        *earlier, value = [row[self._monitor] for row in self._history]
        if value > max(earlier, default=float("-inf")):
            with (
                explain_unwritable(self._path, self._checkpoints.how_to_go_on()),
                atomic_write(self._path) as tmp_path,
            ):
                self.model.save(tmp_path)
