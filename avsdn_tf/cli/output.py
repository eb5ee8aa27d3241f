"""Standard streams that may be closed or full while a command goes on."""

import contextlib
import errno
import os
from typing import Any, TextIO


class Output:
    """A stream whose failure doesn't end the program: it is written no more.

    `| head -1` closes a stream that hours of training may still write to.

    Args:
        stream: Standard output or standard error.

    Attributes:
        error: Why it is written no more, or None.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.error: OSError | None = None
        # A name that the terminal's encoding lacks is no reason to stop, either.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")

    @property
    def is_lost(self) -> bool:
        """Whether something else than a reader that left keeps it from being read."""
        return self.error is not None and self.error.errno != errno.EPIPE

    def write(self, text: str) -> int:
        """Write text, if that still works."""
        self._attempt(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        """Flush the stream, if that still works."""
        self._attempt(self._stream.flush)

    def _attempt(self, function: Any, *args: str) -> None:
        if self.error is not None:
            return
        try:
            function(*args)
        except OSError as error:
            self.error = error
            # Python flushes the stream once more when it ends.
            with contextlib.suppress(OSError), open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
