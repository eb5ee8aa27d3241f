"""What all figures share: colours and settings, PNG files, and SVG inside a page."""

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
# Colours that the page's dark scheme replaces; see static/page.css.
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
        # Steps of the golden ratio spread the hues; three shades tell close hues apart.
        hue = (0.58 + index * 0.381966) % 1.0
        lightness = (0.72, 0.80, 0.64)[index % 3]
        colors.append(mpl.colors.to_hex(colorsys.hls_to_rgb(hue, lightness, 0.62)))
    return colors


def label_of(name: str) -> str:
    """Return a name that is short enough to stand beside a figure."""
    return short_name(name, _LONGEST_LABEL)


@contextlib.contextmanager
def unknown_glyphs() -> Iterator[None]:
    """Silence the warning on names in a script that the font lacks: boxes stand in."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        yield


def save(figure: Figure, path: pathlib.Path, disclaimer: str | None = None) -> None:
    """Write a figure as a PNG atomically, with a disclaimer below it.

    The figure's layout is fixed from then on.
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

    The figure's layout is fixed from then on. `name` becomes the prefix of the
    element's ids; screen readers read out the description, since text is drawn as
    paths.
    """
    target = io.StringIO()
    # Text as paths: names were fitted to their bars in a font that a reader may lack.
    options = {"format": "svg", "transparent": True, "metadata": {"Date": None}}
    with (
        mpl.rc_context({"svg.fonttype": "path", "svg.hashsalt": "avsdn_tf"}),
        unknown_glyphs(),
    ):
        _fix_layout(figure)
        figure.savefig(target, **options, **_CROPPED)
    svg = target.getvalue()
    # A page has no room for an XML declaration, and the metadata holds only addresses.
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # Matplotlib numbers the ids of every figure from 1.
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\1{name}-", svg)
    for color, variable in _CSS_VARIABLES.items():
        svg = svg.replace(color, variable)
    label = Markup('<svg role="img" aria-label="{}"').format(description)
    return Markup(svg.replace("<svg", label, 1))


def _fix_layout(figure: Figure) -> None:
    """Lay a figure out once, since legends would move when the picture is cropped."""
    if figure.get_layout_engine() is not None:
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        for legend in figure.legends:
            legend.set_bbox_to_anchor((0, 0, 1, 1), figure.transFigure)
