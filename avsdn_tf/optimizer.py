"""Adam as one operation a weight array."""

from typing import Any

import keras
import tensorflow as tf


class FusedAdam(keras.optimizers.Adam):
    """Keras's Adam (Kingma and Ba, 2015) by TensorFlow's kernel, all of it in one pass.

    Keras writes an update down as some ten operations, each of which reads and writes
    arrays as large as the weights; in a training step on a CPU they cost a quarter.
    The numbers are the same, and so are all arguments but `amsgrad`, which the kernel
    does not know.

    Raises:
        ValueError: If `amsgrad` is asked for.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.amsgrad:
            raise ValueError("Expected amsgrad=False. Received: amsgrad=True")

    def update_step(
        self,
        gradient: tf.Tensor,
        variable: tf.Variable,
        learning_rate: tf.Tensor,
    ) -> None:
        """Updates one variable, and its two moments."""
        dtype = variable.dtype
        index = self._get_variable_index(variable)
        beta_1, beta_2 = (tf.cast(b, dtype) for b in (self.beta_1, self.beta_2))
        step = tf.cast(self.iterations + 1, dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=beta_1**step,
            beta2_power=beta_2**step,
            lr=tf.cast(learning_rate, dtype),
            beta1=beta_1,
            beta2=beta_2,
            epsilon=tf.cast(self.epsilon, dtype),
            grad=gradient,
        )
