"""Measures how fast videos become features, part by part.

    python -m experiments.benchmark_video VIDEO [VIDEO ...] [--vggish=FOLDER]
        [--visual_weights=FILE] [--visual_network=NAME] [--visual_precision=NAME]
        [--workers=2] [--repeats=5] [--out=FILE.json]

The parts take turns, and medians are printed: seconds of video a second, and processor
time as a share of that of the whole. The whole is what `extract` does, several videos
at once, so that its parts overlap; each part alone goes through one video after the
other. Log-mel, VGGish's front end, is a part of the audio features: a TensorFlow Hub
module doesn't show it alone, so what is measured is the same computation from the same
constants, which the tests hold against NumPy. For the visual network there is the share
of the rate at which this machine multiplies matrices, measured in the same run. Weights
don't change the speed, so random ones will do.
"""

import argparse
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from experiments.benchmark.results import processor
from avsdn_tf.training.distribution import num_cores
from avsdn_tf.errors import UserError
from avsdn_tf.features.audio import VGGISH, FrontEnd
from avsdn_tf.features.extractor import build_extractor, extract_all, find_videos
from avsdn_tf.features.video.reader import read_seconds
from avsdn_tf.features.visual import PRECISIONS, RECIPES
from avsdn_tf.files import write_json
from avsdn_tf.run_folder import versions

_MATRIX = 2048


def time_s(work: Callable[[], Any]) -> tuple[float, float]:
    """Returns how long some work takes, and how much time of all processors."""
    start, processors_start = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - processors_start


def matrix_rate() -> float:
    """Returns multiplications and additions a second of a large matrix product."""
    left, right = tf.random.normal((2, _MATRIX, _MATRIX))
    tf.linalg.matmul(left, right).numpy()
    repeats = 8

    def work() -> None:
        for _ in range(repeats):
            product = tf.linalg.matmul(left, right)
        product.numpy()

    return repeats * 2 * _MATRIX**3 / time_s(work)[0]


def count_operations(network: keras.Model) -> int:
    """Returns the operations of a network's products for one image."""
    total = 0
    for layer in network.layers:
        if isinstance(layer, keras.layers.Conv2D):
            # Each output value is a sum over a kernel.
            outputs = int(np.prod(layer.output.shape[1:]))
            total += 2 * outputs * int(np.prod(layer.kernel.shape[:-1]))
    return total


def build_log_mel() -> Callable[[np.ndarray], tf.Tensor]:
    """Returns VGGish's front end alone, on as much sound as `AudioNetwork` gives it.

    Returns:
        A function of seconds of sound, `(num_seconds, 16000)` float32, to the
        log-mel spectrogram `(num_windows, 64)` of all of them one after the other, each
        with the silence that follows it there.
    """
    front_end = FrontEnd()
    to_mel = tf.signal.linear_to_mel_weight_matrix(
        front_end.mel_bands,
        front_end.fft_samples // 2 + 1,
        front_end.sample_rate_hz,
        front_end.lowest_hz,
        front_end.highest_hz,
    )
    silence = 2 * front_end.patch_samples - front_end.sample_rate_hz

    @tf.function(
        input_signature=[tf.TensorSpec((None, front_end.sample_rate_hz), tf.float32)]
    )
    def log_mel(seconds: tf.Tensor) -> tf.Tensor:
        spectrum = tf.signal.stft(
            tf.reshape(tf.pad(seconds, [(0, 0), (0, silence)]), [-1]),
            front_end.window_samples,
            front_end.hop_samples,
            front_end.fft_samples,
        )
        return tf.math.log(tf.abs(spectrum) @ to_mel + front_end.log_offset)

    return log_mel


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Measures all parts."""
    videos = find_videos(args.videos)
    extractor = build_extractor(
        args.visual_network,
        args.vggish,
        args.visual_weights,
        visual_precision=args.visual_precision,
    )
    frames_per_second = extractor.visual.frames_per_second
    seconds = [s for v in videos for s in read_seconds(v, frames_per_second)]
    waveforms = np.stack([second.waveform for second in seconds])
    frames = [second.frames for second in seconds]
    log_mel = build_log_mel()

    def decode() -> None:
        for video in videos:
            for _ in read_seconds(video, frames_per_second):
                pass

    def extract() -> None:
        with tempfile.TemporaryDirectory() as folder:
            failures = extract_all(
                extractor,
                videos,
                pathlib.Path(folder),
                settings={},
                workers=args.workers,
                on_done=lambda *_: None,
            )
        if failures:
            raise UserError("\n".join(failures.values()))

    parts: dict[str, Callable[[], Any]] = {
        "decode": decode,
        "log-mel": lambda: log_mel(waveforms).numpy(),
        "audio features": lambda: extractor.audio(waveforms),
        "visual features": lambda: extractor.visual(frames),
        "the whole": extract,
    }
    for work in parts.values():
        work()
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in parts}
    rates = []
    for _ in range(args.repeats):
        rates.append(matrix_rate())
        for name, work in parts.items():
            times[name].append(time_s(work))
    walls = {name: [wall for wall, _ in values] for name, values in times.items()}
    medians = {name: statistics.median(values) for name, values in walls.items()}
    processors = {
        name: statistics.median(processor for _, processor in values)
        for name, values in times.items()
    }
    shares = {
        name: median / processors["the whole"] for name, median in processors.items()
    }
    operations = count_operations(extractor.visual.network)
    used = operations * frames_per_second * len(seconds) / medians["visual features"]
    return {
        "videos": [video.name for video in videos],
        "seconds": len(seconds),
        "visual_network": args.visual_network,
        "visual_precision": args.visual_precision,
        "workers": args.workers,
        "seconds_of_video_a_second": {
            name: len(seconds) / median for name, median in medians.items()
        },
        "share_of_processor_time": shares,
        "share_of_decode_and_log_mel": shares["decode"] + shares["log-mel"],
        "spread": {
            name: (max(values) - min(values)) / medians[name]
            for name, values in walls.items()
        },
        "operations_a_frame": operations,
        "matrix_rate": statistics.median(rates),
        "share_of_matrix_rate": used / statistics.median(rates),
        "machine": {"cores": num_cores(), "processor": processor()},
        "versions": versions(),
    }


def main(argv: Sequence[str]) -> None:
    """Measures, prints, and writes the result down if asked to."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmark_video",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("videos", nargs="+")
    add("--repeats", type=int, default=5)
    add("--workers", type=int, default=2)
    add("--out", type=pathlib.Path)
    add("--vggish", default=VGGISH)
    add("--visual_weights", default="imagenet")
    add("--visual_network", choices=list(RECIPES), default="resnet152")
    add("--visual_precision", choices=PRECISIONS, default=PRECISIONS[0])
    args = parser.parse_args(argv)
    try:
        result = measure(args)
    except (UserError, ValueError) as error:
        sys.exit(f"experiments.benchmark_video: {error}")
    console = Console()
    table = Table(
        title=f"{result['seconds']} s of video, {args.visual_network}, "
        f"{args.visual_precision}, --workers={args.workers}",
        box=SIMPLE_HEAD,
    )
    table.add_column("part")
    for name in ("s of video a second", "processor time", "spread"):
        table.add_column(name, justify="right")
    for name, speed in result["seconds_of_video_a_second"].items():
        table.add_row(
            name,
            f"{speed:.1f}",
            f"{result['share_of_processor_time'][name]:.1%}",
            f"{result['spread'][name]:.0%}",
        )
    console.print(table)
    console.print(
        "decode and log-mel together: "
        f"{result['share_of_decode_and_log_mel']:.1%} of the whole's processor time",
        highlight=False,
    )
    console.print(
        f"{args.visual_network}: {result['operations_a_frame'] / 1e9:.1f} Gflop a "
        "frame, "
        f"{result['share_of_matrix_rate']:.0%} of the measured matrix rate of "
        f"{result['matrix_rate'] / 1e9:.0f} Gflop/s in float32",
        highlight=False,
        soft_wrap=True,
    )
    if args.out:
        write_json(args.out, result)
        console.print(f"Result: {args.out}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main(sys.argv[1:])
