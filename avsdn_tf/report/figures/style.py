"""Colours and matplotlib settings that all figures share."""

import colorsys

import matplotlib as mpl

INK = "#1f2328"
MUTED = "#656d76"
LINES = "#d5dae0"
TRACK = "#e9ecef"
TRAINING = "#9a8ad0"
VALIDATION = "#2f6fde"

STYLE = {
    "axes.edgecolor": LINES,
    "axes.labelcolor": MUTED,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "grid.color": LINES,
    "legend.frameon": False,
    "text.color": INK,
    # Category names may hold dollar signs.
    "text.parse_math": False,
    "xtick.color": LINES,
    "xtick.labelcolor": MUTED,
    "ytick.color": LINES,
    "ytick.labelcolor": MUTED,
}


def category_colors(num_categories: int) -> list[str]:
    """Return one light colour per category, as hex; neighbours differ in hue."""
    colors = []
    for index in range(num_categories):
        # Steps of the golden ratio spread the hues; three shades tell close hues apart.
        hue = (0.58 + index * 0.381966) % 1.0
        lightness = (0.72, 0.80, 0.64)[index % 3]
        colors.append(mpl.colors.to_hex(colorsys.hls_to_rgb(hue, lightness, 0.62)))
    return colors
