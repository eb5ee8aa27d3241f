"""The base of the networks that label segments, and their training loss."""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from avsdn_tf.losses import (
    ClipLoss,
    as_distribution,
    float32_or_wider,
    mean_over_segments,
)
from avsdn_tf.models.audio_visual import AudioVisualModel


class SegmentClassifier(AudioVisualModel):
    """Base of the networks that predict the class or classes of every segment.

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
        backbones: The networks that computed the features, a dictionary as
            `avsdn_tf.Backbones.to_dict` returns it, or None if unknown.
        multi_label: Boolean. False: softmax over the categories and background, one
            class a segment. True: one sigmoid a category, so that events of several
            categories may overlap; there is no background class.
        thresholds: For multi-label networks, one threshold in (0, 1) per category. A
            category is active if its probability reaches the threshold. None: 0.5 each.
            The attribute can be set later.

    Call arguments:
        inputs: Dictionary with `"audio"`, `(batch, num_segments, audio_width)`, and
            `"visual"`, `(batch, num_segments, *visual_shape)`, or the pair of the two.
            Features have no unit. Clips of different lengths are padded at their end;
            `"mask"`, `(batch, num_segments)`, is then nonzero where a segment is real.
        training: Boolean. Whether dropout is active.

    Returns:
        Segment logits, `(batch, num_segments, num_classes)`, the background class last.
        Logits of padding are finite but meaningless.

    Raises:
        ValueError: If there are no categories, or an argument is out of its range.

    Example:
        >>> @keras.saving.register_keras_serializable()
        ... class Linear(avsdn_tf.models.SegmentClassifier):
        ...     def __init__(self, *args, **kwargs):
        ...         super().__init__(*args, **kwargs)
        ...         self.head = keras.layers.Dense(len(self.categories) + 1)
        ...         self.build()
        ...
        ...     def category_layers(self):
        ...         return [self.head]
        ...
        ...     def compute_outputs(self, inputs, training=False):
        ...         pair = [inputs["audio"], inputs["visual"]]
        ...         return {"logits": self.head(keras.ops.concatenate(pair, axis=-1))}
        >>> Linear(categories)({"audio": audio, "visual": visual}).shape
        TensorShape([4, 10, 3])
    """

    def __init__(
        self,
        categories: Sequence[str],
        audio_width: int = 128,
        visual_shape: Sequence[int] = (2048,),
        *,
        multi_label: bool = False,
        thresholds: Sequence[float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(categories, audio_width, visual_shape, **kwargs)
        if not self.categories:
            raise ValueError(
                "Expected `categories` to be a list of at least one name. "
                f"Received: categories={categories!r}"
            )
        self.multi_label = bool(multi_label)
        self.thresholds = thresholds
        # Passes outputs from `call` to `compute_loss`. Thread-local: replicas of a
        # strategy run in threads.
        self._call_outputs = threading.local()

    @property
    def num_classes(self) -> int:
        """Number of classes: the categories, and background unless multi-label."""
        return len(self.categories) + (not self.multi_label)

    @property
    def thresholds(self) -> list[float] | None:
        """Thresholds of a multi-label network, one a category; None: 0.5 each."""
        return None if self._thresholds is None else list(self._thresholds)

    @thresholds.setter
    def thresholds(self, thresholds: Sequence[float] | None) -> None:
        if thresholds is None:
            self._thresholds = None
            return
        thresholds = tuple(map(float, thresholds))
        if not self.multi_label:
            raise ValueError(
                "Expected no thresholds: the network is not multi-label. "
                f"Received: thresholds={list(thresholds)}"
            )
        if len(thresholds) != len(self.categories) or not all(
            0 < threshold < 1 for threshold in thresholds
        ):
            raise ValueError(
                f"Expected {len(self.categories)} thresholds in (0, 1), one a "
                f"category. Received: thresholds={list(thresholds)}"
            )
        self._thresholds = thresholds

    def compute_outputs(
        self, inputs: dict[str, Any], training: bool = False
    ) -> dict[str, Any]:
        """Return `"logits"`, and further outputs that the losses need, by name.

        Args:
            inputs: The call's inputs as a dictionary.
            training: Boolean. Whether dropout is active.
        """
        raise NotImplementedError

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Return the segment logits in the dtype of the weights."""
        outputs = self.compute_outputs(self.as_features(inputs), training=training)
        logits = ops.cast(outputs.pop("logits"), self.variable_dtype)
        self._call_outputs.extra = outputs
        return logits

    def attention_maps(self, inputs: Any) -> Any:
        """Return the spatial attention weights, or None without spatial attention.

        Args:
            inputs: As in the call.

        Returns:
            Weights of the feature map's cells, `(batch, num_segments, rows, columns)`,
            which sum to 1 in every segment, or None.
        """
        return None

    def clip_losses(
        self,
        loss: keras.losses.Loss,
        target: Any,
        outputs: dict[str, Any],
        mask: Any = None,
    ) -> Any:
        """Return the training loss of every clip.

        The loss is computed in float32, or in float64 if the logits are float64.

        Args:
            loss: A loss of segment logits, or a `ClipLoss`.
            target: `(batch, num_segments, num_classes)`, or the clip's target `(batch,
                num_classes)` for a `ClipLoss`; class indices are `(batch,
                num_segments)` and `(batch,)`.
            outputs: The result of `compute_outputs`.
            mask: `(batch, num_segments)`, nonzero where a segment is real; None: all
                are. The target of padding may be any value.

        Returns:
            `(batch,)`: the mean over the real segments, plus `extra_losses`. Finite for
            a clip without any real segment.
        """
        outputs = {name: float32_or_wider(x) for name, x in outputs.items()}
        logits = outputs["logits"]
        if isinstance(loss, ClipLoss):
            logits = loss.pool(logits, mask)
        losses = loss.call(target, logits)
        if len(losses.shape) > 1:
            losses = mean_over_segments(losses, mask)
        extra = self.extra_losses(loss, target, outputs, mask)
        return losses if extra is None else losses + extra

    def extra_losses(
        self,
        loss: keras.losses.Loss,
        target: Any,
        outputs: dict[str, Any],
        mask: Any = None,
    ) -> Any:
        """Return additional losses of every clip, or None.

        Args:
            loss: As in `clip_losses`.
            target: As in `clip_losses`.
            outputs: As in `clip_losses`.
            mask: As in `clip_losses`.

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
        """Return the loss of `fit`: the compiled loss plus `extra_losses`.

        Args:
            x: Inputs. Segments outside the mask are ignored.
            y: Target, as in `clip_losses`.
            y_pred: Segment logits of the preceding call.
            sample_weight: `(batch,)` or `(batch, num_segments)`.
            training: Unused.

        Returns:
            A scalar.
        """
        extra_outputs = vars(self._call_outputs).pop("extra", {})
        mask = x.get("mask") if isinstance(x, Mapping) else None
        loss = getattr(self, "loss", None)
        loss = keras.losses.get(loss) if isinstance(loss, str) else loss
        weight, scored = sample_weight, y_pred
        if isinstance(loss, ClipLoss):
            scored = y_pred if mask is None else loss.pool(y_pred, mask)
        else:
            weight = _segment_weights(sample_weight, mask, y_pred)
        total = super().compute_loss(x, y, scored, weight, training)
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
        extra = self.extra_losses(loss, y, outputs, mask)
        extra = weigh_clips(extra, sample_weight, mask)
        reduce = ops.sum if loss.reduction == "sum" else ops.mean
        return total + ops.cast(reduce(extra), total.dtype)

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict[str, Any]:
        """Return the metrics of `fit` and `evaluate`.

        Args:
            x: Inputs. Metrics of this package ignore segments outside the mask.
            y: Target.
            y_pred: Segment logits.
            sample_weight: `(batch,)` or `(batch, num_segments)`.
        """
        mask = x.get("mask") if isinstance(x, Mapping) else None
        if mask is not None and len(y.shape) == 3:
            # -1 marks padding for this package's metrics.
            y = ops.where(ops.cast(mask, "bool")[..., None], y, -1)
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "multi_label": self.multi_label,
            "thresholds": self.thresholds,
        }


def _segment_weights(weight: Any, mask: Any, logits: Any) -> Any:
    """Return the weights of segments for Keras's loss, or None.

    Args:
        weight: Weights, `(batch,)` or `(batch, num_segments)`, or None.
        mask: As in `SegmentClassifier.clip_losses`, or None.
        logits: `(batch, num_segments, num_classes)`.
    """
    if weight is not None:
        # Keras would apply weights `(batch,)` to segments instead of clips.
        weight = ops.convert_to_tensor(weight)
        weight = weight[:, None] if len(weight.shape) == 1 else weight
    if mask is None:
        return weight
    # Keras averages over padding too: divide by the fraction of real segments.
    real = ops.cast(ops.cast(mask, "bool"), logits.dtype)
    fraction = ops.mean(real, axis=1, keepdims=True)
    real = real / ops.maximum(fraction, keras.config.epsilon())
    return real if weight is None else real * ops.cast(weight, real.dtype)


def weigh_clips(losses: Any, sample_weight: Any, mask: Any = None) -> Any:
    """Multiply each clip's loss by its weight, or by the mean weight of its segments.

    Args:
        losses: `(batch,)`.
        sample_weight: `(batch,)`, `(batch, num_segments)`, or None.
        mask: As in `SegmentClassifier.clip_losses`.
    """
    if sample_weight is None:
        return losses
    weight = ops.cast(sample_weight, losses.dtype)
    if len(weight.shape) > 1:
        weight = mean_over_segments(weight, mask)
    return losses * weight


def feature_dropout(rate: float, width: int, dtype: Any) -> keras.layers.Dropout:
    """Return dropout that drops the same features in all segments of a clip.

    With independent dropout, the LSTM could restore a feature from other segments.

    Args:
        rate: Dropout rate.
        width: Width of the features `(batch, num_segments, width)`.
        dtype: Dtype policy.
    """
    layer = keras.layers.Dropout(rate, (None, 1, None), dtype=dtype)
    # `summary()` shows the shapes of built layers only.
    layer.build((None, None, width))
    return layer


def guide_losses(
    loss: keras.losses.Loss,
    target: Any,
    outputs: Mapping[str, Any],
    names: list[str],
    mask: Any = None,
) -> Any:
    """Return the summed losses `(batch,)` of several clip logits.

    The target of the clip logits is the clip's target for a `ClipLoss`, else the mean
    target of the real segments.

    Args:
        loss: A loss of segment logits, or a `ClipLoss`.
        target: As in `SegmentClassifier.clip_losses`.
        outputs: `"logits"` of the segments, and clip logits `(batch, num_classes)`.
        names: Names of the clip logits.
        mask: As in `SegmentClassifier.clip_losses`.
    """
    clip_logits = [outputs[name] for name in names]
    if isinstance(loss, ClipLoss):
        guide, target = loss.loss, as_distribution(target, clip_logits[0])
        clip_logits = [loss.activate(logits) for logits in clip_logits]
    else:
        guide = loss
        target = mean_over_segments(as_distribution(target, outputs["logits"]), mask)
    if isinstance(guide, keras.losses.SparseCategoricalCrossentropy):
        # The mean over segments is a distribution, not class indices.
        guide = keras.losses.CategoricalCrossentropy(from_logits=guide.from_logits)
    return sum(guide.call(target, logits) for logits in clip_logits)
