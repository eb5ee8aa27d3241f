"""Train on two logical CPU devices, to try distributed training without GPUs.

    python -m experiments.benchmark.two_devices [FLAGS of avsdn_tf.main]

This is a separate program, because logical devices must be created before TensorFlow
starts.
"""

import tensorflow as tf

from avsdn_tf.cli.app import run

if __name__ == "__main__":
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * 2,
    )
    run()
