"""Put the seconds of a video together: frames and waveform.

The file is read once, and memory doesn't grow with its length. Compressed picture waits
until the sound has come as far, only chosen frames become RGB, and a second is handed
out as soon as both streams are past it.

* Sound and picture may lie 60 s apart in the file. A stream that brings nothing for
  longer counts as silent, or as a still picture. An error is raised where it later
  brings something for seconds that were handed out, or picture without a key frame.
* The longer stream decides how many seconds there are. A last second of less than
  0.1 s is dropped, since containers round up, but every video has one second.
"""

import dataclasses
import math
import os
import statistics
from collections import deque
from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np

from avsdn_tf.features.video.clock import (
    MAX_APART_S,
    MAX_MISSING_FL,
    SECOND_FL,
    Clock,
    to_flicks,
)
from avsdn_tf.features.video.container import Source, open_video
from avsdn_tf.features.video.decoder import PictureDecoder
from avsdn_tf.features.video.picture import Picture
from avsdn_tf.features.video.sound import Sound

_MAX_APART_FL = MAX_APART_S * SECOND_FL
_MAX_WAITING_BYTES = 1 << 28
_DROPPED_TAIL_FL = SECOND_FL // 10
# MPEG's transport and program streams, whose timestamps run with the sender's clock.
_CLOCKS_OF_SENDERS = {"mpeg", "mpegts"}
# Streams that were joined do not fit to the sample.
_MAX_SEAM_FL = SECOND_FL // 10
_MAX_ROUNDING_FL = SECOND_FL // 1000
# FFmpeg marks the packet before the damage, or one still earlier.
_NUM_DOUBTFUL = 3
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
    """

    index: int
    start_s: float
    end_s: float
    frames: np.ndarray | None
    waveform: np.ndarray | None


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
            yield from _Reader(source, frames_per_second).seconds()

    return seconds()


class _Reader:
    """Read a file once and put its seconds together."""

    def __init__(self, source: Source, frames_per_second: int) -> None:
        self._source = source
        self._clock = Clock(source.stated_end_fl)
        self._sound = Sound() if source.sound else None
        self._picture = Picture(frames_per_second) if source.picture else None
        self._decoder = (
            PictureDecoder(source, self._may_be_chosen) if source.picture else None
        )
        self._num_done = 0
        # Up to where each stream is known; infinite after its end.
        self._sound_until_fl: int | float = -math.inf if source.sound else math.inf
        self._picture_until_fl: int | float = -math.inf if source.picture else math.inf
        # End of each stream's latest packet, and after how many more a gap is damage.
        self._continuity: dict[av.stream.Stream, tuple[int, int]] = {}
        # Where the streams end that are not read, such as subtitles.
        self._others_end_fl: int | float = -math.inf
        # Packets of the picture that wait for the sound, their times and whether they
        # are doubtful.
        self._waiting: deque[tuple[int | float, av.Packet, bool]] = deque()
        self._num_waiting_bytes = 0
        # Durations of the latest of them.
        self._durations_fl: deque[int] = deque(maxlen=99)
        self._stated_picture_end_fl = source.picture and source.stated_end_of(
            source.picture
        )
        # Whether the sound's decoder may hold samples.
        self._must_flush_sound = False

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
        ends_fl = [each.end_fl for each in (self._picture, self._sound) if each]
        self._source.check_complete(zero_fl, max(end_fl, self._others_end_fl), ends_fl)
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
        # To the microsecond, which is FFmpeg's unit of durations.
        length_s = round((self._end_fl - start_fl) / SECOND_FL, 6)
        return Second(
            index=index,
            start_s=start_s,
            end_s=round(start_s + min(1.0, length_s), 6),
            frames=self._picture.take(start_fl) if self._picture else None,
            waveform=self._sound.take(start_fl) if self._sound else None,
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
        """Decode the file, and pause after every packet."""
        source = self._source
        for packet in source.container.demux():
            # Some containers hold empty packets for repeated frames, but a decoder
            # takes an empty packet for the end.
            if not packet.size:
                continue
            if packet.stream not in (source.picture, source.sound):
                self._pass_by(packet)
                continue
            is_doubtful = self._is_doubtful(packet)
            if packet.stream is source.sound:
                self._decode_sound(packet)
            else:
                self._append_waiting(packet, is_doubtful)
            yield
            while self._waiting and self._may_decode_picture():
                self._decode_next_picture()
                yield
        if self._sound:
            self._flush_sound()
            self._sound.drop_padding(source.stated_end_of(source.sound))
            self._sound_until_fl = math.inf
            if self._sound.first_fl is None:
                raise ValueError("its sound holds no sample")
        while self._waiting:
            self._decode_next_picture()
            yield
        if self._picture:
            self._show(self._decoder.decode(None))
            self._picture_until_fl = math.inf
            if self._picture.first_fl is None:
                raise ValueError("its picture holds no frame")
        yield

    def _is_doubtful(self, packet: av.Packet) -> bool:
        """Return whether bytes may be missing in a packet.

        In MPEG transport streams, whole packets count as corrupt where streams were
        joined, since counters start again. Where bytes are missing, time is missing
        there, or the decoder complains.

        Raises ValueError if bytes are missing.
        """
        if packet.is_corrupt and self._source.container.format.name != "mpegts":
            raise ValueError("a part of it is damaged or cut off")
        end_fl, num_doubtful = self._continuity.get(packet.stream, (math.inf, 0))
        dts_fl = to_flicks(packet.dts or 0, packet.time_base)
        if num_doubtful and dts_fl > end_fl + _MAX_SEAM_FL:
            raise ValueError(
                f"{(dts_fl - end_fl) / SECOND_FL:.1f} s are missing in the middle"
            )
        if dts_fl < end_fl - _MAX_ROUNDING_FL:
            # What was joined starts earlier. `Clock` checks by how much.
            num_doubtful = 0
        end_fl = dts_fl + to_flicks(packet.duration or 0, packet.time_base)
        num_doubtful = _NUM_DOUBTFUL if packet.is_corrupt else max(0, num_doubtful - 1)
        self._continuity[packet.stream] = (end_fl, num_doubtful)
        return num_doubtful > 0

    def _pass_by(self, packet: av.Packet) -> None:
        """Record the end of a stream that is not read."""
        if None not in (packet.pts, packet.time_base):
            # A duration is the time to the next packet, which may be shown earlier.
            next_dts = (packet.dts or packet.pts) + (packet.duration or 0)
            end_fl = to_flicks(max(packet.pts, next_dts), packet.time_base)
            self._others_end_fl = max(self._others_end_fl, end_fl)

    def _decode_sound(self, packet: av.Packet | None) -> None:
        stream, sound = self._source.sound, self._sound
        self._must_flush_sound = packet is not None
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
        if (
            self._picture is not None
            and sound.first_fl is not None
            and sound.end_fl - _MAX_APART_FL
            > max(sound.first_fl, self._picture_until_fl)
        ):
            self._give_up_picture()

    def _flush_sound(self) -> None:
        """Take the samples that the decoder and the resampler hold."""
        if self._must_flush_sound:
            self._decode_sound(None)
            self._source.sound.codec_context.flush_buffers()
            self._sound.finish()

    def _give_up_picture(self) -> None:
        """Treat picture that is too far behind the sound as still."""
        self._show(self._decoder.flush())
        self._picture_until_fl = max(
            self._picture_until_fl, self._sound.end_fl - _MAX_APART_FL
        )
        if self._clock.zero_fl is None:
            raise ValueError(
                f"its picture starts more than {MAX_APART_S} s after its sound"
            )

    def _append_waiting(self, packet: av.Packet, is_doubtful: bool) -> None:
        timestamp = packet.pts if packet.dts is None else packet.dts
        time_fl = -math.inf
        if timestamp is not None:
            time_fl = to_flicks(timestamp, packet.time_base)
        self._waiting.append((time_fl, packet, is_doubtful))
        if packet.duration:
            self._durations_fl.append(to_flicks(packet.duration, packet.time_base))
        self._num_waiting_bytes += packet.size

    def _may_decode_picture(self) -> bool:
        """Return whether the sound has come as far as the picture.

        Sound that is too far behind counts as silent up to there.
        """
        first_fl, last_fl = self._waiting[0][0], self._waiting[-1][0]
        if -math.inf < self._sound_until_fl >= first_fl:
            return True
        if (
            math.inf > last_fl - first_fl > _MAX_APART_FL
            or self._num_waiting_bytes > _MAX_WAITING_BYTES
        ):
            self._flush_sound()
            self._sound_until_fl = max(
                self._sound_until_fl, self._sound.end_fl, first_fl
            )
            return True
        return False

    def _decode_next_picture(self) -> None:
        _, packet, is_doubtful = self._waiting.popleft()
        self._num_waiting_bytes -= packet.size
        self._show(self._decoder.decode(packet, is_doubtful))

    def _may_be_chosen(self, start_fl: int, end_fl: int) -> bool:
        """Return whether a frame shown between two timestamps may be needed."""
        zero_fl = self._clock.zero_fl
        return zero_fl is None or self._picture.is_chosen(
            start_fl - zero_fl, end_fl - zero_fl
        )

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
            picture.show(frame, start_fl, end_fl, self._clock.zero_fl)
            self._picture_until_fl = max(self._picture_until_fl, start_fl)

    def _picture_end_of(self, frame: av.VideoFrame, start_fl: int) -> int:
        """Return when a frame ends that no other frame follows.

        Frames that are decoded in another order than shown have the durations of other
        frames: one may have that of a long pause.
        """
        stream = self._source.picture
        if self._durations_fl:
            usual_fl = statistics.median_low(self._durations_fl)
        else:
            usual_fl = to_flicks(1, 1 / (stream.average_rate or Fraction(25)))
        if not frame.duration:
            return start_fl + usual_fl
        end_fl = start_fl + to_flicks(frame.duration, stream.time_base)
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
            self._source.reached_s = (end_fl - self._clock.zero_fl) / SECOND_FL
        if timestamp is None:
            return max(0, next_fl)
        time_fl = to_flicks(timestamp, stream.time_base)
        self._clock.check_jump(time_fl, end_fl)
        self._clock.check_step_back(stream.type, time_fl, latest_fl)
        return time_fl
