"""Runs commands of the package in this process."""

from avsdn_tf.cli import app
from avsdn_tf.cli.flags import to_flags


def avsdn(*words):
    """Runs a command; what a person could correct is raised."""
    args = app.parse([str(word) for word in words])
    return app.COMMANDS[args.command].run(args)


def train(config, run, resume=True):
    """Trains a network, and reports on it."""
    return avsdn(*to_flags(config), f"--run={run}", *([] if resume else ["--noresume"]))


def evaluate(run):
    """Scores a run again."""
    return avsdn("evaluate", f"--run={run}")
