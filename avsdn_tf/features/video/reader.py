"""Reads a video second by second: the frames to look at and the sound to listen to.

FFmpeg does the work, through PyAV, so any container and codec that it knows is read. A
file is gone through once, and memory does not grow with its length: compressed picture
waits until the sound has come as far, a frame becomes RGB only if it was asked for, and
a second is handed out as soon as both streams are past it.

Time. Zero is the smaller of the first timestamps of picture and sound, and
`Second.start_s` tells where that is on the clock of players. Each stream is placed by
its own timestamps:

* The frame at a time is the last one whose timestamp is not later. Where the picture
  starts later, its first frame stands in; where it ends earlier, its last. AVI has no
  timestamps; there, frames of H.264 follow one another as their packets do.
* Sound that follows within 0.05 s of where it should is taken as continuous, since
  containers round their timestamps. Longer gaps are silence; of sound that overlaps,
  the part that came first is kept.
* Timestamps that jump forwards by more than 600 s beyond what the file states as its
  length, or back by more than 1 s, are refused: nothing can be aligned by them.
* Sound and picture may lie 60 s apart in the file. A stream that brings nothing for
  longer counts as silent, or as standing still; what it brings later for seconds gone
  by is refused, and so is picture that then goes on without a key frame.
* The longer stream decides how many seconds there are. A last one of less than 0.1 s is
  dropped, since containers round up, but there is always one.

Damage. A video is read whole or refused. `VideoError` is raised for damaged packets and
frames, if more than 1 s is missing in picture and sound at once, and if the file ends
more than 1 s before the length that it states. Seconds that came before the damage have
been handed out by then. Not all of it can be told: of bytes that were changed, FFmpeg
notices those that make no sense, and an AVI, WAV or MPEG transport stream that was cut
between two packets is as good as a shorter one.

FFmpeg prints nothing, since PyAV drops its log unless a program asks for it through
`av.logging`, which this module leaves alone.
"""

import contextlib
import dataclasses
import math
import os
from collections import deque
from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np
from av.video.reformatter import VideoReformatter

SAMPLE_RATE_HZ = 16_000

_LONGER_SIDE = 1080
# A damaged header may claim any size; 8K is 7680 x 4320.
_MAX_PIXELS = 8192 * 8192
# Times are whole flicks, names ending in _fl: the usual frame rates, sample rates and
# clocks of containers are fractions of a second in them, and they cost a tenth of
# Python's exact fractions.
_SECOND_FL = 705_600_000
# Sound is taken from the resampler in pieces of this size, not in those of the codec,
# which are smaller and cost as much each.
_PIECE_SAMPLES = SAMPLE_RATE_HZ // 10
_SAMPLE_FL = _SECOND_FL // SAMPLE_RATE_HZ
_CONTINUOUS_FL = _SECOND_FL // 20
_MAX_STEP_BACK_FL = _SECOND_FL
_MAX_JUMP_S = 600
_MAX_JUMP_FL = _MAX_JUMP_S * _SECOND_FL
_MAX_APART_S = 60
_MAX_APART_FL = _MAX_APART_S * _SECOND_FL
_MAX_WAITING_BYTES = 1 << 28
_DROPPED_TAIL_FL = _SECOND_FL // 10
_MAX_MISSING_FL = _SECOND_FL
# FFmpeg's unit for the times of a container as a whole.
_CONTAINERS_UNIT_S = Fraction(1, av.time_base)
# For others, FFmpeg derives the duration from what is there of the file.
_STATE_THEIR_DURATION = {"asf", "flv", "matroska", "mov"}
# MPEG's transport and program streams, whose timestamps run with the sender's clock.
_CLOCKS_OF_SENDERS = {"mpeg", "mpegts"}
# Encoders need some samples or frames before their first one. A player that starts with
# them is at 0 for anyone who looks.
_MAX_ENCODER_DELAY_FL = _SECOND_FL // 10
_HOLDS_NOTHING = "it holds neither picture nor sound"
# FFmpeg reads pictures and plain text as videos too.
_NO_VIDEOS = {"image2", "tty"}
# What PyAV raises on broken files besides FFmpeg's own errors.
_READ_ERRORS = (
    av.error.FFmpegError,
    ArithmeticError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


class VideoError(ValueError):
    """A video that cannot be read, or not to its end.

    The message is one line: the file, what happened, what was expected, what to do.
    """


@dataclasses.dataclass(frozen=True)
class VideoInfo:
    """What a video holds, as far as its beginning tells.

    Attributes:
        has_audio: Whether there is sound. A track without samples is none.
        has_visual: Whether there is a moving picture. A cover image is none, and
            neither is a track without frames.
        duration_s: Its length as the file states or FFmpeg guesses it; None if unknown.
        width: In pixels, as shown: after the rotation that phones note in the file.
            None without a picture.
        height: The same.
    """

    has_audio: bool
    has_visual: bool
    duration_s: float | None
    width: int | None
    height: int | None


@dataclasses.dataclass(frozen=True, eq=False)
class Second:
    """One second of a video.

    Attributes:
        index: Which one, from 0.
        start_s: When it starts on the clock of players, in seconds: `index` in most
            videos. Where the first timestamp is over 0.1 s, it is added, since
            Chromium's clock starts with it; but not in MPEG transport and program
            streams, which no browser plays and other players count from 0.
        end_s: When it ends on that clock: a second later, or where the video ends.
        frames: `(frames_per_second, height, width, 3)` uint8 RGB, upright; None if the
            video has no picture. Pixels are as stored, even where they are not square.
            All seconds have the first frame's size. Its longer side is 1080 at most:
            larger videos are scaled down.
        waveform: `(16000,)` float32 in [-1, 1], the mean of the channels, as VGGish
            takes it; None if the video has no sound. Zero where there is none to hear.
    """

    index: int
    start_s: float
    end_s: float
    frames: np.ndarray | None
    waveform: np.ndarray | None


def probe(path: str | os.PathLike[str]) -> VideoInfo:
    """Looks at the beginning of a video.

    Args:
        path: The video file.

    Returns:
        What it holds.

    Raises:
        VideoError: If it is no video, or its streams cannot be decoded.
    """
    with _open(path) as source:
        width = height = None
        first = _first_frames(source)
        if not first:
            raise ValueError(_HOLDS_NOTHING)
        if source.picture is not None and source.picture.index in first:
            frame = first[source.picture.index]
            # An array without data: it has a shape to turn, and costs nothing.
            outline = np.broadcast_to(np.uint8(0), (frame.height, frame.width))
            height, width = _upright(outline, frame).shape
        duration = source.container.duration
        return VideoInfo(
            has_audio=source.sound is not None and source.sound.index in first,
            has_visual=width is not None,
            duration_s=None if duration is None else duration / av.time_base,
            width=width,
            height=height,
        )


def read_seconds(
    path: str | os.PathLike[str],
    frames_per_second: int = 1,
    without: str | None = None,
) -> Iterator[Second]:
    """Reads a video, one second after the other.

    Args:
        path: The video file.
        frames_per_second: How many frames to take of each second: 1 takes the one shown
            in its middle, n those shown i / n s after its start, i from 0, as AVE's
            features were made.
        without: `"audio"` or `"visual"`: a track that is there and holds nothing, as
            `probe` tells. It is read as if it were not there.

    Returns:
        An iterator over the seconds, which reads on only when asked for the next.

    Raises:
        ValueError: If `frames_per_second` is less than 1.
        VideoError: From the iterator, if the video cannot be read, or not to its end.

    Reference:
        Tian et al., ECCV 2018: frame int(s * interval + i / 16 * interval) of second s,
        where a second has `interval` frames, in the feature extraction published at
        https://github.com/YapengTian/AVE-ECCV18.
    """
    if frames_per_second < 1:
        raise ValueError(
            f"Expected frames_per_second of at least 1. Received: {frames_per_second}"
        )
    return _read_seconds(path, frames_per_second, without)


def _read_seconds(
    path: str | os.PathLike[str], frames_per_second: int, without: str | None
) -> Iterator[Second]:
    with _open(path) as source:
        if without == "audio":
            source.sound = None
        elif without == "visual":
            source.picture = None
        yield from _Reader(source, frames_per_second).seconds()


@dataclasses.dataclass(eq=False)
class _Source:
    """An open file, the streams to read, and how far they were read."""

    container: av.container.InputContainer
    picture: av.VideoStream | None
    sound: av.AudioStream | None
    reached_s: float = 0.0


@contextlib.contextmanager
def _open(path: str | os.PathLike[str]) -> Iterator[_Source]:
    """Opens a video; until it is closed, whatever goes wrong becomes a `VideoError`."""
    path = os.fsdecode(path)
    if os.path.isdir(path):
        raise VideoError(f"{path}: is a folder. Expected a video file. Name one in it.")
    if not os.path.isfile(path):
        raise VideoError(f"{path}: there is no such file. Check the path of the video.")
    source = None
    try:
        if os.path.getsize(path) == 0:
            raise ValueError("it is empty, 0 bytes")
        # With the protocol named, a colon in the path does not start another one.
        with av.open(f"file:{path}", metadata_errors="replace") as container:
            source = _choose_streams(container)
            yield source
    except _READ_ERRORS as error:
        reason = (isinstance(error, av.error.FFmpegError) and error.strerror) or error
        where = f" beyond {source.reached_s:.1f} s" if source else ""
        raise VideoError(
            f"{path}: cannot be read{where}: {' '.join(str(reason).split())}. Expected "
            "a whole video of a format that FFmpeg reads. Does a player show it to its "
            "end? Download or convert it anew if not, leave it out if that fails."
        ) from error


def _choose_streams(container: av.container.InputContainer) -> _Source:
    name = container.format.name
    if name in _NO_VIDEOS or name.endswith("_pipe"):
        raise ValueError(f"it is a {container.format.long_name}, not a video")
    pictures = [
        stream
        for stream in container.streams.video
        if not stream.disposition & av.stream.Disposition.attached_pic
    ]
    picture = container.streams.best("video")
    if picture not in pictures:
        picture = pictures[0] if pictures else None
    sound = container.streams.best("audio", related=picture)
    if picture is None and sound is None:
        raise ValueError(_HOLDS_NOTHING)
    for kind, stream in (("picture", picture), ("sound", sound)):
        if stream is not None and stream.codec_context is None:
            raise ValueError(f"FFmpeg has no decoder for its {kind}")
    if picture is not None:
        picture.codec_context.options = {"max_pixels": str(_MAX_PIXELS)}
        # Several frames at once, where the codec allows it.
        picture.thread_type = "AUTO"
    return _Source(container, picture, sound)


def _is_guessed(source: _Source) -> bool:
    """Whether the duration is FFmpeg's guess, by the size of the file and a bit rate.

    So it is where Matroska states none, as in a file that was streamed. Only then do
    its picture and sound have durations: guesses too.
    """
    streams = [stream for stream in (source.picture, source.sound) if stream]
    return source.container.format.name.startswith("matroska") and any(
        stream.duration is not None for stream in streams
    )


def _first_frames(source: _Source) -> dict[int, av.VideoFrame | av.AudioFrame]:
    """Returns the first frames of picture and sound, by the indices of streams."""
    streams = [stream for stream in (source.picture, source.sound) if stream]
    first: dict[int, av.VideoFrame | av.AudioFrame] = {}
    for packet in source.container.demux(streams):
        if packet.stream_index not in first:
            # The last packet is empty, which makes the decoder hand out what it held
            # back.
            for frame in packet.decode():
                first.setdefault(packet.stream_index, frame)
        if len(first) == len(streams):
            break
    return first


def _upright(pixels: np.ndarray, frame: av.VideoFrame) -> np.ndarray:
    """Turns and mirrors a frame's pixels as its display matrix says.

    The matrix [[a, b, .], [c, d, .], ...] moves a pixel from (x, y) to
    (a x + c y, b x + d y). Only its signs count here, for multiples of 90 degrees.
    """
    try:
        entry = frame.side_data["DISPLAYMATRIX"]
    except KeyError:
        return pixels
    except ValueError:
        # PyAV cannot list the side data if it does not know one of its kinds. It then
        # still tells the rotation, though not whether the picture is mirrored.
        return np.rot90(pixels, round(frame.rotation / 90))
    a, b, _, c, d = np.frombuffer(entry, np.int32, count=5).tolist()
    if abs(b) > abs(a):
        pixels = pixels.swapaxes(0, 1)
        a, d = c, b
    if a < 0:
        pixels = pixels[:, ::-1]
    if d < 0:
        pixels = pixels[::-1]
    return pixels


def _flicks(count: int, unit_s: Fraction) -> int:
    """Returns the whole flicks in a number of units of time.

    Rounded down: moments that are whole seconds apart stay so.
    """
    numerator, denominator = unit_s.as_integer_ratio()
    return count * numerator * _SECOND_FL // denominator


class _Sound:
    """The sound's samples at 16 kHz, from decoding until their second is taken.

    Samples are counted from the first one that was decoded.
    """

    def __init__(self) -> None:
        self.first_fl: int | None = None
        # Where the next frame should start, by the timestamps.
        self.next_fl: int | float = -math.inf
        # Up to where there are samples.
        self.end_fl: int | float = -math.inf
        self._num_samples = 0
        self._num_overlapping = 0
        self._pieces: deque[tuple[int, np.ndarray]] = deque()
        self._format: tuple[str, str, int] | None = None
        self._resampler: av.AudioResampler | None = None

    def add(self, frame: av.AudioFrame, time_fl: int) -> None:
        """Appends a decoded frame that starts at a time."""
        if self.first_fl is None:
            self.first_fl = self.next_fl = time_fl
        audio_format = (frame.format.name, frame.layout.name, frame.sample_rate)
        is_continuous = abs(time_fl - self.next_fl) <= _CONTINUOUS_FL
        if audio_format != self._format or not is_continuous:
            self.finish()
            self._format = audio_format
            # Only the rate: FFmpeg's own mix makes two equal channels 3 dB louder, and
            # lets 5.1 clip.
            self._resampler = av.AudioResampler(
                "flt", rate=SAMPLE_RATE_HZ, frame_size=_PIECE_SAMPLES
            )
        if not is_continuous:
            self.next_fl = time_fl
            start = round((time_fl - self.first_fl) / _SAMPLE_FL)
            self._num_overlapping = max(0, self._num_samples - start)
            self._num_samples = max(self._num_samples, start)
        self.next_fl += _flicks(frame.samples, Fraction(1, frame.sample_rate))
        self._append(self._resampler.resample(frame))

    def finish(self) -> None:
        """Appends what the resampler holds back."""
        if self._resampler is not None:
            self._append(self._resampler.resample(None))
            self._resampler = self._format = None

    def _append(self, frames: list[av.AudioFrame]) -> None:
        for frame in frames:
            samples = frame.to_ndarray().reshape(frame.samples, -1).mean(axis=1)
            if not np.isfinite(samples).all():
                raise ValueError("its sound has samples that are not finite numbers")
            num_dropped = min(self._num_overlapping, len(samples))
            self._num_overlapping -= num_dropped
            # Resampling overshoots at steps.
            samples = np.clip(samples[num_dropped:], -1, 1)
            if len(samples):
                self._pieces.append((self._num_samples, samples))
            self._num_samples += len(samples)
        self.end_fl = self.first_fl + self._num_samples * _SAMPLE_FL

    def take(self, start_fl: int) -> np.ndarray:
        """Returns the waveform of the second that starts then, and forgets it."""
        waveform = np.zeros(SAMPLE_RATE_HZ, np.float32)
        if self.first_fl is None:
            return waveform
        offset = round((self.first_fl - start_fl) / _SAMPLE_FL)
        while self._pieces and self._pieces[0][0] + offset < SAMPLE_RATE_HZ:
            index, samples = self._pieces.popleft()
            start = index + offset
            if start < 0:
                raise ValueError(
                    f"its sound lies more than {_MAX_APART_S} s behind its picture"
                )
            within = samples[: SAMPLE_RATE_HZ - start]
            waveform[start : start + len(within)] = within
            if len(within) < len(samples):
                self._pieces.appendleft((index + len(within), samples[len(within) :]))
        return waveform


class _Picture:
    """The frames that are wanted, from decoding until their second is taken."""

    def __init__(self, frames_per_second: int) -> None:
        self._frames_per_second = frames_per_second
        # How long after a second's start the first frame is wanted. It is in halves of
        # the time between two, so that times are sums of whole numbers.
        self._first_halves = 1 if frames_per_second == 1 else 0
        self.first_fl: int | None = None
        self.end_fl: int | float = -math.inf
        # The latest frame, since when it is shown, and its pixels once someone wants
        # them.
        self._frame: av.VideoFrame | None = None
        self.shown_fl: int | float = -math.inf
        self._pixels: np.ndarray | None = None
        # Frames before it that are wanted.
        self._earlier: deque[tuple[int, np.ndarray]] = deque()
        self._taken_fl: int | float = -math.inf
        self._size: tuple[int, int] | None = None
        self._reformatter = VideoReformatter()

    def show(
        self, frame: av.VideoFrame, start_fl: int, end_fl: int, zero_fl: int
    ) -> None:
        """Replaces the latest frame."""
        if start_fl <= self._taken_fl:
            raise ValueError(
                f"its picture lies more than {_MAX_APART_S} s behind its sound"
            )
        if self._frame is None:
            self.first_fl = start_fl
            # The first frame stands in for what was before it.
            start_fl = zero_fl
        elif self.is_wanted(self.shown_fl - zero_fl, start_fl - zero_fl):
            self._earlier.append((self.shown_fl, self._latest()))
        self._frame, self.shown_fl, self._pixels = frame, start_fl, None
        self.end_fl = end_fl

    def is_wanted(self, start_fl: int, end_fl: int) -> bool:
        """Whether a frame is wanted in [start_fl, end_fl), counted from zero."""
        return self._num_wanted_before(start_fl) < self._num_wanted_before(end_fl)

    def _num_wanted_before(self, time_fl: int) -> int:
        # In the time that lies between two wanted ones, rounded up: one at the time
        # itself is not before it.
        halves = 2 * time_fl * self._frames_per_second - self._first_halves * _SECOND_FL
        return -(-halves // (2 * _SECOND_FL))

    def _latest(self) -> np.ndarray:
        """The latest frame's pixels, upright and of the first frame's size."""
        if self._pixels is None:
            frame = self._frame
            if self._size is None:
                scale = min(1.0, _LONGER_SIDE / max(frame.width, frame.height))
                self._size = (
                    max(1, round(frame.width * scale)),
                    max(1, round(frame.height * scale)),
                )
            width, height = self._size
            rgb = self._reformatter.reformat(
                frame, width, height, "rgb24", interpolation="AREA"
            )
            self._pixels = _upright(rgb.to_ndarray(), frame)
        return self._pixels

    def take(self, start_fl: int) -> np.ndarray:
        """Returns the frames of the second that starts then; forgets those before."""
        frames = []
        for index in range(self._frames_per_second):
            halves = 2 * index + self._first_halves
            time_fl = start_fl + halves * _SECOND_FL // (2 * self._frames_per_second)
            while len(self._earlier) > 1 and self._earlier[1][0] <= time_fl:
                self._earlier.popleft()
            if self.shown_fl <= time_fl:
                self._earlier.clear()
                frames.append(self._latest())
            else:
                frames.append(self._earlier[0][1])
            self._taken_fl = time_fl
        return np.stack(frames)


class _Reader:
    """Goes through a file once and puts its seconds together."""

    def __init__(self, source: _Source, frames_per_second: int) -> None:
        self._source = source
        self._picture = _Picture(frames_per_second) if source.picture else None
        self._sound = _Sound() if source.sound else None
        self._zero_fl: int | None = None
        # Up to where the streams go that are not read.
        self._others_end_fl: int | float = -math.inf
        self._num_done = 0
        # Compressed picture for which the sound has not come far enough, and its times.
        self._waiting: deque[tuple[int | float, av.Packet]] = deque()
        self._num_waiting_bytes = 0
        # Whether the sound's decoder may hold something back.
        self._is_hearing = False
        # Timestamps of what the picture's decoder holds back; whether it was made to
        # hand it out, after which it can only go on from a key frame.
        self._inside: list[int | None] = []
        self._is_cut = False
        # FFmpeg makes timestamps up for AVI, and for H.264 in the order of decoding.
        # The count of packets that went in tells more, less how many the decoder held
        # back before it handed out the first frame.
        self._counts_packets = (
            source.picture is not None
            and source.container.format.name == "avi"
            and source.picture.codec_context.name == "h264"
        )
        self._first_count: int | None = None
        self._held_back: int | None = None
        # The latest gap in each stream, and the longest time between two frames.
        self._gaps: dict[str, tuple[int, int]] = {}
        self._longest_interval_fl: int | None = None
        # Up to where a stream is known. Infinite if nothing more comes of it.
        self._heard_fl: int | float = -math.inf if source.sound else math.inf
        self._seen_fl: int | float = -math.inf if source.picture else math.inf
        container = source.container
        self._stated_end_fl: int | float = -math.inf
        if container.duration is not None and not _is_guessed(source):
            end = (container.start_time or 0) + container.duration
            self._stated_end_fl = _flicks(end, _CONTAINERS_UNIT_S)

    def seconds(self) -> Iterator[Second]:
        """Yields the seconds in order.

        Raises:
            ValueError: If something is wrong with the file; or another of _READ_ERRORS.
        """
        for _ in self._decode():
            while self._zero_fl is not None and self._knows(
                self._zero_fl + (self._num_done + 1) * _SECOND_FL
            ):
                yield self._take()
        self._check_complete()
        length_fl = self._end_fl - self._zero_fl
        while self._num_done < max(1, -((_DROPPED_TAIL_FL - length_fl) // _SECOND_FL)):
            yield self._take()

    def _knows(self, time_fl: int) -> bool:
        """Whether both streams are past a time."""
        return (
            self._heard_fl >= time_fl
            and self._seen_fl >= time_fl
            and self._end_fl >= time_fl
        )

    @property
    def _end_fl(self) -> int | float:
        """Up to where any stream was decoded."""
        ends = [stream.end_fl for stream in (self._picture, self._sound) if stream]
        return max(ends)

    def _take(self) -> Second:
        index = self._num_done
        self._num_done += 1
        start_fl = self._zero_fl + index * _SECOND_FL
        start_s = self._players_zero_s() + index
        # To the microsecond, as FFmpeg has durations.
        length_s = round((self._end_fl - start_fl) / _SECOND_FL, 6)
        return Second(
            index=index,
            start_s=start_s,
            end_s=round(start_s + min(1.0, length_s), 6),
            frames=self._picture.take(start_fl) if self._picture else None,
            waveform=self._sound.take(start_fl) if self._sound else None,
        )

    def _players_zero_s(self) -> float:
        """Where zero is on the clock of players, in whole milliseconds."""
        if self._source.container.format.name in _CLOCKS_OF_SENDERS:
            return 0.0
        # Players move what starts before 0.
        if self._zero_fl <= _MAX_ENCODER_DELAY_FL:
            return 0.0
        return round(self._zero_fl / _SECOND_FL, 3)

    def _decode(self) -> Iterator[None]:
        """Decodes the file, and pauses after every packet."""
        source = self._source
        for packet in source.container.demux():
            # Some containers hold empty packets for repeated frames, but an empty
            # packet tells a decoder that it was the last one.
            if not packet.size:
                continue
            if packet.stream not in (source.picture, source.sound):
                self._pass_by(packet)
                continue
            if packet.is_corrupt:
                raise ValueError("a part of it is damaged or cut off")
            if packet.stream is source.sound:
                self._hear(packet)
            else:
                self._wait(packet)
            yield
            while self._waiting and self._may_see():
                self._see_next()
                yield
        if self._sound:
            self._hear_out()
            self._heard_fl = math.inf
            if self._sound.first_fl is None:
                raise ValueError("its sound holds no sample")
        while self._waiting:
            self._see_next()
            yield
        if self._picture:
            self._see(None)
            self._seen_fl = math.inf
            if self._picture.first_fl is None:
                raise ValueError("its picture holds no frame")
        yield

    def _pass_by(self, packet: av.Packet) -> None:
        """Notes when a packet of another stream ends, such as of subtitles."""
        if None not in (packet.pts, packet.time_base):
            end = packet.pts + (packet.duration or 0)
            self._others_end_fl = max(
                self._others_end_fl, _flicks(end, packet.time_base)
            )

    def _hear(self, packet: av.Packet | None) -> None:
        stream = self._source.sound
        self._is_hearing = packet is not None
        for frame in stream.decode(packet):
            next_fl = self._sound.next_fl
            time_fl = self._time(frame, stream, next_fl, next_fl)
            if time_fl > next_fl + _MAX_MISSING_FL > -math.inf:
                self._note_gap("sound", next_fl, time_fl)
            self._sound.add(frame, time_fl)
            if self._picture is None:
                self._zero_fl = self._sound.first_fl
        self._heard_fl = max(self._heard_fl, self._sound.end_fl)
        if self._picture is None:
            return
        begin_fl = self._sound.first_fl
        if begin_fl is not None and self._sound.end_fl - _MAX_APART_FL > max(
            begin_fl, self._seen_fl
        ):
            self._give_up_picture()

    def _hear_out(self) -> None:
        """Makes the decoder and the resampler hand out what they hold back."""
        if self._is_hearing:
            self._hear(None)
            self._source.sound.codec_context.flush_buffers()
            self._sound.finish()

    def _give_up_sound(self, until_fl: int | float) -> None:
        """Takes the sound, so far behind the picture, as silent up to a time."""
        self._hear_out()
        self._heard_fl = max(self._heard_fl, self._sound.end_fl, until_fl)

    def _give_up_picture(self) -> None:
        """Takes the picture, so far behind the sound, as one that stands still."""
        if self._inside:
            # Decoders hold frames back to bring them in order, perhaps the last ones.
            self._see(None)
            self._source.picture.codec_context.flush_buffers()
            self._inside = []
            self._is_cut = True
        self._seen_fl = max(self._seen_fl, self._sound.end_fl - _MAX_APART_FL)
        if self._zero_fl is None:
            raise ValueError(
                f"its picture starts more than {_MAX_APART_S} s after its sound"
            )

    def _wait(self, packet: av.Packet) -> None:
        timestamp = packet.pts if packet.dts is None else packet.dts
        time_fl = -math.inf
        if timestamp is not None:
            time_fl = _flicks(timestamp, packet.time_base)
        self._waiting.append((time_fl, packet))
        self._num_waiting_bytes += packet.size

    def _may_see(self) -> bool:
        """Whether the sound has come as far as the picture, or is not waited for."""
        first_fl, last_fl = self._waiting[0][0], self._waiting[-1][0]
        if -math.inf < self._heard_fl >= first_fl:
            return True
        if (
            math.inf > last_fl - first_fl > _MAX_APART_FL
            or self._num_waiting_bytes > _MAX_WAITING_BYTES
        ):
            self._give_up_sound(first_fl)
            return True
        return False

    def _see_next(self) -> None:
        _, packet = self._waiting.popleft()
        self._num_waiting_bytes -= packet.size
        self._see(packet)

    def _see(self, packet: av.Packet | None) -> None:
        stream = self._source.picture
        picture = self._picture
        if packet is not None:
            if self._is_cut and not packet.is_keyframe:
                raise ValueError(f"its picture stands still for over {_MAX_APART_S} s")
            self._is_cut = False
            # Most frames are looked at by nobody. Those that no other frame is made
            # from need not be decoded.
            needed = self._may_be_wanted(packet)
            stream.codec_context.skip_frame = "DEFAULT" if needed else "NONREF"
            self._inside.append(packet.pts)
            # Decoders drop what comes before the first key frame.
            if self._first_count is None and packet.is_keyframe:
                self._first_count = packet.dts
        for frame in stream.decode(packet):
            self._note_out(frame)
            start_fl = self._time(frame, stream, picture.end_fl, picture.shown_fl)
            start_fl = max(start_fl, picture.shown_fl)
            if picture.first_fl is not None:
                self._note_interval(picture.shown_fl, start_fl)
            if self._zero_fl is None:
                self._zero_fl = self._find_zero(start_fl)
            if frame.duration:
                duration_fl = _flicks(frame.duration, stream.time_base)
            else:
                duration_fl = _flicks(1, 1 / (stream.average_rate or Fraction(25)))
            self._check_jump(start_fl + duration_fl)
            picture.show(frame, start_fl, start_fl + duration_fl, self._zero_fl)
            self._seen_fl = max(self._seen_fl, start_fl)

    def _may_be_wanted(self, packet: av.Packet) -> bool:
        """Whether a wanted time may lie between a frame and the one shown after it."""
        if self._counts_packets:
            return True
        later = [
            pts
            for pts in self._inside
            if None not in (pts, packet.pts) and pts > packet.pts
        ]
        if self._zero_fl is None or not later:
            return True
        start_fl, end_fl = (
            _flicks(pts, packet.time_base) - self._zero_fl
            for pts in (packet.pts, min(later))
        )
        return self._picture.is_wanted(start_fl, end_fl)

    def _note_out(self, frame: av.VideoFrame) -> None:
        """Forgets a frame that came out of the decoder, and those that never will."""
        held = [
            pts for pts in self._inside if None in (pts, frame.pts) or pts > frame.pts
        ]
        if len(held) == len(self._inside) and None in held:
            held.remove(None)
        self._inside = held

    def _note_interval(self, start_fl: int, end_fl: int) -> None:
        """Compares the time between two frames with what is usual in this video."""
        usual_fl = self._longest_interval_fl
        if usual_fl is not None and end_fl - start_fl > usual_fl + _MAX_MISSING_FL:
            self._note_gap("picture", start_fl, end_fl)
        self._longest_interval_fl = max(usual_fl or 0, end_fl - start_fl)

    def _note_gap(self, kind: str, start_fl: int, end_fl: int) -> None:
        """Refuses what neither stream has: FFmpeg leaves out what it cannot make out.

        A gap in one of them may be meant, such as a picture that stands still.
        """
        self._gaps[kind] = (start_fl, end_fl)
        starts, ends = zip(*self._gaps.values(), strict=True)
        missing_fl = min(ends) - max(starts)
        if len(starts) == 2 and missing_fl > _MAX_MISSING_FL:
            raise ValueError(
                f"{missing_fl / _SECOND_FL:.1f} s are missing in the middle"
            )

    def _find_zero(self, picture_fl: int) -> int:
        sound_fl = self._sound.first_fl if self._sound else None
        if sound_fl is None:
            return picture_fl
        if abs(picture_fl - sound_fl) > _MAX_JUMP_FL:
            raise ValueError(f"its sound and picture start over {_MAX_JUMP_S} s apart")
        return min(picture_fl, sound_fl)

    def _time(
        self,
        frame: av.VideoFrame | av.AudioFrame,
        stream: av.VideoStream | av.AudioStream,
        next_fl: int | float,
        latest_fl: int | float,
    ) -> int:
        """Returns when a frame starts, checked against what came before.

        Args:
            frame: A frame that was decoded.
            stream: The stream that it is from.
            next_fl: When it starts if it has no timestamp; minus infinity for the
                first.
            latest_fl: The time that it should not lie before.
        """
        if frame.is_corrupt:
            raise ValueError(f"its {stream.type} stream is damaged")
        if self._zero_fl is not None:
            self._source.reached_s = (self._end_fl - self._zero_fl) / _SECOND_FL
        timestamp = frame.dts if frame.pts is None else frame.pts
        if self._counts_packets and stream is self._source.picture:
            timestamp = self._presented(frame.dts)
        if timestamp is None:
            return max(0, next_fl)
        time_fl = _flicks(timestamp, stream.time_base)
        self._check_jump(time_fl)
        if time_fl < latest_fl - _MAX_STEP_BACK_FL:
            raise ValueError(
                f"the timestamps of its {stream.type} stream jump back by "
                f"{(latest_fl - time_fl) / _SECOND_FL:.1f} s"
            )
        return time_fl

    def _presented(self, count: int | None) -> int | None:
        """Returns the timestamp of a frame that came out at a count of packets.

        None if the decoder handed it out without one, after the last packet.
        """
        if count is None or self._first_count is None:
            return None
        if self._held_back is None:
            self._held_back = count - self._first_count
        return count - self._held_back

    def _check_jump(self, time_fl: int) -> None:
        end_fl = self._end_fl
        # The very first timestamp may be anything: recorders count from when they were
        # switched on.
        if (
            end_fl > -math.inf
            and time_fl > max(end_fl, self._stated_end_fl) + _MAX_JUMP_FL
        ):
            raise ValueError(
                "its timestamps jump forwards by "
                f"{(time_fl - end_fl) / _SECOND_FL:.1f} s"
            )

    def _check_complete(self) -> None:
        """Compares what was decoded with the durations that the file states."""
        source = self._source
        container = source.container
        name = container.format.name.split(",")[0]
        if name not in _STATE_THEIR_DURATION or _is_guessed(source):
            return
        # The container is as long as the longest of all streams.
        end_fl = max(self._end_fl, self._others_end_fl)
        stated = [(container.duration, _CONTAINERS_UNIT_S, end_fl)]
        if self._picture:
            stream = source.picture
            stated.append((stream.duration, stream.time_base, self._picture.end_fl))
        if self._sound:
            stream = source.sound
            stated.append((stream.duration, stream.time_base, self._sound.end_fl))
        for duration, unit_s, end_fl in stated:
            if duration is None:
                continue
            stated_fl = _flicks(duration, unit_s)
            # Some containers count from their first timestamp, others from 0.
            length_fl = max(end_fl - self._zero_fl, end_fl)
            if stated_fl > length_fl + _MAX_MISSING_FL:
                raise ValueError(
                    f"it states {stated_fl / _SECOND_FL:.1f} s, but holds "
                    f"{max(0, length_fl) / _SECOND_FL:.1f} s"
                )
