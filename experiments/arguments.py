"""Shared parts of the experiments' command lines."""

import argparse
import contextlib
import sys
from collections.abc import Iterator
from typing import Any, NoReturn

from rich.console import Console

from avsdn_tf.cli.help import HELP, HelpFormatter
from avsdn_tf.errors import UserError


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line.

    Args:
        module: Name of the module that `python -m` runs.
        description: Head of the help: purpose, usage and examples.
    """

    def __init__(self, module: str, description: str | None) -> None:
        super().__init__(
            prog=f"python -m {module}",
            description=description,
            formatter_class=HelpFormatter,
            # The description includes the usage.
            usage=argparse.SUPPRESS,
            allow_abbrev=False,
            add_help=False,
        )
        self.add_argument("-h", "--help", action="help", help=HELP)

    def error(self, message: str) -> NoReturn:
        """Print the error in one line, and exit with code 2."""
        self.exit(2, f"{self.prog.removeprefix('python -m ')}: {message}\n")


@contextlib.contextmanager
def one_line_errors(module: str) -> Iterator[None]:
    """Print a `UserError` in one line, and exit with code 2."""
    try:
        yield
    except UserError as error:
        print(f"{module}: {error.render('--')}", file=sys.stderr)
        sys.exit(2)


def positive(text: str) -> int:
    """Parse a positive integer; for `type` of `argparse`."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more. Received: {text}")
    return int(text)


def show(console: Console, text: str, **style: Any) -> None:
    """Print text without markup, highlighting or line breaks."""
    console.print(text, highlight=False, markup=False, soft_wrap=True, **style)
