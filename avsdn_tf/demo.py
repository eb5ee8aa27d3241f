"""A demo that needs no download: a rendered video and a network trained in seconds.

The video shows and plays three things: a swinging bell, a rolling engine, a flying
bird. A thing that is seen and heard at once is an event; a picture with another thing's
sound, or with silence, is background. A spectrum and a colour histogram replace the
features of VGGish and ResNet-152.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

import av
import keras
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from avsdn_tf.features.vggish import FRONT_END
from avsdn_tf.losses import SoftmaxBinaryCrossentropy
from avsdn_tf.models.avsdn import AVSDN

DISCLAIMER = (
    "Demo: a rendered video and stand-in networks, trained within seconds. It says "
    "nothing about real videos"
)
CATEGORIES = ("Bell", "Engine", "Bird")

_RATE_HZ = FRONT_END.sample_rate_hz
_FRAME_RATE = 12
_HEIGHT, _WIDTH = 180, 320
_LEVELS = 4
_BANDS = 64
_NUM_CLIPS, _NUM_SEGMENTS = 512, 10

# The thing seen and the thing heard in each second of the video; None: nothing.
_BELL, _ENGINE, _BIRD = range(3)
_SEEN = [None] * 2 + [_BELL] * 5 + [None] * 2 + [_ENGINE] * 6 + [_BIRD] * 5
_HEARD = [None] * 3 + [_BELL] * 4 + [_BIRD] * 2 + [None] + [_ENGINE] * 4 + [None]
_HEARD += [_BIRD] * 5


@dataclasses.dataclass(frozen=True)
class DemoAudio:
    """Computes a spectrum of each second, `width` wide, in place of VGGish."""

    width: int = _BANDS

    def __call__(self, seconds: np.ndarray) -> np.ndarray:
        """Return `(num_seconds, width)` features of `(num_seconds, 16000)` sound."""
        power = np.abs(np.fft.rfft(seconds)[:, : 64 * _BANDS]) ** 2
        bands = power.reshape(len(seconds), _BANDS, -1).mean(axis=2)
        return np.log1p(bands).astype(np.float32) / 8


@dataclasses.dataclass(frozen=True)
class DemoVisual:
    """Computes a colour histogram of each second's frame, in place of ResNet-152."""

    shape: tuple[int, ...] = (_LEVELS**3,)
    frames_per_second: int = 1

    def __call__(self, frames: list[np.ndarray]) -> np.ndarray:
        """Return features `(num_seconds, *shape)`, given the frames of each second."""
        histograms = []
        for second in frames:
            levels = second[0].astype(int) * _LEVELS // 256
            colors = (levels @ (_LEVELS**2, _LEVELS, 1)).reshape(-1)
            histogram = np.bincount(colors, minlength=self.shape[0]) / len(colors)
            # The square root keeps small things visible beside the large sky.
            histograms.append(np.sqrt(histogram))
        return np.stack(histograms).astype(np.float32)


def write_video(
    path: pathlib.Path,
    seen: Sequence[int | None] = _SEEN,
    heard: Sequence[int | None] = _HEARD,
) -> None:
    """Render an MP4 file.

    Args:
        path: The file.
        seen: The index in `CATEGORIES` of the thing seen in each second; None: nothing.
            Default: the demo's 20 s.
        heard: As `seen`, for the thing heard.
    """
    rng = np.random.default_rng(0)
    pictures, sounds = [], []
    for second, (eye, ear) in enumerate(zip(seen, heard, strict=True)):
        for tick in range(_FRAME_RATE):
            pictures.append(_draw(eye, second + tick / _FRAME_RATE, rng))
        sounds.append(_sound(ear, second, rng))
    _encode(path, pictures, sounds)


def write_clock(path: pathlib.Path) -> None:
    """Render an MP4 file of 12 s: a clock seen for 9 s, and heard from second 3 on.

    Unlike the demo's things, the clock is recognized by public classifiers.
    """
    rng = np.random.default_rng(0)
    pictures = []
    for second in range(12):
        pictures += [_draw_clock(second if second < 9 else None)] * _FRAME_RATE
    time_s = np.arange(_RATE_HZ) / _RATE_HZ
    ticking = 0.05 * np.exp(-300 * (time_s % 0.25)) * np.sin(8000 * np.pi * time_s)
    sounds = [
        (ticking * (second >= 3) + rng.normal(0, 0.0005, _RATE_HZ)).astype(np.float32)
        for second in range(12)
    ]
    _encode(path, pictures, sounds)


def _encode(
    path: pathlib.Path, pictures: list[np.ndarray], sounds: list[np.ndarray]
) -> None:
    """Write pictures and seconds of sound as an MP4 file."""
    # Without "file:", FFmpeg treats text before a colon in the path as a protocol.
    with av.open(f"file:{path}", "w") as container:
        video = container.add_stream("h264", rate=_FRAME_RATE)
        video.height, video.width = pictures[0].shape[:2]
        video.pix_fmt = "yuv420p"
        audio = container.add_stream("aac", rate=_RATE_HZ, layout="mono")
        for second, sound in enumerate(sounds):
            for picture in pictures[second * _FRAME_RATE :][:_FRAME_RATE]:
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                container.mux(video.encode(frame))
            frame = av.AudioFrame.from_ndarray(
                sound[None], format="fltp", layout="mono"
            )
            frame.sample_rate = _RATE_HZ
            frame.pts = second * _RATE_HZ
            container.mux(audio.encode(frame))
        container.mux(video.encode())
        container.mux(audio.encode())


def train_network(audio: DemoAudio, visual: DemoVisual) -> AVSDN:
    """Train a small AVSDN on rendered seconds that don't occur in the video."""
    keras.utils.set_random_seed(1)
    rng = np.random.default_rng(1)
    things = [None, *range(len(CATEGORIES))]
    heard_of = {
        thing: audio(np.stack([_sound(thing, s, rng) for s in range(24)]))
        for thing in things
    }
    seen_of = {
        thing: visual([_draw(thing, 0.37 * s, rng)[None] for s in range(24)])
        for thing in things
    }
    shape = (_NUM_CLIPS, _NUM_SEGMENTS)
    heard = np.empty((*shape, audio.width), np.float32)
    seen = np.empty((*shape, *visual.shape), np.float32)
    labels = np.full(shape, len(CATEGORIES))
    for clip in range(_NUM_CLIPS):
        eyes = _draw_sequence(things, rng)
        # Independent sequences rarely agree, so let 30 % of the clips match throughout.
        ears = eyes if rng.random() < 0.3 else _draw_sequence(things, rng)
        for segment, (eye, ear) in enumerate(zip(eyes, ears, strict=True)):
            heard[clip, segment] = heard_of[ear][rng.integers(24)]
            seen[clip, segment] = seen_of[eye][rng.integers(24)]
            if eye is not None and eye == ear:
                labels[clip, segment] = eye
    model = AVSDN(
        CATEGORIES,
        audio.width,
        visual.shape,
        units=32,
        num_segments=_NUM_SEGMENTS,
        segment_s=1.0,
    )
    model.compile(keras.optimizers.Adam(0.003), SoftmaxBinaryCrossentropy())
    targets = np.eye(len(CATEGORIES) + 1, dtype=np.float32)[labels]
    model.fit(
        {"audio": heard, "visual": seen}, targets, batch_size=32, epochs=25, verbose=0
    )
    return model


def _draw_sequence(
    things: list[int | None], rng: np.random.Generator
) -> list[int | None]:
    """Return the thing of each segment of a clip: one thing, then another."""
    at = rng.integers(1, _NUM_SEGMENTS)
    first, second = rng.choice(len(things), 2)
    return [things[first]] * at + [things[second]] * (_NUM_SEGMENTS - at)


def _draw(thing: int | None, time_s: float, rng: np.random.Generator) -> np.ndarray:
    """Return a picture of a thing, `(height, width, 3)` uint8."""
    y, x = np.mgrid[:_HEIGHT, :_WIDTH]
    sky = 200 - 50 * (y / _HEIGHT)
    picture = np.stack([0.8 * sky, 0.9 * sky, sky], axis=-1)
    picture[y > 0.8 * _HEIGHT] = (96, 128, 80)
    if thing == _BELL:
        angle = 0.6 * np.sin(2 * np.pi * time_s)
        left, top = _WIDTH / 2 + 90 * np.sin(angle), 110 * np.cos(angle)
        shape = (x - left) ** 2 + (y - top) ** 2 < 30**2
        color = (240, 200, 40)
    elif thing == _ENGINE:
        left = (60 * time_s) % _WIDTH
        shape = (abs(x - left) < 50) & (abs(y - 125) < 24)
        color = (90, 30, 30)
    elif thing == _BIRD:
        left, top = (110 * time_s) % _WIDTH, 50 + 20 * np.sin(8 * time_s)
        shape = abs(x - left) + 2 * abs(y - top) < 34
        color = (30, 60, 190)
    else:
        shape, color = np.zeros_like(x, bool), (0, 0, 0)
    picture[shape] = color
    noise = rng.normal(0, 4, picture.shape)
    return (picture + noise).clip(0, 255).astype(np.uint8)


def _draw_clock(second: int | None) -> np.ndarray:
    """Return a picture of a clock, or of the wall if `second` is None."""
    figure = Figure(figsize=(3.2, 2.4), dpi=100, facecolor="#d8cfc0")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-1.6, 1.6), ylim=(-1.2, 1.2))
    axes.axis("off")
    if second is not None:
        axes.add_patch(Circle((0, 0), 1.08, color="#3a2a1c"))
        axes.add_patch(Circle((0, 0), 0.95, color="#fbf8ef"))
        for hour in range(1, 13):
            x, y = np.sin(np.pi * hour / 6), np.cos(np.pi * hour / 6)
            axes.text(0.78 * x, 0.78 * y, str(hour), size=13, ha="center", va="center")
        hands = ((10.15 / 12, 0.45, 5), (9 / 60, 0.66, 3), (second / 60, 0.72, 1))
        for turns, length, width in hands:
            x, y = np.sin(2 * np.pi * turns), np.cos(2 * np.pi * turns)
            axes.plot([0, length * x], [0, length * y], "black", linewidth=width)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]


def _sound(thing: int | None, second: int, rng: np.random.Generator) -> np.ndarray:
    """Return a second of a thing's sound, `(16000,)` float32."""
    time_s = second + np.arange(_RATE_HZ) / _RATE_HZ
    if thing == _BELL:
        strike = np.exp(-4 * (time_s % 0.5))
        tones = [np.sin(2 * np.pi * f * time_s) for f in (880, 1760, 2637)]
        sound = strike * sum(tones) / 3
    elif thing == _ENGINE:
        sound = 0.7 * ((time_s * 90) % 1 - 0.5) * (1 + 0.3 * np.sin(12 * time_s))
    elif thing == _BIRD:
        sound = 0.5 * np.sin(2 * np.pi * (3000 * time_s + 40 * np.sin(25 * time_s)))
    else:
        sound = np.zeros(_RATE_HZ)
    return (0.8 * sound + rng.normal(0, 0.01, _RATE_HZ)).astype(np.float32)
