"""All scores of a split, as in a run's report."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from avsdn_tf.evaluation import segments
from avsdn_tf.evaluation.categories import F1, lanes_of, per_category_of_many
from avsdn_tf.evaluation.detection import mean_average_precision
from avsdn_tf.evaluation.predictions import Predictions
from avsdn_tf.events import check_thresholds
from avsdn_tf.intervals import bootstrap_interval

# Up to this number of classes, report.json holds the confusion matrix.
_MAX_MATRIX_CLASSES = 48
# First keys of report.json, in this order. Undefined scores are None.
_ORDER = (
    "accuracy",
    "interval",
    "background_recall",
    "event_f1",
    "partial_clip_accuracy",
    "trivial",
    "num_clips",
    "num_segments",
    "per_category",
    "most_confused",
    "confusion_matrix",
)


def evaluate(
    predictions: Predictions,
    categories: Sequence[str],
    thresholds: Sequence[float] | None = None,
) -> dict[str, Any]:
    """Score a split.

    The predicted class of a segment is the argmax of its logits. With multi-label
    predictions, a category is predicted where the sigmoid of its logit reaches its
    threshold; a segment without a predicted category is background. Padding is not
    counted.

    Args:
        predictions: Logits and labels of the split.
        categories: Names of the K categories.
        thresholds: For multi-label predictions, the thresholds; None for 0.5 each.

    Returns:
        A JSON-ready dictionary. For single-label predictions (None for multi-label):

        - `accuracy`, and `interval`, its 95 % bootstrap interval over clips, `[low,
          high]`, or None for one clip.
        - `partial_clip_accuracy`, `most_confused`: see the functions in `segments`.
        - `trivial`: see `segments.trivial_baselines`.
        - `confusion_matrix`: counts of segments by true class (rows) and predicted
          class; None for more than 48 classes.

        For all predictions:

        - `background_recall`, `num_clips`, `num_segments`, `multi_label`, `thresholds`.
        - `per_category`: see `segments.per_category`.
        - `event_f1`: F1 of events at IoU 0.5.
        - `segment_f1`: F1 of the segments of all categories; `segment_f1_macro`: mean
          over categories.
        - `map`: see `mean_average_precision`.
        - `llp_segment_f1`, `llp_event_f1`: see `F1.mean_over_clips`.
        - `intervals`: 95 % bootstrap intervals of `segment_f1` and `event_f1`.

    Raises:
        ValueError: If there is no segment, the logits or labels don't match the number
            of categories, or a logit is NaN or infinite; then, the message names the
            row of the first clip with such a logit.
    """
    _check(predictions, len(categories))
    num_clips, real = len(predictions.row), predictions.is_real
    lanes = lanes_of(predictions, thresholds)
    of_segments, of_events = F1.of_segments(lanes), F1.of_events(lanes)
    if predictions.multi_label:
        scores = {"per_category": per_category_of_many(lanes, real, categories)}
        thresholds = check_thresholds(thresholds, len(categories)).tolist()
    else:
        scores = _single_label_scores(predictions, categories)
        thresholds = None
    return {
        **dict.fromkeys(_ORDER),
        **scores,
        "background_recall": scores["per_category"][-1]["recall"],
        "event_f1": of_events.micro(),
        "num_clips": num_clips,
        "num_segments": int(real.sum()),
        "segment_f1": of_segments.micro(),
        "segment_f1_macro": of_segments.macro(),
        "map": mean_average_precision(lanes),
        "llp_segment_f1": of_segments.mean_over_clips(num_clips),
        "llp_event_f1": of_events.mean_over_clips(num_clips),
        "intervals": {
            "segment_f1": interval_over_clips(*of_segments.per_clip(num_clips)),
            "event_f1": interval_over_clips(*of_events.per_clip(num_clips)),
        },
        "multi_label": predictions.multi_label,
        "thresholds": thresholds,
    }


def _single_label_scores(
    predictions: Predictions, categories: Sequence[str]
) -> dict[str, Any]:
    """Return the scores that only single-label predictions have."""
    background, real = len(categories), predictions.is_real
    labels, predicted = predictions.labels, predictions.logits.argmax(axis=2)
    matrix = None
    if background < _MAX_MATRIX_CLASSES:
        matrix = segments.confusion_matrix(labels, predicted, background + 1).tolist()
    return {
        "accuracy": segments.accuracy(labels, predicted),
        "interval": interval_over_clips(
            ((labels == predicted) & real).mean(axis=1), real.mean(axis=1)
        ),
        "partial_clip_accuracy": segments.partial_clip_accuracy(
            labels, predicted, background
        ),
        "trivial": segments.trivial_baselines(
            labels, predictions.clip_labels, background
        ),
        "per_category": segments.per_category(labels, predicted, categories),
        "most_confused": segments.most_confused(labels, predicted, categories),
        "confusion_matrix": matrix,
    }


def interval_over_clips(
    per_clip: np.ndarray, denominators: np.ndarray | None = None
) -> list[float] | None:
    """Return the 95 % bootstrap interval `[low, high]` of a mean or ratio over clips.

    None for fewer than two clips, or a ratio whose denominators are all 0. The
    arguments are those of `bootstrap_interval`.
    """
    if len(per_clip) < 2 or (denominators is not None and not denominators.any()):
        return None
    return list(bootstrap_interval(per_clip, denominators))


def _check(predictions: Predictions, num_categories: int) -> None:
    """Raise ValueError unless the predictions can be scored."""
    logits, labels = predictions.logits, predictions.labels
    if not predictions.is_real.any():
        raise ValueError(f"Expected at least one segment. Received: {labels.shape}")
    num_classes = num_categories + (not predictions.multi_label)
    if logits.shape[2] != num_classes:
        background = "" if predictions.multi_label else " and background"
        raise ValueError(
            f"Expected logits of {num_classes} classes: {num_categories} categories"
            f"{background}. Received: {logits.shape[2]}"
        )
    for name, least in (("labels", -1), ("clip_labels", 0)):
        classes = getattr(predictions, name)
        if classes.min() < least or classes.max() > num_categories:
            raise ValueError(
                f"Expected {name} from 0 to {num_categories}. "
                f"Received: {classes.min()} to {classes.max()}"
            )
    broken = ~np.isfinite(logits).all(axis=(1, 2))
    if broken.any():
        raise ValueError(
            "Expected finite logits. Received: NaN or infinite logits in "
            f"{broken.sum()} of {len(broken)} clips, first in row "
            f"{predictions.row[broken.argmax()]}"
        )
