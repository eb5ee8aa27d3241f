"""Summarize a manifest in numbers, for the terminal and the figure."""

import collections
import dataclasses
from collections.abc import Mapping, Sequence

from avsdn_tf.labels.checks import Clip
from avsdn_tf.labels.files import SPLITS


@dataclasses.dataclass(frozen=True)
class Summary:
    """Numbers of a manifest.

    Attributes:
        num_clips: Number of clips.
        num_splits: Number of clips of each split.
        length_s: Length of all clips, in seconds.
        lengths_s: Length of each clip, in seconds.
        num_background: Number of clips without events.
        num_untimed: Number of clips whose events have no times.
        events: Number of events by category and split, the most frequent category
            first.
        single_s: Time with exactly one event, in seconds.
        overlap_s: Time with several events at once, in seconds.
        unlabelled_s: Time without events in clips with timed events, in seconds.
        background_s: Length of the clips without events, in seconds.
        num_overlapping: Number of clips with overlaps.
    """

    num_clips: int
    num_splits: Mapping[str, int]
    length_s: float
    lengths_s: tuple[float, ...]
    num_background: int
    num_untimed: int
    events: Mapping[str, Mapping[str, int]]
    single_s: float
    overlap_s: float
    unlabelled_s: float
    background_s: float
    num_overlapping: int

    @property
    def categories(self) -> tuple[str, ...]:
        """The categories in alphabetical order."""
        return tuple(sorted(self.events))


def summarize(clips: Sequence[Clip]) -> Summary:
    """Compute the summary of a manifest's clips."""
    events: dict[str, collections.Counter[str]] = {}
    single_s = overlap_s = unlabelled_s = background_s = 0.0
    num_untimed = num_overlapping = 0
    for clip in clips:
        length_s = clip.medium.length_s
        for event in clip.events:
            counts = events.setdefault(event.category, collections.Counter())
            counts[clip.split] += 1
        if not clip.events:
            background_s += length_s
        elif not clip.has_times:
            num_untimed += 1
        else:
            clip_single_s, clip_overlap_s = _active_s(clip)
            single_s += clip_single_s
            overlap_s += clip_overlap_s
            unlabelled_s += length_s - clip_single_s - clip_overlap_s
            num_overlapping += clip_overlap_s > 0
    lengths_s = tuple(clip.medium.length_s for clip in clips)
    splits = collections.Counter(clip.split for clip in clips)
    return Summary(
        num_clips=len(clips),
        num_splits={split: splits[split] for split in SPLITS},
        length_s=sum(lengths_s),
        lengths_s=lengths_s,
        num_background=sum(not clip.events for clip in clips),
        num_untimed=num_untimed,
        events=dict(
            sorted(events.items(), key=lambda item: (-item[1].total(), item[0]))
        ),
        single_s=single_s,
        overlap_s=overlap_s,
        unlabelled_s=unlabelled_s,
        background_s=background_s,
        num_overlapping=num_overlapping,
    )


def _active_s(clip: Clip) -> tuple[float, float]:
    """Return the time with one event and the time with several events, in seconds."""
    edges = sorted(
        edge for e in clip.events for edge in ((e.start_s, 1), (e.end_s, -1))
    )
    active, before_s, times_s = 0, 0.0, [0.0, 0.0]
    for time_s, change in edges:
        if active:
            times_s[active > 1] += time_s - before_s
        active, before_s = active + change, time_s
    return times_s[0], times_s[1]
