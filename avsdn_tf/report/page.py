"""The page of a run: one HTML file that needs nothing else."""

import html
import io
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from avsdn_tf.files import write_text
from avsdn_tf.report import figures as drawing
from avsdn_tf.report.scores import is_matching, list_scores, percent

# The colours that figures draw text, axes and empty tracks in, as properties that the
# dark scheme changes.
_SWAPPED = {
    drawing.INK: "var(--ink)",
    drawing.MUTED: "var(--muted)",
    drawing.LINES: "var(--lines)",
    drawing.TRACK: "var(--track)",
}

# What those are told who can't see a figure.
_DESCRIPTIONS = {
    "learning_curves": "Loss and accuracy of training and the accuracy of validation "
    "by epoch. Their numbers are in metrics.csv",
    "timelines": "Some test clips, second by second: their true events above the "
    "predicted ones. Their numbers are in predictions.npz",
    "confusion": "How many of each class's true segments were given each class. Their "
    "numbers are in report.json",
}

STYLE = """
:root { color-scheme: light dark; --page: #ffffff; --ink: #1f2328; --muted: #656d76;
  --lines: #d5dae0; --track: #e9ecef; --disclaimer: #fff1c9; --disclaimer-ink: #5c4300; }
@media (prefers-color-scheme: dark) { :root { --page: #16191d; --ink: #e4e7eb;
  --muted: #9aa3ad; --lines: #3a424b; --track: #2b3138; --disclaimer: #4a3a10;
  --disclaimer-ink: #ffe5a3; } }
body { background: var(--page); color: var(--ink); margin: 0 auto; max-width: 60rem;
  padding: 1rem; font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; overflow-wrap: anywhere; } h2 { margin-top: 2.5rem;
  font-size: 1.15rem; }
.disclaimer { background: var(--disclaimer); color: var(--disclaimer-ink); padding: .6rem 1rem;
  border-radius: .4rem; font-weight: 600; }
.scroll { overflow-x: auto; } .scroll svg { display: block; min-width: 38rem;
  width: 100%; height: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem 1.2rem .25rem 0; border-bottom: 1px solid var(--lines);
  text-align: left; vertical-align: top; white-space: nowrap; }
th { font-weight: 600; } .number { text-align: right; }
.prose { white-space: normal; min-width: 16rem; }
@media (max-width: 40rem) { .prose { display: none; } th, td { padding-right: .7rem; } }
.quiet, .baseline td { color: var(--muted); } .baseline td:first-child
  { padding-left: 1rem; }
pre { overflow-x: auto; background: var(--track); padding: .8rem 1rem;
  border-radius: .4rem; }
"""


# How a column is set, by its head.
_COLUMNS = {
    "value": "number",
    "segments": "number",
    "event's length": "number",
    "clips": "number",
    "A2V": "number",
    "V2A": "number",
    "random window": "number",
    "predicted": "number",
    "precision": "number",
    "recall": "number",
    "F1": "number",
    "meaning": "prose",
}


def write_page(
    path: str | os.PathLike[str],
    *,
    title: str,
    disclaimer: str | None,
    command: str,
    config: Mapping[str, Any],
    versions: Mapping[str, str],
    report: Mapping[str, Any],
    figures: Mapping[str, Figure],
) -> None:
    """Writes the page of a run, whole or not at all; it loads nothing from elsewhere.

    Args:
        path: File to write.
        title: What was run.
        disclaimer: What a reader must know before believing the numbers, or None.
        command: The command that repeats the run.
        config: All settings of the run.
        versions: Versions of the libraries.
        report: What `evaluation.evaluate` or `cross_modality.evaluate`
            returns, and `validation_accuracy`, `selected_epoch`, `epochs_run` and
            `seconds`.
        figures: `"learning_curves"`; for a report of `evaluation.evaluate` also
            `"timelines"` and `"confusion"`.
    """
    sections = _matching_sections if is_matching(report) else _segment_sections
    banner = f'<p class="disclaimer">{html.escape(disclaimer)}</p>' if disclaimer else ""
    minutes, seconds = divmod(round(report["seconds"]), 60)
    body = f"""
<h1>{html.escape(title)}</h1>
{banner}
{_table(("score", "value", "95 % interval", "meaning"), _score_rows(report))}
<h2>Learning</h2>
<p class="quiet">{report["epochs_run"]} epochs in {minutes} min {seconds} s. The dashed
line is epoch {report["selected_epoch"]}, whose weights were kept.</p>
{_svg("learning_curves", figures["learning_curves"])}
{sections(report, figures)}
<h2>How to repeat it</h2>
<pre>{html.escape(command)}</pre>
{_table(("setting", "set to"), [("", name, value) for name, value in config.items()])}
<h2>Versions</h2>
{
        _table(
            ("package", "version"),
            [("", name, value) for name, value in versions.items()],
        )
    }
"""
    page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title><style>{STYLE}</style></head>
<body>{body}</body></html>
"""
    write_text(pathlib.Path(path), page)


def _segment_sections(report: Mapping[str, Any], figures: Mapping[str, Figure]) -> str:
    """Returns what only a page on labelled segments has."""
    return f"""<h2>Timelines of test clips</h2>
<p class="quiet">{html.escape(drawing.CHOICE_RULE)}</p>
{_svg("timelines", figures["timelines"])}
<h2>Categories</h2>
{
        _table(
            ("category", "segments", "predicted", "precision", "recall", "F1"),
            _category_rows(report),
        )
    }
<h2>Confusion</h2>
<p class="quiet">Percent of a class's true segments (their number in brackets) that were
given each class.</p>
{_svg("confusion", figures["confusion"])}"""


def _matching_sections(report: Mapping[str, Any], figures: Mapping[str, Figure]) -> str:
    """Returns what only a page on cross-modality localization has."""
    del figures
    rows = [
        (
            "",
            f"{row['length']} s",
            f"{row['clips']:,}",
            *(
                percent(row[name])
                for name in ("a2v_accuracy", "v2a_accuracy", "random_window")
            ),
        )
        for row in report["by_length"]
    ]
    return f"""<p class="quiet">The two accuracies are of different things. Training
counts pairs of one segment's sound and picture: right is a distance nearer to 0 than to
the margin for an event, and not for background. Validation counts whole events, found
where they start.</p>
<h2>Lengths of events</h2>
<p class="quiet">The event is known in one modality. A window of its length slides over
the other; the one with the smallest summed distance must start exactly where the event
does. The longer the event, the fewer windows there are. Clips without an event, with
one as long as the clip, or with several are left out:
{report["num_clips_left_out"]:,} of the test split.</p>
{_table(("event's length", "clips", "A2V", "V2A", "random window"), rows)}"""


def _score_rows(report: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    rows = []
    for score in list_scores(report):
        interval = " to ".join(percent(bound) for bound in score.interval or ())
        kind = "baseline" if score.is_baseline else ""
        rows.append((kind, score.name, percent(score.value), interval, score.meaning))
    return rows


def _category_rows(report: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    return [
        (
            "",
            row["category"],
            f"{row['segments']:,}",
            f"{row['predicted']:,}",
            *(percent(row[name]) for name in ("precision", "recall", "f1")),
        )
        for row in report["per_category"]
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Returns a table that scrolls by itself; a row starts with its CSS class."""
    columns = [_COLUMNS.get(name, "") for name in head]

    def cell(tag: str, text: Any, column: str) -> str:
        kind = f' class="{column}"' if column else ""
        return f"<{tag}{kind}>{html.escape(str(text))}</{tag}>"

    lines = ["".join(map(cell, ["th"] * len(head), head, columns))]
    kinds = [""]
    for kind, *values in rows:
        lines.append("".join(map(cell, ["td"] * len(head), values, columns)))
        kinds.append(f' class="{kind}"' if kind else "")
    table = "\n".join(
        f"<tr{kind}>{line}</tr>" for kind, line in zip(kinds, lines, strict=True)
    )
    return f'<div class="scroll"><table>{table}</table></div>'


def _svg(name: str, figure: Figure) -> str:
    """Returns a figure as inline SVG whose neutral colours follow the page's scheme."""
    target = io.StringIO()
    # Text as paths: names were fitted to their bars in a font that a reader may lack.
    with (
        mpl.rc_context({"svg.fonttype": "path", "svg.hashsalt": "avsdn_tf"}),
        drawing.unknown_glyphs(),
    ):
        figure.savefig(target, format="svg", transparent=True, metadata={"Date": None})
    svg = target.getvalue()
    # The XML declaration and the doctype belong to a file of its own, and the metadata
    # holds nothing but addresses.
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # Matplotlib counts from figure_1 in every figure, and a page has several.
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\1{name}-", svg)
    for color, variable in _SWAPPED.items():
        svg = svg.replace(color, variable)
    # Its text is drawn, so that nothing in it can be read aloud.
    label = html.escape(_DESCRIPTIONS[name])
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
    return f'<div class="scroll">{svg}</div>'
