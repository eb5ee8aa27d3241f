"""Find AVE's videos, and create clips from their features."""

import dataclasses
import pathlib
import zipfile
from collections.abc import Iterator, Mapping

import numpy as np

from tfds_ave.clips import (
    Clip,
    check_lengths,
    cut_warnings,
    read_segments,
    read_shape,
    wrong_lengths_message,
)
from tfds_ave.errors import DatasetError, shorten
from tfds_ave.look import find_wrong_lengths
from tfds_ave.official import OfficialData

ARCHIVE = "AVE_Dataset.zip"
FOLDER = "AVE"
# Settings of the backbones.
SETTINGS = "features.json"
_URL = "https://drive.google.com/open?id=1FjKwe79e0u96vdjIVwfRQ1V6SoDHe7kK"


@dataclasses.dataclass(frozen=True)
class Video:
    """A video file, or a video in a zip archive.

    Attributes:
        key: Key of the video's features.
        path: Path of the file or archive.
        member: Name of the video in the archive; None for a file.
    """

    key: str
    path: pathlib.Path
    member: str | None = None


def find_videos(data: OfficialData, folder: pathlib.Path) -> list[Video]:
    """Return the videos of all clips, in AVE_Dataset.zip or the folder AVE.

    Several rows may share a video.

    Raises:
        DatasetError: If archive and folder are missing, or some videos are missing.
    """
    videos = _list_videos(folder)
    rows = np.concatenate(list(data.orders.values())).tolist()
    video_ids = sorted({data.annotations[row].video_id for row in rows})
    missing = [video_id for video_id in video_ids if video_id not in videos]
    if missing:
        raise DatasetError(
            f"{folder}: {len(missing)} of {len(video_ids)} videos are missing. "
            "Expected VIDEOID.mp4 of every row of the splits. Received none for "
            f"{', '.join(shorten(missing))}."
        )
    return [videos[video_id] for video_id in video_ids]


def precheck(
    num_segments: int, num_videos: int, lengths_s: Mapping[str, float]
) -> list[str]:
    """Return errors about videos that are too long or too short.

    `lengths_s` maps video ids to the lengths that the files state, in seconds.
    """
    named_s = {f"{name}.mp4": length for name, length in lengths_s.items()}
    wrong = find_wrong_lengths(named_s, num_segments)
    return [wrong_lengths_message(wrong, num_videos, num_segments)] if wrong else []


def _list_videos(folder: pathlib.Path) -> dict[str, Video]:
    """Return the videos in the folder or archive, by video id."""
    archive = folder / ARCHIVE
    if (folder / FOLDER).is_dir():
        paths = (folder / FOLDER).glob("*.mp4")
        return {path.stem: Video(path.stem, path) for path in paths}
    if not archive.is_file():
        raise DatasetError(
            f"{folder}: config 'videos' lacks AVE's videos. Expected {ARCHIVE}, or the "
            f"unpacked folder {FOLDER}. Download the archive from {_URL}"
        )
    try:
        with zipfile.ZipFile(archive) as zipped:
            members = zipped.namelist()
    except zipfile.BadZipFile as error:
        raise DatasetError(
            f"{archive}: damaged or truncated ({error}). Replace it by a complete copy."
        ) from error
    return {
        path.stem: Video(path.stem, archive, member)
        for member in members
        if (path := pathlib.PurePosixPath(member)).suffix == ".mp4"
    }


@dataclasses.dataclass(frozen=True)
class VideoData:
    """AVE's clips with features extracted from its videos.

    Attributes:
        official: AVE's annotations and splits.
        paths: Audio and visual feature files by video id.

    Raises:
        DatasetError: If a file is damaged, or a video's length differs from AVE's.
    """

    official: OfficialData
    paths: dict[str, tuple[pathlib.Path, pathlib.Path]]

    def __post_init__(self) -> None:
        check_lengths(self._lengths(), self.official.config.num_segments)

    def _lengths(self) -> dict[str, int]:
        shapes = {name: [*map(read_shape, each)] for name, each in self.paths.items()}
        return {f"{name}.mp4": audio[0] for name, (audio, _) in shapes.items()}

    @property
    def warnings(self) -> list[str]:
        """Warnings about the clips."""
        num_segments = self.official.config.num_segments
        return [*self.official.warnings, *cut_warnings(self._lengths(), num_segments)]

    @property
    def num_clips(self) -> int:
        """Number of clips in all splits."""
        return self.official.num_clips

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits."""
        return tuple(self.official.orders)

    def clips(self, split: str) -> Iterator[Clip]:
        """Yield a split's clips in the order of the split's order file."""
        num_segments = self.official.config.num_segments
        for row in self.official.orders[split].tolist():
            paths = self.paths[self.official.annotations[row].video_id]
            audio, visual = (read_segments(path, num_segments) for path in paths)
            yield self.official.make_clip(row, audio, visual, is_background=False)
