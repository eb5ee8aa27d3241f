"""Run the papers' experiments and benchmarks."""

import sys

from avsdn_tf import startup
from avsdn_tf.errors import UserError

# Set up TensorFlow before the commands' modules import it.
if startup.is_command_line():
    try:
        startup.start_tensorflow()
    except UserError as error:
        sys.exit(f"experiments: {error}")
