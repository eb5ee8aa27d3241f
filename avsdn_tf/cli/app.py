"""Parse the command line, run its command, and turn errors into one message."""

import argparse
import itertools
import re
import signal
import sys
import textwrap
import time
from collections.abc import Sequence
from typing import Any

from absl import app, flags, logging
from absl.flags import argparse_flags

from avsdn_tf.cli import (
    build,
    doctor,
    evaluate,
    export,
    extract,
    fetch,
    manifest,
    predict,
    push,
    train,
)
from avsdn_tf.cli.flags import BOOLEANS, Flag, Registry, boolean, did_you_mean
from avsdn_tf.cli.help import HELP, FullHelpAction, HelpFormatter, describe
from avsdn_tf.cli.output import Output
from avsdn_tf.errors import UserError
from avsdn_tf.text import printable_lines
from avsdn_tf.training.signals import TrainingInterruptedError
from avsdn_tf.version import __version__

COMMANDS = {
    "train": train,
    "evaluate": evaluate,
    "predict": predict,
    "extract": extract,
    "export": export,
    "manifest": manifest,
    "build": build,
    "push": push,
    "fetch": fetch,
    "doctor": doctor,
}
_DEFAULT = "train"
_NONE = "flags only"
_SUMMARY = "Find the events of videos that are both heard and seen."
_EXAMPLES = """avsdn predict --zero_shot dog.mp4
avsdn train --run=runs/first"""
_EPILOG = """\
`avsdn COMMAND --help` shows the flags of a command. Without a command, `avsdn`
trains. `python -m avsdn_tf.main` is the same as `avsdn`.
"""


class _Parser(argparse_flags.ArgumentParser):
    """A parser that accepts absl's flags, and raises where argparse would exit."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            add_help=False,  # absl's --helpfull would list absl's own flags.
            allow_abbrev=False,
            formatter_class=HelpFormatter,
            usage=argparse.SUPPRESS,  # The description includes the usage.
            **kwargs,
        )
        self.add_argument("-h", "--help", action="help", help=HELP)
        self.add_argument("--helpshort", action="help", help=argparse.SUPPRESS)
        self.add_argument("--helpfull", action=FullHelpAction, help=argparse.SUPPRESS)

    def error(self, message: str) -> None:
        """Raise the message that argparse would print after its usage."""
        if match := re.match(r"argument (?:-\w/)?(--\w+): expected one arg", message):
            raise UserError(f"Expected a value after {match[1]}: {match[1]}=VALUE.")
        raise UserError(f"{message[:1].upper()}{message[1:]}.")

    def with_values(self, words: Sequence[str]) -> list[str]:
        """Add `=true` to each boolean flag before a word that is not a boolean.

        argparse would read the video after `--zero_shot` as the flag's value.
        """
        words = list(words)
        for i, (word, following) in enumerate(itertools.pairwise(words)):
            action = self._option_string_actions.get(word)
            kind = getattr(getattr(action, "type", None), "kind", None)
            if word == "--":
                break
            if kind is boolean and following.lower() not in BOOLEANS:
                words[i] = f"{word}=true"
        return words

    @property
    def expected_words(self) -> str:
        """The arguments that the command expects, in words for messages."""
        words = [action.metavar for action in self._get_positional_actions()]
        return f"one {words[0]} and flags" if words else _NONE

    def flag_names(self) -> set[str]:
        """Return the command's own flags, without dashes."""
        return {
            word.removeprefix("--")
            for word, action in self._option_string_actions.items()
            if word.startswith("--") and action.help != argparse.SUPPRESS
        }

    def note_full_help(self) -> None:
        """Mention `--helpfull` in a command's help if `--helpfull` shows more."""
        kinds = {word: a.type for word, a in self._option_string_actions.items()}
        own = {word: kind for word, kind in kinds.items() if isinstance(kind, Flag)}
        rare = [word for word, flag in own.items() if flag.is_rare]
        full_help = self._option_string_actions["--helpfull"]
        if rare or any(isinstance(flag.choices, Registry) for flag in own.values()):
            full_help.help = "Explain each value of each flag."
        if rare:
            full_help.help = "Show all flags."
            text = f"More flags, explained by --helpfull: {', '.join(rare)}"
            self.epilog = textwrap.fill(text, 78, break_on_hyphens=False)


def run() -> None:
    """Run the command line and exit; the entry point of the console script."""
    # A stream that was closed before the program started is None.
    sys.stdout, sys.stderr = (s and Output(s) for s in (sys.stdout, sys.stderr))
    try:
        app.run(main, flags_parser=lambda argv: _exit_on_error(parse, argv[1:]))
    finally:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
        if sys.stdout and sys.stdout.is_lost:
            _print_error(f"output is lost: {sys.stdout.error.strerror}.")
            sys.exit(1)


def main(args: argparse.Namespace) -> int:
    """Run the command that `parse` returned; return the exit code."""
    # Hide TFDS's warnings about its internals.
    logging.set_verbosity(logging.ERROR)
    try:
        return _exit_on_error(_run_command, args)
    except TrainingInterruptedError as interruption:
        _print_error(str(interruption))
        return interruption.exit_code
    except KeyboardInterrupt:
        advice = getattr(COMMANDS[args.command], "WHEN_STOPPED", "")
        _print_error(f"{args.command} was stopped.{advice}")
        return 128 + signal.SIGINT


def _run_command(args: argparse.Namespace) -> int:
    # Zip files, such as models and arrays, store only years from 1980 to 2107.
    if not 1980 <= (year := time.localtime().tm_year) <= 2107:
        raise UserError(
            f"This machine's clock shows the year {year}. Zip files, such as models, "
            "need a year from 1980 to 2107. Set the clock."
        )
    return COMMANDS[args.command].run(args)


def _exit_on_error(function: Any, argument: Any) -> Any:
    """Call a function; print a `UserError` and exit with code 2."""
    try:
        return function(argument)
    except UserError as error:
        _print_error(error.render("--"))
        sys.exit(2)


def _print_error(message: str) -> None:
    print(f"avsdn_tf: {printable_lines(message)}", file=sys.stderr)


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; the default command is `train`. Help exits.

    Args:
        words: The command line without the program.

    Returns:
        The arguments, with the command's name as `command`.

    Raises:
        UserError: If an argument is wrong.
    """
    program, parsers = build_parsers()
    end = words.index("--") if "--" in words else len(words)
    words = [*map(_with_two_dashes, words[:end]), *words[end:]]
    if words[:1] and words[0] in ("-h", "--help", "--helpfull", "--version"):
        program.parse_args(words[:1])
    is_default = not words or words[0].startswith("-")
    command, *words = [_DEFAULT, *words] if is_default else words
    if command not in parsers:
        raise UserError(
            f"Expected one of the commands {', '.join(parsers)}. Received: {command}."
            + did_you_mean(command, (*parsers, "--help"))
        )
    parser = parsers[command]
    words = parser.with_values(words)
    try:
        args, extras = parser.parse_known_intermixed_args(words)
    except flags.Error as error:
        raise UserError(str(error)) from error
    moved = [word for word in extras if word in parsers]
    if moved and is_default:  # Such as avsdn --run=DIR evaluate.
        return parse([moved[0], *(word for word in words if word != moved[0])])
    if extras:
        raise UserError(_explain(extras, command, parsers))
    args.command = command
    COMMANDS[command].check(args)
    return args


def build_parsers() -> tuple[_Parser, dict[str, _Parser]]:
    """Return the parser of the program, and the parser of each command."""
    program = _Parser(
        prog="avsdn",
        description=describe(_SUMMARY, "avsdn [COMMAND] [FLAGS]", _EXAMPLES),
        epilog=_EPILOG,
    )
    program.add_argument(
        "--version",
        action="version",
        version=f"avsdn_tf {__version__}",
        help="Show the version.",
    )
    subparsers = program.add_subparsers(
        title="commands", metavar="COMMAND", prog="avsdn"
    )
    parsers = {}
    for name, command in COMMANDS.items():
        usage = f"avsdn {name} {command.USAGE}".strip()
        parsers[name] = subparsers.add_parser(
            name,
            help=command.SUMMARY,
            description=describe(command.SUMMARY, usage, command.EXAMPLE),
        )
        command.add_arguments(parsers[name])
        parsers[name].note_full_help()
    return program, parsers


def _with_two_dashes(word: str) -> str:
    """Return `-flag` as `--flag`: absl accepts both, argparse only the second."""
    is_long = len(word) > 2 and word[0] == "-" and word[1].isalpha()
    return f"-{word}" if is_long else word


def _explain(extras: Sequence[str], command: str, parsers: dict[str, _Parser]) -> str:
    """Return the message about words that a command does not accept."""
    unknown = [word for word in extras if word.startswith("-")]
    own = parsers[command].flag_names()
    if not unknown:
        hint = did_you_mean(extras[0], parsers) if command == _DEFAULT else ""
        if not hint and "run" in own and parsers[command].expected_words == _NONE:
            hint = f" Did you mean --run={extras[0]}?"
        expected = parsers[command].expected_words
        return f"{command}: expected {expected}. Received: {' '.join(extras)}.{hint}"
    name = unknown[0].lstrip("-").partition("=")[0]
    bare = name.removeprefix("no").removeprefix("-")
    having = [
        other for other, parser in parsers.items() if {name, bare} & parser.flag_names()
    ]
    if having:
        hint = f" It is a flag of {', '.join(having)}."
    else:
        hint = did_you_mean(name, own, "--")
    return f"{command} has no flag --{name}.{hint}"
