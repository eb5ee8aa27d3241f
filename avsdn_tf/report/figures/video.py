"""Draw the prediction of a video."""

import collections

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from avsdn_tf.events import VideoPrediction
from avsdn_tf.report.figures.output import MUTED, STYLE, category_colors, label_of
from avsdn_tf.text import short_name

# Limits of a readable figure.
_MAX_LANES = 24
_MAX_MARKERS = 500


@mpl.rc_context(STYLE)
def prediction(video: VideoPrediction) -> Figure:
    """Draw the prediction of one video: events above, probabilities below.

    Every category with events has a curve. If more than 24 categories have events, only
    the 24 whose events have the largest total length are drawn. Single-label
    predictions add the curve of background. Multi-label predictions add the thresholds
    and, if there is no event, the curve of the most probable category.
    """
    events = video.events
    lengths_s: dict[str, float] = collections.defaultdict(float)
    for event in events:
        lengths_s[event.category] += event.end_s - event.start_s
    longest = set(sorted(lengths_s, key=lengths_s.get, reverse=True)[:_MAX_LANES])
    names = [name for name in video.categories if name in longest]
    num_left_out = len(lengths_s) - len(names)
    colors = dict(
        zip(video.categories, category_colors(len(video.categories)), strict=True)
    )
    lanes_in = 0.3 * max(1, len(names))
    figure = Figure(figsize=(9, 2.9 + lanes_in), layout="constrained")
    lanes, curves = figure.subplots(
        2, sharex=True, gridspec_kw={"height_ratios": [lanes_in, 2.0]}
    )
    for lane, name in enumerate(names):
        bars = [(e.start_s, e.end_s - e.start_s) for e in events if e.category == name]
        lanes.broken_barh(bars, (lane - 0.4, 0.8), color=colors[name])
    lanes.set_yticks(range(len(names)), map(label_of, names))
    lanes.set_ylim(max(1, len(names)) - 0.5, -0.5)
    more = f" ({num_left_out} more categories not shown)" if num_left_out else ""
    lanes.set_title(short_name(video.name, 80) + more, loc="left")
    lanes.tick_params(length=0)
    if not names:
        lanes.text(
            0.5, 0.5, "no event", transform=lanes.transAxes, ha="center", va="center"
        )
    segments = np.arange(len(video.probabilities))
    middles_s = video.start_s + (segments + 0.5) * video.segment_s
    drawn = {}
    extra_index = len(video.categories)
    if video.multi_label and not names:
        extra_index = int(video.probabilities.max(axis=0).argmax())
    for index, name in enumerate(video.classes):
        if name not in names and index != extra_index:
            continue
        color = colors.get(name, MUTED)
        (drawn[name],) = curves.plot(
            middles_s,
            100 * video.probabilities[:, index],
            color=color,
            linestyle="-" if name in colors else "--",
            marker="o" if len(segments) <= _MAX_MARKERS else None,
            markersize=2,
        )
        if video.multi_label:
            threshold = 100 * video.thresholds[index]
            curves.axhline(threshold, color=color, linestyle=":", linewidth=1)
    curves.set_xlim(video.start_s, video.end_s)
    curves.set_ylim(0, 102)
    curves.set_xlabel("seconds")
    curves.set_ylabel("probability (%)")
    curves.grid(axis="y", linewidth=0.6)
    # Pass the handles: by default, legends omit names that start with an underscore.
    labels = map(label_of, drawn)
    figure.legend(drawn.values(), labels, loc="outside lower left", ncols=3)
    return figure
