"""avsdn doctor: report installed packages, downloads and what is missing."""

import argparse
import importlib.util
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable

from avsdn_tf.cli.fetch import states_table
from avsdn_tf.startup import start_tensorflow

SUMMARY = "Show versions, devices, downloads and missing packages."
USAGE = ""
EXAMPLE = "avsdn doctor"
_TIMEOUT_S = 5
# An extra, a module that the extra installs, and the commands that need the module.
_EXTRAS = (
    ("video", "av", "predict, extract, build from videos"),
    ("video", "tensorflow_hub", "predict, extract, build from videos"),
    ("export", "tf2onnx", "export --format=onnx"),
    ("export", "ai_edge_litert", "export --format=litert"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define no flag."""
    del parser


def check(args: argparse.Namespace) -> None:
    """Check nothing."""
    del args


def run(args: argparse.Namespace) -> int:
    """Print versions, devices, downloads and remedies; return 0."""
    del args
    start_tensorflow()
    # Import TensorFlow late: it takes seconds, and `avsdn --help` doesn't need it.
    import tensorflow as tf

    from avsdn_tf.report.terminal import logging_terminal, print_plainly, rows_table
    from avsdn_tf.run_folder import versions

    devices = tf.config.list_logical_devices()
    remedies = [
        f"{purpose}: pip install 'avsdn_tf[{extra}]' ({module} is missing)"
        for extra, module, purpose in _EXTRAS
        if importlib.util.find_spec(module) is None
    ]
    with logging_terminal() as terminal:
        terminal.print(rows_table("versions", ("", ""), versions().items()))
        names = [(device.device_type, device.name) for device in devices]
        terminal.print(rows_table("devices", ("", ""), names))
        if importlib.util.find_spec("tensorflow_hub") is not None:
            from avsdn_tf.features import downloads, sources

            wanted = downloads.downloads()
            states = [downloads.look(download) for download in wanted]
            folders = [
                ("TensorFlow Hub", sources.hub_cache()),
                ("Keras", sources.keras_cache()),
            ]
            terminal.print(rows_table("folders of downloads", ("", ""), folders))
            terminal.print(states_table(wanted, states))
            missing = [
                download
                for download, state in zip(wanted, states, strict=True)
                if state.path is None
            ]
            addresses = [a for download in missing for a in download.addresses]
            answers = _reach(addresses).items()
            terminal.print(rows_table("reached", ("host", "answer"), answers))
            remedies += [
                f"{download.needed_by}: avsdn fetch {download.name}"
                for download in missing
            ]
        print_plainly(terminal, "Missing:" if remedies else "Nothing is missing.")
        for remedy in remedies:
            print_plainly(terminal, f"  {remedy}")
        if remedies:
            print_plainly(
                terminal,
                "Without a network: run `avsdn fetch --to=FOLDER` on a connected "
                "computer, and copy the folder.",
            )
    return 0


def _reach(addresses: Iterable[str]) -> dict[str, str]:
    """Request one URL of each host; return the answers by host."""
    answers = {}
    for address in addresses:
        host = urllib.parse.urlsplit(address).netloc
        if host not in answers:
            answers[host] = _ask(address)
    return answers


def _ask(address: str) -> str:
    request = urllib.request.Request(address, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S):
            return "yes"
    except urllib.error.HTTPError as error:
        return f"HTTP {error.code} {error.reason}"
    except OSError as error:
        return f"no ({getattr(error, 'reason', error)})"
