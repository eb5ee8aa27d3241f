"""What is known of a source before the first feature is made of it."""

import collections
import math
import os
import pathlib
import shutil
from collections.abc import Hashable, Iterable, Mapping, Sequence

from tfds_ave.clips import TOLERANCE_SEGMENTS
from tfds_ave.errors import DatasetError, shorten

# The reader of videos drops a last second that is shorter.
TAIL_S = 0.1
# Some containers state up to half a second more than they hold.
_UNSURE_S = 0.25


def find_shared(clips: Iterable[tuple[str, str, Hashable]]) -> str | None:
    """Return a warning about videos that are in several splits, or None.

    Args:
        clips: Name, split and content of each clip.
    """
    found: dict[Hashable, dict[str, str]] = collections.defaultdict(dict)
    for name, split, content in clips:
        found[content].setdefault(split, name)
    shared = [
        " = ".join(f"{name} ({split})" for split, name in places.items())
        for places in found.values()
        if len(places) > 1
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
        splits: The splits to look at.
    """
    there = set(clips)
    gaps = []
    for category in categories:
        lacking = [split for split in splits if (split, category) not in there]
        if lacking:
            gaps.append(f"{category} in {' and '.join(lacking)}")
    return f"no clip of {'; '.join(shorten(gaps, 5))}" if gaps else None


def find_wrong_lengths(stated_s: Mapping[str, float], num_segments: int) -> list[str]:
    """Return the name and length of each video that is surely not `num_segments` long.

    `stated_s` holds the length that each video states, in seconds.
    """
    return [
        f"{name} {count_segments(length_s)}"
        for name, length_s in stated_s.items()
        if abs(count_segments(length_s) - num_segments) > TOLERANCE_SEGMENTS
        and abs(length_s - num_segments) > TOLERANCE_SEGMENTS + 1 - _UNSURE_S
    ]


def count_segments(length_s: float) -> int:
    """Return how many segments the reader of videos makes of a length, at least 1."""
    # Rounded, since 10.1 - 0.1 is more than 10.
    return max(1, math.ceil(round(length_s - TAIL_S, 6)))


def check_space(needs: Iterable[tuple[pathlib.Path, int]]) -> None:
    """Check that there is space for files that are about to be written.

    Args:
        needs: Folders, which need not exist yet, and numbers of bytes.

    Raises:
        DatasetError: If there is not; it names the folder.
    """
    needed: dict[int, int] = collections.Counter()
    for folder, num_bytes in needs:
        there = next(path for path in (folder, *folder.parents) if path.exists())
        device = os.stat(there).st_dev
        needed[device] += num_bytes
        free = shutil.disk_usage(there).free
        if needed[device] > free:
            raise DatasetError(
                f"{folder}: too little space. Expected about "
                f"{needed[device] / 1e9:.2f} GB, received {free / 1e9:.2f} GB. Make "
                "space, or choose another folder."
            )
