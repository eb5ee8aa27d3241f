"""avsdn push: upload a run to Hugging Face's hub."""

import argparse

from avsdn_tf.cli import flags
from avsdn_tf.cli.start import start
from avsdn_tf.errors import UserError

SUMMARY = "Upload a run to Hugging Face's hub, with a model card."
USAGE = "--run=DIR hf://USER/NAME"
EXAMPLE = "avsdn push --run=runs/first hf://me/avsdn"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the command's flags."""
    parser.add_argument(
        "address",
        nargs="?",
        metavar="hf://USER/NAME",
        help="Repository on the hub; it is created if need be.",
    )
    flags.RUN.add_to(parser)


def check(args: argparse.Namespace) -> None:
    """Check that a run and an address are given."""
    flags.require_run(args, ", and an address, hf://USER/NAME")
    if not (args.address or "").startswith("hf://"):
        received = f" Received: {args.address}." if args.address else ""
        raise UserError(f"push: expected an address, hf://USER/NAME.{received}")


def run(args: argparse.Namespace) -> int:
    """Upload the run, and print the URL of its page."""
    start(args)
    # Start TensorFlow only after the checks, because its import takes seconds.
    from avsdn_tf.hub import push_run
    from avsdn_tf.report.terminal import logging_terminal, print_plainly

    with logging_terminal() as terminal:
        print_plainly(terminal, f"Page: {push_run(args.run, args.address)}")
    return 0
