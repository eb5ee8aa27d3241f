"""avsdn predict: localize the events of videos."""

import argparse
import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from avsdn_tf.backbones import Backbones
from avsdn_tf.cli import flags
from avsdn_tf.cli.flags import Flag
from avsdn_tf.errors import UserError
from avsdn_tf.files import atomic_write, explain_unwritable, printable

SUMMARY = "Localize events in videos; --demo needs no run and no video."
USAGE = "--run=DIR VIDEO [VIDEO ...] [FLAGS]"
EXAMPLE = "avsdn predict --run=runs/first dog.mp4 more_videos --out=predictions"
_ELSEWHERE = "Choose another folder by --out."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the command's flags."""
    parser.add_argument(
        "videos", nargs="*", metavar="VIDEO", help="A video, or a folder of videos."
    )
    demo = "A rendered video and stand-in networks, without any download."
    for flag in (
        flags.RUN,
        dataclasses.replace(flags.OUT, default="predictions"),
        Flag("demo", demo, flags.boolean, False),
        flags.EMPTY,
    ):
        flag.add_to(parser)
    group = parser.add_argument_group(
        "backbones", "For runs that don't record what made their features."
    )
    for flag in flags.BACKBONES:
        # What loads the backbone checks the name: help need not wait for TensorFlow.
        dataclasses.replace(flag, choices=()).add_to(group)


def check(args: argparse.Namespace) -> None:
    """Check what the parser can't."""
    if not args.demo:
        flags.require_run(args, ", and videos; or --demo")
        if not args.videos:
            raise UserError("predict: expected a video, or a folder of videos.")
        return
    unread = (flags.RUN, *flags.BACKBONES, flags.EMPTY)
    flags.refuse(args, unread, "predict --demo")
    if args.videos:
        raise UserError("predict --demo brings its own video. Leave out yours.")


def run(args: argparse.Namespace) -> int:
    """Write the events of each video, and a page; return 1 if one failed, else 0."""
    # TensorFlow starts after the words have been checked.
    from rich.console import Console
    from rich.markup import escape

    from avsdn_tf.features.video import VideoError
    from avsdn_tf.report.terminal import events_table, list_failures, print_plainly
    from avsdn_tf.videos import predict_video

    terminal = Console()
    folder = pathlib.Path(args.out)
    if args.demo:
        terminal.print("Rendering a video and training a network on similar ones")
        model, extractor, videos, disclaimer = _prepare_demo(folder)
    else:
        model, extractor, videos, disclaimer = _prepare(args)
        _create(folder)
    failures: list[str] = []
    written: dict[str, pathlib.Path] = {}
    for video in videos:
        try:
            if video.stem in written:
                raise UserError(
                    f"{video}: has the same name as {written[video.stem]}, and would "
                    "overwrite its files. Rename one of them."
                )
            with terminal.status(f"[bold]{escape(printable(video.name))}"):
                found = predict_video(model, extractor, video, disclaimer=disclaimer)
            page = _write(folder, video, found)
        except (UserError, VideoError) as error:
            is_ours = isinstance(error, UserError)
            failures.append(error.render("--") if is_ours else str(error))
            print_plainly(terminal, failures[-1], style="red")
            continue
        written[video.stem] = video
        terminal.print(events_table(found))
        print_plainly(terminal, f"Page to open: {page}")
    # With a single video, its error is the last line already.
    if len(videos) > 1:
        list_failures(terminal, failures, len(videos))
    return 1 if failures else 0


def _create(folder: pathlib.Path) -> None:
    with explain_unwritable(folder, _ELSEWHERE):
        folder.mkdir(parents=True, exist_ok=True)


def _prepare(args: argparse.Namespace) -> tuple[Any, Any, list[pathlib.Path], Any]:
    """Return the network, the extractor, the videos and a disclaimer or None."""
    from avsdn_tf.cli import runs
    from avsdn_tf.features.video import find_videos
    from avsdn_tf.videos import extractor_for

    folder, _, model = runs.open_run(args.run, labels_segments=True)
    videos = find_videos(args.videos)
    given = flags.given(args, flags.BACKBONES)
    disclaimer = _disclaimer(runs.disclaimer_of(folder), model.backbones, given)
    return model, extractor_for(model, args.empty, **given), videos, disclaimer


def _disclaimer(
    trained_on: str | None, recorded: Mapping[str, Any] | None, given: dict[str, str]
) -> str | None:
    """Return what must be said of the predictions of a run's network, or None."""
    disclaimers = []
    if trained_on:
        disclaimers.append(f"Network of a run with this disclaimer: {trained_on}")
    if not Backbones.from_dict(recorded).override(**given).is_complete:
        disclaimers.append(
            "The backbones that made the network's training data are not recorded; "
            "unless the same made this video's features, these events mean nothing"
        )
    return ". ".join(disclaimers) or None


def _prepare_demo(folder: pathlib.Path) -> tuple[Any, Any, list[pathlib.Path], str]:
    """Render the demo's video; return what `_prepare` returns."""
    from avsdn_tf import demo
    from avsdn_tf.features.extractor import Extractor

    _create(folder)
    video = folder / "demo.mp4"
    with explain_unwritable(video, _ELSEWHERE), atomic_write(video) as tmp_path:
        demo.write_video(tmp_path)
    extractor = Extractor(demo.DemoAudio(), demo.DemoVisual())
    model = demo.train_network(extractor.audio, extractor.visual)
    return model, extractor, [video], demo.DISCLAIMER


def _write(folder: pathlib.Path, video: pathlib.Path, found: Any) -> pathlib.Path:
    """Write a video's files, the page last; return the page."""
    from avsdn_tf.report import event_files, figures, player

    page = folder / f"{video.stem}.html"
    try:
        event_files.write_event_files(folder, video.stem, found)
        picture = folder / f"{video.stem}.png"
        figures.save(figures.prediction(found), picture, found.disclaimer)
        player.write_player_page(page, found, video)
    except OSError as error:
        raise UserError(
            f"{video}: its files can't be written to {folder} "
            f"({error.strerror or error})."
        ) from error
    return page
