"""Functions that count what scores are ratios of.

They count a batch of clips; `avsdn_tf.evaluation` sums their counts over a split, and
the metrics over the batches of `fit` and `evaluate`. Class indices are `(batch,
num_segments)` integers, of which the last class is background. A label of -1 is
padding: it counts nowhere.
"""

from typing import Any

from keras import ops


def count_right(labels: Any, predicted: Any) -> tuple[Any, Any]:
    """Count the segments whose class is right: AVE's own score is their share.

    Args:
        labels: True classes, `(batch, num_segments)`.
        predicted: Predicted classes, the same shape.

    Returns:
        1 where the class is right, and 1 in every real segment, of that shape.
    """
    is_real = ops.greater_equal(labels, 0)
    right = ops.logical_and(is_real, ops.equal(labels, predicted))
    return ops.cast(right, "int32"), ops.cast(is_real, "int32")


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


def count_segments(active: Any, predicted: Any) -> tuple[Any, Any]:
    """Count the segments of categories: F1 over them is the ratio of the two counts.

    Args:
        active: 1 where a category truly is active, else 0, or -1 in padding; of any
            shape.
        predicted: 1 where it is predicted, the same shape.

    Returns:
        2 where it is both, and the number of the two that it is, of that shape.
    """
    true = ops.cast(ops.equal(active, 1), "int32")
    found = ops.logical_and(ops.equal(predicted, 1), ops.greater_equal(active, 0))
    found = ops.cast(found, "int32")
    return 2 * true * found, true + found


def count_events(
    labels: Any, predicted: Any, background: int, iou: float = 0.5
) -> tuple[Any, Any]:
    """Count whole events: the micro-F1 over them is the ratio of the two counts.

    Events are maximal runs of one category. A predicted event is right if it shares
    its category, and an intersection over union of at least `iou`, with a true event
    of the same clip. From 0.5 upwards no event can match two: two runs that each cover
    half of a third touch, and are one run. Each category of multi-label data is counted
    as a clip of its own, whose classes are 1, and 0 for background.

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
    check_iou(iou)
    labels, predicted = ops.cast(labels, "int32"), ops.cast(predicted, "int32")
    is_padding = ops.less(labels, 0)
    labels = ops.where(is_padding, background, labels)
    predicted = ops.where(is_padding, background, predicted)
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


def check_iou(iou: float) -> None:
    """Raise ValueError if `iou` is outside [0.5, 1]."""
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
