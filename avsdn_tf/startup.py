"""How the command line starts: words first, then TensorFlow without its notices."""

import contextlib
import itertools
import os
import re
import sys
import tempfile
from collections.abc import Iterator

from avsdn_tf.errors import UserError, first_line

# What the process is called that reads videos; see `features.video.process`.
READER = "avsdn-reader"
# TensorFlow prints these at every start on every machine, before it reads
# TF_CPP_MIN_LOG_LEVEL.
_NOTICE = re.compile(
    rb"I0000 |WARNING: All log messages before absl::InitializeLog\(\)|"
    rb"To enable the following instructions: |"
    # A machine without a GPU has no driver for one.
    rb"E0000 .*failed call to cuInit|"
    # LiteRT's converter and runtime print these for every model.
    rb"W0000 .*Ignored (output_format|drop_control_dependency)|"
    rb"INFO: Created TensorFlow Lite XNNPACK delegate"
)


def is_command_line() -> bool:
    """Return whether this process was started as `avsdn` or `python -m avsdn_tf`.

    The process that reads videos counts too: it needs no TensorFlow either.
    """
    program = sys.argv[0] if sys.argv else ""
    # `python -m` imports the package before it knows the module's file.
    if program == "-m":
        return any(
            pair in (("-m", "avsdn_tf"), ("-m", "avsdn_tf.main"))
            for pair in itertools.pairwise(sys.orig_argv)
        )
    # Not avsdn.py, which is somebody's own program.
    return os.path.basename(program) in ("avsdn", "avsdn.exe", READER)


@contextlib.contextmanager
def quiet_startup() -> Iterator[None]:
    """Buffer standard error while TensorFlow starts, and drop its notices.

    All other lines are printed when the block ends, also after an exception.
    """
    # From here on this hides information; warnings and errors are printed.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    if sys.stderr is None:  # Closed, as some services start programs.
        yield
        return
    with contextlib.ExitStack() as stack:
        try:
            buffer = stack.enter_context(tempfile.TemporaryFile())
        except OSError:  # A full disk, or none that may be written to.
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
    """Import TensorFlow and find the devices, without the notices of both.

    Raises:
        UserError: If Keras runs on another backend.
    """
    with quiet_startup():
        check_backend()
        import tensorflow as tf

        # The first request for devices prints a notice on machines without a GPU.
        tf.config.list_physical_devices()


def check_backend() -> None:
    """Check that Keras runs on TensorFlow, which all but networks and losses need.

    Raises:
        UserError: If it runs on another backend.
    """
    # The top of this module must not import TensorFlow: its notices come from that.
    try:
        import keras

        backend = keras.config.backend()
    # No such backend, or one that is not installed.
    except (ImportError, ValueError) as error:
        backend = f"nothing ({first_line(error)})"
    if backend != "tensorflow":
        raise UserError(
            f"Keras runs on {backend}. Expected its TensorFlow backend. Set "
            'KERAS_BACKEND=tensorflow in the environment, or "backend" in '
            "~/.keras/keras.json."
        )
