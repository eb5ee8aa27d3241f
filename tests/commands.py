"""Run commands of the package in this process."""

from avsdn_tf.cli import app


def avsdn(*words):
    """Run a command; raise its `UserError`."""
    args = app.parse([str(word) for word in words])
    return app.COMMANDS[args.command].run(args)


def train(config, run, resume=True):
    """Train a network and write its report."""
    resuming = [] if resume else ["--noresume"]
    return avsdn(*config.to_flags(), f"--run={run}", *resuming)


def evaluate(run):
    """Evaluate a run again."""
    return avsdn("evaluate", f"--run={run}")
