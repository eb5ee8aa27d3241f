"""avsdn manifest: write the manifest of your own data from videos and labels."""

import argparse
import contextlib
import os
import pathlib
import shlex
import sys
from collections.abc import Callable, Iterator
from typing import Any

from avsdn_tf.cli import flags
from avsdn_tf.cli.flags import Flag
from avsdn_tf.cli.start import start
from avsdn_tf.errors import UserError
from avsdn_tf.text import count, short_name

SUMMARY = "Write the manifest of your own data from videos and labels."
USAGE = "FOLDER [FLAGS]"
EXAMPLE = """avsdn manifest my_videos
avsdn manifest my_videos --labels=labels.csv --group='(.+)_\\d+'"""
# Copied from `labels.formats`, which imports TensorFlow; a test compares the names.
FORMATS = (
    *("events", "webvtt", "audacity", "activitynet", "ov_ave", "avel", "ave_pm"),
    *("llp", "csv"),
)
_SHARES = "70/15/15"
_SHOWN_CATEGORIES = 20
_SHOWN_FILES = 10


FEATURES = (
    Flag("audio", "Audio feature files, such as vggish/*.npy.", metavar="PATTERN"),
    Flag("visual", "Visual feature files, such as resnet/*.npy.", metavar="PATTERN"),
    Flag("audio_hop_s", "Seconds per row of audio features.", float, shown_default=1),
    Flag("visual_hop_s", "Seconds per row of visual features.", float, shown_default=1),
    Flag(
        "tolerance_s",
        "Largest difference of audio and visual lengths, in seconds.",
        *(float, None, (), 1),
    ),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the command's flags."""
    parser.add_argument(
        "folders",
        nargs="*",
        metavar="FOLDER",
        help="Folder of videos, or of feature files.",
    )
    for flag in (
        Flag("labels", "Label file, or folder of label files [FOLDER].", flags.PATH),
        Flag("label_format", "Format of the labels [detected].", choices=FORMATS),
        Flag("out", "Output folder [FOLDER].", flags.PATH, metavar="DIR"),
        Flag("overwrite", "Overwrite an existing manifest.", flags.boolean, False),
        Flag(
            "unlabelled",
            "Add videos without labels as background, or skip them.",
            choices=("background", "skip"),
        ),
        Flag(
            "ticks_per_s",
            "Time units per second in the labels: 1000 for milliseconds.",
            *(float, 1.0),
        ),
    ):
        flag.add_to(parser)
    group = parser.add_argument_group("splits")
    for flag in (
        Flag(
            "splits",
            "Splits of the labels (file), random splits (random), or random splits "
            "where labels have none (auto).",
            *(str, "auto", ("auto", "file", "random")),
        ),
        Flag(
            "shares",
            "Percentages of train, validation and test.",
            str,
            _SHARES,
            metavar="A/B/C",
        ),
        Flag("seed", "Random seed of the splits.", int, 0),
        Flag(
            "group",
            "Keep each group in one split: a column of the labels, or a regular "
            "expression on names.",
            metavar="PATTERN",
        ),
        Flag(
            "allow_missing_categories",
            "Allow splits that lack a category.",
            *(flags.boolean, False),
        ),
    ):
        flag.add_to(group)
    group = parser.add_argument_group("feature files, in place of videos")
    for flag in FEATURES:
        flag.add_to(group)


def check(args: argparse.Namespace) -> None:
    """Check the folder, the labels and the numbers."""
    if len(args.folders) != 1:
        raise UserError("manifest: expected one folder, of videos or of feature files.")
    if not os.path.isdir(args.folders[0]):
        raise UserError(f"manifest: {args.folders[0]}: no such folder.")
    if args.labels and not os.path.exists(args.labels):
        message = "No such file or folder. Expected labels."
        raise UserError(message, field="labels", value=args.labels)
    for name in ("audio_hop_s", "visual_hop_s", "ticks_per_s"):
        value = getattr(args, name)
        if value is not None and not (0 < value < float("inf")):
            raise UserError("Expected a positive number.", field=name, value=value)
    if args.tolerance_s is not None and not (0 <= args.tolerance_s < float("inf")):
        message = "Expected seconds, at least 0."
        raise UserError(message, field="tolerance_s", value=args.tolerance_s)
    if bool(args.audio) != bool(args.visual):
        raise UserError("manifest: expected --audio and --visual, or neither.")
    parts = args.shares.split("/")
    try:
        args.share_values = tuple(map(float, parts))
    except ValueError:
        args.share_values = ()
    if len(args.share_values) != 3 or not all(0 < s < 1e9 for s in args.share_values):
        message = f"Expected three positive numbers, such as {_SHARES}."
        raise UserError(message, field="shares", value=args.shares)


def run(args: argparse.Namespace) -> int:
    """Write the manifest, print a summary, and return 0."""
    start(args)
    # Start TensorFlow only after the checks, because its import takes seconds.
    from avsdn_tf import labels
    from avsdn_tf.labels.picture import draw_summary
    from avsdn_tf.labels.summary import summarize
    from avsdn_tf.labels.write import check_writable, write_manifest
    from avsdn_tf.report.terminal import open_console

    terminal = open_console(sys.stdout)
    folder = pathlib.Path(flags.PATH(args.folders[0]))
    out = pathlib.Path(args.out or folder)
    check_writable(out, args.overwrite)
    features = None
    if given := flags.given(args, FEATURES):
        features = labels.FeatureFiles(**given)
    with _progress(terminal) as on_done:
        found = labels.collect_clips(
            folder,
            [pathlib.Path(args.labels)] if args.labels else [],
            label_format=args.label_format,
            features=features,
            unlabelled=args.unlabelled,
            ticks_per_s=args.ticks_per_s,
            splitting=labels.Splitting(
                args.splits,
                args.share_values,
                args.seed,
                args.group,
                args.allow_missing_categories,
            ),
            on_done=on_done,
        )
    summary = summarize(found.clips)
    if not all(summary.num_splits.values()):  # `avsdn build` refuses empty splits.
        raise UserError("\n".join(found.warnings))
    figure = draw_summary(summary)
    write_manifest(out, found.clips, features, figure, args.overwrite)
    print_manifest(terminal, out, summary, found)
    return 0


def print_manifest(terminal: Any, out: pathlib.Path, summary: Any, found: Any) -> None:
    """Print a manifest's summary and the next command."""
    from avsdn_tf.labels.files import SPLITS
    from avsdn_tf.report.terminal import print_plainly, rows_table

    print_plainly(terminal, f"{out / 'manifest.csv'} is written")
    for name, text in _summarize(summary, found):
        style = "yellow" if name == "warning" else None
        print_plainly(terminal, f"  {name:10}  {text}", style=style)
    rows = [
        (short_name(category), *(by_split.get(split, 0) for split in SPLITS))
        for category, by_split in list(summary.events.items())[:_SHOWN_CATEGORIES]
    ]
    more = len(summary.events) - len(rows)
    title = f"events ({more} more categories in the picture)" if more else "events"
    terminal.print(rows_table(title, ("category", *SPLITS), rows))
    print_plainly(terminal, f"Picture to open: {out / 'manifest.png'}")
    if all(summary.num_splits.values()):  # `avsdn build` refuses empty splits.
        how = " --mode=weak --weak_label=mil" if summary.num_untimed else ""
        command = f"avsdn train --manifest={shlex.quote(str(out))}{how}"
        print_plainly(terminal, f"Train: {command}")


def _summarize(summary: Any, found: Any) -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each line of the printed summary."""
    yield "clips", f"{summary.num_clips:,}, {_time(summary.length_s)}"
    counts = ", ".join(f"{name} {n:,}" for name, n in summary.num_splits.items())
    how = "drawn" if found.are_splits_drawn else "of the labels"
    yield "splits", f"{counts} ({how})"
    counts = found.labels.formats.items()
    yield "labels", ", ".join(f"{name} ({count(n, 'file')})" for name, n in counts)
    num_events = sum(sum(n.values()) for n in summary.events.values())
    categories = count(len(summary.events), "category", "categories")
    yield "events", f"{num_events:,} of {categories}"
    if num := summary.num_untimed:
        yield "times", f"none in {count(num, 'clip')}, for weak training"
    overlapping = count(summary.num_overlapping, "clip")
    yield "overlap", f"{_time(summary.overlap_s)} in {overlapping}"
    yield "unlabelled", f"{_time(summary.unlabelled_s)} of clips with events"
    background = count(summary.num_background, "clip")
    yield "background", f"{background}, {_time(summary.background_s)}"
    if found.num_skipped:
        yield "left out", f"{count(found.num_skipped, 'clip')} without labels"
    if found.num_missing:
        yield "missing", count(found.num_missing, "labelled video")
    if found.num_cut:
        events = count(found.num_cut, "event")
        yield "cut", f"{events} where the video ends"
    if num := found.labels.num_predicted:
        text = f"predictions that nobody corrected, in {count(num, 'file')}"
        yield "warning", text
    for kind, reasons in (
        ("warning", found.warnings),
        ("unreadable", found.unreadable.values()),
        ("no labels", (f"{n}: {r}" for n, r in found.labels.ignored.items())),
    ):
        lines = list(reasons)
        for line in lines[:_SHOWN_FILES]:
            yield kind, line
        if len(lines) > _SHOWN_FILES:
            yield kind, f"and {len(lines) - _SHOWN_FILES:,} more"


def _time(time_s: float) -> str:
    """Format a time in hours, minutes or seconds."""
    for unit, unit_s in (("hours", 3600), ("minutes", 60)):
        if time_s >= 2 * unit_s:
            return f"{time_s / unit_s:.1f} {unit}"
    return f"{time_s:.1f} s"


@contextlib.contextmanager
def _progress(console: Any) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar of opened files; yield a callback that updates the bar."""
    from rich.progress import Progress

    with Progress(
        console=console, transient=True, disable=not console.is_interactive
    ) as bar:
        task = bar.add_task("opening", total=None)

        def on_done(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield on_done
