"""The error of this package, and how a program shows it."""

import contextlib
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from avsdn_tf.errors import UserError, first_line
from avsdn_tf.text import printable_lines

_MAX_NAMED = 20


class DatasetError(ValueError):
    """Bad or missing data, which the person who builds the data set can correct.

    TFDS keeps the type of an error without a `__str__` of its own.
    """


def raise_errors(messages: Sequence[str]) -> None:
    """Raise one `DatasetError` with all messages; with none, do nothing."""
    if messages:
        raise DatasetError("\n".join(messages))


def shorten(names: Sequence[str], shown: int = _MAX_NAMED) -> list[str]:
    """Return the first names, and how many more there are."""
    more = len(names) - shown
    return [*names[:shown], *([f"and {more} more"] if more > 0 else [])]


@contextlib.contextmanager
def explain_build_errors(path: pathlib.Path) -> Iterator[None]:
    """Turn what stops a build into one `DatasetError`.

    TFDS wraps the errors of a builder, and TensorFlow has errors of its own for a full
    disk: the cause decides.

    Args:
        path: The folder of the data set, for the message.
    """
    try:
        yield
    except DatasetError:
        raise
    except Exception as error:
        # Importing TensorFlow takes seconds, which an error alone is worth.
        import tensorflow as tf

        cause: BaseException | None = error
        while cause and not (
            isinstance(cause, (DatasetError, UserError, tf.errors.OpError))
            # An error of the operating system has a number.
            or (isinstance(cause, OSError) and cause.errno)
        ):
            cause = cause.__cause__
        if cause is None:
            raise
        if isinstance(cause, (DatasetError, UserError)):
            raise DatasetError(str(cause)) from error
        raise DatasetError(
            f"{path}: the data set can't be built ({first_line(cause)}). Check free "
            "space and permissions, and build again."
        ) from error


def install_excepthook() -> None:
    """Print an uncaught `DatasetError` as one message, without a traceback.

    `tfds build` leaves errors to the interpreter. absl's exception handlers are no
    alternative: they also swallow SystemExit. Other errors go to the previous hook.
    """
    previous_hook = sys.excepthook

    def hook(kind: Any, error: BaseException, trace: Any) -> None:
        if isinstance(error, DatasetError):
            print(f"tfds_ave: {printable_lines(str(error))}", file=sys.stderr)
        else:
            previous_hook(kind, error, trace)

    sys.excepthook = hook
