"""Find and open video files, choose streams, compare what a file states and holds.

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
import pathlib
from collections.abc import Iterator, Sequence
from fractions import Fraction

import av

from avsdn_tf.errors import UserError
from avsdn_tf.features.video.clock import (
    MAX_LENGTH_S,
    MAX_MISSING_FL,
    SECOND_FL,
    to_flicks,
)
from avsdn_tf.files import expand_user

# The containers and audio files that are opened. None of them names other files or
# addresses, as playlists do, and none is a picture or plain text.
_FORMATS = (
    *("3g2", "3gp", "aac", "ac3", "aiff", "amr", "ape", "apng", "asf", "au", "av1"),
    *("avi", "caf", "dts", "dv", "eac3", "flac", "flv", "gif", "gxf", "h264", "hevc"),
    *("ivf", "m4v", "matroska", "mjpeg", "mov", "mp3", "mpc", "mpc8", "mpeg"),
    *("mpegts", "mpegvideo", "mxf", "nut", "obu", "ogg", "rm", "tak", "truehd", "tta"),
    *("vc1", "voc", "w64", "wav", "wtv", "wv", "yuv4mpegpipe"),
)
_NO_VIDEO = (
    "it is not a video, but of a format that holds neither picture nor sound, one "
    "picture, or the names of other files"
)
# 8K of the cinema. A header may claim any size.
_MAX_PIXELS = 8192 * 4320
# The transport stream of a whole TV channel has about a hundred.
_MAX_STREAMS = 256
# Each thread of a decoder holds a frame.
_MAX_THREADS = 4
# FFmpeg's unit for the times of a container as a whole.
_CONTAINERS_UNIT_S = Fraction(1, av.time_base)
# For other formats, FFmpeg computes the duration from the bytes that are there.
_STATE_THEIR_DURATION = {"asf", "flv", "matroska", "mov"}
_SUFFIXES = (
    *(".3g2", ".3gp", ".asf", ".avi", ".f4v", ".flv", ".m2ts", ".m4v", ".mkv"),
    *(".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".ts", ".vob"),
    *(".webm", ".wmv"),
)
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

    def reopen(self) -> av.container.InputContainer:
        """Open the file once more."""
        return _open(self.container.name.removeprefix("file:"))

    @property
    def stated_end_fl(self) -> int | float:
        """The end of the video as the file states it, else minus infinity."""
        container = self.container
        if container.duration is None or self._is_duration_guessed:
            return -math.inf
        end = (container.start_time or 0) + container.duration
        return to_flicks(end, _CONTAINERS_UNIT_S)

    @property
    def stated_s(self) -> float | None:
        """The length in seconds by the file's header or its last timestamp, or None.

        FFmpeg guesses that of many audio files by their size and bit rate.
        """
        duration = self.container.duration
        if not duration or self._is_duration_guessed or self.picture is None:
            return None
        return float(duration * _CONTAINERS_UNIT_S)

    @property
    def _is_duration_guessed(self) -> bool:
        """Whether FFmpeg guessed the duration by size and bit rate.

        FFmpeg guesses for Matroska without a stated duration, as in a file that was
        streamed. Only then do its streams have durations, which are guesses too.
        """
        return self.container.format.name.startswith("matroska") and any(
            stream.duration is not None for stream in self.streams
        )

    def stated_end_of(self, stream: av.VideoStream | av.AudioStream) -> int | float:
        """Return the end of a stream as its file states it, else minus infinity."""
        if not self._states_duration:
            return -math.inf
        duration = self._own_duration(stream)
        if duration is None:
            return self.stated_end_fl
        return to_flicks((stream.start_time or 0) + duration, stream.time_base)

    def _own_duration(self, stream: av.VideoStream | av.AudioStream) -> int | None:
        """Return what the file states for a stream. ASF repeats that of the file."""
        return stream.duration if self._format != "asf" else None

    @property
    def _states_duration(self) -> bool:
        return self._format in _STATE_THEIR_DURATION and not self._is_duration_guessed

    @property
    def _format(self) -> str:
        return self.container.format.name.split(",")[0]

    def check_complete(
        self, zero_fl: int, end_fl: int | float, ends_fl: list[int | float]
    ) -> None:
        """Raise ValueError if the file states more than was decoded.

        `end_fl` is where the longest of all streams ends, read or not, since the
        container is as long; `ends_fl` is where each of `streams` ends.
        """
        if not self._states_duration:
            return
        stated = [(self.container.duration, _CONTAINERS_UNIT_S, end_fl)]
        for stream, stream_end_fl in zip(self.streams, ends_fl, strict=True):
            duration = self._own_duration(stream)
            stated.append((duration, stream.time_base, stream_end_fl))
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
        with _open(path) as container:
            source = _choose_streams(container)
            yield source
    except _READ_ERRORS as error:
        reason = (isinstance(error, av.error.FFmpegError) and error.strerror) or error
        if isinstance(error, av.error.ArgumentError):
            reason = f"{reason}, or a picture of more than {_MAX_PIXELS:,} pixels"
        where = f" beyond {source.reached_s:.1f} s" if source else ""
        raise VideoError(
            f"{path}: cannot be read{where}: {' '.join(str(reason).split())}. Expected "
            "a whole video of a format that FFmpeg reads. Does a player show it to its "
            "end? If not, download or convert it again, or leave it out."
            # The traceback, in a cycle with contextlib's variables, holds all frames.
        ) from error.with_traceback(None)


def _open(path: str) -> av.container.InputContainer:
    """Open a file of a known format, without following what the file refers to."""
    try:
        return av.open(
            # Name the protocol, so that a colon in the path doesn't start another one.
            f"file:{path}",
            # FFmpeg decodes frames of every stream and cover while it opens a file.
            options={"max_pixels": str(_MAX_PIXELS)},
            container_options={
                "format_whitelist": ",".join(_FORMATS),
                "protocol_whitelist": "file",
                # Some demuxers drop further ones without an error.
                "max_streams": str(_MAX_STREAMS + 1),
            },
            metadata_errors="replace",
        )
    except av.error.ArgumentError as error:
        # What FFmpeg answers to a format that is not on the list.
        raise ValueError(_NO_VIDEO) from error
    except av.error.MemoryError as error:
        # Some demuxers answer this to too many streams.
        raise ValueError(
            f"it has more than {_MAX_STREAMS} streams, or takes more memory than it may"
        ) from error


def _choose_streams(container: av.container.InputContainer) -> Source:
    """Return FFmpeg's best picture and the best sound that belongs to it."""
    if len(container.streams) > _MAX_STREAMS:
        raise ValueError(f"it has more than {_MAX_STREAMS} streams")
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
        picture.codec_context.thread_count = min(
            _MAX_THREADS, (os.cpu_count() or 1) + 1
        )
    source = Source(container, picture, sound)
    if (source.stated_s or 0) > MAX_LENGTH_S:
        raise ValueError(
            f"it states {source.stated_s:.0f} s, more than the limit of "
            f"{MAX_LENGTH_S // 3600} h"
        )
    return source


@dataclasses.dataclass(frozen=True)
class VideoInfo:
    """What a video's header and the first samples tell.

    Attributes:
        modalities: Which of "audio" and "visual" it holds.
        stated_s: Its length in seconds by its header or last timestamp, or None.
    """

    modalities: frozenset[str]
    stated_s: float | None


def describe(path: str | os.PathLike[str]) -> VideoInfo:
    """Return what the beginning of a video tells, without reading all of it.

    A track without samples or frames counts as none, as does a cover image.

    Raises:
        VideoError: If the file is no video, or its streams can't be decoded.
    """
    found = set()
    with open_video(path) as source:
        kinds = {source.sound: "audio", source.picture: "visual"}
        for packet in source.container.demux(source.streams):
            kind = kinds[packet.stream]
            # Some containers hold empty packets for repeated frames, but a decoder
            # takes an empty packet for the end.
            if packet.size and kind not in found and packet.decode():
                found.add(kind)
            if len(found) == len(source.streams):
                break
        else:
            for stream in source.streams:
                if kinds[stream] not in found and stream.decode(None):
                    found.add(kinds[stream])
        if not found:
            raise ValueError(_HOLDS_NOTHING)
        return VideoInfo(frozenset(found), source.stated_s)


def probe(path: str | os.PathLike[str]) -> set[str]:
    """Return which of "audio" and "visual" a video holds; see `describe`."""
    return set(describe(path).modalities)


def find_videos(paths: Sequence[str | os.PathLike[str]]) -> list[pathlib.Path]:
    """Return the videos in files and folders, each once under its first path.

    Folders are searched with their subfolders, without hidden files, such as those that
    macOS writes beside others. As long as one file exists, the result includes files
    that don't exist and folders without videos: these fail when they are read, and the
    other videos go on.

    Raises:
        UserError: If there is no video at all.
    """
    videos = {}
    for path in map(pathlib.Path, map(expand_user, paths)):
        found = [path]
        # os.path.isdir accepts any name; Path.is_dir raises for some.
        if os.path.isdir(path):
            found = sorted(
                file
                for file in path.rglob("*")
                if file.suffix.lower() in _SUFFIXES
                and not file.name.startswith(".")
                and os.path.isfile(file)
            ) or [path]
        for file in found:
            videos.setdefault(os.path.realpath(file), file)
    if not any(map(os.path.isfile, videos)):
        missing = [path for path in paths if not os.path.exists(path)]
        received = ", ".join(
            f"{path} (no such file or folder)" if path in missing else str(path)
            for path in paths
        )
        kinds = "" if missing else f" ({', '.join(_SUFFIXES)})"
        raise UserError(
            f"Expected at least one video, or a folder of videos{kinds}. "
            f"Received: {received or 'none'}"
        )
    return list(videos.values())
