"""The published numbers, and the runner that puts ours beside them."""

import sys

from avsdn_tf import startup
from avsdn_tf.errors import UserError

# The commands import TensorFlow at the top of their modules.
if startup.is_command_line():
    try:
        startup.start_tensorflow()
    except UserError as error:
        sys.exit(f"experiments: {error}")
