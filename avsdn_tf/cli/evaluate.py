"""avsdn evaluate: score a run again."""

import argparse

from avsdn_tf.cli import flags
from avsdn_tf.cli.start import start

SUMMARY = "Score a run on the test split again, and rewrite its report."
USAGE = "--run=DIR [FLAGS]"
EXAMPLE = "avsdn evaluate --run=runs/first"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the command's flags."""
    flags.RUN.add_to(parser)
    flags.DATA_DIR.add_to(parser)


def check(args: argparse.Namespace) -> None:
    """Check that a run is given."""
    flags.require_run(args)


def run(args: argparse.Namespace) -> int:
    """Score the run, write its report, and print the scores; return the exit code."""
    start(args)
    # Start TensorFlow only after the checks, because its import takes seconds.
    from avsdn_tf import runs
    from avsdn_tf.report.terminal import logging_terminal, print_report

    with logging_terminal() as terminal:
        report = runs.evaluate(args.run, args.data_dir)
        print_report(terminal, report, args.run)
    return 0
