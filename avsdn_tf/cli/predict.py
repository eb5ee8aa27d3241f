"""avsdn predict: localize the events of videos."""

import argparse
import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any

from avsdn_tf.cli import flags
from avsdn_tf.cli.flags import Flag
from avsdn_tf.cli.start import start
from avsdn_tf.errors import UserError
from avsdn_tf.files import atomic_write, explain_unwritable
from avsdn_tf.text import printable

SUMMARY = "Localize events in videos; --demo needs no run and no video."
USAGE = "--run=DIR VIDEO [VIDEO ...] [FLAGS]"
EXAMPLE = "avsdn predict --run=runs/first dog.mp4 more_videos --out=predictions"


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
        Flag("min_score", "Leave out events of a lower score.", flags.share, 0.0),
        flags.EMPTY,
    ):
        flag.add_to(parser)
    group = parser.add_argument_group(
        "backbones", "For runs that don't record what made their features."
    )
    for flag in flags.BACKBONES:
        # The names alone: their summaries would wait for TensorFlow.
        dataclasses.replace(flag, choices=tuple(flag.choices)).add_to(group)


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
    start(args)
    # These import TensorFlow.
    from rich.markup import escape

    from avsdn_tf.features.video import VideoError
    from avsdn_tf.report.prediction import write_prediction
    from avsdn_tf.report.terminal import (
        events_table,
        list_failures,
        logging_terminal,
        print_plainly,
    )

    out = pathlib.Path(args.out)
    failures: list[str] = []
    with logging_terminal() as terminal:
        prepare = _prepare_demo if args.demo else _prepare
        predictor, videos = prepare(args, out)
        for video in videos:
            try:
                with terminal.status(f"[bold]{escape(printable(video.name))}"):
                    found = predictor(video)
                    page = write_prediction(out, video, found)
            except (UserError, VideoError) as error:
                is_ours = isinstance(error, UserError)
                failures.append(error.render("--") if is_ours else str(error))
                print_plainly(terminal, failures[-1], style="red")
                continue
            terminal.print(events_table(found))
            print_plainly(terminal, f"Page to open: {page}")
        # With a single video, its error is the last line already.
        if len(videos) > 1:
            list_failures(terminal, failures, len(videos))
    return 1 if failures else 0


def _prepare(
    args: argparse.Namespace, out: pathlib.Path
) -> tuple[Callable[[pathlib.Path], Any], list[pathlib.Path]]:
    """Return a function that predicts a video, and the videos."""
    from avsdn_tf import runs
    from avsdn_tf.features.video import find_videos

    videos = find_videos(args.videos)
    given = flags.given(args, flags.BACKBONES)
    predictor = runs.open_predictor(
        args.run, empty=args.empty, min_score=args.min_score, **given
    )
    # Before the first video, whose features take minutes.
    with explain_unwritable(out, "Choose another folder by --out."):
        out.mkdir(parents=True, exist_ok=True)
    return predictor, videos


def _prepare_demo(
    args: argparse.Namespace, out: pathlib.Path
) -> tuple[Callable[[pathlib.Path], Any], list[pathlib.Path]]:
    """Render the demo's video, and return what `_prepare` returns."""
    from avsdn_tf import demo
    from avsdn_tf.features.extractor import Extractor
    from avsdn_tf.report.prediction import own_files
    from avsdn_tf.videos import predict_video

    print("Rendering a video and training a network on similar ones", flush=True)
    video = out / "demo.mp4"
    with own_files(out, [video.name], video), atomic_write(video) as tmp_path:
        demo.write_video(tmp_path)
    extractor = Extractor(demo.DemoAudio(), demo.DemoVisual())
    model = demo.train_network(extractor.audio, extractor.visual)
    predictor = functools.partial(
        predict_video,
        model,
        extractor,
        min_score=args.min_score,
        disclaimer=demo.DISCLAIMER,
    )
    return predictor, [video]
