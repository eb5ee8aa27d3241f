"""The user's own data: clips from the manifest and the clips' feature files."""

import collections
import dataclasses
import pathlib
from collections.abc import Iterator, Mapping

import numpy as np

from tfds_ave.clips import Clip, check_lengths, read_segments, read_shape
from tfds_ave.configs import BACKGROUND
from tfds_ave.errors import DatasetError, raise_errors
from tfds_ave.manifest import CustomClip, Manifest

# The reader of videos drops a last second that is shorter.
_TAIL_S = 0.1


@dataclasses.dataclass(frozen=True)
class CustomData:
    """Clips of a manifest, with feature files whose shapes agree."""

    manifest: Manifest
    paths: tuple[tuple[pathlib.Path, pathlib.Path], ...]
    num_segments: int
    audio_width: int
    visual_shape: tuple[int, ...]

    def clips(self, split: str) -> Iterator[Clip]:
        """Yield a split's clips, with flat visual features `(num_segments, width)`.

        The rank of a TFDS feature can't depend on the data.
        """
        classes = (*self.manifest.categories, BACKGROUND)
        for clip, paths in zip(self.manifest.clips, self.paths, strict=True):
            if clip.split != split:
                continue
            audio, visual = (read_segments(path, self.num_segments) for path in paths)
            category = classes.index(clip.category)
            is_event = np.zeros(self.num_segments, bool)
            for start_s, end_s in clip.times_s:
                is_event |= event_segments(start_s, end_s, self.num_segments)
            starts_s, ends_s = zip(*clip.times_s or [(0.0, 0.0)], strict=True)
            yield Clip(
                row=clip.row,
                video_id=clip.key,
                audio=audio,
                visual=visual.reshape(self.num_segments, -1),
                segment_labels=np.where(is_event, category, classes.index(BACKGROUND)),
                clip_label=category,
                start_s=min(starts_s),
                end_s=min(max(ends_s), self.num_segments),
                match_split=split,
            )


def event_segments(start_s: float, end_s: float, num_segments: int) -> np.ndarray:
    """Return which segments of a clip an event covers, `(num_segments,)` Boolean.

    An event covers the segments whose middle lies within it. A short event without any
    such segment covers the segment that it overlaps most, so that no event is lost.
    """
    starts_s = np.arange(num_segments)
    middles_s = starts_s + 0.5
    covered = (start_s <= middles_s) & (middles_s < end_s)
    if not covered.any():
        overlap_s = np.minimum(end_s, starts_s + 1) - np.maximum(start_s, starts_s)
        # Rounded, since 1 - 0.9 and 1.1 - 1 differ in their last digits.
        covered[np.argmax(np.round(overlap_s, 6))] = True
    return covered


def open_custom(
    manifest: Manifest, extracted: Mapping[str, tuple[pathlib.Path, pathlib.Path]]
) -> CustomData:
    """Check by the headers of all feature files that they fit together.

    The most frequent number of rows is the number of segments of all clips. `extracted`
    holds the feature files of the clips with a video, by key.
    """
    paths = [clip.features or extracted[clip.key] for clip in manifest.clips]
    shapes, errors = [], []
    for audio_path, visual_path in paths:
        try:
            shapes.append(_read_shapes(audio_path, visual_path))
        except DatasetError as error:
            errors.append(str(error))
    raise_errors(errors)
    lengths, audio_widths, visual_shapes = zip(*shapes, strict=True)
    counts = collections.Counter(lengths)
    # The smaller of two equally frequent numbers: surplus rows can be cut off.
    num_segments = min(counts, key=lambda length: (-counts[length], length))
    keys = [clip.key for clip in manifest.clips]
    check_lengths(dict(zip(keys, lengths, strict=True)), num_segments)
    audio_width, visual_shape = audio_widths[0], visual_shapes[0]
    for clip, (length, *widths) in zip(manifest.clips, shapes, strict=True):
        if widths != [audio_width, visual_shape]:
            errors.append(
                f"Clip {clip.key!r}: expected features of the first clip's shapes, "
                f"audio {audio_width} and visual {visual_shape} a segment. Received: "
                f"{widths[0]} and {widths[1]}."
            )
        errors += _check_times(clip, length, num_segments)
    raise_errors(errors)
    return CustomData(manifest, tuple(paths), num_segments, audio_width, visual_shape)


def _read_shapes(
    audio_path: pathlib.Path, visual_path: pathlib.Path
) -> tuple[int, int, tuple[int, ...]]:
    """Return length in seconds, audio width and visual shape of a clip."""
    audio, visual = read_shape(audio_path), read_shape(visual_path)
    if (
        len(audio) != 2
        or len(visual) not in (2, 4)
        or audio[0] != visual[0]
        or 0 in (*audio, *visual)
    ):
        raise DatasetError(
            f"{audio_path} and {visual_path}: expected (num_segments, width) and "
            "(num_segments, width) or (num_segments, rows, columns, width), with the "
            f"same number of segments, at least 1. Received: {audio} and {visual}."
        )
    return audio[0], audio[1], visual[1:]


def _check_times(clip: CustomClip, length: int, num_segments: int) -> Iterator[str]:
    """Yield an error message for every event outside a clip of `length` seconds."""
    longest_s = max(length, num_segments) + _TAIL_S
    for start_s, end_s in clip.times_s:
        # An event may end, but not start, in the surplus that is cut off.
        if end_s >= longest_s or start_s >= num_segments:
            yield (
                f"Clip {clip.key!r}: its event lasts from {start_s} to {end_s} s. "
                f"Expected one within its {num_segments} segments of one second."
            )
