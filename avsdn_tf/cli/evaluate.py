"""avsdn evaluate: score a run again."""

import argparse

from avsdn_tf.cli import flags

SUMMARY = "Score a run on the test split again, and write its report anew."
USAGE = "--run=DIR [FLAGS]"
EXAMPLE = "avsdn evaluate --run=runs/first"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the command's flags."""
    flags.RUN.add_to(parser)
    flags.DATA_DIR.add_to(parser)


def check(args: argparse.Namespace) -> None:
    """Check what the parser can't."""
    flags.require_run(args)


def run(args: argparse.Namespace) -> int:
    """Score the run, write its report, and print the scores; return the exit code."""
    # TensorFlow starts after the words have been checked.
    from rich.console import Console

    from avsdn_tf.cli import runs
    from avsdn_tf.data.dataset import explain_damage, open_dataset
    from avsdn_tf.report.terminal import print_plainly

    terminal = Console()
    folder, config, model = runs.open_run(args.run)
    dataset = open_dataset(config.dataset, args.data_dir or config.data_dir)
    with folder.lock(), explain_damage(dataset):
        if not folder.matches_dataset(dataset.content_hash()):
            print_plainly(
                terminal,
                f"{config.dataset} is not the data set that this run was trained on: "
                "it was built from other data.",
                style="yellow",
            )
        runs.report_run(terminal, folder, config, dataset, model)
    return 0
