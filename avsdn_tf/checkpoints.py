"""Checkpoints: all that a run needs to go on as if it had never been interrupted."""

import dataclasses
import hashlib
import io
import json
import pathlib
from typing import Any

import keras
import numpy as np

from avsdn_tf.errors import UserError
from avsdn_tf.files import explain_unwritable, whole_file

_MAGIC = b"avsdn_tf checkpoint 1\n"
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
    goes unnoticed. It is written aside and renamed: it is whole, or not there.

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
        arrays = {f"v{i}": np.array(v) for i, v in enumerate(variables)}
        file = io.BytesIO()
        np.savez(file, progress=np.frombuffer(state, np.uint8), **arrays)
        with (
            # A view that is left open keeps its file from being closed.
            file.getbuffer() as content,
            explain_unwritable(path, self.how_to_go_on()),
        ):
            header = _MAGIC + hashlib.sha256(content).hexdigest().encode() + b"\n"
            self.folder.mkdir(exist_ok=True)
            with whole_file(path) as aside, aside.open("wb") as target:
                target.write(header)
                target.write(content)
        for old in self.paths()[:-_KEPT]:
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
        return f"{self.describe_last()}; the same command goes on from it."

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
            content = path.read_bytes()
            digest, start = content[len(_MAGIC) :][:64], len(_MAGIC) + 65
            if (
                content[: len(_MAGIC)] != _MAGIC
                or content[start - 1 : start] != b"\n"
                or hashlib.sha256(content[start:]).hexdigest().encode() != digest
            ):
                raise ValueError("its bytes are not those that were written")
            with np.load(io.BytesIO(content[start:]), allow_pickle=False) as arrays:
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
                whole_file(self._path) as aside,
            ):
                self.model.save(aside)
