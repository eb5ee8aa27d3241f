"""Scores of segments and events: counting functions, and Keras metrics that call them.

Reports use the same counting functions, so a metric over the batches of a split equals
the split's score in the report.
"""

from avsdn_tf.metrics.counts import (
    count_background,
    count_events,
    count_right,
    count_segments,
)
from avsdn_tf.metrics.streaming import (
    BackgroundRecall,
    EventF1,
    SegmentAccuracy,
    SegmentF1,
)

__all__ = [
    "BackgroundRecall",
    "EventF1",
    "SegmentAccuracy",
    "SegmentF1",
    "count_background",
    "count_events",
    "count_right",
    "count_segments",
]
