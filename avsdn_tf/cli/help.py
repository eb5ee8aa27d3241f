"""Help texts: the purpose, the usage and examples first, then the flags."""

import argparse
from typing import Any

HELP = "Show this help. Defaults are in brackets."


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps line breaks, and shows the help text of each `Flag`.

    Leaves out the rare flags of a command; `FullHelpFormatter` shows them.
    """

    full = False

    def __init__(self, prog: str, **kwargs: Any) -> None:
        super().__init__(prog, max_help_position=26, **kwargs)

    def add_argument(self, action: argparse.Action) -> None:
        """Add a flag, unless it is rare."""
        if self.full or not getattr(action.type, "is_rare", False):
            super().add_argument(action)

    def _format_action(self, action: argparse.Action) -> str:
        text = super()._format_action(action)
        # Drop argparse's line above the list of commands: the group has its own title.
        return text.partition("\n")[2] if action.nargs == argparse.PARSER else text

    def _format_action_invocation(self, action: argparse.Action) -> str:
        shown = getattr(action.type, "invocation", None)
        return shown or super()._format_action_invocation(action)

    def _get_help_string(self, action: argparse.Action) -> str:
        help_of = getattr(action.type, "help", None)
        if help_of is None:
            return action.help or ""
        # Escape %, because argparse expands %(default)s and similar.
        return help_of(self.full).replace("%", "%%")

    def _split_lines(self, text: str, width: int) -> list[str]:
        split = super()._split_lines
        return [line for part in text.splitlines() for line in split(part, width)]


class FullHelpFormatter(HelpFormatter):
    """Shows the rare flags too."""

    full = True


class FullHelpAction(argparse.Action):
    """Print all flags and exit."""

    def __init__(self, option_strings: Any, dest: str, **kwargs: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, **kwargs)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any, **__: Any) -> None:
        """Print the help with the rare flags, without the note about them."""
        parser.formatter_class, parser.epilog = FullHelpFormatter, None
        parser.print_help()
        parser.exit()


def describe(summary: str, usage: str, examples: str) -> str:
    """Return the head of a help text.

    Args:
        summary: One sentence on what the command does.
        usage: The command line.
        examples: Command lines, one per line.
    """
    lines = examples.strip().splitlines()
    title = "Example:" if len(lines) == 1 else "Examples:"
    shown = "\n".join(f"  {line.strip()}" for line in lines)
    return f"{summary}\n\nUsage: {usage}\n\n{title}\n{shown}"
