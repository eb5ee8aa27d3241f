"""The error that a person can correct: one message instead of a traceback."""

import re
from collections.abc import Callable, Iterable
from typing import Any

from avsdn_tf.text import printable

_LONGEST_LINE = 500

# What TensorFlow and Keras print before the reason of a failure.
_BEFORE_THE_REASON = re.compile(
    r"Graph execution error:|Detected at node |File \"|<stack traces unavailable>|"
    r"\[\[|\d+ root error|Exception encountered when calling |in user code:"
)
_NOISE = re.compile(r"\x1b\[[0-9;]*m|\{\{function_node [^}]*\}\} ?")


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
        """Return the message behind the field's name and value, which is escaped.

        Args:
            prefix: What the name of a field begins with, such as `"--"`.
        """
        if self.field is None:
            return self.message
        value = ""
        if self.value is not None:  # A stranger's file may hold any.
            value = f"={printable(str(self.value)[:_LONGEST_LINE])}"
        return f"{prefix}{self.field}{value}: {self.message}"

    def __str__(self) -> str:
        return self.render()


class CombinedUserError(UserError):
    """Several errors that a person can correct at once, one line each."""

    def __init__(self, errors: Iterable[UserError]) -> None:
        self.errors = tuple(errors)
        super().__init__("\n".join(map(str, self.errors)))

    def render(self, prefix: str = "") -> str:
        """Return the messages, each as its own error renders it."""
        return "\n".join(error.render(prefix) for error in self.errors)


def call_all(*functions: Callable[[], Any]) -> list[Any]:
    """Return what functions return; call all before the first failure is raised.

    Raises:
        UserError: The error of a function, or `CombinedUserError` of several.
    """
    results, errors = [], []
    for function in functions:
        try:
            results.append(function())
        except UserError as error:
            errors.append(error)
    if errors:
        raise errors[0] if len(errors) == 1 else CombinedUserError(errors)
    return results


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message that says why it failed.

    Headings and stack traces of TensorFlow and Keras are skipped. An error without a
    message is its type. A terminal can show the line, which may quote a damaged file.
    """
    lines = [line.strip() for line in _NOISE.sub("", str(error)).splitlines()]
    lines = [line for line in lines if line]
    if lines and lines[0] == "in user code:":
        # Lines of code follow, and then the error.
        lines = [line for line in lines if re.match(r"\w*(Error|Exception): ", line)]
    reasons = (line for line in lines if not _BEFORE_THE_REASON.match(line))
    return printable(next(reasons, type(error).__name__)[:_LONGEST_LINE])
