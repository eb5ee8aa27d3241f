"""Tables of a run's scores and of a video's events for the terminal."""

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from avsdn_tf.events import VideoPrediction
from avsdn_tf.report.scores import list_scores, percent


def results_table(
    report: Mapping[str, Any], title: str, disclaimer: str | None = None
) -> Table:
    """Return the scores of a run, within 80 columns, terminal or file."""
    table = _empty_table(title, disclaimer)
    table.add_column("score")
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("95 % interval", justify="right", no_wrap=True)
    for score in list_scores(report):
        table.add_row(
            f"  {score.name.lower()} (trivial)" if score.is_baseline else score.name,
            percent(score.value),
            " to ".join(map(percent, score.interval or ())),
            style="dim" if score.is_baseline else None,
        )
    return table


def events_table(prediction: VideoPrediction) -> Table:
    """Return the events of a video as a table."""
    table = _empty_table(prediction.name, prediction.disclaimer)
    table.add_column("start", justify="right", no_wrap=True)
    table.add_column("end", justify="right", no_wrap=True)
    table.add_column("event")
    table.add_column("score", justify="right", no_wrap=True)
    for event in prediction.events:
        table.add_row(
            f"{event.start_s:.1f} s",
            f"{event.end_s:.1f} s",
            Text(event.category),
            percent(event.score),
        )
    if not prediction.events:
        table.add_row("", "", "none: background throughout", "")
    return table


def _empty_table(title: str, disclaimer: str | None) -> Table:
    return Table(
        # Text objects keep brackets in names from being read as markup.
        title=Text(title, style="bold"),
        caption=Text(disclaimer, style="bold yellow") if disclaimer else None,
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
    )
