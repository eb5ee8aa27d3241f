"""The one error that the command line shows as a message instead of a traceback."""


class UserError(Exception):
    """Something a user can mend: a flag, a path, a data set that does not fit.

    The message says what happened, what was expected, what was received and what to do.
    """


def first_line(error: BaseException) -> str:
    """Returns what an error of a library says in one line, or at least its kind."""
    return next(iter(str(error).splitlines()), type(error).__name__)
