"""The base of the networks that label segments, and how their training loss is made."""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from avsdn_tf.losses import ClipLoss, as_distribution, float32_or_wider
from avsdn_tf.models.audio_visual import AudioVisualModel


class SegmentClassifier(AudioVisualModel):
    """Base of the networks that give every segment of a clip its class.

    A subclass creates its layers in `__init__`, implements `compute_outputs` and
    `category_layers`, and ends `__init__` with `self.build()`.

    Args:
        categories: Names of the event categories. The class after the last one is
            background: a network has `len(categories) + 1` classes.
        audio_width: Width of an audio feature.
        visual_shape: Shape of a segment's visual feature: `(D,)` for a pooled vector,
            `(rows, columns, D)` for a feature map.
        num_segments: Number of segments of a training clip, or None if unknown. The
            network accepts any number.
        segment_s: Length of a segment in seconds, or None if unknown.
        backbones: Description of the networks that made the features, a dictionary of
            texts or None, or None if unknown.

    Call arguments:
        inputs: Dictionary with `"audio"`, `(batch, num_segments, audio_width)`, and
            `"visual"`, `(batch, num_segments, *visual_shape)`, or the pair of the two.
            Dimensionless.
        training: Boolean. Whether dropout is active.

    Returns:
        Segment logits, `(batch, num_segments, num_classes)`, the background class last.

    Raises:
        ValueError: If there are no categories, or an argument is out of its range.

    Example:
        >>> model.compile("adam", avsdn_tf.SoftmaxBinaryCrossentropy(),
        ...               metrics=[avsdn_tf.metrics.SegmentAccuracy()])
        >>> model.fit({"audio": audio, "visual": visual}, labels)
        >>> logits = model.predict({"audio": audio, "visual": visual})
    """

    def __init__(
        self,
        categories: Sequence[str],
        audio_width: int = 128,
        visual_shape: Sequence[int] = (2048,),
        **kwargs: Any,
    ) -> None:
        super().__init__(categories, audio_width, visual_shape, **kwargs)
        if not self.categories:
            raise ValueError(
                "Expected `categories` to be a list of at least one name. "
                f"Received: categories={categories!r}"
            )
        # The outputs of the call that `compute_loss` belongs to. Concurrent calls and
        # the replicas of a strategy are threads.
        self._call_outputs = threading.local()

    @property
    def num_classes(self) -> int:
        """Number of classes: the categories and background."""
        return len(self.categories) + 1

    def compute_outputs(
        self, inputs: dict[str, Any], training: bool = False
    ) -> dict[str, Any]:
        """Return `"logits"`, and by name what else the network's training needs."""
        raise NotImplementedError

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Return the segment logits in the dtype of the weights."""
        outputs = self.compute_outputs(self.as_features(inputs), training=training)
        logits = ops.cast(outputs.pop("logits"), self.variable_dtype)
        self._call_outputs.extra = outputs
        return logits

    def clip_losses(
        self, loss: keras.losses.Loss, target: Any, outputs: dict[str, Any]
    ) -> Any:
        """Return the training loss of every clip.

        The loss is computed in float32 (in float64 if the logits are).

        Args:
            loss: A loss of segment logits, or a `ClipLoss`.
            target: `(batch, num_segments, num_classes)`, or the clip's target `(batch,
                num_classes)` for a `ClipLoss`; class indices are `(batch,
                num_segments)` and `(batch,)`.
            outputs: What `compute_outputs` returned.

        Returns:
            `(batch,)`: the mean over the segments, plus what the network adds.
        """
        outputs = {name: float32_or_wider(x) for name, x in outputs.items()}
        losses = _mean_per_clip(loss.call(target, outputs["logits"]))
        extra = self.extra_losses(loss, target, outputs)
        return losses if extra is None else losses + extra

    def extra_losses(
        self, loss: keras.losses.Loss, target: Any, outputs: dict[str, Any]
    ) -> Any:
        """Return what the network adds to the loss of every clip, or None.

        Args:
            loss: As in `clip_losses`.
            target: As in `clip_losses`.
            outputs: As in `clip_losses`.

        Returns:
            `(batch,)`, or None.
        """
        return None

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Return the loss of `fit`: the compiled one plus `extra_losses`.

        Args:
            x: Inputs; unused.
            y: Target, as in `clip_losses`.
            y_pred: Segment logits of the call before.
            sample_weight: `(batch,)` or `(batch, num_segments)`.
            training: Unused.

        Returns:
            A scalar.
        """
        extra_outputs = vars(self._call_outputs).pop("extra", {})
        loss = getattr(self, "loss", None)
        loss = keras.losses.get(loss) if isinstance(loss, str) else loss
        weight = sample_weight
        if weight is not None and not isinstance(loss, ClipLoss):
            # Keras would broadcast weights of clips along the segments.
            weight = ops.convert_to_tensor(weight)
            weight = weight[:, None] if len(weight.shape) == 1 else weight
        total = super().compute_loss(x, y, y_pred, weight, training)
        if not extra_outputs:
            return total
        if not isinstance(loss, keras.losses.Loss):
            raise ValueError(
                f"Expected one keras.losses.Loss: {type(self).__name__} applies it to "
                f"further outputs. Received: loss={loss!r}"
            )
        outputs = {
            name: float32_or_wider(x)
            for name, x in {**extra_outputs, "logits": y_pred}.items()
        }
        extra = self.extra_losses(loss, y, outputs)
        if sample_weight is not None:
            extra *= _mean_per_clip(ops.cast(sample_weight, extra.dtype))
        reduce = ops.sum if loss.reduction == "sum" else ops.mean
        return total + ops.cast(reduce(extra), total.dtype)


def feature_dropout(rate: float, width: int, dtype: Any) -> keras.layers.Dropout:
    """Return dropout that drops the same features in all segments of a clip.

    An LSTM would restore a feature that one segment lacks from the segment before.

    Args:
        rate: Share of the features that training drops.
        width: Width of the features `(batch, num_segments, width)`.
        dtype: Dtype policy.
    """
    layer = keras.layers.Dropout(rate, (None, 1, None), dtype=dtype)
    # `summary()` shows the shapes of built layers only.
    layer.build((None, None, width))
    return layer


def guide_losses(
    loss: keras.losses.Loss, target: Any, outputs: Mapping[str, Any], names: list[str]
) -> Any:
    """Return the summed losses `(batch,)` of clip logits that the clip's label guides.

    The clip's target is the target itself for a `ClipLoss`, else the mean over the
    segments.

    Args:
        loss: A loss of segment logits, or a `ClipLoss`.
        target: As in `SegmentClassifier.clip_losses`.
        outputs: `"logits"` of the segments, and clip logits `(batch, num_classes)`.
        names: Names of the clip logits.
    """
    if isinstance(loss, ClipLoss):
        guide, target = loss.loss, as_distribution(target, outputs[names[0]])
    else:
        guide = loss
        target = ops.mean(as_distribution(target, outputs["logits"]), axis=1)
    if isinstance(guide, keras.losses.SparseCategoricalCrossentropy):
        # It takes class indices, and the segments' mean is a distribution.
        guide = keras.losses.CategoricalCrossentropy(from_logits=guide.from_logits)
    return sum(guide.call(target, outputs[name]) for name in names)


def _mean_per_clip(values: Any) -> Any:
    """Return the mean of `(batch, ...)` over all axes but the first."""
    axes = tuple(range(1, len(values.shape)))
    return ops.mean(values, axis=axes) if axes else values
