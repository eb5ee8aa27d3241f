"""Start-up of the command line: check the backend, import TensorFlow quietly."""

import contextlib
import itertools
import os
import re
import sys
import tempfile
from collections.abc import Iterator

from avsdn_tf.errors import UserError, first_line

# Name of the process that decodes videos; see `features.video.process`.
READER = "avsdn-reader"
# Modules that `python -m` runs as commands.
_COMMANDS = (
    *("avsdn_tf", "avsdn_tf.main", "experiments.run", "experiments.compare"),
    *("experiments.benchmark", "experiments.faults"),
)
# Notices that TensorFlow prints at every start, before it reads TF_CPP_MIN_LOG_LEVEL.
_NOTICE = re.compile(
    rb"I0000 |WARNING: All log messages before absl::InitializeLog\(\)|"
    rb"To enable the following instructions: |"
    # On machines without a GPU.
    rb"E0000 .*failed call to cuInit|"
    # From LiteRT's converter and runtime, for every model.
    rb"W0000 .*Ignored (output_format|drop_control_dependency)|"
    rb"INFO: Created TensorFlow Lite XNNPACK delegate"
)


def is_command_line() -> bool:
    """Return whether a command of this repository started this process.

    Commands import TensorFlow late. The process that decodes videos counts as a
    command, because it needs no TensorFlow.
    """
    program = sys.argv[0] if sys.argv else ""
    # While `python -m` imports the package, argv[0] is "-m".
    if program == "-m":
        return any(
            word == "-m" and module in _COMMANDS
            for word, module in itertools.pairwise(sys.orig_argv)
        )
    # Compare the full name: avsdn.py would be a user's own program.
    return os.path.basename(program) in ("avsdn", "avsdn.exe", READER)


@contextlib.contextmanager
def quiet_startup() -> Iterator[None]:
    """Buffer standard error while TensorFlow starts, and drop its notices.

    All other lines are printed when the block ends, also after an exception.
    """
    # Level 1 hides TensorFlow's later information messages, but no warnings or errors.
    level = os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    # Level 0 requests all messages. `sys.stderr` is None in services that close it.
    if level == "0" or sys.stderr is None:
        yield
        return
    with contextlib.ExitStack() as stack:
        try:
            buffer = stack.enter_context(tempfile.TemporaryFile())
        except OSError:  # The disk is full or read-only.
            yield
            return
        stderr = os.dup(2)
        os.dup2(buffer.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            buffer.seek(0)
            for line in buffer:
                if not _NOTICE.match(line):
                    sys.stderr.write(line.decode(errors="replace"))


def start_tensorflow() -> None:
    """Import TensorFlow and list the devices, without its start-up notices.

    Raises:
        UserError: If Keras runs on another backend.
    """
    with quiet_startup():
        check_backend()
        import tensorflow as tf

        # The first request for devices prints a notice on machines without a GPU.
        tf.config.list_physical_devices()


def check_backend() -> None:
    """Check that Keras runs on TensorFlow, which the commands need.

    Raises:
        UserError: If Keras runs on another backend.
    """
    # Imported late: importing Keras imports TensorFlow, which prints notices.
    try:
        import keras

        backend = keras.config.backend()
    # The backend is unknown or not installed.
    except (ImportError, ValueError) as error:
        backend = f"nothing ({first_line(error)})"
    if backend != "tensorflow":
        raise UserError(
            f"Keras runs on {backend}. Expected its TensorFlow backend. Set "
            'KERAS_BACKEND=tensorflow in the environment, or "backend" in '
            "~/.keras/keras.json."
        )
