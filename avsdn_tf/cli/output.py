"""Standard streams that may be closed or full while a command runs."""

import contextlib
import errno
import os
from typing import Any, TextIO


class Output:
    """A stream that drops all output after its first failure.

    In `avsdn train | head -1`, the training continues after `head` closes the stream.

    Args:
        stream: Standard output or standard error.

    Attributes:
        error: The failure, or None.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.error: OSError | None = None
        # Some names lack a representation in the terminal's encoding.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")

    @property
    def is_lost(self) -> bool:
        """Whether the stream failed for a reason other than a closed pipe."""
        return self.error is not None and self.error.errno != errno.EPIPE

    def write(self, text: str) -> int:
        """Write text, unless the stream has failed."""
        self._attempt(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        """Flush the stream, unless it has failed."""
        self._attempt(self._stream.flush)

    def _attempt(self, function: Any, *args: str) -> None:
        if self.error is not None:
            return
        try:
            function(*args)
        except OSError as error:
            self.error = error
            # Python flushes the stream at exit: redirect it to prevent a second error.
            with contextlib.suppress(OSError), open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
