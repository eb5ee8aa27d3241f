"""The user's own data: clips from the manifest and the clips' feature files."""

import dataclasses
import pathlib
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
from tfds_ave.configs import BACKGROUND, SPLITS
from tfds_ave.errors import DatasetError, raise_errors
from tfds_ave.fingerprint import Fingerprint, name_in
from tfds_ave.look import (
    TAIL_S,
    find_gaps,
    find_shared,
    find_wrong_lengths,
    most_frequent,
)
from tfds_ave.manifest import CustomClip, Manifest

# An event that ends later than this after the stated end is surely outside the clip.
_UNSURE_S = 0.5


@dataclasses.dataclass(frozen=True)
class CustomData:
    """Clips of a manifest, with feature files whose shapes agree."""

    manifest: Manifest
    paths: tuple[tuple[pathlib.Path, pathlib.Path], ...]
    num_segments: int
    audio_width: int
    visual_shape: tuple[int, ...]
    warnings: tuple[str, ...]

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


def find_warnings(
    manifest: Manifest, folder: pathlib.Path, fingerprint: Fingerprint
) -> list[str]:
    """Return what is unusual about the clips of a manifest in a folder."""
    contents = {
        entry.name: (entry.num_bytes, entry.crc32) for entry in fingerprint.files
    }
    clips = [
        (c.key, c.split, tuple(contents[name_in(folder, path)] for path in c.files))
        for c in manifest.clips
    ]
    labels = [(clip.split, clip.category) for clip in manifest.clips]
    found = (find_shared(clips), find_gaps(labels, manifest.categories, SPLITS))
    return [warning for warning in found if warning]


def look_first(manifest: Manifest, lengths_s: Mapping[str, float]) -> list[str]:
    """Return what is surely wrong with the clips, before features are made of videos.

    `lengths_s` holds the lengths that videos state, by key.
    """
    errors = []
    known_s = dict(lengths_s)
    for clip in manifest.clips:
        if clip.features:
            try:
                known_s[clip.key] = float(_read_shapes(*clip.features)[0])
            except DatasetError as error:
                errors.append(str(error))
    if not known_s:
        return errors
    num_segments, wrong = find_wrong_lengths(known_s)
    if wrong:
        errors.append(wrong_lengths_message(wrong, len(manifest.clips), num_segments))
    for clip in manifest.clips:
        if clip.key in known_s:
            longest_s = max(known_s[clip.key], num_segments) + _UNSURE_S
            errors += _check_times(clip, longest_s, num_segments)
    return errors


def open_custom(
    manifest: Manifest, extracted: Mapping[str, tuple[pathlib.Path, pathlib.Path]]
) -> CustomData:
    """Check by the headers of all feature files that they fit together.

    The most frequent number of rows is the number of segments of all clips. `extracted`
    holds the feature files of the clips with a video, by key.
    """
    paths = [clip.features or extracted[clip.key] for clip in manifest.clips]
    shapes, errors = {}, []
    for clip, (audio_path, visual_path) in zip(manifest.clips, paths, strict=True):
        try:
            shapes[clip.key] = _read_shapes(audio_path, visual_path)
        except DatasetError as error:
            errors.append(str(error))
    lengths = {key: length for key, (length, *_) in shapes.items()}
    num_segments = most_frequent(lengths.values()) if lengths else 0
    try:
        check_lengths(lengths, num_segments)
    except DatasetError as error:
        errors.append(str(error))
    first_widths = next(iter(shapes.values()), (0, 0, ()))[1:]
    for clip in manifest.clips:
        if clip.key not in shapes:
            continue
        length, *widths = shapes[clip.key]
        if tuple(widths) != first_widths:
            errors.append(
                f"Clip {clip.key!r}: expected features of the first clip's shapes, "
                f"audio {first_widths[0]} and visual {first_widths[1]} a segment. "
                f"Received: {widths[0]} and {widths[1]}."
            )
        errors += _check_times(clip, max(length, num_segments) + TAIL_S, num_segments)
    raise_errors(errors)
    warnings = tuple(cut_warnings(lengths, num_segments))
    return CustomData(manifest, tuple(paths), num_segments, *first_widths, warnings)


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


def _check_times(
    clip: CustomClip, longest_s: float, num_segments: int
) -> Iterator[str]:
    """Yield an error message for every event that ends at `longest_s` or later."""
    for start_s, end_s in clip.times_s:
        # An event may end, but not start, in the surplus that is cut off.
        if end_s >= longest_s or start_s >= num_segments:
            yield (
                f"Clip {clip.key!r}: its event lasts from {start_s} to {end_s} s. "
                f"Expected one within its {num_segments} segments of one second."
            )
