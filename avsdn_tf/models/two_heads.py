"""Networks with two heads: event or background per segment, one category per clip."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from avsdn_tf.losses import (
    SoftMarginLoss,
    as_distribution,
    float32_or_wider,
    mean_over_segments,
)
from avsdn_tf.models.base import SegmentClassifier, weigh_clips

# Least background logit of background segments. At an event logit of 0, a background
# logit of 0 would tie with the best category, and argmax would pick the category.
_SMALLEST_BACKGROUND = 1e-7


def segment_logits(
    event_logits: Any, category_logits: Any, has_background: bool = False
) -> Any:
    """Combine event and category logits into segment logits.

    The argmax of segment logits is the clip's most probable category where the event
    logit is positive, else background:

        category c: k_c - max k;  background: -e
        with a class for background in k: max(k_background - max k, -e)

    Args:
        event_logits: `e`, `(batch, num_segments)`.
        category_logits: `k`, `(batch, num_categories)`, or `(batch, num_categories +
            1)` with background.
        has_background: Boolean. Whether the last of `category_logits` is background.

    Returns:
        `(batch, num_segments, num_categories + 1)`, background last.
    """
    relative = category_logits - ops.max(category_logits, axis=-1, keepdims=True)
    relative = relative[:, None]
    background = ops.where(
        event_logits > 0,
        -event_logits,
        ops.maximum(-event_logits, _SMALLEST_BACKGROUND),
    )[..., None]
    if has_background:
        background = ops.maximum(relative[..., -1:], background)
        relative = relative[..., :-1]
    # The zeros broadcast the category logits to all segments.
    return ops.concatenate([relative + ops.zeros_like(background), background], -1)


def max_over_segments(x: Any, mask: Any = None) -> Any:
    """Return the maximum over the real segments, `(batch, width)`.

    Args:
        x: `(batch, num_segments, width)`.
        mask: `(batch, num_segments)`, nonzero where a segment is real; None: all are.
    """
    return ops.max(_without_padding(x, mask), axis=1)


def top_mean_over_segments(x: Any, count: int, mask: Any = None) -> Any:
    """Return the mean of the largest values over the real segments, `(batch, width)`.

    Args:
        x: `(batch, num_segments, width)`.
        count: Number of values to average. If a clip has fewer real segments, all their
            values are averaged.
        mask: As in `max_over_segments`.
    """
    descending = -ops.sort(-ops.swapaxes(_without_padding(x, mask), 1, 2), axis=-1)
    largest = descending[..., :count]
    if mask is None:
        return ops.mean(largest, axis=-1)
    length = ops.sum(ops.cast(ops.cast(mask, "bool"), "int32"), axis=1)
    is_counted = ops.arange(count) < ops.maximum(length, 1)[:, None]
    is_counted = ops.cast(is_counted, x.dtype)[:, None, : ops.shape(largest)[-1]]
    return ops.sum(largest * is_counted, axis=-1) / ops.sum(is_counted, axis=-1)


def _without_padding(x: Any, mask: Any) -> Any:
    """Return `x` with padding replaced by the minimum over the clip."""
    if mask is None:
        return x
    is_real = ops.cast(mask, "bool")[..., None]
    return ops.where(is_real, x, ops.min(x, axis=1, keepdims=True))


def event_losses(target: Any, event_logits: Any, mask: Any = None) -> Any:
    """Return the binary cross-entropy of event against background, `(batch,)`.

    Args:
        target: Segment target, `(batch, num_segments, num_classes)`.
        event_logits: `(batch, num_segments)`.
        mask: As in `SegmentClassifier.clip_losses`.
    """
    is_event = 1 - target[..., -1]
    losses = ops.softplus(event_logits) - is_event * event_logits
    return mean_over_segments(losses, mask)


def category_losses(target: Any, category_logits: Any, mask: Any = None) -> Any:
    """Return the cross-entropy of the clip's category, `(batch,)`.

    The target of a category is its fraction of the clip's event segments. The loss of a
    clip without events is 0.

    Args:
        target: Segment target, `(batch, num_segments, num_classes)`.
        category_logits: `(batch, num_categories)`.
        mask: As in `SegmentClassifier.clip_losses`.
    """
    fractions = mean_over_segments(target[..., :-1], mask)
    total = ops.sum(fractions, axis=-1, keepdims=True)
    fractions = fractions / ops.maximum(total, keras.config.epsilon())
    return -ops.sum(fractions * ops.log_softmax(category_logits, axis=-1), axis=-1)


class TwoHeadedClassifier(SegmentClassifier):
    """Base of networks that detect events per segment and classify the whole clip.

    The supervised loss is the binary cross-entropy of event against background on every
    segment, plus the cross-entropy of the clip's category. The weakly supervised loss
    is AVEL's soft margin on softmax(max over time of sigmoid(e_t) k) for event logits
    `e_t` of the segments and category logits `k` of the clip, which have a class for
    background. A subclass may add further losses in `extra_losses`.

    These published losses replace the loss given to `compile` or `clip_losses`;
    `compile` needs none.

    A subclass creates its layers, calls `_create_heads`, and applies the heads with
    `apply_heads`.

    Args:
        categories: As in `SegmentClassifier`.
        audio_width: As in `SegmentClassifier`.
        visual_shape: `(rows, columns, D)` of visual feature maps.
        weak: Boolean. True: the weakly supervised network, trained on clip labels,
            `(batch, num_classes)`. False: trained on segment labels.
        **kwargs: As in `SegmentClassifier`, without `multi_label`.

    Raises:
        ValueError: If `multi_label` is set, or visual features are not maps.

    Reference:
        Xu et al., ACM MM 2020, https://dl.acm.org/doi/10.1145/3394171.3413581.
    """

    def __init__(
        self,
        categories: Sequence[str],
        audio_width: int = 128,
        visual_shape: Sequence[int] = (7, 7, 512),
        *,
        weak: bool = False,
        **kwargs: Any,
    ) -> None:
        if kwargs.pop("multi_label", False):
            raise ValueError(
                f"{type(self).__name__} can't be multi-label: its category head gives "
                "all events of a clip one category. Received: multi_label=True"
            )
        super().__init__(categories, audio_width, visual_shape, **kwargs)
        self._check_maps()
        self.weak = bool(weak)

    def _create_visual_projection(self, units: int, dropout: float) -> None:
        dtype = self.dtype_policy
        self.visual_projection = keras.layers.Dense(
            units, activation="relu", dtype=dtype
        )
        self.visual_projection.build((None, self.visual_shape[-1]))
        self.visual_dropout = keras.layers.Dropout(dropout, dtype=dtype)
        # `summary()` shows the shapes of built layers only.
        self.visual_dropout.build((None, None, *self.visual_shape[:2], units))

    def project_visual(self, inputs: dict[str, Any], training: bool = False) -> Any:
        """Return the projected map, `(batch, num_segments, rows, columns, width)`.

        Args:
            inputs: The call's inputs as a dictionary.
            training: Boolean. Whether dropout is active.
        """
        visual = self.visual_projection(inputs["visual"])
        return self.visual_dropout(visual, training=training)

    def _create_heads(self, width: int) -> None:
        """Create the two heads for features `(..., width)`."""
        num_categories = len(self.categories) + self.weak
        self.event_head = keras.layers.Dense(1, dtype=self.variable_dtype)
        self.category_head = keras.layers.Dense(
            num_categories, dtype=self.variable_dtype
        )
        for head in (self.event_head, self.category_head):
            head.build((None, None, width))

    def category_layers(self) -> list[keras.layers.Layer]:
        """Return the category head."""
        return [self.category_head]

    def apply_heads(
        self, features: Any, clip_features: Any, added: Any = 0
    ) -> dict[str, Any]:
        """Return the outputs of the two heads.

        Args:
            features: `(batch, num_segments, width)`.
            clip_features: Features of the whole clip, such as the maximum over the
                segments, `(batch, width)`.
            added: Values to add to the category logits.

        Returns:
            As `join_heads`.
        """
        event_logits = ops.squeeze(self.event_head(features), -1)
        return self.join_heads(event_logits, self.category_head(clip_features) + added)

    def join_heads(self, event_logits: Any, category_logits: Any) -> dict[str, Any]:
        """Return `"logits"`, `"event_logits"` and `"category_logits"`.

        Args:
            event_logits: `(batch, num_segments)`.
            category_logits: `(batch, num_categories)`, with background if weak.
        """
        return {
            "logits": segment_logits(event_logits, category_logits, self.weak),
            "event_logits": event_logits,
            "category_logits": category_logits,
        }

    def clip_losses(
        self,
        loss: keras.losses.Loss | None,
        target: Any,
        outputs: dict[str, Any],
        mask: Any = None,
    ) -> Any:
        """Return the network's own training loss of every clip.

        The loss is computed in float32 (in float64 if the logits are).

        Args:
            loss: Unused.
            target: Segment target, `(batch, num_segments, num_classes)`, or class
                indices, `(batch, num_segments)`. For a weakly supervised network: clip
                target, `(batch, num_classes)`, or class indices, `(batch,)`.
            outputs: The result of `compute_outputs`.
            mask: `(batch, num_segments)`, nonzero where a segment is real; None: all
                are.

        Returns:
            `(batch,)`.
        """
        outputs = {name: float32_or_wider(x) for name, x in outputs.items()}
        if self.weak:
            logits = self.clip_logits(outputs, mask)
            target = as_distribution(target, logits)
            losses = SoftMarginLoss().call(target, logits)
        else:
            target = as_distribution(target, outputs["logits"])
            losses = event_losses(
                target, outputs["event_logits"], mask
            ) + category_losses(target, outputs["category_logits"], mask)
        extra = self.extra_losses(loss, target, outputs, mask)
        return losses if extra is None else losses + extra

    def clip_logits(self, outputs: Mapping[str, Any], mask: Any = None) -> Any:
        """Return the clip logits of the weakly supervised loss.

        Args:
            outputs: As in `clip_losses`.
            mask: As in `clip_losses`.

        Returns:
            `(batch, num_classes)`: the maximum over time of sigmoid(e_t) k.
        """
        gate = ops.sigmoid(outputs["event_logits"])[..., None]
        return max_over_segments(gate * outputs["category_logits"][:, None], mask)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Return the loss of `fit`: the mean of `clip_losses`.

        Args:
            x: Inputs. Segments that the inputs' mask hides are ignored.
            y: Target, as in `clip_losses`.
            y_pred: Segment logits.
            sample_weight: `(batch,)`, or `(batch, num_segments)`, averaged over each
                clip.
            training: Unused.

        Returns:
            A scalar.
        """
        extra_outputs = vars(self._call_outputs).pop("extra", None)
        if extra_outputs is None:
            # Keras on PyTorch traces the loss without a preceding call.
            return 0 * ops.mean(y_pred)
        outputs = {**extra_outputs, "logits": y_pred}
        mask = x.get("mask") if isinstance(x, Mapping) else None
        losses = self.clip_losses(None, y, outputs, mask)
        losses = weigh_clips(losses, sample_weight, mask)
        return ops.mean(losses) + sum(map(ops.sum, self.losses))

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        config = {**super().get_config(), "weak": self.weak}
        del config["multi_label"]
        return config
