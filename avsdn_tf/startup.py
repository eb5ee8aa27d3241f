"""How the command line starts: without the notices that TensorFlow's import prints."""

import contextlib
import os
import pathlib
import re
import sys
import tempfile
from collections.abc import Iterator

from avsdn_tf.errors import UserError

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


def quiet_if_command_line() -> contextlib.AbstractContextManager[None]:
    """Return `quiet_startup()` in our command line, and nothing in other programs.

    `python -m avsdn_tf.main` imports the package before it runs that module.
    """
    started_by_name = pathlib.Path(sys.argv[0] if sys.argv else "").stem == "avsdn"
    # While Python looks for the module, the first argument is "-m".
    started_by_module = sys.argv[:1] == ["-m"] and bool(
        {"avsdn_tf.main", "avsdn_tf"} & set(sys.orig_argv)
    )
    if started_by_name or started_by_module:
        return quiet_startup()
    return contextlib.nullcontext()


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


def check_backend() -> None:
    """Check that Keras runs on TensorFlow, which all but networks and losses need.

    Raises:
        UserError: If it runs on another backend.
    """
    # The top of this module must not import TensorFlow: its notices come from that.
    import keras

    backend = keras.config.backend()
    if backend != "tensorflow":
        raise UserError(
            f"Keras runs on {backend}. Expected its TensorFlow backend. Set "
            'KERAS_BACKEND=tensorflow in the environment, or "backend" in '
            "~/.keras/keras.json."
        )
