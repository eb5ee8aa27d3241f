"""Trains over two logical CPU devices: python -m tests.mirrored FOLDER SETTINGS...

These must be made before TensorFlow starts, so it takes a process. SETTINGS are JSON.
"""

import json
import sys

import tensorflow as tf

if __name__ == "__main__":
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * 2,
    )

    from rich.console import Console

    from avsdn_tf import commands
    from avsdn_tf.config import Config

    folder, *runs = sys.argv[1:]
    for number, settings in enumerate(runs):
        config = Config(strategy="mirrored", **json.loads(settings))
        commands.train(config, f"{folder}/{number}", Console(width=100))
