"""Decode a video into seconds of frames and waveform.

Memory use doesn't grow with the video's length: the stream that is behind is decoded
next, only chosen frames are converted to RGB, and a second is yielded as soon as both
streams have passed it.

* A gap in the sound is silence; a gap in the picture repeats the frame before it.
* The longer stream determines the number of seconds. A last second that is shorter than
  0.1 s is dropped unless it is the only second: containers round their length up.
"""

import dataclasses
import functools
import logging
import math
import os
import statistics
from collections import deque
from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np

from avsdn_tf.features.video.clock import (
    MAX_MISSING_FL,
    SECOND_FL,
    Clock,
    to_flicks,
)
from avsdn_tf.features.video.container import Source, open_video
from avsdn_tf.features.video.decoder import PictureDecoder
from avsdn_tf.features.video.packets import Packets
from avsdn_tf.features.video.picture import Picture
from avsdn_tf.features.video.sound import Sound
from avsdn_tf.text import printable

_LOGGER = logging.getLogger(__name__)
_DROPPED_TAIL_FL = SECOND_FL // 10
# MPEG program and transport streams: their timestamps may start at any time.
_FORMATS_OF_ANY_START = {"mpeg", "mpegts"}
# Encoders may delay the first frame by up to this time; players still start at 0.
_MAX_ENCODER_DELAY_FL = SECOND_FL // 10


@dataclasses.dataclass(frozen=True, eq=False)
class Second:
    """One second of a video.

    Attributes:
        index: Number of the second, from 0.
        start_s: Start in player time, the time that video players show, in seconds:
            `index`, plus the video's first timestamp if the timestamp exceeds 0.1 s,
            as in Chromium. In MPEG transport and program streams, always `index`:
            browsers don't play them, and other players start them at 0.
        end_s: End in player time: `start_s + 1`, or the end of the video.
        frames: `(frames_per_second, height, width, 3)` uint8 RGB, upright; None if the
            video has no picture. Non-square pixels are not corrected. All frames have
            the size of the video's first frame, scaled down to 1080 pixels on the
            longer side.
        waveform: `(16000,)` float32 in [-1, 1], mono: the mean of the channels, as in
            VGGish. Zero in gaps; None if the video has no sound.
        is_inverted: Whether the channels cancel out, as in stereo with one inverted
            channel. `waveform` is then half the difference of the channels.
    """

    index: int
    start_s: float
    end_s: float
    frames: np.ndarray | None
    waveform: np.ndarray | None
    is_inverted: bool = False


def read_seconds(
    path: str | os.PathLike[str], frames_per_second: int = 1, without: str | None = None
) -> Iterator[Second]:
    """Yield the seconds of a video, decoded on demand.

    Args:
        path: The video file.
        frames_per_second: Number of frames to choose in each second; see `picture`.
        without: `"audio"` or `"visual"`: a stream to ignore. An empty stream is an
            error unless ignored; `probe` doesn't return its modality.

    Raises:
        ValueError: If `frames_per_second` is less than 1.
        VideoError: From the iterator, if the video can't be read to its end.
    """
    if frames_per_second < 1:
        raise ValueError(
            f"Expected frames_per_second of at least 1. Received: {frames_per_second}"
        )

    def seconds() -> Iterator[Second]:
        with open_video(path) as source:
            if without == "audio":
                source.sound = None
            elif without == "visual":
                source.picture = None
            yield from warn_if_inverted(
                path, _Reader(source, frames_per_second).seconds()
            )

    return seconds()


def warn_if_inverted(
    path: str | os.PathLike[str], seconds: Iterator[Second]
) -> Iterator[Second]:
    """Pass a video's seconds through; log a warning at the first inverted second."""
    has_warned = False

    def check(second: Second) -> Second:
        nonlocal has_warned
        if second.is_inverted and not has_warned:
            has_warned = True
            _LOGGER.warning(
                "%s: the mean of the sound's channels is silent, since one channel is "
                "inverted. The difference of the channels is used instead.",
                printable(os.fsdecode(path)),
            )
        return second

    # A generator would keep each second in memory until the next one.
    return map(check, seconds)


def _may_be_chosen(clock: Clock, picture: Picture, start_fl: int, end_fl: int) -> bool:
    """Return whether a frame shown between two timestamps may be chosen."""
    zero_fl = clock.zero_fl
    return zero_fl is None or picture.is_chosen(start_fl - zero_fl, end_fl - zero_fl)


class _Reader:
    """Decodes a file once and assembles its seconds."""

    def __init__(self, source: Source, frames_per_second: int) -> None:
        self._source = source
        self._packets = Packets(source)
        self._clock = Clock(source.stated_end_fl)
        self._sound = Sound() if source.sound else None
        self._picture = Picture(frames_per_second) if source.picture else None
        # A bound method would create a reference cycle and keep frames in memory.
        is_chosen = functools.partial(_may_be_chosen, self._clock, self._picture)
        self._decoder = PictureDecoder(source, is_chosen) if source.picture else None
        self._num_done = 0
        # Time up to which each stream is decoded; infinity after its end.
        self._sound_until_fl: int | float = -math.inf if source.sound else math.inf
        self._picture_until_fl: int | float = -math.inf if source.picture else math.inf
        # Durations of the latest video packets.
        self._durations_fl: deque[int] = deque(maxlen=99)
        self._stated_picture_end_fl = source.picture and source.stated_end_of(
            source.picture
        )

    def seconds(self) -> Iterator[Second]:
        """Yield the seconds in order; `open_video` converts errors to `VideoError`."""
        for _ in self._decode():
            decoded_fl = min(self._sound_until_fl, self._picture_until_fl, self._end_fl)
            zero_fl = self._clock.zero_fl
            while (
                zero_fl is not None
                and decoded_fl >= zero_fl + (self._num_done + 1) * SECOND_FL
            ):
                yield self._take()
        zero_fl, end_fl = self._clock.zero_fl, self._end_fl
        # A packet's stated duration may exceed the duration of its frames.
        ends_fl = [
            max(buffer.end_fl, self._packets.end_of(stream))
            for buffer, stream in (
                (self._picture, self._source.picture),
                (self._sound, self._source.sound),
            )
            if buffer
        ]
        longest_fl = max(*ends_fl, self._packets.others_end_fl)
        self._source.check_complete(zero_fl, longest_fl, ends_fl)
        num_seconds = -((_DROPPED_TAIL_FL - (end_fl - zero_fl)) // SECOND_FL)
        while self._num_done < max(1, num_seconds):
            yield self._take()

    @property
    def _end_fl(self) -> int | float:
        """The latest end of the streams' decoded frames."""
        return max(each.end_fl for each in (self._picture, self._sound) if each)

    def _take(self) -> Second:
        index = self._num_done
        self._num_done += 1
        start_fl = self._clock.zero_fl + index * SECOND_FL
        start_s = self._players_zero_s() + index
        waveform, is_inverted = (
            self._sound.take(start_fl) if self._sound else (None, False)
        )
        # FFmpeg's unit of durations is the microsecond.
        length_s = round((self._end_fl - start_fl) / SECOND_FL, 6)
        return Second(
            index=index,
            start_s=start_s,
            end_s=round(start_s + min(1.0, length_s), 6),
            frames=self._picture.take(start_fl) if self._picture else None,
            waveform=waveform,
            is_inverted=is_inverted,
        )

    def _players_zero_s(self) -> float:
        """Return the start of second 0 in player time, rounded to milliseconds."""
        if self._source.container.format.name in _FORMATS_OF_ANY_START:
            return 0.0
        # Players start a video with negative timestamps at 0, too.
        if self._clock.zero_fl <= _MAX_ENCODER_DELAY_FL:
            return 0.0
        return round(self._clock.zero_fl / SECOND_FL, 3)

    def _decode(self) -> Iterator[None]:
        """Decode the stream that is behind; yield after each packet."""
        while (
            until_fl := min(self._sound_until_fl, self._picture_until_fl)
        ) < math.inf:
            # Sound first, so that time 0 is known before the first video frame.
            if self._sound_until_fl == until_fl:
                self._decode_sound()
            else:
                self._decode_picture()
            yield

    def _decode_sound(self) -> None:
        stream, sound = self._source.sound, self._sound
        packet, _ = self._packets.next(stream)
        for frame in stream.decode(packet):
            next_fl = sound.next_fl
            timestamp = frame.dts if frame.pts is None else frame.pts
            time_fl = self._check_time(frame, timestamp, stream, next_fl, next_fl)
            if time_fl > next_fl + MAX_MISSING_FL > -math.inf:
                self._clock.check_gap("sound", next_fl, time_fl)
            sound.add(frame, time_fl)
            if self._picture is None:
                self._clock.zero_fl = sound.first_fl
        self._sound_until_fl = max(self._sound_until_fl, sound.end_fl)
        if packet is None:
            if sound.first_fl is None:
                raise ValueError("its sound holds no sample")
            sound.finish()
            sound.drop_padding(self._source.stated_end_of(stream))
            self._sound_until_fl = math.inf

    def _decode_picture(self) -> None:
        packet, is_doubtful = self._packets.next(self._source.picture)
        if packet is not None and packet.duration:
            self._durations_fl.append(to_flicks(packet.duration, packet.time_base))
        self._show(self._decoder.decode(packet, is_doubtful))
        if packet is None:
            if self._picture.first_fl is None:
                raise ValueError("its picture holds no frame")
            self._picture_until_fl = math.inf

    def _show(self, frames: list[tuple[av.VideoFrame, int | None]]) -> None:
        stream, picture = self._source.picture, self._picture
        for frame, timestamp in frames:
            start_fl = self._check_time(
                frame, timestamp, stream, picture.end_fl, picture.shown_fl
            )
            start_fl = max(start_fl, picture.shown_fl)
            if picture.first_fl is not None:
                self._clock.check_interval(picture.shown_fl, start_fl)
            if self._clock.zero_fl is None:
                self._clock.start(start_fl, self._sound and self._sound.first_fl)
            end_fl = self._picture_end_of(frame, start_fl)
            self._clock.check_length(end_fl)
            picture.show(frame, start_fl, end_fl, self._clock.zero_fl)
            self._picture_until_fl = max(self._picture_until_fl, start_fl)

    def _picture_end_of(self, frame: av.VideoFrame, start_fl: int) -> int:
        """Return the end of a frame as if no other frame followed.

        A reordered frame may carry the duration of another frame, such as a long pause;
        the stated end of the stream and the usual duration correct it.
        """
        stream = self._source.picture
        end_fl = start_fl + to_flicks(frame.duration or 0, stream.time_base)
        if start_fl < end_fl <= self._stated_picture_end_fl:
            return end_fl
        if self._durations_fl:
            usual_fl = statistics.median_low(self._durations_fl)
        else:
            usual_fl = to_flicks(1, 1 / (stream.average_rate or Fraction(25)))
        if not frame.duration:
            return start_fl + usual_fl
        return min(end_fl, max(self._stated_picture_end_fl, start_fl + usual_fl))

    def _check_time(
        self,
        frame: av.VideoFrame | av.AudioFrame,
        timestamp: int | None,
        stream: av.VideoStream | av.AudioStream,
        next_fl: int | float,
        latest_fl: int | float,
    ) -> int:
        """Return a frame's start, checked against the frames before it.

        Args:
            frame: The frame.
            timestamp: The frame's timestamp in the stream's time base, or None.
            stream: The frame's stream.
            next_fl: Start of a frame without a timestamp; minus infinity for the
                first frame.
            latest_fl: Start of the previous video frame, or end of the previous sound
                frame.
        """
        if frame.is_corrupt:
            raise ValueError(f"its {stream.type} stream is damaged")
        end_fl = self._end_fl
        if self._clock.zero_fl is not None:
            # Use the last video frame's start: its duration may span missing frames.
            shown_fl = self._picture.shown_fl if self._picture else -math.inf
            reached_fl = max(shown_fl, self._sound.end_fl if self._sound else shown_fl)
            self._source.reached_s = (reached_fl - self._clock.zero_fl) / SECOND_FL
        if timestamp is None:
            return max(0, next_fl)
        time_fl = to_flicks(timestamp, stream.time_base)
        self._clock.check_jump(time_fl, end_fl)
        self._clock.check_step_back(stream.type, time_fl, latest_fl)
        return time_fl
