"""Errors that the user can correct, shown as a message instead of a traceback."""

import re
from collections.abc import Callable, Iterable
from typing import Any

from avsdn_tf.text import printable

_LONGEST_LINE = 500

# Lines that TensorFlow and Keras print before the cause of an error.
_PREAMBLE = re.compile(
    r"Graph execution error:|Detected at node |File \"|<stack traces unavailable>|"
    r"\[\[|\d+ root error|Exception encountered when calling |in user code:"
)
_NOISE = re.compile(r"\x1b\[[0-9;]*m|\{\{function_node [^}]*\}\} ?")


class UserError(Exception):
    """A wrong argument, path, file or data set, which the caller can correct.

    `str(error)` is the whole message. The command line calls `render("--")` instead, so
    that the message names the flag.

    Args:
        message: What is wrong, what was expected, and what to do, in one or two
            sentences.
        field: Name of the wrong argument or setting, or None.
        value: Value of the field; None to omit it from the message.

    Example:
        >>> try:
        ...     avsdn_tf.train(mode="strong")
        ... except avsdn_tf.UserError as error:
        ...     print(error.field, error.value)
        mode strong
    """

    def __init__(
        self, message: str, *, field: str | None = None, value: Any = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.value = value

    def render(self, prefix: str = "") -> str:
        """Return `field=value: message`, with control characters of the value escaped.

        Args:
            prefix: Prefix of the field's name, such as `"--"`.
        """
        if self.field is None:
            return self.message
        value = ""
        if self.value is not None:
            value = f"={printable(str(self.value)[:_LONGEST_LINE])}"
        return f"{prefix}{self.field}{value}: {self.message}"

    def __str__(self) -> str:
        return self.render()


class CombinedUserError(UserError):
    """Several user errors, one line each."""

    def __init__(self, errors: Iterable[UserError]) -> None:
        self.errors = tuple(errors)
        super().__init__("\n".join(map(str, self.errors)))

    def render(self, prefix: str = "") -> str:
        """Return the rendered errors, one a line."""
        return "\n".join(error.render(prefix) for error in self.errors)


def call_all(*functions: Callable[[], Any]) -> list[Any]:
    """Call all functions and return their results; raise their user errors together.

    Raises:
        UserError: If one function raised it; a `CombinedUserError` if several did.
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
    """Return the line of an error's message that states the cause, printable.

    Skips headings and stack traces of TensorFlow and Keras. Without a message, returns
    the name of the error's type.
    """
    lines = [line.strip() for line in _NOISE.sub("", str(error)).splitlines()]
    lines = [line for line in lines if line]
    if lines and lines[0] == "in user code:":
        # The error follows after a traceback.
        lines = [line for line in lines if re.match(r"\w*(Error|Exception): ", line)]
    reasons = (line for line in lines if not _PREAMBLE.match(line))
    return printable(next(reasons, type(error).__name__)[:_LONGEST_LINE])
