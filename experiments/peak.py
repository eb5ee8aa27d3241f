"""Run a program, and write its peak memory to a file.

    python -S peak.py FILE PROGRAM [ARGUMENT ...]

Linux counts the peak of the process that starts a program as the program's own, so this
small process starts it. The exit code is the program's.
"""

import os
import sys


def run(target: str, command: list[str]) -> int:
    """Run a command to its end, and write its peak in bytes to a file."""
    child = os.posix_spawn(command[0], command, os.environ)
    _, status, usage = os.wait4(child, 0)
    # Linux counts in kilobytes, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    with open(target, "w", encoding="utf-8") as file:
        file.write(str(usage.ru_maxrss * unit))
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


if __name__ == "__main__":
    sys.exit(run(sys.argv[1], sys.argv[2:]))
