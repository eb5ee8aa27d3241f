"""Create clips of the user's own data from the manifest and feature files."""

import collections
import dataclasses
import functools
import pathlib
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tfds_ave.clips import Clip, read_rows
from tfds_ave.configs import BACKGROUND, SPLITS
from tfds_ave.custom_clips import CustomClip
from tfds_ave.manifest import Manifest
from tfds_ave.segments import Span, cut_windows, have_overlap, make_span, to_segments

WINDOW_S = 10


@dataclasses.dataclass(frozen=True)
class EventClip(Clip):
    """A clip, or a window of a clip, with events of several categories.

    Attributes:
        events: `(num_events, 3)` int64: category, first segment, last segment + 1.
        clip_categories: Categories of all events, with or without times.
    """

    events: np.ndarray
    clip_categories: list[int]


@dataclasses.dataclass(frozen=True)
class CustomData:
    """Clips of a manifest, with feature files of equal widths.

    Attributes:
        manifest: The manifest.
        paths: Audio and visual feature files of each clip.
        lengths: Number of segments of each clip.
        audio_width: Width of an audio feature.
        visual_shape: Shape of a segment's visual feature.
        window_s: Length of a window, in segments.
        hop_s: Segments from the start of one window to the next.
        warnings: Warnings about the files.
    """

    manifest: Manifest
    paths: tuple[tuple[pathlib.Path, pathlib.Path], ...]
    lengths: tuple[int, ...]
    audio_width: int
    visual_shape: tuple[int, ...]
    window_s: int
    hop_s: int
    warnings: tuple[str, ...]

    @functools.cached_property
    def example_lengths(self) -> dict[str, list[int]]:
        """Number of segments of each example, by split."""
        lengths: dict[str, list[int]] = {split: [] for split in SPLITS}
        for clip, length in zip(self.manifest.clips, self.lengths, strict=True):
            windows = self._windows(clip, length)
            lengths[clip.split] += [end - first for first, end in windows]
        return lengths

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata that depend on the data."""
        clips, lengths = self.manifest.clips, self.lengths
        examples = self.example_lengths
        overlapping = [
            clip.key
            for clip, length in zip(clips, lengths, strict=True)
            if have_overlap(self._spans(clip, length))
        ]
        return {
            "num_segments": min(self.window_s, max(lengths)),
            "audio_width": self.audio_width,
            "visual_shape": list(self.visual_shape),
            "has_times": self.manifest.has_times,
            "labels_hash": self.manifest.labels_hash(self.window_s, self.hop_s),
            "window_s": self.window_s,
            "hop_s": self.hop_s,
            "is_padded": len(set().union(*examples.values())) > 1,
            "train_segments": max(examples["train"]),
            "longest_segments": max(lengths),
            "lengths": [min(lengths), int(statistics.median(lengths)), max(lengths)],
            "num_clips": dict(collections.Counter(clip.split for clip in clips)),
            "multi_label": bool(overlapping),
            "overlapping": {"num_clips": len(overlapping), "first": overlapping[:3]},
        }

    def clips(self, split: str) -> Iterator[EventClip]:
        """Yield a split's examples.

        Visual features are flat, `(num_segments, width)`, because the rank of a TFDS
        feature can't depend on the data.
        """
        items = zip(self.manifest.clips, self.paths, self.lengths, strict=True)
        for clip, paths, length in items:
            if clip.split != split:
                continue
            audio, visual = (
                to_segments(read_rows(path), hop_s, length)
                for path, hop_s in zip(paths, clip.hops_s, strict=True)
            )
            spans = self._spans(clip, length)
            for first, end in self._windows(clip, length):
                inside = [span.within(first, end) for span in spans]
                yield EventClip(
                    row=clip.row,
                    video_id=clip.key,
                    audio=audio[first:end],
                    visual=visual[first:end].reshape(end - first, -1),
                    match_split=split,
                    **self._label(clip, [span for span in inside if span], end - first),
                )

    def _windows(self, clip: CustomClip, length: int) -> list[tuple[int, int]]:
        if clip.is_whole:
            return [(0, length)]
        return cut_windows(length, self.window_s, self.hop_s)

    @functools.cached_property
    def _classes(self) -> dict[str, int]:
        names = (*self.manifest.categories, BACKGROUND)
        return {name: index for index, name in enumerate(names)}

    def _spans(self, clip: CustomClip, length: int) -> list[Span]:
        """Return a clip's events in order of their start."""
        ordered = sorted(clip.events, key=lambda event: event.start_s)
        return [
            make_span(self._classes[each.category], each.start_s, each.end_s, length)
            for each in ordered
        ]

    def _label(
        self, clip: CustomClip, spans: Sequence[Span], length: int
    ) -> dict[str, Any]:
        """Return an example's labels. Of overlapping events, the later one counts."""
        background = self._classes[BACKGROUND]
        labels = np.full(length, background, np.int64)
        covered: dict[int, int] = collections.Counter()
        for span in spans:
            labels[span.first : span.end] = span.category
            covered[span.category] += span.end - span.first
        categories = list(covered)
        if not clip.events:
            categories = [self._classes[name] for name in clip.categories]
        events = [(span.category, span.first, span.end) for span in spans]
        return {
            "segment_labels": labels,
            "clip_label": max(categories, key=covered.__getitem__, default=background),
            "start_s": min((span.start_s for span in spans), default=0.0),
            "end_s": max((span.end_s for span in spans), default=0.0),
            "events": np.array(events, np.int64).reshape(-1, 3),
            "clip_categories": categories,
        }
