"""Runs a program, and writes down the most memory that it held at a time.

    python -S peak.py FILE PROGRAM [ARGUMENT ...]

Linux takes what the process that starts a program has once held for the program's own.
So this one, which starts it, is small. The exit code is that of the program.
"""

import os
import sys


def run(target: str, command: list[str]) -> int:
    """Runs a command to its end, and writes its peak in bytes to a file."""
    child = os.posix_spawn(command[0], command, os.environ)
    _, status, usage = os.wait4(child, 0)
    # In kilobytes, but on a Mac in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    with open(target, "w", encoding="utf-8") as file:
        file.write(str(usage.ru_maxrss * unit))
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


if __name__ == "__main__":
    sys.exit(run(sys.argv[1], sys.argv[2:]))
