"""Describe the clips of manifest.csv, and merge the lines of a clip."""

import bisect
import dataclasses
import itertools
import pathlib

from tfds_ave.configs import BACKGROUND, SEGMENT_S
from tfds_ave.errors import DatasetError

TOLERANCE_S = 1.0


@dataclasses.dataclass(frozen=True)
class CustomEvent:
    """An event of a clip; `line` is its line in manifest.csv."""

    category: str
    start_s: float
    end_s: float
    line: int


@dataclasses.dataclass(frozen=True)
class CustomClip:
    """One clip of the manifest: a video, or a pair of audio and visual feature files.

    Attributes:
        row: Number of the clip, from 0.
        key: Key of the clip.
        line: Its first line in manifest.csv.
        split: Name of the split.
        categories: Categories of the events, without duplicates; empty for background.
        events: Events with times, without overlaps in a category; empty for weak labels
            and background.
        video: Path of the video, or None.
        features: Paths of audio and visual features, or None.
        hops_s: Seconds per row of audio and of visual features.
        tolerance_s: Largest difference in length of audio and visual features, and
            largest time by which an event may end after the clip, in seconds.
    """

    row: int
    key: str
    line: int
    split: str
    categories: tuple[str, ...]
    events: tuple[CustomEvent, ...]
    video: pathlib.Path | None
    features: tuple[pathlib.Path, pathlib.Path] | None
    hops_s: tuple[float, float] = (SEGMENT_S, SEGMENT_S)
    tolerance_s: float = TOLERANCE_S

    @property
    def files(self) -> tuple[pathlib.Path, ...]:
        """The video, or the feature files."""
        return self.features or (self.video,)

    @property
    def has_times(self) -> bool:
        """Whether all events have a start and an end."""
        return bool(self.events) or not self.categories

    @property
    def is_whole(self) -> bool:
        """Whether the clip is one example, rather than cut into training windows.

        Clips without times are not cut, because a window may lack the events.
        """
        return self.split != "train" or not self.has_times


@dataclasses.dataclass(frozen=True)
class ClipLines:
    """The lines of one clip in manifest.csv.

    Attributes:
        first: The clip as its first line describes it.
        events: Events of each category, ordered by start; an empty list for a category
            without times.
    """

    first: CustomClip
    events: dict[str, list[CustomEvent]]

    @classmethod
    def start(cls, first: CustomClip) -> "ClipLines":
        """Return a `ClipLines` that holds the first line of a clip."""
        return cls(first, {name: list(first.events) for name in first.categories})

    def add(self, other: CustomClip, where: str) -> None:
        """Add another line of the clip.

        Raises:
            DatasetError: If the line contradicts earlier lines.
        """
        first = self.first
        prefix = f"{where}: key {other.key!r} also names line {first.line}"
        shared = ("split", "video", "features", "hops_s", "tolerance_s")
        if any(getattr(first, name) != getattr(other, name) for name in shared):
            raise DatasetError(
                f"{prefix}, with another split, file, hop or tolerance. Expected lines "
                "of one clip to differ in category and times only. Give different "
                "clips different keys."
            )
        if not (first.categories and other.categories):
            raise DatasetError(
                f"{prefix}. Expected one line for a clip of {BACKGROUND}, which has no "
                "event."
            )
        if bool(first.events) != bool(other.events):
            raise DatasetError(
                f"{prefix}. Expected times in every line of a clip, or in none. "
                "Received times in one of the two."
            )
        (category,) = other.categories
        if not other.events and category in self.events:
            raise DatasetError(
                f"{prefix}, and {category!r} again. Expected each category of a clip "
                "without times once."
            )
        events = self.events.setdefault(category, [])
        for event in other.events:
            place = bisect.bisect(events, event.start_s, key=lambda e: e.start_s)
            for near in events[max(0, place - 1) : place + 1]:
                if event.start_s < near.end_s and near.start_s < event.end_s:
                    raise DatasetError(
                        f"{where}: overlapping times. Expected events of one category "
                        f"that don't overlap. Received: {category!r} from "
                        f"{event.start_s} to {event.end_s} s, and from {near.start_s} "
                        f"to {near.end_s} s in line {near.line}."
                    )
            events.insert(place, event)

    def finish(self) -> CustomClip:
        """Return the clip with the events of all lines, ordered by line."""
        events = itertools.chain.from_iterable(self.events.values())
        return dataclasses.replace(
            self.first,
            categories=tuple(self.events),
            events=tuple(sorted(events, key=lambda event: event.line)),
        )
