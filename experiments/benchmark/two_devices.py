"""Trains over two logical CPU devices, to see what several devices do without a GPU.

    python -m experiments.two_devices RUN SETTINGS

RUN is the run folder, and SETTINGS are those of a run, as JSON. Logical devices must be
made before TensorFlow starts, so it takes a process of its own.
"""

import json
import sys
from collections.abc import Sequence

import tensorflow as tf
from rich.console import Console

from avsdn_tf.cli import commands
from avsdn_tf.training.config import Config


def main(argv: Sequence[str]) -> None:
    """Makes the devices, and trains."""
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * 2,
    )
    run, settings = argv
    config = Config(strategy="mirrored", **json.loads(settings))
    commands.train(config, run, Console(width=100))


if __name__ == "__main__":
    main(sys.argv[1:])
