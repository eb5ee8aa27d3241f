"""Run the command line: `python -m avsdn_tf.main [COMMAND] [FLAGS]`, or `avsdn`."""

from avsdn_tf.cli.app import run

if __name__ == "__main__":
    run()
