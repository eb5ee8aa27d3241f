"""TensorBoard's callback, with a user error if logs can't be written."""

import contextlib
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from avsdn_tf.errors import UserError, first_line


class TensorBoard(keras.callbacks.TensorBoard):
    """Keras's TensorBoard callback that converts write failures to `UserError`.

    Args:
        folder: The folder of the logs.
        what_next: Function that returns advice for the message.

    Raises:
        UserError: If a log can't be written, such as on a full disk.
    """

    def __init__(self, folder: pathlib.Path, what_next: Callable[[], str]) -> None:
        super().__init__(str(folder), write_graph=False)
        self._what_next = what_next

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Open the logs."""
        with self._explain():
            super().on_train_begin(logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Write an epoch's values."""
        with self._explain():
            super().on_epoch_end(epoch, logs)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Close the logs."""
        with self._explain():
            super().on_train_end(logs)

    @contextlib.contextmanager
    def _explain(self) -> Iterator[None]:
        try:
            yield
        except (OSError, UnicodeError, tf.errors.OpError) as error:
            raise UserError(
                f"{self.log_dir}: TensorBoard's logs can't be written "
                f"({first_line(error)}). Check free space, free inodes and write "
                f"permission. {self._what_next()}"
            ) from error
