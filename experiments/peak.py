"""Run a program, and write its peak memory in bytes to a file.

    python -S peak.py FILE PROGRAM [ARGUMENT ...]

Linux counts the peak of the process that starts a program as the program's own, so this
small process starts it. The exit code is the program's.
"""

import os
import sys

if __name__ == "__main__":
    target, *command = sys.argv[1:]
    child = os.posix_spawn(command[0], command, os.environ)
    _, status, usage = os.wait4(child, 0)
    with open(target, "w", encoding="utf-8") as file:
        # Linux counts in kilobytes, macOS in bytes.
        file.write(str(usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)))
    code = os.waitstatus_to_exitcode(status)
    sys.exit(128 - code if code < 0 else code)
