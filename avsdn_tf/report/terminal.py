"""Terminal output: tables, progress bars and plain text."""

import contextlib
import logging
import os
import pathlib
import sys
from collections.abc import (
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from typing import IO, Any

import keras
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from avsdn_tf.events import VideoPrediction
from avsdn_tf.report.scores import list_scores, percent, title_of
from avsdn_tf.run_folder import RunFolder
from avsdn_tf.text import printable, printable_lines, short_name


def open_console(file: IO[str] | None = None) -> Console:
    """Return a console that shows progress bars on a real terminal only.

    Jupyter sets FORCE_COLOR, so that rich treats any output as a terminal: each redrawn
    bar would become another line.

    Args:
        file: The output. Default: `sys.stdout`.
    """
    is_interactive = None if (file or sys.stdout).isatty() else False
    return Console(file=file, force_interactive=is_interactive)


def results_table(report: Mapping[str, Any]) -> RenderableType:
    """Return the scores of a run as a table that fits 80 columns."""
    table = _empty_table(title_of(report))
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
    return _with_disclaimer(table, report["disclaimer"])


def print_report(
    console: Console, report: Mapping[str, Any], run: str | os.PathLike[str]
) -> None:
    """Print the scores of a run and the paths of its folder and page."""
    folder = RunFolder(run)
    console.print(results_table(report))
    print_plainly(console, f"Run folder: {folder.path}\nPage to open: {folder.page}")


def events_table(prediction: VideoPrediction) -> RenderableType:
    """Return the events of a video as a table."""
    table = _empty_table(prediction.name)
    table.add_column("start", justify="right", no_wrap=True)
    table.add_column("end", justify="right", no_wrap=True)
    table.add_column("event")
    table.add_column("score", justify="right", no_wrap=True)
    for event in prediction.events:
        mark = " (heard only)" if event.category in prediction.heard_only else ""
        table.add_row(
            f"{event.start_s:.1f} s",
            f"{event.end_s:.1f} s",
            Text(short_name(event.category) + mark),
            percent(event.score),
        )
    if not prediction.events:
        table.add_row("", "", "none: background throughout", "")
    return _with_disclaimer(table, prediction.disclaimer)


def rows_table(title: str, columns: Sequence[str], rows: Iterable[Any]) -> Table:
    """Return rows of values as a table."""
    table = _empty_table(title)
    table.show_header = any(columns)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(str(value))) for value in row))
    return table


def _empty_table(title: str) -> Table:
    # `Text` doesn't parse brackets in names as markup.
    title = Text(printable(title), style="bold")
    return Table(title=title, title_justify="left", box=SIMPLE_HEAD)


def _with_disclaimer(table: Table, disclaimer: str | None) -> RenderableType:
    """Return a table with the disclaimer below it, in full width."""
    if not disclaimer:
        return table
    return Group(table, Text(printable_lines(disclaimer), style="bold yellow"))


def _bar(console: Console, *columns: ProgressColumn) -> Progress:
    """Return a progress bar that is shown on terminals only, and removed at the end."""
    disable = not console.is_interactive
    return Progress(*columns, console=console, transient=True, disable=disable)


def spinner(console: Console, name: str) -> contextlib.AbstractContextManager[Any]:
    """Return a context manager that shows a name and a spinner on terminals only."""
    if not console.is_interactive:
        return contextlib.nullcontext()
    return console.status(Text(printable(name), style="bold"))


class TrainingProgress(keras.callbacks.Callback):
    """A progress bar with loss, accuracy and remaining time, shown on terminals only.

    As a context manager, it shows and removes the bar. The remaining time ignores early
    stopping.
    """

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._bar = _bar(
            console,
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeElapsedColumn(),
            TextColumn("at most"),
            TimeRemainingColumn(),
            TextColumn("left"),
        )

    def __enter__(self) -> "TrainingProgress":
        """Show the bar."""
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Remove the bar."""
        self._bar.stop()

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Set the number of steps."""
        del logs
        self._steps = self.params["steps"]
        self._task = self._bar.add_task(
            "training", total=self.params["epochs"] * self._steps, numbers=""
        )
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Store the epoch."""
        del logs
        self._epoch = epoch

    def on_train_batch_end(
        self, batch: int, logs: dict[str, Any] | None = None
    ) -> None:
        """Advance the bar."""
        logs = logs or {}
        self._bar.update(
            self._task,
            completed=self._epoch * self._steps + batch + 1,
            numbers=f"loss {logs['loss']:.4f}  accuracy {logs['accuracy']:.1%}",
        )


class TerminalHandler(logging.Handler):
    """A logging handler that prints plain lines, warnings in yellow."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.INFO)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Print a message."""
        style = "yellow" if record.levelno >= logging.WARNING else None
        print_plainly(self._console, record.getMessage(), style)


@contextlib.contextmanager
def logging_terminal(console: Console | None = None) -> Iterator[Console]:
    """Print the package's log messages within a block; yield the console."""
    console, logger = console or open_console(), logging.getLogger("avsdn_tf")
    handler, before = TerminalHandler(console), (logger.level, logger.propagate)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield console
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]


@contextlib.contextmanager
def extraction_progress(
    console: Console, num_videos: int
) -> Iterator[Callable[[pathlib.Path, str | None], None]]:
    """Show the progress of extraction: a bar on terminals, else a line per video.

    Failed videos always get a line. Yields a function to call after each video, with
    the video's path and error message (or None).
    """
    with _bar(
        console,
        # Don't parse brackets in names as markup.
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("left"),
    ) as bar:
        task = bar.add_task("extracting", total=num_videos)
        num_done = 0

        def on_done(video: pathlib.Path, failure: str | None) -> None:
            nonlocal num_done
            num_done += 1
            name = printable(video.name)
            bar.update(task, advance=1, description=name)
            if failure or not console.is_interactive:
                console.print(
                    f"{num_done}/{num_videos} {name}{': failed' if failure else ''}",
                    style="red" if failure else None,
                    highlight=False,
                    markup=False,
                    soft_wrap=True,
                )

        yield on_done


def print_plainly(console: Console, text: str, style: str | None = None) -> None:
    """Print text without markup or wrapping, which would change file names."""
    console.print(
        printable_lines(text),
        style=style,
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def list_failures(console: Console, failures: Collection[str], num_videos: int) -> None:
    """Print all error messages at the end, where the user sees them."""
    if failures:
        print_plainly(console, f"{len(failures)} of {num_videos} videos failed:")
    for failure in failures:
        print_plainly(console, f"  {failure}", style="red")
