"""Mean average precision of events by ActivityNet's protocol.

A prediction is correct at a threshold of temporal intersection over union (IoU) if its
IoU with a true event of the same category and clip reaches the threshold. Predictions
are matched in order of descending score, each with the unmatched true event of highest
IoU. Average precision is the area under the precision-recall curve, with precision at
each recall replaced by the best precision at that recall or above. Categories without
true events are excluded from the mean.

ActivityNet's evaluation: https://github.com/activitynet/ActivityNet, eval_detection.py.
"""

import numpy as np

from avsdn_tf.evaluation.categories import Lanes

# Quotients, not multiples of 0.1: an IoU of 3 / 10 must reach the threshold 0.3.
IOUS = np.arange(1, 10) / 10


def mean_average_precision(lanes: Lanes) -> dict[str, float | None]:
    """Return the mean average precision at each IoU of `IOUS`.

    An event's score is the mean probability of its category over its segments.

    Returns:
        The precisions at `"0.1"` to `"0.9"`, and their `"mean"`. All are None if there
        is no true event.
    """
    names = [*map(str, IOUS), "mean"]
    order = np.argsort(lanes.category, kind="stable")
    starts = np.flatnonzero(np.diff(lanes.category[order])) + 1
    precisions = [
        _category_precision(Lanes(*(x[chosen] for x in lanes)))
        for chosen in np.split(order, starts)
        if lanes.true[chosen].any()
    ]
    if not precisions:
        return dict.fromkeys(names)
    values = np.mean(precisions, axis=0)
    return dict(zip(names, [*values.tolist(), float(values.mean())], strict=True))


def _category_precision(lanes: Lanes) -> np.ndarray:
    """Return the average precision of one category's lanes, at each IoU of `IOUS`."""
    sums = np.pad(lanes.probability, [(0, 0), (1, 0)]).cumsum(axis=1)
    lane, first, end = _runs(lanes.predicted)
    scores = (sums[lane, end] - sums[lane, first]) / (end - first)
    num_segments = lanes.true.shape[1]
    true, predicted = (
        np.stack([first, end], axis=1) + num_segments * lane[:, np.newaxis]
        for lane, first, end in (_runs(lanes.true), (lane, first, end))
    )
    return average_precision(true, predicted, scores)


def _runs(active: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return lane, first segment and exclusive end of all events."""
    padded = np.pad(active, [(0, 0), (1, 1)])
    lane, edge = np.nonzero(padded[:, 1:] != padded[:, :-1])
    return lane[::2], edge[::2], edge[1::2]


def average_precision(
    true: np.ndarray, predicted: np.ndarray, scores: np.ndarray
) -> np.ndarray:
    """Return the average precision of one category at each IoU of `IOUS`.

    Args:
        true: Start and end of the true events, `(num_true, 2)`: at least one, in order
            of time, without overlap. Clips are laid out one after another on one axis.
        predicted: Start and end of the predicted events, `(num_predicted, 2)`, in any
            order.
        scores: Scores of the predicted events, `(num_predicted,)`.

    Returns:
        `(len(IOUS),)`.
    """
    is_unmatched = np.ones((len(true), len(IOUS)), bool)
    is_correct = np.zeros((len(predicted), len(IOUS)), bool)
    for rank, event in enumerate(np.argsort(-scores, kind="stable")):
        start, end = predicted[event]
        near = slice(
            np.searchsorted(true[:, 1], start, "right"),
            np.searchsorted(true[:, 0], end, "left"),
        )
        overlap = np.minimum(true[near, 1], end) - np.maximum(true[near, 0], start)
        union = np.maximum(true[near, 1], end) - np.minimum(true[near, 0], start)
        iou = overlap / union
        for best in np.argsort(-iou, kind="stable"):
            # A view: assigning to it changes `is_unmatched`.
            unmatched = is_unmatched[near][best]
            matches = unmatched & (iou[best] >= IOUS) & ~is_correct[rank]
            unmatched[matches] = False
            is_correct[rank, matches] = True
    num_correct = is_correct.cumsum(axis=0)
    recall = num_correct / len(true)
    precision = num_correct / np.arange(1, len(predicted) + 1)[:, np.newaxis]
    best_precision = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    return (np.diff(recall, axis=0, prepend=0) * best_precision).sum(axis=0)
