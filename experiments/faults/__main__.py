"""Kill trainings, or read damaged videos, and count the failures.

Usage: python -m experiments.faults kill|fuzz [FLAGS]

Examples:
  python -m experiments.faults kill --times=5
  python -m experiments.faults fuzz dog.mp4 --copies=50

`python -m experiments.faults kill --help` shows the flags of `kill`.
"""

import sys
from collections.abc import Sequence

from experiments.arguments import one_line_errors
from experiments.faults import fuzz, kill

_COMMANDS = {"kill": kill.main, "fuzz": fuzz.main}


def main(argv: Sequence[str]) -> int:
    """Run a command, and return its exit code."""
    name = argv[0] if argv else "--help"
    if name in _COMMANDS:
        with one_line_errors(f"experiments.faults {name}"):
            return _COMMANDS[name](argv[1:])
    if name in ("-h", "--help"):
        print(__doc__.strip())
        return 0
    print(
        f"experiments.faults: expected {' or '.join(_COMMANDS)}. Received: {name}",
        file=sys.stderr,
    )
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
