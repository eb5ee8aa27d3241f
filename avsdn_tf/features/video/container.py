"""Find and open video files, choose streams, and check that files are complete.

FFmpeg reads the file through PyAV, which drops FFmpeg's log unless a program enables it
through `av.logging`.

A damaged video yields the seconds before the damage, and then raises `VideoError`.
These faults count as damage:

* a damaged packet or frame;
* more than 1 s without both picture and sound (see `clock`);
* an end more than 1 s before the end that the file states.

Two kinds of damage are not detected: changed bytes that FFmpeg can decode, and an AVI,
WAV or MPEG transport stream that was cut between two packets.
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

# The accepted formats. Still images, plain text, and playlists (which refer to other
# files or URLs) are excluded.
_FORMATS = (
    *("3g2", "3gp", "aac", "ac3", "aiff", "amr", "ape", "apng", "asf", "au", "av1"),
    *("avi", "caf", "dts", "dv", "eac3", "flac", "flv", "gif", "gxf", "h264", "hevc"),
    *("ivf", "m4v", "matroska", "mjpeg", "mov", "mp3", "mpc", "mpc8", "mpeg"),
    *("mpegts", "mpegvideo", "mxf", "nut", "obu", "ogg", "rm", "tak", "truehd", "tta"),
    *("vc1", "voc", "w64", "wav", "wtv", "wv", "yuv4mpegpipe"),
)
_NO_VIDEO = "it is not a video, but for example an image, text or a playlist"
# The size of 8K cinema frames. A damaged or malicious header may state any size.
_MAX_PIXELS = 8192 * 4320
# The whole transport stream of a TV channel contains about a hundred streams.
_MAX_STREAMS = 256
# Each decoder thread holds a frame in memory.
_MAX_THREADS = 4
# FFmpeg's time unit of a container's start and duration.
_CONTAINER_UNIT_S = Fraction(1, av.time_base)
# Formats whose files state their duration. For other formats, FFmpeg computes it from
# the bytes in the file, so it doesn't reveal a truncated file.
_FORMATS_WITH_DURATION = {"asf", "flv", "matroska", "mov"}
_SUFFIXES = (
    *(".3g2", ".3gp", ".asf", ".avi", ".f4v", ".flv", ".m2ts", ".m4v", ".mkv"),
    *(".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".ts", ".vob"),
    *(".webm", ".wmv"),
)
_HOLDS_NOTHING = "it holds neither picture nor sound"
# Errors that PyAV raises for damaged files.
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

    Example:
        >>> from avsdn_tf.features.video import VideoError
        >>> try:
        ...     avsdn_tf.localize(avsdn_tf.load("runs/first"), "no_such_file.mp4")
        ... except VideoError:
        ...     print("left out")
        left out
    """


@dataclasses.dataclass(eq=False)
class Source:
    """An open file.

    Attributes:
        container: PyAV's container.
        picture: The video stream to read, or None.
        sound: The audio stream to read, or None.
        reached_s: Decoded time so far, in seconds, for messages.
    """

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
        """The file's stated end in flicks; minus infinity if it states no end."""
        container = self.container
        if container.duration is None or self._is_duration_guessed:
            return -math.inf
        end = (container.start_time or 0) + container.duration
        return to_flicks(end, _CONTAINER_UNIT_S)

    @property
    def stated_s(self) -> float | None:
        """The length in seconds by the header or the last timestamp, or None.

        None also for files without picture: FFmpeg may guess their length from their
        size.
        """
        duration = self.container.duration
        if not duration or self._is_duration_guessed or self.picture is None:
            return None
        return float(duration * _CONTAINER_UNIT_S)

    @property
    def _is_duration_guessed(self) -> bool:
        """Whether FFmpeg guessed the duration by size and bit rate.

        FFmpeg guesses the duration of Matroska files that state none, such as recorded
        live streams. In Matroska files, only a guess sets `stream.duration`.
        """
        return self.container.format.name.startswith("matroska") and any(
            stream.duration is not None for stream in self.streams
        )

    def stated_end_of(self, stream: av.VideoStream | av.AudioStream) -> int | float:
        """Return a stream's stated end in flicks; minus infinity if none is stated."""
        if not self._states_duration:
            return -math.inf
        duration = self._stream_duration(stream)
        if duration is None:
            return self.stated_end_fl
        return to_flicks((stream.start_time or 0) + duration, stream.time_base)

    def _stream_duration(self, stream: av.VideoStream | av.AudioStream) -> int | None:
        """Return the stream's stated duration in its time base, or None.

        None for ASF, which states only the file's duration: FFmpeg copies that duration
        to each stream.
        """
        return stream.duration if self._format != "asf" else None

    @property
    def _states_duration(self) -> bool:
        return self._format in _FORMATS_WITH_DURATION and not self._is_duration_guessed

    @property
    def _format(self) -> str:
        return self.container.format.name.split(",")[0]

    def check_complete(
        self, zero_fl: int, end_fl: int | float, ends_fl: list[int | float]
    ) -> None:
        """Raise ValueError if the file states a longer duration than was decoded.

        Args:
            zero_fl: Time 0; see `clock`.
            end_fl: End of the longest stream in the container, decoded or not.
            ends_fl: End of each stream in `streams`.
        """
        if not self._states_duration:
            return
        stated = [(self.container.duration, _CONTAINER_UNIT_S, end_fl)]
        for stream, stream_end_fl in zip(self.streams, ends_fl, strict=True):
            duration = self._stream_duration(stream)
            stated.append((duration, stream.time_base, stream_end_fl))
        for duration, unit_s, decoded_end_fl in stated:
            if duration is None:
                continue
            stated_fl = to_flicks(duration, unit_s)
            # Some formats count the duration from the first timestamp, others from 0.
            length_fl = max(decoded_end_fl - zero_fl, decoded_end_fl)
            if stated_fl > length_fl + MAX_MISSING_FL:
                raise ValueError(
                    f"it states {stated_fl / SECOND_FL:.1f} s, but holds "
                    f"{max(0, length_fl) / SECOND_FL:.1f} s"
                )


@contextlib.contextmanager
def open_video(path: str | os.PathLike[str]) -> Iterator[Source]:
    """Open a video, and convert read errors in the block to `VideoError`."""
    path = os.fsdecode(path)
    if os.path.isdir(path):
        raise VideoError(f"{path}: is a folder. Expected a video file.")
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
            # The traceback would keep all decoded frames in a reference cycle.
        ) from error.with_traceback(None)


def _open(path: str) -> av.container.InputContainer:
    """Open a file of an accepted format, without opening files that it refers to."""
    try:
        return av.open(
            # Without the protocol, FFmpeg reads a path with a colon as a URL.
            f"file:{path}",
            # Limit the size here, too: opening a file decodes frames and covers.
            options={"max_pixels": str(_MAX_PIXELS)},
            container_options={
                "format_whitelist": ",".join(_FORMATS),
                "protocol_whitelist": "file",
                # One more than allowed, to detect files with too many streams: some
                # demuxers silently drop the streams beyond this limit.
                "max_streams": str(_MAX_STREAMS + 1),
            },
            metadata_errors="replace",
        )
    except av.error.ArgumentError as error:
        # FFmpeg's error for a format outside of the whitelist.
        raise ValueError(_NO_VIDEO) from error
    except av.error.MemoryError as error:
        # The error of some demuxers for too many streams.
        raise ValueError(
            f"it has more than {_MAX_STREAMS} streams, or exceeds the memory limit"
        ) from error


def _choose_streams(container: av.container.InputContainer) -> Source:
    """Choose FFmpeg's best video stream, and the best audio stream for it."""
    if len(container.streams) > _MAX_STREAMS:
        raise ValueError(f"it has more than {_MAX_STREAMS} streams")
    # Skip cover images.
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
        # Let codecs decode frames in parallel.
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
    """Modalities and length of a video.

    Attributes:
        modalities: "audio", "visual" or both.
        stated_s: Length in seconds by the header or the last timestamp, or None.
    """

    modalities: frozenset[str]
    stated_s: float | None


def describe(path: str | os.PathLike[str]) -> VideoInfo:
    """Return a video's modalities and length from the beginning of the file.

    Empty streams and cover images don't count as modalities.

    Raises:
        VideoError: If the file is no video, or its streams can't be decoded.
    """
    modalities = set()
    with open_video(path) as source:
        kinds = {source.sound: "audio", source.picture: "visual"}
        for packet in source.container.demux(source.streams):
            kind = kinds[packet.stream]
            # Skip empty packets, which mark repeated frames in some containers: a
            # decoder would take an empty packet for the end of the stream.
            if packet.size and kind not in modalities and packet.decode():
                modalities.add(kind)
            if len(modalities) == len(source.streams):
                break
        else:
            for stream in source.streams:
                if kinds[stream] not in modalities and stream.decode(None):
                    modalities.add(kinds[stream])
        if not modalities:
            raise ValueError(_HOLDS_NOTHING)
        return VideoInfo(frozenset(modalities), source.stated_s)


def probe(path: str | os.PathLike[str]) -> set[str]:
    """Return a video's modalities, "audio" and "visual"; see `describe`."""
    return set(describe(path).modalities)


def find_videos(paths: Sequence[str | os.PathLike[str]]) -> list[pathlib.Path]:
    """Return the videos among files and in folders, without duplicates.

    Folders are searched recursively; hidden files, which macOS writes beside others,
    are skipped. The result includes missing files and folders without videos: each
    fails when it is read, without stopping the other videos.

    Raises:
        UserError: If no video exists.
    """
    videos = {}
    for path in map(pathlib.Path, map(expand_user, paths)):
        files = [path]
        # For a name that is too long, os.path.isdir returns False; Path.is_dir raises.
        if os.path.isdir(path):
            files = sorted(
                file
                for file in path.rglob("*")
                if file.suffix.lower() in _SUFFIXES
                and not file.name.startswith(".")
                and os.path.isfile(file)
            ) or [path]
        for file in files:
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
