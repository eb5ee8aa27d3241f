"""Run the command line: `python -m avsdn_tf [COMMAND] [FLAGS]`."""

from avsdn_tf.cli.app import run

run()
