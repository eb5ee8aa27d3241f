"""The losses that networks of this field are trained with, all on logits."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="avsdn_tf")
class SoftmaxBinaryCrossentropy(keras.losses.Loss):
    """Binary cross-entropy of each softmax probability, the mean over the classes.

        loss = -mean_k [y_k log p_k + (1 - y_k) log(1 - p_k)],  p = softmax(logits)

    Lin et al. train with binary cross-entropy on a softmax (end of section 2.2). Both
    logarithms are computed from logits, so a confident wrong class keeps its gradient.

    Call arguments:
        y_true: Target distribution, `(batch, ..., num_classes)`, each in [0, 1].
        y_pred: Logits of the same shape.

    Returns:
        The loss in nats, averaged over the batch (or `(batch, ...)` for
        `reduction=None`).

    Reference:
        Lin et al., ICASSP 2019, https://arxiv.org/abs/1902.07473.
    """

    def __init__(
        self, name: str = "softmax_binary_crossentropy", **kwargs: Any
    ) -> None:
        super().__init__(name=name, **kwargs)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Returns the loss of every sample."""
        y_pred = ops.convert_to_tensor(y_pred)
        y_true = ops.cast(y_true, y_pred.dtype)
        log_p = ops.log_softmax(y_pred, axis=-1)
        # Only the largest probability can be near 1, where log(1 - p) needs the sum of
        # the others; for the rest p <= 1/2 and log1p is exact.
        largest = ops.one_hot(
            ops.argmax(y_pred, axis=-1), y_pred.shape[-1], dtype="bool"
        )
        log_others = ops.logsumexp(
            ops.where(largest, float("-inf"), log_p), axis=-1, keepdims=True
        )
        log_not_p = ops.where(
            largest, log_others, ops.log1p(-ops.where(largest, 0.0, ops.exp(log_p)))
        )
        return -ops.mean(y_true * log_p + (1 - y_true) * log_not_p, axis=-1)


@keras.saving.register_keras_serializable(package="avsdn_tf")
class ClipLoss(keras.losses.Loss):
    """A loss on the clip's label: segment logits are pooled over time first (Eq. 3).

    Args:
        loss: The loss of the pooled logits, a `keras.losses.Loss`.
        pooling: `"average"` (Lin et al.) or `"max"` (Tian et al.) over the segments.

    Call arguments:
        y_true: Clip target, `(batch, num_classes)`.
        y_pred: Segment logits, `(batch, num_segments, num_classes)`.

    Returns:
        The loss, averaged over the batch (or `(batch,)` for `reduction=None`).

    Raises:
        ValueError: If `pooling` is none of the two.

    Reference:
        Lin et al., ICASSP 2019, https://arxiv.org/abs/1902.07473, Eq. 3.
    """

    def __init__(
        self,
        loss: keras.losses.Loss,
        pooling: str = "average",
        name: str = "clip_loss",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        if pooling not in ("average", "max"):
            raise ValueError(
                f"Expected one of {{'average', 'max'}}. Received: pooling={pooling!r}"
            )
        self.loss = loss
        self.pooling = pooling

    def pool(self, logits: Any) -> Any:
        """Returns clip logits, `(batch, num_classes)`, of segment logits."""
        reduce = ops.mean if self.pooling == "average" else ops.max
        return reduce(logits, axis=1)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Returns the loss of every clip."""
        return self.loss.call(y_true, self.pool(y_pred))

    def get_config(self) -> dict[str, Any]:
        """Returns what `__init__` was given."""
        return {
            **super().get_config(),
            "loss": keras.saving.serialize_keras_object(self.loss),
            "pooling": self.pooling,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "ClipLoss":
        """Makes the loss from `get_config`'s result."""
        inner = keras.saving.deserialize_keras_object(config["loss"])
        return cls(**{**config, "loss": inner})


LOSSES = {
    "binary_crossentropy": SoftmaxBinaryCrossentropy,
    "categorical_crossentropy": lambda: keras.losses.CategoricalCrossentropy(
        from_logits=True
    ),
}
