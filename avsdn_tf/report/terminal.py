"""What a run and a prediction say at last, on the terminal."""

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
    """Returns the scores of a run, trivial baselines beside them.

    Args:
        report: What `evaluation.evaluate` or `cross_modality.evaluate`
            returns, and `validation_accuracy`, `selected_epoch` and `epochs_run`.
        title: What was run.
        disclaimer: What a reader must know before believing the numbers, or None.

    Returns:
        A table that a rich console prints in 80 columns, terminal or file.
    """
    table = Table(
        # Text objects: a title is no markup, whatever brackets it holds.
        title=Text(title, style="bold"),
        caption=Text(disclaimer, style="bold yellow") if disclaimer else None,
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
    )
    table.add_column("score")
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("95 % interval", justify="right", no_wrap=True)
    for score in list_scores(report):
        interval = ""
        if score.interval:
            interval = " to ".join(percent(bound) for bound in score.interval)
        table.add_row(
            f"  {score.name.lower()} (trivial)" if score.is_baseline else score.name,
            percent(score.value),
            interval,
            style="dim" if score.is_baseline else None,
        )
    return table


def events_table(prediction: VideoPrediction) -> Table:
    """Returns the events of a video."""
    disclaimer = prediction.disclaimer
    table = Table(
        title=Text(prediction.name, style="bold"),
        caption=Text(disclaimer, style="bold yellow") if disclaimer else None,
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
    )
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
