"""Run a program, and write its peak memory in bytes to a file.

    python -S peak.py FILE PROGRAM [ARGUMENT ...]

On Linux, a program's peak memory includes the peak of its parent process, so this small
process is the parent. The exit code is the program's.
"""

import os
import sys

if __name__ == "__main__":
    target, *command = sys.argv[1:]
    child = os.posix_spawn(command[0], command, os.environ)
    _, status, usage = os.wait4(child, 0)
    with open(target, "w", encoding="utf-8") as file:
        # The unit is kilobytes on Linux, bytes on macOS.
        file.write(str(usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)))
    code = os.waitstatus_to_exitcode(status)
    sys.exit(128 - code if code < 0 else code)
