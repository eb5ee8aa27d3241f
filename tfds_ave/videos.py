"""AVE's own videos: finds them, and gives their clips once features are made."""

import dataclasses
import pathlib
import zipfile
from collections.abc import Iterator

import numpy as np

from tfds_ave.clips import Clip
from tfds_ave.errors import DatasetError
from tfds_ave.official import OfficialData

ARCHIVE = "AVE_Dataset.zip"
FOLDER = "AVE"
# How much longer or shorter than its segments a video may be: a container may round its
# length up by a part of a second, or down.
TOLERANCE_SEGMENTS = 1
_MOST_NAMED = 5


@dataclasses.dataclass(frozen=True)
class Video:
    """A video to make features of.

    Attributes:
        key: What its features are called.
        path: The file, or the zip archive that holds it.
        member: Its name in the archive; None where there is none.
    """

    key: str
    path: pathlib.Path
    member: str | None = None


def find_videos(data: OfficialData, folder: pathlib.Path) -> list[Video]:
    """Finds the video of every clip, in AVE_Dataset.zip or the folder AVE.

    Args:
        data: The rows and their splits.
        folder: The manual folder.

    Returns:
        One video an id; some ids have several rows.

    Raises:
        DatasetError: If there is neither, or videos are missing; it counts them.
    """
    archive = folder / ARCHIVE
    if (folder / FOLDER).is_dir():
        found = {
            path.stem: Video(path.stem, path)
            for path in (folder / FOLDER).glob("*.mp4")
        }
    elif archive.is_file():
        try:
            with zipfile.ZipFile(archive) as zipped:
                members = zipped.namelist()
        except zipfile.BadZipFile as error:
            raise DatasetError(
                f"{archive}: damaged or truncated ({error}). Replace it by a complete "
                "copy."
            ) from error
        found = {
            path.stem: Video(path.stem, archive, member)
            for member in members
            if (path := pathlib.PurePosixPath(member)).suffix == ".mp4"
        }
    else:
        raise DatasetError(
            f"{folder}: config 'videos' lacks AVE's videos. Expected {ARCHIVE}, or the "
            f"folder {FOLDER} unpacked from it, from https://drive.google.com/open?id="
            "1FjKwe79e0u96vdjIVwfRQ1V6SoDHe7kK"
        )
    rows = np.concatenate(list(data.orders.values())).tolist()
    wanted = sorted({data.annotations[row].video_id for row in rows})
    missing = [video_id for video_id in wanted if video_id not in found]
    if missing:
        raise DatasetError(
            f"{folder}: {len(missing)} of {len(wanted)} videos are missing. Expected "
            f"VIDEOID.mp4 of every row of the splits. Received none for "
            f"{', '.join(missing[:_MOST_NAMED])}"
            f"{' ...' if len(missing) > _MOST_NAMED else ''}."
        )
    return [found[video_id] for video_id in wanted]


@dataclasses.dataclass(frozen=True)
class VideoData:
    """AVE's clips with features made of the videos.

    Attributes:
        official: Rows, splits and labels.
        paths: Audio and visual feature file of every video, by its id.
    """

    official: OfficialData
    paths: dict[str, tuple[pathlib.Path, pathlib.Path]]

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits."""
        return tuple(self.official.orders)

    def clips(self, split: str) -> Iterator[Clip]:
        """Yields a split's clips, in the order of its file."""
        for row in self.official.orders[split].tolist():
            paths = self.paths[self.official.annotations[row].video_id]
            audio, visual = (self._read(path) for path in paths)
            yield self.official.make_clip(row, audio, visual, is_background=False)

    def check_lengths(self) -> None:
        """Checks, by the headers of the files, that all clips are as long as AVE's.

        Raises:
            DatasetError: If some are not, or a file is damaged.
        """
        segments = self.official.config.num_segments
        wrong = []
        for video_id, paths in self.paths.items():
            (length, *_), _ = map(shape_of, paths)
            if abs(length - segments) > TOLERANCE_SEGMENTS:
                wrong.append(f"{video_id}.mp4 {length} s")
        if wrong:
            raise DatasetError(
                f"{len(wrong)} of {len(self.paths)} videos have another length. "
                f"Expected {segments} s, as AVE's clips have, or {TOLERANCE_SEGMENTS} "
                f"more or fewer. Received: {', '.join(wrong[:_MOST_NAMED])}"
                f"{' ...' if len(wrong) > _MOST_NAMED else ''}. Replace them by AVE's, "
                "and build again."
            )

    def _read(self, path: pathlib.Path) -> np.ndarray:
        values = np.load(path).astype(np.float32)
        if not np.isfinite(values).all():
            raise DatasetError(
                f"{path}: NaN or infinite values. Expected finite features. Do the "
                "weights belong to their networks? Remove the file, and build again."
            )
        return fit_to_segments(values, self.official.config.num_segments)


def shape_of(path: pathlib.Path) -> tuple[int, ...]:
    """Returns the shape of a feature file, by its header.

    Raises:
        DatasetError: If it is damaged, or holds something else.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray):
            array.close()
            raise ValueError("an archive of several arrays")
    except (ValueError, OSError, EOFError) as error:
        raise DatasetError(
            f"{path}: damaged, or no .npy file ({error}). Expected an array of "
            "features. If a video's, remove the file, and build again."
        ) from error
    if array.dtype.kind != "f":
        raise DatasetError(
            f"{path}: expected floating point features. Received: {array.dtype}."
        )
    return array.shape


def fit_to_segments(values: np.ndarray, num_segments: int) -> np.ndarray:
    """Returns the features of a clip's segments, of those of a video's seconds.

    Args:
        values: One row a second; `TOLERANCE_SEGMENTS` more or fewer than segments.
        num_segments: How many rows to return. The last one is repeated for those that
            are missing.
    """
    missing = num_segments - len(values)
    if missing > 0:
        values = np.concatenate([values, np.repeat(values[-1:], missing, axis=0)])
    return values[:num_segments]
