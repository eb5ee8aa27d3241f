"""The scores of segments and events: functions that count, and Keras metrics of them.

The functions count a batch of clips; `avsdn_tf.evaluation` sums their counts over a
split, and the metrics over the batches of `fit` and `evaluate`. Class indices are
`(batch, num_segments)` integers, of which the last class is background.
"""

from typing import Any

import keras
from keras import ops


def count_right(labels: Any, predicted: Any) -> tuple[Any, Any]:
    """Count the segments whose class is right: AVE's own score is their share.

    Args:
        labels: True classes, `(batch, num_segments)`.
        predicted: Predicted classes, the same shape.

    Returns:
        1 where the class is right, and 1 in every segment, of that shape.
    """
    right = ops.cast(ops.equal(labels, predicted), "int32")
    return right, ops.ones_like(right)


def count_background(labels: Any, predicted: Any, background: int) -> tuple[Any, Any]:
    """Count the true background segments that are found.

    Args:
        labels: True classes, `(batch, num_segments)`.
        predicted: Predicted classes, the same shape.
        background: Index of the background class.

    Returns:
        1 in found background segments, and 1 in background segments, of that shape.
    """
    true = ops.equal(labels, background)
    found = ops.logical_and(true, ops.equal(predicted, background))
    return ops.cast(found, "int32"), ops.cast(true, "int32")


def count_events(
    labels: Any, predicted: Any, background: int, iou: float = 0.5
) -> tuple[Any, Any]:
    """Count whole events: the micro-F1 over them is the ratio of the two counts.

    Events are maximal runs of one category. A predicted event is right if it shares
    its category, and an intersection over union of at least `iou`, with a true event
    of the same clip. From 0.5 upwards no event can match two: two runs that each cover
    half of a third touch, and are one run.

    Args:
        labels: True classes, `(batch, num_segments)`.
        predicted: Predicted classes, the same shape.
        background: Index of the background class.
        iou: Least intersection over union, in [0.5, 1].

    Returns:
        Of every clip, twice the number of right events, and the number of true plus
        that of predicted events, `(batch,)` each.

    Raises:
        ValueError: If `iou` is outside [0.5, 1].
    """
    _check_iou(iou)
    labels, predicted = ops.cast(labels, "int32"), ops.cast(predicted, "int32")
    true_runs, true_starts = _runs(labels, background)
    predicted_runs, predicted_starts = _runs(predicted, background)
    shared = ops.logical_and(
        ops.equal(labels, predicted), ops.not_equal(labels, background)
    )
    # The segments that a true and a predicted event share are one run: its first
    # segment stands for the pair.
    new_run = ops.logical_or(_changes(true_runs), _changes(predicted_runs))
    first = ops.logical_and(shared, new_run)
    intersection = _lengths(ops.cumsum(ops.cast(new_run, "int32"), axis=1))
    union = _lengths(true_runs) + _lengths(predicted_runs) - intersection
    overlap = ops.cast(intersection, "float32") / ops.cast(union, "float32")
    right = ops.logical_and(first, overlap >= iou)
    return 2 * _count(right), _count(true_starts) + _count(predicted_starts)


def _check_iou(iou: float) -> None:
    if not 0.5 <= iou <= 1:
        raise ValueError(
            "Expected iou in [0.5, 1], where no two events can match the same one. "
            f"Received: iou={iou}"
        )


def _changes(x: Any) -> Any:
    """Return where a segment differs from the one before; the first always does."""
    first = ops.ones_like(x[:, :1], dtype="bool")
    return ops.concatenate([first, ops.not_equal(x[:, 1:], x[:, :-1])], axis=1)


def _runs(classes: Any, background: int) -> tuple[Any, Any]:
    """Return the number of every segment's run, and where an event starts."""
    changes = _changes(classes)
    runs = ops.cumsum(ops.cast(changes, "int32"), axis=1)
    return runs, ops.logical_and(changes, ops.not_equal(classes, background))


def _lengths(runs: Any) -> Any:
    """Return how many segments each segment's run has, given the runs' numbers."""
    num_clips, num_segments = ops.shape(runs)
    clips = num_segments * ops.expand_dims(ops.arange(num_clips, dtype="int32"), 1)
    numbers = ops.reshape(runs - 1 + clips, (-1,))
    lengths = ops.segment_sum(
        ops.ones_like(numbers), numbers, num_segments=num_clips * num_segments
    )
    return ops.reshape(ops.take(lengths, numbers), ops.shape(runs))


def _count(x: Any) -> Any:
    return ops.sum(ops.cast(x, "int32"), axis=-1)


class _Ratio(keras.metrics.Metric):
    """Base of the metrics: the ratio of two counts, each summed over all batches.

    Call arguments:
        y_true: `(batch, num_segments, num_classes)`, one-hot or a distribution, whose
            largest share counts; or class indices `(batch, num_segments)`.
        y_pred: Logits or probabilities, `(batch, num_segments, num_classes)`.
        sample_weight: `(batch,)` or `(batch, num_segments)`, or None for 1 each.
    """

    def __init__(
        self, name: str | None = None, dtype: Any = None, **kwargs: Any
    ) -> None:
        super().__init__(name=name, dtype=dtype, **kwargs)
        self.part = self.add_variable((), "zeros", name="part")
        self.whole = self.add_variable((), "zeros", name="whole")

    def counts(self, labels: Any, predicted: Any, background: int) -> tuple[Any, Any]:
        """Return the two counts, of each clip or of each segment."""
        raise NotImplementedError

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch."""
        y_true, y_pred = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
        if len(y_pred.shape) != 3:
            raise ValueError(
                "Expected y_pred of shape (batch, num_segments, num_classes). "
                f"Received: {tuple(y_pred.shape)}"
            )
        labels = y_true
        if len(y_true.shape) == 3:
            is_index = y_true.shape[-1] == 1 != y_pred.shape[-1]
            labels = y_true[..., 0] if is_index else ops.argmax(y_true, axis=-1)
        if len(labels.shape) != 2 or labels.shape[1] not in (None, y_pred.shape[1]):
            raise ValueError(
                "Expected y_true of the shape of y_pred, or class indices (batch, "
                f"num_segments). Received: y_true {tuple(y_true.shape)}, y_pred "
                f"{tuple(y_pred.shape)}"
            )
        counts = self.counts(
            ops.cast(labels, "int32"),
            ops.cast(ops.argmax(y_pred, axis=-1), "int32"),
            y_pred.shape[-1] - 1,
        )
        for total, values in zip((self.part, self.whole), counts, strict=True):
            values = ops.cast(values, self.dtype)
            if sample_weight is not None:
                values = values * _weights(sample_weight, values)
            total.assign_add(ops.sum(values))

    def result(self) -> Any:
        """Return the ratio; 0 if there is nothing to count."""
        return ops.divide_no_nan(self.part, self.whole)


def _weights(sample_weight: Any, values: Any) -> Any:
    """Return weights that broadcast to counts of clips or of segments."""
    weights = ops.cast(sample_weight, values.dtype)
    if len(weights.shape) == 3:
        weights = ops.squeeze(weights, -1)
    if len(weights.shape) < len(values.shape):
        return ops.expand_dims(weights, 1)
    if len(weights.shape) > len(values.shape):
        return ops.mean(weights, axis=1)
    return weights


@keras.saving.register_keras_serializable(package="avsdn_tf")
class SegmentAccuracy(_Ratio):
    """Share of all segments whose class is right, background included: AVE's score.

    Args:
        name: Name of the metric.
        dtype: Dtype of the sums.

    Call arguments:
        y_true: One-hot or distribution `(batch, num_segments, num_classes)`, or class
            indices `(batch, num_segments)`.
        y_pred: Logits or probabilities, `(batch, num_segments, num_classes)`.
        sample_weight: `(batch,)` or `(batch, num_segments)`.

    Returns:
        The share, in [0, 1].

    Example:
        >>> model.compile("adam", loss, metrics=[SegmentAccuracy(), EventF1()])

    Reference:
        Tian et al., ECCV 2018, https://arxiv.org/abs/1803.08842.
    """

    def __init__(self, name: str = "segment_accuracy", **kwargs: Any) -> None:
        super().__init__(name, **kwargs)

    def counts(self, labels: Any, predicted: Any, background: int) -> tuple[Any, Any]:
        """Return `count_right`."""
        return count_right(labels, predicted)


@keras.saving.register_keras_serializable(package="avsdn_tf")
class BackgroundRecall(_Ratio):
    """Share of the true background segments that are predicted as background.

    Args:
        name: Name of the metric.
        dtype: Dtype of the sums.

    Call arguments:
        y_true: As in `SegmentAccuracy`; the last class is background.
        y_pred: As in `SegmentAccuracy`.
        sample_weight: As in `SegmentAccuracy`.

    Returns:
        The share, in [0, 1]; 0 if there is no background segment.
    """

    def __init__(self, name: str = "background_recall", **kwargs: Any) -> None:
        super().__init__(name, **kwargs)

    def counts(self, labels: Any, predicted: Any, background: int) -> tuple[Any, Any]:
        """Return `count_background`."""
        return count_background(labels, predicted, background)


@keras.saving.register_keras_serializable(package="avsdn_tf")
class EventF1(_Ratio):
    """Micro-F1 of whole events, see `count_events`.

    Args:
        iou: Least intersection over union of a right event, in [0.5, 1].
        name: Name of the metric.
        dtype: Dtype of the sums.

    Call arguments:
        y_true: As in `SegmentAccuracy`; the last class is background.
        y_pred: As in `SegmentAccuracy`.
        sample_weight: `(batch,)`, or `(batch, num_segments)`, whose mean over the
            segments is the weight of a clip's events.

    Returns:
        F1, in [0, 1]; 0 if there are no events.

    Raises:
        ValueError: If `iou` is outside [0.5, 1].
    """

    def __init__(self, iou: float = 0.5, name: str = "event_f1", **kwargs: Any) -> None:
        super().__init__(name, **kwargs)
        _check_iou(iou)
        self.iou = iou

    def counts(self, labels: Any, predicted: Any, background: int) -> tuple[Any, Any]:
        """Return `count_events`."""
        return count_events(labels, predicted, background, self.iou)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "iou": self.iou}
