"""Colours, style, and output of figures as files and as SVG elements."""

import colorsys
import contextlib
import io
import pathlib
import re
import textwrap
import warnings
from collections.abc import Iterator

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.figure import Figure

from avsdn_tf.files import atomic_write
from avsdn_tf.text import short_name

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
# Colours that differ in the page's dark scheme; see static/page.css.
_CSS_VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    LINES: "var(--lines)",
    TRACK: "var(--track)",
}

_LONGEST_LABEL = 40
_CROPPED = {"bbox_inches": "tight", "pad_inches": 0.1}


def category_colors(num_categories: int) -> list[str]:
    """Return one light colour per category, as hex; neighbours differ in hue."""
    colors = []
    for index in range(num_categories):
        # Golden-ratio steps spread the hues, and three shades distinguish close hues.
        hue = (0.58 + index * 0.381966) % 1.0
        lightness = (0.72, 0.80, 0.64)[index % 3]
        colors.append(mpl.colors.to_hex(colorsys.hls_to_rgb(hue, lightness, 0.62)))
    return colors


def label_of(name: str) -> str:
    """Shorten a name to a label beside a figure."""
    return short_name(name, _LONGEST_LABEL)


@contextlib.contextmanager
def unknown_glyphs() -> Iterator[None]:
    """Ignore warnings about characters missing from the font, which become boxes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        yield


def save(figure: Figure, path: pathlib.Path, disclaimer: str | None = None) -> None:
    """Write a figure to a file atomically, with a disclaimer below the figure.

    The suffix of `path` selects the format. The call freezes the figure's layout.
    """
    with atomic_write(path) as tmp_path, unknown_glyphs():
        _fix_layout(figure)
        box_in = figure.get_tightbbox()
        width_in, height_in = figure.get_size_inches()
        # 8 pt letters are about 0.07 inches wide.
        lines = [
            textwrap.fill(line, int(box_in.width / 0.07))
            for line in (disclaimer or "").splitlines()
        ]
        text = figure.text(
            (box_in.x0 + box_in.x1) / 2 / width_in,
            (box_in.y0 - 0.1) / height_in,
            "\n".join(lines),
            size=8,
            color=MUTED,
            ha="center",
            va="top",
            parse_math=False,
        )
        try:
            figure.savefig(tmp_path, dpi=150, facecolor="white", **_CROPPED)
        finally:
            text.remove()


def to_svg(figure: Figure, name: str, description: str) -> Markup:
    """Return a figure as an SVG element whose neutral colours follow the page's scheme.

    The call freezes the figure's layout.

    Args:
        figure: The figure.
        name: Prefix of the ids in the element.
        description: Text for screen readers.
    """
    target = io.StringIO()
    # Draw text as paths: the layout fits a font that the reader may not have.
    options = {"format": "svg", "transparent": True, "metadata": {"Date": None}}
    with (
        mpl.rc_context({"svg.fonttype": "path", "svg.hashsalt": "avsdn_tf"}),
        unknown_glyphs(),
    ):
        _fix_layout(figure)
        figure.savefig(target, **options, **_CROPPED)
    svg = target.getvalue()
    # HTML allows no XML declaration, and the page doesn't need the RDF metadata.
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # Make ids unique in the page: Matplotlib numbers them per figure.
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\1{name}-", svg)
    for color, variable in _CSS_VARIABLES.items():
        svg = svg.replace(color, variable)
    label = Markup('<svg role="img" aria-label="{}"').format(description)
    return Markup(svg.replace("<svg", label, 1))


def _fix_layout(figure: Figure) -> None:
    """Freeze a figure's layout: legends would move when the picture is cropped."""
    if figure.get_layout_engine() is not None:
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        for legend in figure.legends:
            legend.set_bbox_to_anchor((0, 0, 1, 1), figure.transFigure)
