"""How programs start: without TensorFlow's greeting, and on its backend of Keras."""

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator

from avsdn_tf.errors import UserError

# Notices of every start on every machine. No environment variable silences these, as
# they are written before TensorFlow reads one.
_NOTICE = re.compile(
    rb"I0000 |WARNING: All log messages before absl::InitializeLog\(\)|"
    rb"To enable the following instructions: |"
    # A machine without a GPU has no driver for one.
    rb"E0000 .*failed call to cuInit|"
    # Of LiteRT's converter and runtime, whatever the model.
    rb"W0000 .*Ignored (output_format|drop_control_dependency)|"
    rb"INFO: Created TensorFlow Lite XNNPACK delegate"
)


@contextlib.contextmanager
def quiet_startup() -> Iterator[None]:
    """Holds standard error back while TensorFlow is imported, and drops its notices.

    Warnings, errors and all other lines are shown when the block ends, even by an
    exception.
    """
    # Of the later ones, this silences information; warnings and errors are shown.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    if sys.stderr is None:  # Closed, as some services start programs.
        yield
        return
    with contextlib.ExitStack() as stack:
        try:
            held = stack.enter_context(tempfile.TemporaryFile())
        except OSError:  # A full disk, or none that may be written to.
            yield
            return
        shown = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(shown, 2)
            os.close(shown)
            held.seek(0)
            for line in held:
                if not _NOTICE.match(line):
                    sys.stderr.write(line.decode(errors="replace"))


def check_backend() -> None:
    """Checks that Keras computes with TensorFlow, as all but networks and losses need.

    Raises:
        UserError: If it computes with something else.
    """
    # Not above: it brings TensorFlow, whose notices a program holds back first.
    import keras

    backend = keras.config.backend()
    if backend != "tensorflow":
        raise UserError(
            f"Expected Keras's TensorFlow backend. Received: {backend}. Say "
            'KERAS_BACKEND=tensorflow in the environment, or change "backend" in '
            "~/.keras/keras.json."
        )
