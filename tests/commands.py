"""Run commands of the package in this process."""

import pathlib
import subprocess
import sys

from avsdn_tf.cli import app

ROOT = pathlib.Path(__file__).resolve().parents[1]


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


def call(*words):
    """Run a command line in this process; errors are raised."""
    return app.main(app.parse(list(map(str, words))))


def python(*words, **kwargs):
    """Run Python in the repository's folder, and return the finished process."""
    return subprocess.run(
        [sys.executable, *map(str, words)],
        **{"cwd": ROOT, "capture_output": True, "text": True, "check": False, **kwargs},
    )
