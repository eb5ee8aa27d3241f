"""avsdn extract: extract features of videos to files."""

import argparse
import dataclasses
import pathlib

from avsdn_tf.cli import flags
from avsdn_tf.cli.flags import Flag
from avsdn_tf.cli.start import start
from avsdn_tf.errors import UserError

SUMMARY = "Extract features of videos to files, to train on."
USAGE = "VIDEO [VIDEO ...] [FLAGS]"
EXAMPLE = """avsdn extract my_videos --out=features
avsdn extract my_videos --visual_network=vgg19 --workers=4"""
WHEN_STOPPED = " All files in the folder are complete. Repeat the command to resume."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the command's flags."""
    parser.add_argument(
        "videos", nargs="*", metavar="VIDEO", help="A video, or a folder of videos."
    )
    workers = Flag("workers", "Number of videos to process at once.", flags.positive, 2)
    out = dataclasses.replace(flags.OUT, default="features")
    for flag in (out, *flags.BACKBONES, flags.EMPTY, workers):
        flag.add_to(parser)


def check(args: argparse.Namespace) -> None:
    """Check that there is a video."""
    if not args.videos:
        raise UserError("extract: expected at least one video, or a folder of videos.")


def run(args: argparse.Namespace) -> int:
    """Extract the videos' features; return 1 if a video failed, else 0."""
    start(args)
    # Start TensorFlow only after the checks, because its import takes seconds.
    from avsdn_tf.features.extractor import build_extractor
    from avsdn_tf.features.store import extract_all
    from avsdn_tf.features.video import find_videos
    from avsdn_tf.report.terminal import (
        extraction_progress,
        list_failures,
        logging_terminal,
        print_plainly,
    )

    videos = find_videos(args.videos)
    extractor = build_extractor(**flags.given(args, flags.BACKBONES), empty=args.empty)
    with logging_terminal() as terminal:
        with extraction_progress(terminal, len(videos)) as on_done:
            out = pathlib.Path(args.out)
            failures = extract_all(extractor, videos, out, args.workers, on_done)
        num_done = len(videos) - len(failures)
        print_plainly(terminal, f"{num_done} of {len(videos)} videos in {args.out}")
        list_failures(terminal, failures.values(), len(videos))
    return 1 if failures else 0
