"""Runs commands of the package in this process."""

from avsdn_tf.cli import app


def avsdn(*words):
    """Runs a command; what a person could correct is raised."""
    args = app.parse([str(word) for word in words])
    return app.COMMANDS[args.command].run(args)


def train(config, run, resume=True):
    """Trains a network, and reports on it."""
    resuming = [] if resume else ["--noresume"]
    return avsdn(*config.to_flags(), f"--run={run}", *resuming)


def evaluate(run):
    """Scores a run again."""
    return avsdn("evaluate", f"--run={run}")
