"""The part that measures how fast videos become features, stage by stage."""

import pathlib
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from avsdn_tf.errors import UserError
from avsdn_tf.features.audio import FrontEnd
from avsdn_tf.features.extractor import Extractor, build_extractor
from avsdn_tf.features.store import extract_all
from avsdn_tf.features.video import Second, find_videos, read_seconds
from experiments.benchmark import our_program
from experiments.benchmark.comparison import Comparison, Measurement
from experiments.benchmark.setting import Setting, temporary_folder

_WHOLE = "the whole"
_VISUAL = "visual features"


def measure_video(setting: Setting) -> Iterator[Comparison]:
    """Measure the speed of each stage, and its share of the processor time.

    The stages take turns in this process. The whole is what `extract` does, several
    videos at once, so that its stages overlap; each stage alone goes through one video
    after the other.

    Raises:
        UserError: If there are no videos, or one of them can't be read.
    """
    if not setting.videos:
        raise UserError(
            "The part video reads videos. Expected files or folders of them.",
            field="videos",
        )
    videos = find_videos(setting.videos)
    extractor = build_extractor(**setting.backbones.to_dict())
    rate = extractor.visual.frames_per_second
    seconds = [s for v in videos for s in read_seconds(v, rate)]
    stages = _stages(extractor, videos, seconds, setting.workers)
    for work in stages.values():
        work()
    matrix = our_program.matrix()
    matrix()
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in stages}
    rates = []
    for _ in range(setting.repeats):
        rates.append(our_program.MATRIX_OPERATIONS / _time(matrix)[0])
        for name, work in stages.items():
            taken[name].append(_time(work))
    per_frame = count_operations(extractor.visual.network)
    matrix_rate = statistics.median(rates)
    rows = []
    for name, of in taken.items():
        speeds = [len(seconds) / wall for wall, _ in of]
        used = per_frame * rate * statistics.median(speeds)
        rows.append(
            Measurement(name, speeds, used / matrix_rate if name == _VISUAL else None)
        )
    network = setting.backbones.visual_network
    title = (
        f"{len(seconds)} s of video, {network}, {setting.backbones.visual_precision}, "
        f"{setting.workers} videos at once"
    )
    yield Comparison(
        title,
        "s of video a second",
        rows,
        limit=f"the matrix rate in float32 measured beside it, {matrix_rate / 1e9:.0f} "
        f"Gflop/s; {network} takes {per_frame / 1e9:.1f} Gflop a frame",
        note="Stages alone add up to more than the whole, in which they overlap.",
    )
    yield _processor_time(title, taken)


def _processor_time(
    title: str, taken: dict[str, list[tuple[float, float]]]
) -> Comparison:
    """Return the stages' processor time in percent of the whole's."""
    whole = statistics.median(processors for _, processors in taken[_WHOLE])
    shares = {
        name: [100 * processors / whole for _, processors in of]
        for name, of in taken.items()
    }
    decoding = zip(shares["decode"], shares["log-mel"], strict=True)
    shares["decode and log-mel"] = [sum(pair) for pair in decoding]
    rows = [Measurement(name, of) for name, of in shares.items()]
    return Comparison(
        f"{title}: processor time",
        "% of the whole",
        rows,
        note="Log-mel, the front end of VGGish, is a part of the audio features.",
    )


def _stages(
    extractor: Extractor,
    videos: list[pathlib.Path],
    seconds: list[Second],
    workers: int,
) -> dict[str, Callable[[], Any]]:
    """Return functions that do each stage once."""
    waveforms = np.stack([second.waveform for second in seconds])
    frames = [second.frames for second in seconds]
    log_mel = build_log_mel()

    def decode() -> None:
        for video in videos:
            for _ in read_seconds(video, extractor.visual.frames_per_second):
                pass

    def extract() -> None:
        with temporary_folder() as folder:
            failures = extract_all(
                extractor,
                videos,
                folder,
                workers=workers,
                on_done=lambda *_: None,
            )
        if failures:
            raise UserError("\n".join(failures.values()))

    return {
        _WHOLE: extract,
        "decode": decode,
        "log-mel": lambda: log_mel(waveforms).numpy(),
        "audio features": lambda: extractor.audio(waveforms),
        _VISUAL: lambda: extractor.visual(frames),
    }


def build_log_mel() -> Callable[[np.ndarray], tf.Tensor]:
    """Return the front end of VGGish alone, which a TensorFlow Hub module hides.

    Returns:
        A function of seconds of sound, `(num_seconds, 16000)` float32, to the log-mel
        spectrogram `(num_windows, 64)` of all of them one after the other, each with
        the silence that `AudioNetwork` appends.
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


def count_operations(network: keras.Model) -> int:
    """Return the multiplications and additions of the convolutions for an image."""
    total = 0
    for layer in network.layers:
        if isinstance(layer, keras.layers.Conv2D):
            # Each output value is a sum over a kernel.
            outputs = int(np.prod(layer.output.shape[1:]))
            total += 2 * outputs * int(np.prod(layer.kernel.shape[:-1]))
    return total


def _time(work: Callable[[], Any]) -> tuple[float, float]:
    """Return the seconds that some work takes, and those of all processors."""
    start, processors_start = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - processors_start
