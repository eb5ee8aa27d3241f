"""Scores of a split: AVE's protocol, multi-label F1, baselines and intervals.

Scores are in [0, 1]. An undefined score, such as background recall without background
segments, is None, never NaN.
"""

from avsdn_tf.evaluation.categories import F1, Lanes, lanes_of
from avsdn_tf.evaluation.detection import average_precision, mean_average_precision
from avsdn_tf.evaluation.predictions import ClipArrays, Predictions
from avsdn_tf.evaluation.report import evaluate, interval_over_clips
from avsdn_tf.evaluation.segments import (
    accuracy,
    background_recall,
    confusion_matrix,
    event_f1,
    most_confused,
    partial_clip_accuracy,
    partial_clips,
    per_category,
    trivial_baselines,
)

__all__ = [
    "F1",
    "ClipArrays",
    "Lanes",
    "Predictions",
    "accuracy",
    "average_precision",
    "background_recall",
    "confusion_matrix",
    "evaluate",
    "event_f1",
    "interval_over_clips",
    "lanes_of",
    "mean_average_precision",
    "most_confused",
    "partial_clip_accuracy",
    "partial_clips",
    "per_category",
    "trivial_baselines",
]
