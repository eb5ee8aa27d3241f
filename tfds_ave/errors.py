"""The package's error type, and functions that convert and print errors."""

import contextlib
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from avsdn_tf.errors import UserError, first_line
from avsdn_tf.text import printable_lines

_MAX_NAMED = 20


class DatasetError(ValueError):
    """Invalid or missing data, which the user can correct.

    Example:
        >>> import tfds_ave
        >>> try:
        ...     tfds_ave.Builder(config="no_such_config")
        ... except tfds_ave.DatasetError as error:
        ...     print("the data set can't be built")
        the data set can't be built
    """

    # Don't define `__str__`: TFDS would change the type of the error.


def raise_errors(messages: Sequence[str]) -> None:
    """Raise one `DatasetError` with all messages, if there are any."""
    if messages:
        raise DatasetError("\n".join(messages))


def shorten(names: Sequence[str], shown: int = _MAX_NAMED) -> list[str]:
    """Return the first names, and the number of further names as text."""
    more = len(names) - shown
    return [*names[:shown], *([f"and {more} more"] if more > 0 else [])]


@contextlib.contextmanager
def explain_build_errors(path: pathlib.Path) -> Iterator[None]:
    """Raise a `DatasetError` for build errors that the user can correct.

    TFDS wraps the errors of a builder. This function looks for errors of this package,
    the operating system and TensorFlow among the causes of the wrapper.

    Args:
        path: Folder of the data set, for the message.

    Raises:
        DatasetError: If such an error is found; other errors are raised unchanged.
    """
    try:
        yield
    except DatasetError:
        raise
    except Exception as error:
        # Import TensorFlow late, because it takes seconds.
        import tensorflow as tf

        cause: BaseException | None = error
        while cause and not (
            isinstance(cause, (DatasetError, UserError, tf.errors.OpError))
            # Only errors of the operating system have an errno.
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

    `tfds build` doesn't catch errors, and raising SystemExit instead would fail: absl's
    exception handlers swallow SystemExit. Other errors are passed to the previous hook.
    """
    previous_hook = sys.excepthook

    def hook(kind: Any, error: BaseException, trace: Any) -> None:
        if isinstance(error, DatasetError):
            print(f"tfds_ave: {printable_lines(str(error))}", file=sys.stderr)
        else:
            previous_hook(kind, error, trace)

    sys.excepthook = hook
