"""Train over two logical CPU devices, to see several devices at work without a GPU.

    python -m experiments.benchmark.two_devices [FLAGS of avsdn_tf.main]

Logical devices must be made before TensorFlow starts, hence a program of its own.
"""

import tensorflow as tf

from avsdn_tf.cli.app import run

if __name__ == "__main__":
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * 2,
    )
    run()
