"""The error that a person can correct: one message instead of a traceback."""

from typing import Any


class UserError(Exception):
    """A wrong argument, path, file or data set, which the caller can correct.

    `str(error)` is the whole message. A program that has other names for the fields,
    such as the command line with its flags, renders `field`, `value` and `message`
    itself.

    Args:
        message: What is wrong, what was expected, and what to do, in one or two
            sentences.
        field: Name of the argument or setting that is wrong; None if the message is
            about something else.
        value: What that field was set to; None to leave it out.
    """

    def __init__(
        self, message: str, *, field: str | None = None, value: Any = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.value = value

    def render(self, prefix: str = "") -> str:
        """Return the message behind the field's name.

        Args:
            prefix: What the name of a field begins with, such as `"--"`.
        """
        if self.field is None:
            return self.message
        value = "" if self.value is None else f"={self.value}"
        return f"{prefix}{self.field}{value}: {self.message}"

    def __str__(self) -> str:
        return self.render()


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type if it has none."""
    return next(iter(str(error).splitlines()), type(error).__name__)
