"""Keras metrics of segments and events, for `compile`.

Padding is not counted. A segment is padding if its class is -1, its target vector is
all -1 (or all 0 if one-hot), or its weight is 0. The networks of this package set the
targets of masked segments to -1.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from avsdn_tf.metrics.counts import (
    check_iou,
    count_background,
    count_events,
    count_right,
    count_segments,
)


class _Ratio(keras.metrics.Metric):
    """Base of the metrics: the ratio of two counts, each summed over all batches.

    Call arguments:
        y_true: `(batch, num_segments, num_classes)`, one-hot or a distribution, whose
            argmax is the class; or class indices `(batch, num_segments)`.
        y_pred: Logits or probabilities, `(batch, num_segments, num_classes)`.
        sample_weight: `(batch,)` or `(batch, num_segments)`, or None for 1 each.
    """

    def __init__(
        self, name: str | None = None, dtype: Any = None, **kwargs: Any
    ) -> None:
        super().__init__(name=name, dtype=dtype, **kwargs)
        self._create_totals(())

    def _create_totals(self, shape: tuple[int, ...]) -> None:
        self.numerator = self.add_variable(shape, "zeros", name="numerator")
        self.denominator = self.add_variable(shape, "zeros", name="denominator")

    def counts(self, labels: Any, predicted: Any, background: int) -> tuple[Any, Any]:
        """Return numerators and denominators, of each clip or of each segment."""
        raise NotImplementedError

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch."""
        y_true, y_pred = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
        if len(y_pred.shape) != 3:
            raise ValueError(
                "Expected y_pred of shape (batch, num_segments, num_classes). "
                f"Received: {tuple(y_pred.shape)}"
            )
        labels, predicted = self._read(y_true, y_pred)
        weights = None if sample_weight is None else _read_weights(sample_weight)
        if weights is not None:
            is_real = weights > 0 if len(labels.shape) == 2 else weights[..., None] > 0
            labels = ops.where(is_real, labels, -1)
        counts = self.counts(labels, predicted, y_pred.shape[-1] - 1)
        for total, values in zip(
            (self.numerator, self.denominator), counts, strict=True
        ):
            self._add(total, ops.cast(values, self.dtype), weights)

    def _read(self, y_true: Any, y_pred: Any) -> tuple[Any, Any]:
        """Return true and predicted classes, `(batch, num_segments)` int32."""
        labels = y_true
        if len(y_true.shape) == 3:
            if y_true.shape[-1] == 1 != y_pred.shape[-1]:
                labels = y_true[..., 0]
            else:
                is_real = ops.any(y_true > 0, axis=-1)
                labels = ops.where(is_real, ops.argmax(y_true, axis=-1), -1)
        if len(labels.shape) != 2 or labels.shape[1] not in (None, y_pred.shape[1]):
            raise ValueError(
                "Expected y_true of the shape of y_pred, or class indices (batch, "
                f"num_segments). Received: y_true {tuple(y_true.shape)}, y_pred "
                f"{tuple(y_pred.shape)}"
            )
        return (
            ops.cast(labels, "int32"),
            ops.cast(ops.argmax(y_pred, axis=-1), "int32"),
        )

    def _add(self, total: Any, values: Any, weights: Any) -> None:
        """Add the counts of clips `(batch,)` or segments `(batch, num_segments)`."""
        if weights is not None:
            weights = ops.cast(weights, self.dtype)
            if len(values.shape) == 1:
                # A clip's weight is the mean weight of its real segments.
                num_real = ops.sum(ops.cast(weights > 0, self.dtype), axis=1)
                weights = ops.divide_no_nan(ops.sum(weights, axis=1), num_real)
            values = values * weights
        total.assign_add(ops.sum(values))

    def result(self) -> Any:
        """Return the ratio; 0 if nothing was counted."""
        return ops.divide_no_nan(self.numerator, self.denominator)


def _read_weights(sample_weight: Any) -> Any:
    """Return weights of shape (batch, 1) or (batch, num_segments)."""
    weights = ops.convert_to_tensor(sample_weight)
    if len(weights.shape) == 3:
        return ops.squeeze(weights, -1)
    return weights[:, None] if len(weights.shape) == 1 else weights


@keras.saving.register_keras_serializable(package="avsdn_tf")
class SegmentAccuracy(_Ratio):
    """Fraction of segments whose class is correct, background included: AVE's score.

    Args:
        name: Name of the metric.
        dtype: Dtype of the sums.

    Call arguments:
        y_true: One-hot or distribution `(batch, num_segments, num_classes)`, or class
            indices `(batch, num_segments)`; -1 in padding.
        y_pred: Logits or probabilities, `(batch, num_segments, num_classes)`.
        sample_weight: `(batch,)` or `(batch, num_segments)`.

    Returns:
        The fraction, in [0, 1].

    Example:
        >>> metric = avsdn_tf.SegmentAccuracy()
        >>> predicted = keras.ops.one_hot([[0, 0, 2, 2]], 3)
        >>> float(metric([[0, 0, 0, 2]], predicted))
        0.75

    Reference:
        Tian et al., ECCV 2018, https://arxiv.org/abs/1803.08842.
    """

    def __init__(self, name: str = "segment_accuracy", **kwargs: Any) -> None:
        super().__init__(name, **kwargs)

    def counts(self, labels: Any, predicted: Any, background: int) -> tuple[Any, Any]:
        """Return the counts of `count_right`."""
        return count_right(labels, predicted)


@keras.saving.register_keras_serializable(package="avsdn_tf")
class BackgroundRecall(_Ratio):
    """Fraction of the true background segments that are predicted as background.

    Args:
        name: Name of the metric.
        dtype: Dtype of the sums.

    Call arguments:
        y_true: As in `SegmentAccuracy`; the last class is background.
        y_pred: As in `SegmentAccuracy`.
        sample_weight: As in `SegmentAccuracy`.

    Returns:
        The fraction, in [0, 1]; 0 if there is no background segment.

    Example:
        >>> metric = avsdn_tf.BackgroundRecall()
        >>> predicted = keras.ops.one_hot([[0, 1, 2, 2]], 3)
        >>> float(metric([[0, 2, 2, 0]], predicted))
        0.5
    """

    def __init__(self, name: str = "background_recall", **kwargs: Any) -> None:
        super().__init__(name, **kwargs)

    def counts(self, labels: Any, predicted: Any, background: int) -> tuple[Any, Any]:
        """Return the counts of `count_background`."""
        return count_background(labels, predicted, background)


class _CategoryRatio(_Ratio):
    """Base of the metrics that also accept multi-label targets.

    Args:
        multi_label: Whether a segment may have several categories: `y_true` is
            multi-hot, and `y_pred` has no background.
        thresholds: If `multi_label`, the probability from which each category is
            active; None for 0.5 each.
        from_logits: If `multi_label`, whether `y_pred` is logits, not probabilities.
        name: Name of the metric.
        dtype: Dtype of the sums.
    """

    def __init__(
        self,
        multi_label: bool,
        thresholds: Sequence[float] | None,
        from_logits: bool,
        name: str,
        **kwargs: Any,
    ) -> None:
        super().__init__(name, **kwargs)
        thresholds = None if thresholds is None else [float(t) for t in thresholds]
        if thresholds is not None and not all(0 < t < 1 for t in thresholds):
            raise ValueError(
                f"Expected thresholds in (0, 1). Received: thresholds={thresholds}"
            )
        self.multi_label = multi_label
        self.thresholds = thresholds
        self.from_logits = from_logits

    def _read(self, y_true: Any, y_pred: Any) -> tuple[Any, Any]:
        """Return true and predicted classes, as multi-hot vectors if `multi_label`."""
        if not self.multi_label:
            return super()._read(y_true, y_pred)
        if len(y_true.shape) != 3 or y_true.shape[-1] != y_pred.shape[-1]:
            raise ValueError(
                "Expected multi-hot y_true of the shape of y_pred. Received: y_true "
                f"{tuple(y_true.shape)}, y_pred {tuple(y_pred.shape)}"
            )
        if self.from_logits:
            y_pred = ops.sigmoid(y_pred)
        thresholds = 0.5
        if self.thresholds is not None:
            thresholds = ops.convert_to_tensor(self.thresholds, y_pred.dtype)
        # Rounding undoes label smoothing.
        return ops.cast(ops.round(y_true), "int32"), ops.cast(
            y_pred >= thresholds, "int32"
        )

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "multi_label": self.multi_label,
            "thresholds": self.thresholds,
            "from_logits": self.from_logits,
        }


@keras.saving.register_keras_serializable(package="avsdn_tf")
class EventF1(_CategoryRatio):
    """Micro-F1 of whole events, as counted by `count_events`.

    Args:
        iou: Least intersection over union of a correct event, in [0.5, 1].
        multi_label: Whether a segment may have several categories, so that events of
            different categories overlap.
        thresholds: If `multi_label`, the probability from which each category is
            active; None for 0.5 each.
        from_logits: If `multi_label`, whether `y_pred` is logits, not probabilities.
        name: Name of the metric.
        dtype: Dtype of the sums.

    Call arguments:
        y_true: As in `SegmentAccuracy`; the last class is background. If
            `multi_label`, multi-hot, without background.
        y_pred: As in `SegmentAccuracy`.
        sample_weight: `(batch,)` or `(batch, num_segments)`. The weight of an event is
            the mean weight of its clip's real segments.

    Returns:
        F1, in [0, 1]; 0 if there are no events.

    Raises:
        ValueError: If `iou` is outside [0.5, 1], or a threshold outside (0, 1).

    Example:
        >>> metric = avsdn_tf.EventF1()
        >>> predicted = keras.ops.one_hot([[0, 0, 2, 1]], 3)
        >>> round(float(metric([[0, 0, 0, 2]], predicted)), 3)
        0.667
    """

    def __init__(
        self,
        iou: float = 0.5,
        multi_label: bool = False,
        thresholds: Sequence[float] | None = None,
        from_logits: bool = True,
        name: str = "event_f1",
        **kwargs: Any,
    ) -> None:
        super().__init__(multi_label, thresholds, from_logits, name, **kwargs)
        check_iou(iou)
        self.iou = iou

    def counts(self, labels: Any, predicted: Any, background: int) -> tuple[Any, Any]:
        """Return the counts of `count_events`, `(batch,)`."""
        if not self.multi_label:
            return count_events(labels, predicted, background, self.iou)
        batch, num_segments, num_categories = ops.shape(labels)
        # Count each category as a clip of its own, in which 0 is background.
        clips = (
            ops.reshape(ops.transpose(x, (0, 2, 1)), (-1, num_segments))
            for x in (labels, predicted)
        )
        counts = count_events(*clips, 0, self.iou)
        numerator, denominator = (
            ops.sum(ops.reshape(x, (batch, num_categories)), axis=1) for x in counts
        )
        return numerator, denominator

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "iou": self.iou}


@keras.saving.register_keras_serializable(package="avsdn_tf")
class SegmentF1(_CategoryRatio):
    """F1 of the segments of all categories, without background.

    Args:
        average: `"micro"`, F1 over the segments of all categories, or `"macro"`, the
            mean F1 of the categories with true or predicted segments.
        multi_label: Whether a segment may have several categories.
        thresholds: If `multi_label`, the probability from which each category is
            active; None for 0.5 each.
        from_logits: If `multi_label`, whether `y_pred` is logits, not probabilities.
        name: Name of the metric.
        dtype: Dtype of the sums.

    Call arguments:
        y_true: As in `SegmentAccuracy`; the last class is background. If
            `multi_label`, multi-hot, without background.
        y_pred: As in `SegmentAccuracy`.
        sample_weight: As in `SegmentAccuracy`.

    Returns:
        F1, in [0, 1]; 0 if there is neither a true nor a predicted event.

    Raises:
        ValueError: If `average` is unknown, or a threshold outside (0, 1).

    Example:
        >>> metric = avsdn_tf.SegmentF1(multi_label=True, from_logits=False)
        >>> score = metric([[[1, 0], [1, 1]]], [[[0.9, 0.1], [0.2, 0.7]]])
        >>> round(float(score), 3)
        0.8
    """

    def __init__(
        self,
        average: str = "micro",
        multi_label: bool = False,
        thresholds: Sequence[float] | None = None,
        from_logits: bool = True,
        name: str = "segment_f1",
        **kwargs: Any,
    ) -> None:
        super().__init__(multi_label, thresholds, from_logits, name, **kwargs)
        if average not in ("micro", "macro"):
            raise ValueError(f"Expected micro or macro. Received: average={average}")
        self.average = average

    def _create_totals(self, shape: tuple[int, ...]) -> None:
        # One total per category. The first batch determines the number of categories.
        if shape:
            super()._create_totals(shape)
        else:
            self.numerator = self.denominator = None

    def counts(self, labels: Any, predicted: Any, background: int) -> tuple[Any, Any]:
        """Return two counts, `(batch, num_segments, num_categories)` each."""
        if not self.multi_label:
            is_padding = ops.expand_dims(labels < 0, -1)
            num_classes = background + 1
            # One-hot, without the background class; -1 in padding.
            labels, predicted = (
                ops.one_hot(x, num_classes, dtype="int32")[..., :-1]
                for x in (labels, predicted)
            )
            labels = ops.where(is_padding, -1, labels)
        if self.numerator is None:
            self._create_totals((labels.shape[-1],))
        return count_segments(labels, predicted)

    def _add(self, total: Any, values: Any, weights: Any) -> None:
        if weights is not None:
            values = values * ops.cast(weights, self.dtype)[..., None]
        total.assign_add(ops.sum(values, axis=(0, 1)))

    def result(self) -> Any:
        """Return the F1; 0 if nothing was counted."""
        if self.numerator is None:
            return ops.zeros((), self.dtype)
        if self.average == "micro":
            return ops.divide_no_nan(ops.sum(self.numerator), ops.sum(self.denominator))
        num_present = ops.sum(ops.cast(self.denominator > 0, self.dtype))
        scores = ops.divide_no_nan(self.numerator, self.denominator)
        return ops.divide_no_nan(ops.sum(scores), num_present)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "average": self.average}
