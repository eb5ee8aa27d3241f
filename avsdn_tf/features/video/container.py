"""Open a video file, choose its streams, and compare what it states with what it holds.

FFmpeg reads the file through PyAV, so that every container and codec of FFmpeg is
supported. PyAV drops FFmpeg's log unless a program asks for it through `av.logging`.

Damage. A video is read whole, or `VideoError` is raised: for damaged packets and
frames, for more than 1 s that is missing in picture and sound at once (see `clock`),
and for a file that ends more than 1 s before the length that it states. The seconds
before the damage have been handed out by then. FFmpeg finds changed bytes only where
they make no sense, and an AVI, WAV or MPEG transport stream that was cut between two
packets can't be told from a shorter one.
"""

import contextlib
import dataclasses
import math
import os
from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np

from avsdn_tf.features.video.clock import MAX_MISSING_FL, SECOND_FL, to_flicks
from avsdn_tf.features.video.picture import turn_upright

# A damaged header may claim any size; 8K is 7680 x 4320.
_MAX_PIXELS = 8192 * 8192
# FFmpeg's unit for the times of a container as a whole.
_CONTAINERS_UNIT_S = Fraction(1, av.time_base)
# For other formats, FFmpeg computes the duration from the bytes that are there.
_STATE_THEIR_DURATION = {"asf", "flv", "matroska", "mov"}
# FFmpeg reads pictures and plain text as videos too.
_NO_VIDEOS = {"image2", "tty"}
_HOLDS_NOTHING = "it holds neither picture nor sound"
# PyAV raises these for broken files, besides FFmpeg's own errors.
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
    """A video that can't be read to its end.

    The message is one line: the file, what happened, what was expected, what to do.
    """


@dataclasses.dataclass(frozen=True)
class VideoInfo:
    """What the beginning of a video shows.

    Attributes:
        has_audio: Whether there is sound. A track without samples counts as none.
        has_visual: Whether there is a moving picture: no cover image, no empty track.
        duration_s: Length that the file states or FFmpeg guesses; None if unknown.
        width: In pixels, after the rotation that phones note; None without a picture.
        height: The same.
    """

    has_audio: bool
    has_visual: bool
    duration_s: float | None
    width: int | None
    height: int | None


@dataclasses.dataclass(eq=False)
class Source:
    """An open file, its streams to read, if any, and how far it has been decoded."""

    container: av.container.InputContainer
    picture: av.VideoStream | None
    sound: av.AudioStream | None
    reached_s: float = 0.0

    @property
    def streams(self) -> list[av.VideoStream | av.AudioStream]:
        """The streams to read."""
        return [stream for stream in (self.picture, self.sound) if stream]

    @property
    def stated_end_fl(self) -> int | float:
        """The end of the video as the file states it, else minus infinity."""
        container = self.container
        if container.duration is None or self._is_duration_guessed:
            return -math.inf
        end = (container.start_time or 0) + container.duration
        return to_flicks(end, _CONTAINERS_UNIT_S)

    @property
    def _is_duration_guessed(self) -> bool:
        """Whether FFmpeg guessed the duration by size and bit rate.

        FFmpeg guesses for Matroska without a stated duration, as in a file that was
        streamed. Only then do its streams have durations, which are guesses too.
        """
        return self.container.format.name.startswith("matroska") and any(
            stream.duration is not None for stream in self.streams
        )

    def check_complete(
        self, zero_fl: int, end_fl: int | float, ends_fl: list[int | float]
    ) -> None:
        """Raise ValueError if the file states more than was decoded.

        `end_fl` is where the longest of all streams ends, read or not, since the
        container is as long; `ends_fl` is where each of `streams` ends.
        """
        name = self.container.format.name.split(",")[0]
        if name not in _STATE_THEIR_DURATION or self._is_duration_guessed:
            return
        stated = [(self.container.duration, _CONTAINERS_UNIT_S, end_fl)]
        for stream, stream_end_fl in zip(self.streams, ends_fl, strict=True):
            stated.append((stream.duration, stream.time_base, stream_end_fl))
        for duration, unit_s, found_end_fl in stated:
            if duration is None:
                continue
            stated_fl = to_flicks(duration, unit_s)
            # Some containers count from their first timestamp, others from 0.
            length_fl = max(found_end_fl - zero_fl, found_end_fl)
            if stated_fl > length_fl + MAX_MISSING_FL:
                raise ValueError(
                    f"it states {stated_fl / SECOND_FL:.1f} s, but holds "
                    f"{max(0, length_fl) / SECOND_FL:.1f} s"
                )


@contextlib.contextmanager
def open_video(path: str | os.PathLike[str]) -> Iterator[Source]:
    """Open a video, and turn every error in the block into `VideoError`."""
    path = os.fsdecode(path)
    if os.path.isdir(path):
        raise VideoError(f"{path}: is a folder. Expected a video file. Name one in it.")
    if not os.path.isfile(path):
        raise VideoError(f"{path}: there is no such file. Check the path of the video.")
    source = None
    try:
        if os.path.getsize(path) == 0:
            raise ValueError("it is empty, 0 bytes")
        # Name the protocol, so that a colon in the path doesn't start another one.
        with av.open(f"file:{path}", metadata_errors="replace") as container:
            source = _choose_streams(container)
            yield source
    except _READ_ERRORS as error:
        reason = (isinstance(error, av.error.FFmpegError) and error.strerror) or error
        where = f" beyond {source.reached_s:.1f} s" if source else ""
        raise VideoError(
            f"{path}: cannot be read{where}: {' '.join(str(reason).split())}. Expected "
            "a whole video of a format that FFmpeg reads. Does a player show it to its "
            "end? If not, download or convert it again, or leave it out."
        ) from error


def _choose_streams(container: av.container.InputContainer) -> Source:
    """Return FFmpeg's best picture and the best sound that belongs to it."""
    name = container.format.name
    if name in _NO_VIDEOS or name.endswith("_pipe"):
        raise ValueError(f"it is a {container.format.long_name}, not a video")
    # A cover image is no picture.
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
        # Decode several frames at once where the codec allows it.
        picture.thread_type = "AUTO"
    return Source(container, picture, sound)


def probe(path: str | os.PathLike[str]) -> VideoInfo:
    """Return what a video's beginning shows; raise VideoError if it can't be read."""
    with open_video(path) as source:
        width = height = None
        first = _first_frames(source)
        if not first:
            raise ValueError(_HOLDS_NOTHING)
        if source.picture is not None and source.picture.index in first:
            frame = first[source.picture.index]
            # An array without memory of its own: only its shape is turned.
            outline = np.broadcast_to(np.uint8(0), (frame.height, frame.width))
            height, width = turn_upright(outline, frame).shape
        duration = source.container.duration
        return VideoInfo(
            has_audio=source.sound is not None and source.sound.index in first,
            has_visual=width is not None,
            duration_s=None if duration is None else duration / av.time_base,
            width=width,
            height=height,
        )


def _first_frames(source: Source) -> dict[int, av.VideoFrame | av.AudioFrame]:
    """Return the first frames of picture and sound, by the indices of streams."""
    first: dict[int, av.VideoFrame | av.AudioFrame] = {}
    for packet in source.container.demux(source.streams):
        if packet.stream_index not in first:
            # The last packet is empty and flushes the decoder.
            for frame in packet.decode():
                first.setdefault(packet.stream_index, frame)
        if len(first) == len(source.streams):
            break
    return first
