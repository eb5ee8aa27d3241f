"""The one error of this package, and how the command line shows it."""

import sys
from types import TracebackType


class DatasetError(ValueError):
    """Bad or missing data, which the person who builds the dataset can mend.

    The message says what happened, what was expected, what was received and what to do.
    """


def install_excepthook() -> None:
    """Makes an uncaught `DatasetError` one message on stderr, without a traceback.

    `tfds build` hands its errors to the interpreter, which would bury the message under
    the frames of TFDS. absl's `install_exception_handler` is no way out: it is asked
    before the interpreter, and also swallows SystemExit. Every other exception goes to
    the hook that was there before; the exit code stays 1.
    """
    previous_hook = sys.excepthook

    def hook(
        kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        if isinstance(error, DatasetError):
            print(f"tfds_ave: {error}", file=sys.stderr)
        else:
            previous_hook(kind, error, trace)

    sys.excepthook = hook
