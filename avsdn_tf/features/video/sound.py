"""Resample the sound to 16 kHz mono and cut it into seconds.

* A frame that starts within 0.05 s of the previous frame's end counts as continuous,
  because containers round timestamps.
* A longer gap becomes silence. Where frames overlap, the earlier frame is kept.
* Channels are averaged. If they cancel out in a loud second, as in stereo with one
  inverted channel, half their difference is used instead.
"""

import math
from collections import deque
from fractions import Fraction

import av
import numpy as np

from avsdn_tf.features.video.clock import SECOND_FL, to_flicks

SAMPLE_RATE_HZ = 16_000
# Memory limits: upsampling from a low rate enlarges frames, and downsampling from a
# high rate needs a long filter.
_LOWEST_RATE_HZ = 1_000
_HIGHEST_RATE_HZ = 1_000_000
_SAMPLE_FL = SECOND_FL // SAMPLE_RATE_HZ
# Channels cancel out in a second if half their difference has more power (mean square)
# than `_LOUD`, -50 dB, and their mean has less than `_SILENT` times the difference's
# power. With lossy codecs, the mean of inverted channels isn't exactly zero.
_LOUD = 1e-5
_SILENT = 0.1
# Resample in larger pieces than the codec's frames: each call has a fixed cost.
_PIECE_SAMPLES = SAMPLE_RATE_HZ // 10
_CONTINUOUS_FL = SECOND_FL // 20


class Sound:
    """Resamples the sound, and buffers it until a second is complete.

    Attributes:
        first_fl: Timestamp of sample 0 in flicks; None before the first frame.
        next_fl: End of the latest frame, where a continuous next frame starts.
        end_fl: End of the resampled sound.
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
        """Append a decoded frame that starts at `time_fl`, in flicks.

        Raises:
            ValueError: If the sample rate is unsupported, or samples are not finite.
        """
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
            # Only change the rate. FFmpeg's downmix would make two equal channels 3 dB
            # louder, and clip 5.1 sound.
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
        """Set the end to the file's stated end if the last frame contains it.

        Encoders pad the last frame by up to 0.3 s.
        """
        if self._last_fl < stated_end_fl < self.end_fl:
            self.end_fl = stated_end_fl

    def _append(self, frames: list[av.AudioFrame]) -> None:
        for frame in frames:
            channels = frame.to_ndarray().reshape(frame.samples, -1)
            # For the difference, negate every other channel.
            signs = np.resize(np.float32([1, -1]), channels.shape[1])
            samples = np.stack([channels.mean(axis=1), (channels * signs).mean(axis=1)])
            if not np.isfinite(samples).all():
                raise ValueError("its sound has samples that are not finite numbers")
            num_dropped = min(self._num_overlapping, samples.shape[1])
            self._num_overlapping -= num_dropped
            # Resampling overshoots at steps of the waveform.
            samples = np.clip(samples[:, num_dropped:], -1, 1)
            if samples.size:
                self._pieces.append((self._num_samples, samples))
            self._num_samples += samples.shape[1]
        self.end_fl = self.first_fl + self._num_samples * _SAMPLE_FL

    def take(self, start_fl: int) -> tuple[np.ndarray, bool]:
        """Return a second's waveform and remove it from the buffer.

        Args:
            start_fl: Start of the second in flicks.

        Returns:
            The waveform, `(16000,)` float32, and whether it is the channels' difference
            rather than their mean.
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
