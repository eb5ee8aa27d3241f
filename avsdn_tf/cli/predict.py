"""avsdn predict: localize the events of videos."""

import argparse
import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from avsdn_tf.cli import flags
from avsdn_tf.cli.flags import Flag
from avsdn_tf.cli.manifest import print_manifest
from avsdn_tf.cli.start import start
from avsdn_tf.errors import UserError
from avsdn_tf.files import explain_unwritable

SUMMARY = "Localize events in videos; --zero_shot and --demo need no run."
USAGE = "(--run=DIR | --zero_shot | --demo) [VIDEO ...] [FLAGS]"
EXAMPLE = """avsdn predict --zero_shot dog.mp4 more_videos
avsdn predict --run=runs/first dog.mp4 --out=predictions"""
_ZERO_SHOT = Flag(
    "zero_shot",
    "Use two public classifiers in place of a run.",
    flags.boolean,
    False,
)
_LABELS_TO = Flag(
    "labels_to",
    "Folder for the events as labels, which you can correct and train on.",
    flags.PATH,
)
# Defaults that --help shows, without and with --zero_shot.
_SHOWN_DEFAULTS = {
    flags.AUDIO_NETWORK: "vggish; zero_shot: yamnet_scores",
    flags.VISUAL_NETWORK: "resnet152; zero_shot: EfficientNetV2B0_classes",
}
_CLASSES = Flag("classes", "CSV table of categories for --zero_shot.", flags.PATH)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the command's flags."""
    parser.add_argument(
        "videos", nargs="*", metavar="VIDEO", help="A video, or a folder of videos."
    )
    demo = "Use a rendered video and a small network, without downloads."
    for flag in (
        flags.RUN,
        _ZERO_SHOT,
        _CLASSES,
        dataclasses.replace(flags.OUT, default="predictions"),
        Flag("demo", demo, flags.boolean, False),
        Flag("min_score", "Minimum score of an event.", flags.share, 0.0),
        flags.EMPTY,
        _LABELS_TO,
    ):
        flag.add_to(parser)
    group = parser.add_argument_group("backbones, in place of those of the run")
    for flag in flags.BACKBONES:
        shown_default = _SHOWN_DEFAULTS.get(flag, flag.shown_default)
        dataclasses.replace(flag, shown_default=shown_default).add_to(group)


def check(args: argparse.Namespace) -> None:
    """Check that the flags are compatible."""
    if args.demo:
        unread = (flags.RUN, _CLASSES, *flags.BACKBONES, flags.EMPTY, _LABELS_TO)
        flags.refuse(args, unread, "predict --demo")
        if args.videos or args.zero_shot:
            message = "predict --demo has its own video and network. Leave out yours."
            raise UserError(message)
        return
    if args.zero_shot:
        flags.refuse(args, (flags.RUN,), "predict --zero_shot")
        if args.classes and not os.path.isfile(args.classes):
            message = "No such file. Expected a table of categories."
            raise UserError(message, field="classes", value=args.classes)
    else:
        flags.require_run(args, ", and videos; or --zero_shot; or --demo")
        flags.refuse(args, (_CLASSES,), "predict without --zero_shot")
    if not args.videos:
        raise UserError("predict: expected a video, or a folder of videos.")


def run(args: argparse.Namespace) -> int:
    """Write events and a page for each video; return 1 if a video failed, else 0."""
    start(args)
    # Import late: these modules import TensorFlow, which takes seconds.
    from avsdn_tf.features.video import VideoError
    from avsdn_tf.report.terminal import (
        events_table,
        list_failures,
        logging_terminal,
        print_plainly,
        spinner,
    )
    from avsdn_tf.runs import predict_to

    out = pathlib.Path(args.out)
    failures: list[str] = []
    predictions: dict[pathlib.Path, Any] = {}
    with logging_terminal() as terminal:
        prepare = _prepare_demo if args.demo else _prepare
        predictor, videos = prepare(args, out)
        for video in videos:
            try:
                with spinner(terminal, video.name):
                    found, page = predict_to(out, predictor, video)
            except (UserError, VideoError) as error:
                is_ours = isinstance(error, UserError)
                failures.append(error.render("--") if is_ours else str(error))
                print_plainly(terminal, failures[-1], style="red")
                continue
            predictions[video] = found
            terminal.print(events_table(found))
            print_plainly(terminal, f"Page to open: {page}")
        if args.labels_to and predictions:
            _write_labels(terminal, pathlib.Path(args.labels_to), predictions)
        # The error of a single video is already the last line.
        if len(videos) > 1:
            list_failures(terminal, failures, len(videos))
    return 1 if failures else 0


def _prepare(
    args: argparse.Namespace, out: pathlib.Path
) -> tuple[Callable[[pathlib.Path], Any], list[pathlib.Path]]:
    """Return a function that predicts the events of a video, and the videos."""
    from avsdn_tf import runs, zero_shot
    from avsdn_tf.features.video import find_videos
    from avsdn_tf.labels.write import check_writable

    videos = find_videos(args.videos)
    if args.labels_to:
        labels_to = pathlib.Path(args.labels_to)
        check_writable(labels_to)
        with explain_unwritable(labels_to, "Choose another folder by --labels_to."):
            labels_to.mkdir(parents=True, exist_ok=True)
    given = flags.given(args, flags.BACKBONES)
    network = args.run
    if args.zero_shot:
        network = zero_shot.load(args.classes, **given)
    predictor = runs.open_predictor(
        network, empty=args.empty, min_score=args.min_score, **given
    )
    # Check the output folder first: extracting a video's features takes minutes.
    with explain_unwritable(out, "Choose another folder by --out."):
        out.mkdir(parents=True, exist_ok=True)
    return predictor, videos


def _write_labels(
    terminal: Any, folder: pathlib.Path, predictions: Mapping[pathlib.Path, Any]
) -> None:
    """Write the events of videos as labels, and print a summary."""
    from avsdn_tf.labels.picture import draw_summary
    from avsdn_tf.labels.predictions import label_by_predictions
    from avsdn_tf.labels.summary import summarize
    from avsdn_tf.labels.write import write_manifest

    found = label_by_predictions(predictions)
    summary = summarize(found.clips)
    write_manifest(folder, found.clips, figure=draw_summary(summary))
    print_manifest(terminal, folder, summary, found)


def _prepare_demo(
    args: argparse.Namespace, out: pathlib.Path
) -> tuple[Callable[[pathlib.Path], Any], list[pathlib.Path]]:
    """Render the demo's video; return a predictor and the video, like `_prepare`."""
    from avsdn_tf import demo
    from avsdn_tf.features.extractor import Extractor
    from avsdn_tf.report.prediction import own_files
    from avsdn_tf.videos import predict_video

    print("Rendering a video and training a network on similar ones", flush=True)
    video = out / "demo.mp4"
    with own_files(out, [video.name], video) as folder:
        demo.write_video(folder / video.name)
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
