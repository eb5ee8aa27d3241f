"""avsdn fetch: download the public backbones in advance."""

import argparse
import contextlib
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from avsdn_tf.cli.flags import PATH, Flag, did_you_mean
from avsdn_tf.cli.start import check_out
from avsdn_tf.errors import UserError
from avsdn_tf.files import explain_unwritable
from avsdn_tf.startup import start_tensorflow

SUMMARY = "Download the backbones that extract and predict need."
USAGE = "[BACKBONE ...] [FLAGS]"
EXAMPLE = """avsdn fetch
avsdn fetch yamnet EfficientNetV2B0_classes --to=cache"""
# Copied from `features.downloads`, which imports TensorFlow; a test compares the names.
NETWORKS = ("yamnet", "EfficientNetV2B0_classes", "vggish", "resnet152", "vgg19")
WHEN_STOPPED = " Finished downloads are kept. Repeat the command for the rest."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the command's flags."""
    parser.add_argument(
        "names",
        nargs="*",
        metavar="BACKBONE",
        help=f"Some of {', '.join(NETWORKS)} [all].",
    )
    to = "Folder to copy to a machine without network [the usual caches]."
    Flag("to", to, PATH, metavar="DIR").add_to(parser)


def check(args: argparse.Namespace) -> None:
    """Check the backbones' names and the folder."""
    for name in args.names:
        if name not in NETWORKS:
            raise UserError(
                f"fetch: expected some of {', '.join(NETWORKS)}. Received: {name}."
                + did_you_mean(name, NETWORKS)
            )
    check_out(args, "to")


def states_table(wanted: Sequence[Any], states: Sequence[Any]) -> Any:
    """Return a table of downloads and their states."""
    from avsdn_tf.report.terminal import rows_table

    rows = []
    for download, state in zip(wanted, states, strict=True):
        size = f"{state.num_bytes / 2**20:,.0f} MB" if state.path else "-"
        missing = "failed" if state.failure else "not downloaded"
        where = state.path or missing
        rows.append((download.name, download.needed_by, size, where))
    return rows_table("networks", ("network", "for", "size", "where"), rows)


@contextlib.contextmanager
def _progress(terminal: Any) -> Iterator[Callable[[int, int | None], None]]:
    """Show a download's progress bar; yield a callback that updates the bar."""
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    with Progress(
        BarColumn(bar_width=40),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=terminal,
        transient=True,
        disable=not terminal.is_interactive,
    ) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def run(args: argparse.Namespace) -> int:
    """Download missing backbones, print a table; return 1 if one failed, else 0."""
    variables = {}
    if args.to:
        to = pathlib.Path(args.to).absolute()
        with explain_unwritable(to, "Choose another folder."):
            to.mkdir(parents=True, exist_ok=True)
        variables = {"TFHUB_CACHE_DIR": str(to / "tfhub"), "KERAS_HOME": str(to)}
        # Set KERAS_HOME before importing Keras, which reads it at import.
        os.environ |= variables
    # Start TensorFlow late, after the checks: its import takes seconds.
    start_tensorflow()
    from avsdn_tf.features import downloads
    from avsdn_tf.report.terminal import logging_terminal, print_plainly

    known = {download.name: download for download in downloads.downloads()}
    wanted = [known[name] for name in dict.fromkeys(args.names or known)]
    states = []
    with logging_terminal() as terminal:
        for download in wanted:
            print_plainly(terminal, f"{download.name}: {download.addresses[0]}")
            with _progress(terminal) as on_progress:
                states.append(downloads.fetch(download, on_progress))
        terminal.print(states_table(wanted, states))
        for download, state in zip(wanted, states, strict=True):
            if state.failure:
                text = f"{download.name} failed: {state.failure}"
                print_plainly(terminal, text, style="red")
        if variables and any(state.path for state in states):
            text = " ".join(f"{name}={value}" for name, value in variables.items())
            print_plainly(
                terminal,
                "Copy the folder to the other machine. There, set these variables, "
                "with the copy's path:\n"
                f"  export {text}",
            )
    return 1 if any(state.failure for state in states) else 0
