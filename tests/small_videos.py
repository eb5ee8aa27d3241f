"""Videos for tests, and backbones of width 3."""

import av
import numpy as np
import pytest

from tests.conftest import SHARED

# Number of segments of each clip. A last segment below 0.1 s is dropped; the last
# segment of long_jump_35s has 0.16 s.
REAL_CLIPS = {
    "baby_01951.mp4": 10,
    "dog_02754.mp4": 10,
    "dog_BjCEufrlXm4.mp4": 10,
    "drum_02480.mp4": 10,
    "gun_00819.mp4": 8,
    "long_jump_35s.mp4": 36,
}


def find_clip(name):
    """Return the path of a real clip; skip the test where it is missing."""
    clip = SHARED / "clips" / name
    if not clip.is_file():
        pytest.skip(f"{clip} is not available")
    return clip


class Loudness:
    """Audio features for tests: the loudness twice, and a constant."""

    width = 3

    def __call__(self, seconds):
        loud = np.abs(seconds).mean(axis=1, keepdims=True)
        return np.concatenate([loud, loud, np.ones_like(loud)], 1).astype(np.float32)


class Brightness:
    """Visual features for tests: the mean color."""

    shape = (3,)
    frames_per_second = 1

    def __call__(self, frames):
        return np.stack([f.mean(axis=(0, 1, 2)) for f in frames]).astype(np.float32)


def write_clip(path, seconds, sound=True, picture=True, tail_s=0):
    """Write a clip: second s has brightness 10 * s and loudness 0.05 * (s + 1).

    The last picture lasts `tail_s` longer.
    """
    with av.open(str(path), "w") as container:
        if picture:
            video = container.add_stream("h264", rate=5)
            video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        if sound:
            audio = container.add_stream("aac", rate=16_000, layout="mono")
        for second in range(seconds):
            if picture:
                image = np.full((48, 64, 3), 10 * second, np.uint8)
                for _ in range(5):
                    frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                    container.mux(video.encode(frame))
            if sound:
                time_s = np.arange(16_000) / 16_000
                wave = 0.05 * (second + 1) * np.sign(np.sin(2 * np.pi * 200 * time_s))
                frame = av.AudioFrame.from_ndarray(
                    wave[None].astype(np.float32), format="fltp", layout="mono"
                )
                frame.sample_rate = 16_000
                frame.pts = second * 16_000
                container.mux(audio.encode(frame))
        if picture:
            for _ in range(round(5 * tail_s)):
                container.mux(video.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
            container.mux(video.encode())
        if sound:
            container.mux(audio.encode())
    return path
