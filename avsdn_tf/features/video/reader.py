"""Put the seconds of a video together: frames and waveform.

Memory doesn't grow with the video's length: the stream that is behind is decoded next,
only chosen frames become RGB, and a second is handed out as soon as both streams are
past it.

* Where a stream has a gap, it counts as silent, or as a still picture.
* The longer stream decides how many seconds there are. A last second of less than
  0.1 s is dropped, since containers round up, but every video has one second.
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
# MPEG's transport and program streams, whose timestamps run with the sender's clock.
_CLOCKS_OF_SENDERS = {"mpeg", "mpegts"}
# Encoders need some samples or frames before their first output. Players show a video
# that starts this late from 0.
_MAX_ENCODER_DELAY_FL = SECOND_FL // 10


@dataclasses.dataclass(frozen=True, eq=False)
class Second:
    """One second of a video.

    Attributes:
        index: Number of the second, from 0.
        start_s: Start on the players' clock, in seconds: `index` in most videos. Where
            the first timestamp is over 0.1 s, it is added, since Chromium's clock
            starts with it; but not in MPEG transport and program streams, which no
            browser plays and other players count from 0.
        end_s: End on that clock: a second later, or where the video ends.
        frames: `(frames_per_second, height, width, 3)` uint8 RGB, upright; None if the
            video has no picture. Pixels are as stored, even where they are not square.
            All seconds have the first frame's size. Its longer side is 1080 at most:
            larger videos are scaled down.
        waveform: `(16000,)` float32 in [-1, 1], the mean of the channels, as VGGish
            expects it; None if the video has no sound. Zero where the sound has a gap.
        is_inverted: Whether the mean of the channels is silent though they are loud, as
            where one channel of a stereo is inverted. `waveform` is their difference
            then: a stereo's first channel less its second one, divided by 2.
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
    """Yield the seconds of a video, and read the file as far as the next one needs.

    Args:
        path: The video file.
        frames_per_second: Number of frames to choose in each second; see `picture`.
        without: `"audio"` or `"visual"`: a track to ignore, because `probe` found
            nothing in it.

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
    """Return a video's seconds, and log a warning at the first inverted one."""
    has_warned = False

    def check(second: Second) -> Second:
        nonlocal has_warned
        if second.is_inverted and not has_warned:
            has_warned = True
            _LOGGER.warning(
                "%s: the mean of the sound's channels is silent, since they are "
                "inverted. Their difference is used where that is so.",
                printable(os.fsdecode(path)),
            )
        return second

    # A generator would hold the second until the next one.
    return map(check, seconds)


def _may_be_chosen(clock: Clock, picture: Picture, start_fl: int, end_fl: int) -> bool:
    """Return whether a frame shown between two timestamps may be needed."""
    zero_fl = clock.zero_fl
    return zero_fl is None or picture.is_chosen(start_fl - zero_fl, end_fl - zero_fl)


class _Reader:
    """Read a file once and put its seconds together."""

    def __init__(self, source: Source, frames_per_second: int) -> None:
        self._source = source
        self._packets = Packets(source)
        self._clock = Clock(source.stated_end_fl)
        self._sound = Sound() if source.sound else None
        self._picture = Picture(frames_per_second) if source.picture else None
        # A method of this object would keep it, and its frames, in memory until Python
        # collects cycles.
        is_chosen = functools.partial(_may_be_chosen, self._clock, self._picture)
        self._decoder = PictureDecoder(source, is_chosen) if source.picture else None
        self._num_done = 0
        # Up to where each stream is known; infinite after its end.
        self._sound_until_fl: int | float = -math.inf if source.sound else math.inf
        self._picture_until_fl: int | float = -math.inf if source.picture else math.inf
        # Durations of the latest packets of the picture.
        self._durations_fl: deque[int] = deque(maxlen=99)
        self._stated_picture_end_fl = source.picture and source.stated_end_of(
            source.picture
        )

    def seconds(self) -> Iterator[Second]:
        """Yield the seconds in order; `open_video` turns errors into `VideoError`."""
        for _ in self._decode():
            known_fl = min(self._sound_until_fl, self._picture_until_fl, self._end_fl)
            zero_fl = self._clock.zero_fl
            while (
                zero_fl is not None
                and known_fl >= zero_fl + (self._num_done + 1) * SECOND_FL
            ):
                yield self._take()
        zero_fl, end_fl = self._clock.zero_fl, self._end_fl
        # A packet may state that it lasts longer than what it holds.
        ends_fl = [
            max(part.end_fl, self._packets.end_of(stream))
            for part, stream in (
                (self._picture, self._source.picture),
                (self._sound, self._source.sound),
            )
            if part
        ]
        longest_fl = max(*ends_fl, self._packets.others_end_fl)
        self._source.check_complete(zero_fl, longest_fl, ends_fl)
        num_seconds = -((_DROPPED_TAIL_FL - (end_fl - zero_fl)) // SECOND_FL)
        while self._num_done < max(1, num_seconds):
            yield self._take()

    @property
    def _end_fl(self) -> int | float:
        """Up to where any stream was decoded."""
        return max(each.end_fl for each in (self._picture, self._sound) if each)

    def _take(self) -> Second:
        index = self._num_done
        self._num_done += 1
        start_fl = self._clock.zero_fl + index * SECOND_FL
        start_s = self._players_zero_s() + index
        waveform, is_inverted = (
            self._sound.take(start_fl) if self._sound else (None, False)
        )
        # To the microsecond, which is FFmpeg's unit of durations.
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
        """Return time 0 on the players' clock, in whole milliseconds."""
        if self._source.container.format.name in _CLOCKS_OF_SENDERS:
            return 0.0
        # Players move a video that starts before 0.
        if self._clock.zero_fl <= _MAX_ENCODER_DELAY_FL:
            return 0.0
        return round(self._clock.zero_fl / SECOND_FL, 3)

    def _decode(self) -> Iterator[None]:
        """Decode the stream that is behind, and pause after every packet."""
        while (
            until_fl := min(self._sound_until_fl, self._picture_until_fl)
        ) < math.inf:
            # Sound first: time 0 is known when the first frame is shown.
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
        """Return when a frame ends that no other frame follows.

        Frames that are decoded in another order than shown have the durations of other
        frames: one may have that of a long pause.
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
        """Return the start of a frame, checked against the frames before it.

        A frame without a timestamp starts at `next_fl`, which is minus infinity for the
        first one; `latest_fl` is the start of the frame before it.
        """
        if frame.is_corrupt:
            raise ValueError(f"its {stream.type} stream is damaged")
        end_fl = self._end_fl
        if self._clock.zero_fl is not None:
            # The latest frame may end far behind those that are missing.
            shown_fl = self._picture.shown_fl if self._picture else -math.inf
            reached_fl = max(shown_fl, self._sound.end_fl if self._sound else shown_fl)
            self._source.reached_s = (reached_fl - self._clock.zero_fl) / SECOND_FL
        if timestamp is None:
            return max(0, next_fl)
        time_fl = to_flicks(timestamp, stream.time_base)
        self._clock.check_jump(time_fl, end_fl)
        self._clock.check_step_back(stream.type, time_fl, latest_fl)
        return time_fl
