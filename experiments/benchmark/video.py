"""Measure the speed of feature extraction from videos, stage by stage."""

import argparse
import os
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from avsdn_tf.backbones import Backbones
from avsdn_tf.errors import UserError
from avsdn_tf.features.extractor import Extractor, build_extractor
from avsdn_tf.features.store import extract_all
from avsdn_tf.features.video import find_videos, read_seconds
from experiments.benchmark.comparison import Comparison
from experiments.benchmark.contenders import alternate

_WHOLE = "the whole"


def measure_video(args: argparse.Namespace, _: None) -> Iterator[Comparison]:
    """Measure the speed and the processor time of each stage.

    The stages take turns in this process. `_WHOLE` is the command `extract`, which
    processes several videos at once, so that stages overlap. The other stages process
    one video after the other.

    Raises:
        UserError: If there are no videos, or a video can't be read.
    """
    if not args.videos:
        raise UserError(
            "Expected videos, or folders of videos, to measure the part 'video'.",
            field="videos",
        )
    videos = find_videos(args.videos)
    names = ("audio_network", "audio_weights", "visual_network", "visual_weights")
    options = {name: getattr(args, name) for name in (*names, "visual_precision")}
    options = {name: value for name, value in options.items() if value is not None}
    extractor = build_extractor(**options)
    backbones = Backbones().override(**options).complete()
    rate = extractor.visual.frames_per_second
    seconds = [s for v in videos for s in read_seconds(v, rate)]
    waveforms = np.stack([second.waveform for second in seconds])
    frames = [second.frames for second in seconds]

    stages = {
        _WHOLE: lambda: _extract(extractor, videos, args.workers),
        "decode": lambda: [0 for v in videos for _ in read_seconds(v, rate)],
        "audio features": lambda: extractor.audio(waveforms),
        "visual features": lambda: extractor.visual(frames),
    }
    for work in stages.values():
        work()
    turns = alternate(
        {name: lambda work=work: _time(work) for name, work in stages.items()},
        args.repeats,
    )
    title = (
        f"{len(seconds)} s of video, {backbones.audio_network} and "
        f"{backbones.visual_network}, {backbones.visual_precision}, "
        f"{args.workers} videos at once"
    )
    yield Comparison(
        title,
        "s of video a second",
        {n: [len(seconds) / wall for wall, _ in pairs] for n, pairs in turns.items()},
        less_is_better=False,
        note="The whole can take less time than the sum of its stages: they overlap.",
    )
    whole = statistics.median(processors for _, processors in turns[_WHOLE])
    yield Comparison(
        f"{title}: processor time",
        "% of the whole",
        {n: [100 * cpu / whole for _, cpu in pairs] for n, pairs in turns.items()},
    )


def _extract(
    extractor: Extractor, videos: Sequence[pathlib.Path], workers: int
) -> None:
    """Extract all videos to a temporary folder, as the command `extract` does."""
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder)
        failures = extract_all(extractor, videos, out, workers, lambda *_: None)
    if failures:
        raise UserError("\n".join(failures.values()))


def _time(work: Callable[[], Any]) -> tuple[float, float]:
    """Return the wall time and the processor time of a function call, in seconds."""
    start, processors_start = time.perf_counter(), _processors_s()
    work()
    return time.perf_counter() - start, _processors_s() - processors_start


def _processors_s() -> float:
    """Return the processor time of this process and its ended children, in seconds."""
    return sum(os.times()[:4])
