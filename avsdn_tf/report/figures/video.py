"""The prediction of one video: events and probabilities over its time."""

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from avsdn_tf.events import VideoPrediction
from avsdn_tf.report.figures.output import MUTED, STYLE, category_colors


@mpl.rc_context(STYLE)
def prediction(found: VideoPrediction) -> Figure:
    """Draw the prediction of one video: events above, probabilities below.

    A curve is drawn for every category that has an event, and for background.
    """
    events = found.events
    names = [name for name in found.categories if name in {e.category for e in events}]
    colors = dict(
        zip(found.categories, category_colors(len(found.categories)), strict=True)
    )
    lanes_in = 0.3 * max(1, len(names))
    figure = Figure(figsize=(9, 2.9 + lanes_in), layout="constrained")
    lanes, curves = figure.subplots(
        2, sharex=True, gridspec_kw={"height_ratios": [lanes_in, 2.0]}
    )
    for lane, name in enumerate(names):
        bars = [(e.start_s, e.end_s - e.start_s) for e in events if e.category == name]
        lanes.broken_barh(bars, (lane - 0.4, 0.8), color=colors[name])
    lanes.set_yticks(range(len(names)), names)
    lanes.set_ylim(max(1, len(names)) - 0.5, -0.5)
    lanes.set_title(found.name, loc="left")
    lanes.tick_params(length=0)
    if not names:
        lanes.text(
            0.5, 0.5, "no event", transform=lanes.transAxes, ha="center", va="center"
        )
    segments = np.arange(len(found.probabilities))
    middles_s = found.start_s + (segments + 0.5) * found.segment_s
    drawn = {}
    for index, name in enumerate(found.classes):
        if name in names or index == len(found.categories):
            (drawn[name],) = curves.plot(
                middles_s,
                100 * found.probabilities[:, index],
                color=colors.get(name, MUTED),
                linestyle="-" if name in names else "--",
                marker="o",
                markersize=2,
            )
    curves.set_xlim(found.start_s, found.end_s)
    curves.set_ylim(0, 102)
    curves.set_xlabel("seconds")
    curves.set_ylabel("probability (%)")
    curves.grid(axis="y", linewidth=0.6)
    # By default a legend leaves out names that begin with an underscore.
    figure.legend(drawn.values(), drawn.keys(), loc="outside lower left", ncols=3)
    return figure
