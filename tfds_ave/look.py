"""Check a source before features are extracted from it."""

import collections
import math
import os
import pathlib
import shutil
from collections.abc import Hashable, Iterable, Mapping, Sequence

from tfds_ave.clips import TOLERANCE_SEGMENTS
from tfds_ave.errors import DatasetError, shorten

# A last second shorter than this is dropped; see `avsdn_tf.features.video.reader`.
TAIL_S = 0.1
# Tolerance for lengths that containers state inexactly.
_UNSURE_S = 0.25


def find_shared(clips: Iterable[tuple[str, str, Hashable]]) -> str | None:
    """Return a warning about videos in several splits, or None.

    Args:
        clips: Name, split and content of each clip.
    """
    by_content: dict[Hashable, dict[str, str]] = collections.defaultdict(dict)
    for name, split, content in clips:
        by_content[content].setdefault(split, name)
    shared = [
        " = ".join(f"{name} ({split})" for split, name in names.items())
        for names in by_content.values()
        if len(names) > 1
    ]
    if not shared:
        return None
    return (
        f"{len(shared)} video{'s' * (len(shared) > 1)} in several splits, which makes "
        f"scores too good: {', '.join(shorten(shared, 3))}"
    )


def find_gaps(
    clips: Iterable[tuple[str, str]], categories: Sequence[str], splits: Sequence[str]
) -> str | None:
    """Return a warning about categories without a clip in a split, or None.

    Args:
        clips: Split and category of each clip.
        categories: All categories.
        splits: The splits to check.
    """
    existing = set(clips)
    gaps = []
    for category in categories:
        lacking = [split for split in splits if (split, category) not in existing]
        if lacking:
            gaps.append(f"{category} in {' and '.join(lacking)}")
    return f"no clip of {'; '.join(shorten(gaps, 5))}" if gaps else None


def find_wrong_lengths(stated_s: Mapping[str, float], num_segments: int) -> list[str]:
    """Return name and segment count of each video that is too long or too short.

    Args:
        stated_s: Length that each video states, in seconds.
        num_segments: Expected number of segments of a video.
    """
    return [
        f"{name} {count_segments(length_s)}"
        for name, length_s in stated_s.items()
        if abs(count_segments(length_s) - num_segments) > TOLERANCE_SEGMENTS
        and abs(length_s - num_segments) > TOLERANCE_SEGMENTS + 1 - _UNSURE_S
    ]


def count_segments(length_s: float) -> int:
    """Return the number of segments of a video of `length_s` seconds, at least 1."""
    # Round, because 10.1 - 0.1 is more than 10 in floating point.
    return max(1, math.ceil(round(length_s - TAIL_S, 6)))


def check_space(needs: Iterable[tuple[pathlib.Path, int]]) -> None:
    """Check that disks have space for files before they are written.

    Args:
        needs: Folders, which need not exist, and numbers of bytes to write.

    Raises:
        DatasetError: If the disk of a folder has too little space.
    """
    needed: dict[int, int] = collections.Counter()
    for folder, num_bytes in needs:
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        device = os.stat(existing).st_dev
        needed[device] += num_bytes
        free = shutil.disk_usage(existing).free
        if needed[device] > free:
            raise DatasetError(
                f"{folder}: too little space. Expected about "
                f"{needed[device] / 1e9:.2f} GB, received {free / 1e9:.2f} GB. Make "
                "space, or choose another folder."
            )
