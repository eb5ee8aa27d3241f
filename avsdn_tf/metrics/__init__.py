"""The scores of segments and events: functions that count, and Keras metrics of them.

Reports and metrics use the same counts, so that streaming a split in batches gives the
score of its report.
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
