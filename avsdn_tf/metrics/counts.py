"""Functions that count numerators and denominators of scores.

`avsdn_tf.evaluation` sums the counts over a split, Keras metrics over batches. Class
indices are `(batch, num_segments)` integers; the last class is background. Segments
with a label of -1 are padding and are not counted.
"""

from typing import Any

from keras import ops


def count_right(labels: Any, predicted: Any) -> tuple[Any, Any]:
    """Count the correct segments for segment accuracy, the score of AVE.

    Args:
        labels: True classes, `(batch, num_segments)`.
        predicted: Predicted classes, the same shape.

    Returns:
        Two arrays of the same shape: 1 where the class is correct, else 0; and 1 in
        real segments, else 0.

    Example:
        >>> right, real = avsdn_tf.metrics.count_right([[0, 0, 2, -1]], [[0, 1, 2, 2]])
        >>> np.array(right), np.array(real)
        (array([[1, 0, 1, 0]], dtype=int32), array([[1, 1, 1, 0]], dtype=int32))
    """
    is_real = ops.greater_equal(labels, 0)
    right = ops.logical_and(is_real, ops.equal(labels, predicted))
    return ops.cast(right, "int32"), ops.cast(is_real, "int32")


def count_background(labels: Any, predicted: Any, background: int) -> tuple[Any, Any]:
    """Count the true background segments that are predicted as background.

    Args:
        labels: True classes, `(batch, num_segments)`.
        predicted: Predicted classes, the same shape.
        background: Index of the background class.

    Returns:
        Two arrays of the same shape: 1 in background segments that are predicted as
        background, else 0; and 1 in all background segments, else 0.

    Example:
        >>> found, true = avsdn_tf.metrics.count_background(
        ...     [[0, 2, 2]], [[0, 1, 2]], background=2
        ... )
        >>> np.array(found), np.array(true)
        (array([[0, 0, 1]], dtype=int32), array([[0, 1, 1]], dtype=int32))
    """
    true = ops.equal(labels, background)
    found = ops.logical_and(true, ops.equal(predicted, background))
    return ops.cast(found, "int32"), ops.cast(true, "int32")


def count_segments(active: Any, predicted: Any) -> tuple[Any, Any]:
    """Count active segments for F1, the ratio of the summed counts.

    Args:
        active: 1 where a category is active, else 0; -1 in padding. Any shape.
        predicted: 1 where the category is predicted, else 0; the same shape.

    Returns:
        Two arrays of the same shape: 2 where the category is active and predicted, else
        0; and the sum of `active` and `predicted`, 0 in padding.

    Example:
        >>> numerator, denominator = avsdn_tf.metrics.count_segments(
        ...     [1, 1, 0, -1], [1, 0, 1, 1]
        ... )
        >>> np.array(numerator), np.array(denominator)
        (array([2, 0, 0, 0], dtype=int32), array([2, 1, 1, 0], dtype=int32))
    """
    predicted = ops.logical_and(ops.equal(predicted, 1), ops.greater_equal(active, 0))
    predicted = ops.cast(predicted, "int32")
    active = ops.cast(ops.equal(active, 1), "int32")
    return 2 * active * predicted, active + predicted


def count_events(
    labels: Any, predicted: Any, background: int, iou: float = 0.5
) -> tuple[Any, Any]:
    """Count whole events for micro-F1, the ratio of the summed counts.

    Events are maximal runs of one category. A predicted event is correct if a true
    event of the same clip and category overlaps it with an intersection over union of
    at least `iou`. No event can match two others, because `iou` is at least 0.5: each
    of the two would cover at least half of the event, so together they would fill it
    and be one run.

    For multi-label data, pass each category as a clip of its own with classes 1
    (active) and 0 (background).

    Args:
        labels: True classes, `(batch, num_segments)`.
        predicted: Predicted classes, the same shape.
        background: Index of the background class.
        iou: Least intersection over union, in [0.5, 1].

    Returns:
        Two arrays `(batch,)`: twice the number of correct events in each clip, and the
        number of true plus predicted events.

    Raises:
        ValueError: If `iou` is outside [0.5, 1].

    Example:
        >>> numerator, denominator = avsdn_tf.metrics.count_events(
        ...     [[0, 0, 0, 2, 1]], [[0, 0, 2, 2, 2]], background=2
        ... )
        >>> np.array(numerator), np.array(denominator)
        (array([2], dtype=int32), array([3], dtype=int32))
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
    # The intersection of a true and a predicted event is one run: count the pair at the
    # first segment of the run.
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
            "Expected iou in [0.5, 1], where no event can match two others. "
            f"Received: iou={iou}"
        )


def _changes(x: Any) -> Any:
    """Return where a segment differs from the previous one; True in the first."""
    first = ops.ones_like(x[:, :1], dtype="bool")
    return ops.concatenate([first, ops.not_equal(x[:, 1:], x[:, :-1])], axis=1)


def _runs(classes: Any, background: int) -> tuple[Any, Any]:
    """Return the run number of every segment, from 1, and where events start."""
    changes = _changes(classes)
    runs = ops.cumsum(ops.cast(changes, "int32"), axis=1)
    return runs, ops.logical_and(changes, ops.not_equal(classes, background))


def _lengths(runs: Any) -> Any:
    """Return the length of every segment's run, given the run numbers."""
    num_clips, num_segments = ops.shape(runs)
    clips = num_segments * ops.expand_dims(ops.arange(num_clips, dtype="int32"), 1)
    numbers = ops.reshape(runs - 1 + clips, (-1,))
    lengths = ops.segment_sum(
        ops.ones_like(numbers), numbers, num_segments=num_clips * num_segments
    )
    return ops.reshape(ops.take(lengths, numbers), ops.shape(runs))


def _count(x: Any) -> Any:
    return ops.sum(ops.cast(x, "int32"), axis=-1)
