"""The error of this package, and how a program shows it."""

import sys
from collections.abc import Sequence
from typing import Any

_MAX_NAMED = 20


class DatasetError(ValueError):
    """Bad or missing data, which the person who builds the data set can correct."""


def raise_errors(messages: Sequence[str]) -> None:
    """Raise one `DatasetError` with all messages; with none, do nothing."""
    if messages:
        raise DatasetError("\n".join(shorten(messages)))


def shorten(names: Sequence[str]) -> list[str]:
    """Return the first names, and how many more there are."""
    more = len(names) - _MAX_NAMED
    return [*names[:_MAX_NAMED], *([f"and {more} more"] if more > 0 else [])]


def install_excepthook() -> None:
    """Print an uncaught `DatasetError` as one message, without a traceback.

    `tfds build` leaves errors to the interpreter. absl's exception handlers are no
    alternative: they also swallow SystemExit. Other errors go to the previous hook.
    """
    previous_hook = sys.excepthook

    def hook(kind: Any, error: BaseException, trace: Any) -> None:
        if isinstance(error, DatasetError):
            print(f"tfds_ave: {error}", file=sys.stderr)
        else:
            previous_hook(kind, error, trace)

    sys.excepthook = hook
