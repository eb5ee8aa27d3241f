"""Draw figures of a run and of a video's prediction.

Every function returns a matplotlib `Figure` and doesn't change pyplot's state.
"""

from avsdn_tf.report.figures.attention import (
    MAX_MAPS,
    AttentionClip,
    attention,
    attention_colors,
)
from avsdn_tf.report.figures.lanes import MULTI_LABEL_RULE, LaneClip, lane_timelines
from avsdn_tf.report.figures.output import (
    INK,
    LINES,
    MUTED,
    STYLE,
    VALIDATION,
    category_colors,
    save,
    to_svg,
)
from avsdn_tf.report.figures.scores import confusion, learning_curves, most_confused
from avsdn_tf.report.figures.timeline import (
    CHOICE_RULE,
    TimelineClip,
    choose_clips,
    choose_evenly,
    timelines,
)
from avsdn_tf.report.figures.video import prediction

__all__ = [
    "CHOICE_RULE",
    "INK",
    "LINES",
    "MAX_MAPS",
    "MULTI_LABEL_RULE",
    "MUTED",
    "STYLE",
    "VALIDATION",
    "AttentionClip",
    "LaneClip",
    "TimelineClip",
    "attention",
    "attention_colors",
    "category_colors",
    "choose_clips",
    "choose_evenly",
    "confusion",
    "lane_timelines",
    "learning_curves",
    "most_confused",
    "prediction",
    "save",
    "timelines",
    "to_svg",
]
