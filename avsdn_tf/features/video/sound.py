"""Resample the sound to 16 kHz mono and cut it into seconds.

* Sound that starts within 0.05 s of the end of the sound before it is continuous,
  since containers round their timestamps.
* A longer gap is silence. Where sound overlaps, the sound that came first is kept.
* Channels become their mean. Of a loud second whose mean is silent, as that of a stereo
  with one channel inverted, the difference of the channels is taken in its place.
"""

import math
from collections import deque
from fractions import Fraction

import av
import numpy as np

from avsdn_tf.features.video.clock import SECOND_FL, to_flicks

SAMPLE_RATE_HZ = 16_000
# A frame of a low rate becomes a large waveform, and the filter for a high rate is
# large.
_LOWEST_RATE_HZ = 1_000
_HIGHEST_RATE_HZ = 1_000_000
_SAMPLE_FL = SECOND_FL // SAMPLE_RATE_HZ
# Mean square of the difference of channels above which a second is loud (-50 dB), and
# the share of it below which the mean is silent: lossy codecs leave something of it.
_LOUD = 1e-5
_SILENT = 0.1
# The resampler's output is larger than the codec's frames: each piece costs the same.
_PIECE_SAMPLES = SAMPLE_RATE_HZ // 10
_CONTINUOUS_FL = SECOND_FL // 20


class Sound:
    """Hold the samples between decoding and the second that they belong to.

    `first_fl` is the first timestamp, from which samples are counted; `next_fl` is
    where the next frame starts if it is continuous; `end_fl` is the end of the samples.
    """

    def __init__(self) -> None:
        self.first_fl: int | None = None
        self.next_fl: int | float = -math.inf
        self.end_fl: int | float = -math.inf
        # Start of the latest frame.
        self._last_fl: int | float = -math.inf
        self._num_samples = 0
        self._num_overlapping = 0
        self._pieces: deque[tuple[int, np.ndarray]] = deque()
        self._format: tuple[str, str, int] | None = None
        self._resampler: av.AudioResampler | None = None

    def add(self, frame: av.AudioFrame, time_fl: int) -> None:
        """Append a decoded frame that starts at a time."""
        if self.first_fl is None:
            self.first_fl = self.next_fl = time_fl
        if not _LOWEST_RATE_HZ <= frame.sample_rate <= _HIGHEST_RATE_HZ:
            raise ValueError(
                f"its sound has {frame.sample_rate} samples a second, outside of "
                f"{_LOWEST_RATE_HZ} to {_HIGHEST_RATE_HZ}"
            )
        audio_format = (frame.format.name, frame.layout.name, frame.sample_rate)
        is_continuous = abs(time_fl - self.next_fl) <= _CONTINUOUS_FL
        if audio_format != self._format or not is_continuous:
            self.finish()
            self._format = audio_format
            # Resample the rate alone: FFmpeg's own mix makes two equal channels 3 dB
            # louder and lets 5.1 clip.
            self._resampler = av.AudioResampler(
                "flt", rate=SAMPLE_RATE_HZ, frame_size=_PIECE_SAMPLES
            )
        if not is_continuous:
            self.next_fl = time_fl
            start = round((time_fl - self.first_fl) / _SAMPLE_FL)
            self._num_overlapping = max(0, self._num_samples - start)
            self._num_samples = max(self._num_samples, start)
        self._last_fl = self.next_fl
        self.next_fl += to_flicks(frame.samples, Fraction(1, frame.sample_rate))
        self._append(self._resampler.resample(frame))

    def finish(self) -> None:
        """Append the samples that the resampler still holds."""
        if self._resampler is not None:
            self._append(self._resampler.resample(None))
            self._resampler = self._format = None

    def drop_padding(self, stated_end_fl: int | float) -> None:
        """End where the file states it, if that lies within the last frame.

        Encoders fill up the last frame, which takes up to 0.3 s.
        """
        if self._last_fl < stated_end_fl < self.end_fl:
            self.end_fl = stated_end_fl

    def _append(self, frames: list[av.AudioFrame]) -> None:
        for frame in frames:
            channels = frame.to_ndarray().reshape(frame.samples, -1)
            # For the difference, every other channel changes its sign.
            signs = np.resize(np.float32([1, -1]), channels.shape[1])
            samples = np.stack([channels.mean(axis=1), (channels * signs).mean(axis=1)])
            if not np.isfinite(samples).all():
                raise ValueError("its sound has samples that are not finite numbers")
            num_dropped = min(self._num_overlapping, samples.shape[1])
            self._num_overlapping -= num_dropped
            # Resampling overshoots at steps.
            samples = np.clip(samples[:, num_dropped:], -1, 1)
            if samples.size:
                self._pieces.append((self._num_samples, samples))
            self._num_samples += samples.shape[1]
        self.end_fl = self.first_fl + self._num_samples * _SAMPLE_FL

    def take(self, start_fl: int) -> tuple[np.ndarray, bool]:
        """Return the waveform of the second that starts then, and release it.

        Returns also whether it is the difference of the channels.
        """
        both = np.zeros((2, SAMPLE_RATE_HZ), np.float32)
        if self.first_fl is None:
            return both[0], False
        offset = round((self.first_fl - start_fl) / _SAMPLE_FL)
        while self._pieces and self._pieces[0][0] + offset < SAMPLE_RATE_HZ:
            index, samples = self._pieces.popleft()
            start = index + offset
            within = samples[:, : SAMPLE_RATE_HZ - start]
            num_within = within.shape[1]
            both[:, start : start + num_within] = within
            if num_within < samples.shape[1]:
                self._pieces.appendleft((index + num_within, samples[:, num_within:]))
        mean_power, difference_power = np.square(both).mean(axis=1)
        is_inverted = (
            difference_power > _LOUD and mean_power < _SILENT * difference_power
        )
        return both[int(is_inverted)], bool(is_inverted)
