"""Losses of segment logits, clip labels and distances.

Networks of this package resolve registered names, as in
`model.compile(loss="avsdn_tf>SoftmaxBinaryCrossentropy")`. Other models need the form
`{"class_name": "avsdn_tf>SoftmaxBinaryCrossentropy", "config": {}}`.
"""

from typing import Any

import keras
from keras import ops


def float32_or_wider(x: Any) -> Any:
    """Cast a half-precision tensor to float32; return other tensors unchanged."""
    x = ops.convert_to_tensor(x)
    dtype = keras.backend.standardize_dtype(x.dtype)
    return ops.cast(x, "float32") if dtype in ("float16", "bfloat16") else x


def mean_over_segments(values: Any, mask: Any = None) -> Any:
    """Return the mean over the real segments of each clip.

    Args:
        values: `(batch, num_segments, ...)`.
        mask: `(batch, num_segments)`, nonzero for real segments, or None.

    Returns:
        `(batch, ...)`; 0 for a clip without any real segment.
    """
    if mask is None:
        return ops.mean(values, axis=1)
    real = _like_segments(mask, values)
    num_real = ops.sum(ops.cast(real, values.dtype), axis=1)
    return ops.sum(ops.where(real, values, 0), axis=1) / ops.maximum(num_real, 1)


def _like_segments(mask: Any, values: Any) -> Any:
    """Return a boolean mask that broadcasts against `(batch, num_segments, ...)`."""
    real = ops.cast(mask, "bool")
    for _ in values.shape[2:]:
        real = ops.expand_dims(real, -1)
    return real


def as_distribution(y_true: Any, y_pred: Any) -> Any:
    """Return a target as a distribution over the classes, in the dtype of the logits.

    Args:
        y_true: A distribution, `(batch, ..., num_classes)`, or class indices, `(batch,
            ...)` or `(batch, ..., 1)`.
        y_pred: Logits, `(batch, ..., num_classes)`.

    Raises:
        ValueError: If `y_true` has another shape.
    """
    y_true = ops.convert_to_tensor(y_true)
    shape, expected = tuple(y_true.shape), tuple(y_pred.shape)
    if len(shape) == len(expected) and shape[-1] == 1 != expected[-1]:
        y_true, shape = y_true[..., 0], shape[:-1]
    if _fits(shape, expected[:-1]):
        y_true = ops.one_hot(ops.cast(y_true, "int32"), expected[-1])
    elif not _fits(shape, expected):
        raise ValueError(
            f"Expected a target of the logits' shape, {expected}, or class indices of "
            f"shape {expected[:-1]}. Received: {shape}. ClipLoss expects one label a "
            "clip; other losses expect one label a segment."
        )
    return ops.cast(y_true, y_pred.dtype)


def _fits(shape: tuple[int | None, ...], expected: tuple[int | None, ...]) -> bool:
    return len(shape) == len(expected) and all(
        None in (size, other) or size == other
        for size, other in zip(shape, expected, strict=True)
    )


@keras.saving.register_keras_serializable(package="avsdn_tf")
class SoftmaxBinaryCrossentropy(keras.losses.Loss):
    """Mean binary cross-entropy of the softmax probabilities of all classes.

        loss = -mean_k [y_k log p_k + (1 - y_k) log(1 - p_k)],  p = softmax(logits)

    Lin et al. train with this loss (end of section 2.2). Both logarithms are computed
    from the logits, so that the gradient doesn't vanish for a confident wrong class.

    Call arguments:
        y_true: Target distribution, `(batch, ..., num_classes)`, each value in [0, 1];
            or class indices, `(batch, ...)`.
        y_pred: Logits, `(batch, ..., num_classes)`.

    Returns:
        The loss in nats, averaged over the batch (or `(batch, ...)` for
        `reduction=None`).

    Raises:
        ValueError: If the shapes don't fit each other.

    Example:
        >>> loss = avsdn_tf.SoftmaxBinaryCrossentropy()
        >>> logits = np.log(np.array([[0.5, 0.25, 0.25]], "float32"))
        >>> round(float(loss([0], logits)), 3)
        0.423

    Reference:
        Lin et al., ICASSP 2019, https://arxiv.org/abs/1902.07473.
    """

    def __init__(
        self, name: str = "softmax_binary_crossentropy", **kwargs: Any
    ) -> None:
        super().__init__(name=name, **kwargs)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss of every sample."""
        y_pred = ops.convert_to_tensor(y_pred)
        y_true = as_distribution(y_true, y_pred)
        log_p = ops.log_softmax(y_pred, axis=-1)
        # 1 - p loses precision near p = 1, and only the largest p can be near 1. For
        # the largest p, compute log(1 - p) as the log of the sum of the other p. For
        # the other p, which are at most 1/2, log1p(-p) is accurate.
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
class SoftMarginLoss(keras.losses.Loss):
    """AVEL's loss: a multi-label soft margin of the softmax probabilities.

        loss = -mean_k [y_k log s(p_k) + (1 - y_k) log(1 - s(p_k))],
        p = softmax(logits), s the sigmoid

    The sigmoid of a probability is between 0.5 and 0.73, so the loss never nears 0.

    Call arguments:
        y_true: Target distribution, `(batch, ..., num_classes)`, each value in [0, 1];
            or class indices, `(batch, ...)`.
        y_pred: Logits, `(batch, ..., num_classes)`.

    Returns:
        The loss in nats, averaged over the batch (or `(batch, ...)` for
        `reduction=None`).

    Raises:
        ValueError: If the shapes don't fit each other.

    Example:
        >>> loss = avsdn_tf.SoftMarginLoss()
        >>> logits = np.log(np.array([[0.5, 0.25, 0.25]], "float32"))
        >>> round(float(loss([0], logits)), 3)
        0.709

    Reference:
        Tian et al., ECCV 2018, https://arxiv.org/abs/1803.08842, and the authors' code.
    """

    def __init__(self, name: str = "soft_margin", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss of every sample."""
        p = ops.softmax(ops.convert_to_tensor(y_pred), axis=-1)
        y_true = as_distribution(y_true, p)
        return ops.mean(y_true * ops.softplus(-p) + (1 - y_true) * ops.softplus(p), -1)


@keras.saving.register_keras_serializable(package="avsdn_tf")
class ClipLoss(keras.losses.Loss):
    """Weakly supervised loss: compares a clip label with pooled segment logits (Eq. 3).

    Args:
        loss: Loss of the pooled logits or probabilities, a `keras.losses.Loss`.
        pooling: `"average"` (Lin et al.) or `"max"` (Tian et al.) over the segments.
        activation: None to pool logits. `"sigmoid"` to pool the probabilities of a
            multi-label network; `loss` must then expect probabilities, as
            `keras.losses.BinaryCrossentropy()` does.

    Call arguments:
        y_true: Clip target, `(batch, num_classes)`, one-hot or a distribution such as
            the mean of the segment labels; or class indices, `(batch,)`.
        y_pred: Segment logits, `(batch, num_segments, num_classes)`, or the result of
            `pool`, `(batch, num_classes)`.

    Returns:
        The loss, averaged over the batch (or `(batch,)` for `reduction=None`).

    Raises:
        ValueError: If `pooling` or `activation` is unknown, or the shapes don't fit
            each other.

    Example:
        >>> model = avsdn_tf.AVSDN(categories)
        >>> loss = avsdn_tf.ClipLoss(avsdn_tf.SoftmaxBinaryCrossentropy())
        >>> model.compile("adam", loss)
        >>> logits = model({"audio": audio, "visual": visual})
        >>> float(loss(clip_labels, logits)) > 0
        True

    Reference:
        Lin et al., ICASSP 2019, https://arxiv.org/abs/1902.07473, Eq. 3.
    """

    def __init__(
        self,
        loss: keras.losses.Loss,
        pooling: str = "average",
        activation: str | None = None,
        name: str = "clip_loss",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        if pooling not in ("average", "max"):
            raise ValueError(
                f"Expected one of {{'average', 'max'}}. Received: pooling={pooling!r}"
            )
        if activation not in (None, "sigmoid"):
            raise ValueError(
                f"Expected None or 'sigmoid'. Received: activation={activation!r}"
            )
        self.loss = loss
        self.pooling = pooling
        self.activation = activation

    def activate(self, logits: Any) -> Any:
        """Apply `activation` to logits."""
        return logits if self.activation is None else ops.sigmoid(logits)

    def pool(self, logits: Any, mask: Any = None) -> Any:
        """Pool segment logits to clip logits, or to probabilities with an activation.

        Args:
            logits: `(batch, num_segments, num_classes)`.
            mask: `(batch, num_segments)`, nonzero for real segments, or None.

        Returns:
            `(batch, num_classes)`, pooled over the real segments.
        """
        values = self.activate(logits)
        if self.pooling == "average":
            return mean_over_segments(values, mask)
        if mask is not None:
            values = ops.where(_like_segments(mask, values), values, -1e9)
        return ops.max(values, axis=1)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss of every clip."""
        y_pred = ops.convert_to_tensor(y_pred)
        pooled = y_pred if len(y_pred.shape) == 2 else self.pool(y_pred)
        if not isinstance(self.loss, keras.losses.SparseCategoricalCrossentropy):
            y_true = as_distribution(y_true, pooled)
        return self.loss.call(y_true, pooled)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "loss": keras.saving.serialize_keras_object(self.loss),
            "pooling": self.pooling,
            "activation": self.activation,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "ClipLoss":
        """Return the loss with the configuration."""
        inner = keras.saving.deserialize_keras_object(config["loss"])
        return cls(**{**config, "loss": inner})


@keras.saving.register_keras_serializable(package="avsdn_tf")
class ContrastiveLoss(keras.losses.Loss):
    """Contrastive loss: pulls matching pairs close and pushes others a margin apart.

        loss = y d^2 + (1 - y) max(margin - d, 0)^2

    Args:
        margin: Distance from which a pair that doesn't match has zero loss.

    Call arguments:
        y_true: 1 if the pair matches, else 0, `(batch, ...)`.
        y_pred: Distances `d` of the same shape, at least 0.

    Returns:
        The loss, averaged over the pairs (or `(batch, ...)` for `reduction=None`).

    Raises:
        ValueError: If the margin is not positive.

    Example:
        >>> loss = avsdn_tf.ContrastiveLoss(margin=2.0)
        >>> float(loss([1.0, 0.0], [0.5, 1.5]))
        0.25

    Reference:
        Hadsell et al., CVPR 2006; used by Tian et al., ECCV 2018,
        https://arxiv.org/abs/1803.08842.
    """

    def __init__(
        self, margin: float = 2.0, name: str = "contrastive_loss", **kwargs: Any
    ) -> None:
        super().__init__(name=name, **kwargs)
        if not margin > 0:
            raise ValueError(f"Expected a positive margin. Received: margin={margin!r}")
        self.margin = margin

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss of every pair."""
        y_pred = ops.convert_to_tensor(y_pred)
        y_true = ops.cast(y_true, y_pred.dtype)
        too_close = ops.maximum(self.margin - y_pred, 0)
        return y_true * ops.square(y_pred) + (1 - y_true) * ops.square(too_close)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "margin": self.margin}


LOSSES = {
    "binary_crossentropy": SoftmaxBinaryCrossentropy,
    "categorical_crossentropy": lambda: keras.losses.CategoricalCrossentropy(
        from_logits=True
    ),
    "soft_margin": SoftMarginLoss,
}
