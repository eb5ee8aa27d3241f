"""Check the files of the user's own data."""

import dataclasses
import math
import pathlib
from collections.abc import Callable, Iterator, Mapping

from tfds_ave.clips import read_shape
from tfds_ave.configs import SPLITS
from tfds_ave.custom import WINDOW_S, CustomData
from tfds_ave.custom_clips import CustomClip
from tfds_ave.errors import DatasetError, raise_errors, shorten
from tfds_ave.fingerprint import Fingerprint, name_in
from tfds_ave.look import TAIL_S, count_segments, find_gaps, find_shared
from tfds_ave.manifest import Manifest

# Tolerance for inexact lengths in the metadata of videos.
_UNSURE_S = 0.5
# Limit of protocol buffers, which store examples.
_MAX_EXAMPLE_BYTES = 2**31


@dataclasses.dataclass(frozen=True)
class _Facts:
    """Lengths and shapes of a clip's files.

    Attributes:
        lengths_s: Lengths of audio and visual features, in seconds.
        widths: Audio width and visual shape, or None for videos.
        unsure_s: Possible error of the lengths, in seconds.
    """

    lengths_s: tuple[float, float]
    widths: tuple[int, tuple[int, ...]] | None
    unsure_s: float = 0.0

    @property
    def num_segments(self) -> int:
        """Number of segments of the shorter modality."""
        return count_segments(min(self.lengths_s))


def find_warnings(
    manifest: Manifest, folder: pathlib.Path, fingerprint: Fingerprint
) -> list[str]:
    """Return warnings about the clips of a manifest in a folder."""
    contents = {
        entry.name: (entry.num_bytes, entry.crc32) for entry in fingerprint.files
    }
    clips = [
        (c.key, c.split, tuple(contents[name_in(folder, path)] for path in c.files))
        for c in manifest.clips
    ]
    labels = [(clip.split, name) for clip in manifest.clips for name in clip.categories]
    unread = ", ".join(shorten(manifest.unknown_columns, 5))
    warnings = (
        unread and f"columns of {manifest.path.name} that are not read: {unread}",
        find_shared(clips),
        find_gaps(labels, manifest.categories, SPLITS),
    )
    return [warning for warning in warnings if warning]


def choose_windows(window_s: int | None, hop_s: int | None) -> tuple[int, int]:
    """Return the length and the hop of windows, with defaults, in segments.

    Args:
        window_s: Length of a window in seconds. Default: `WINDOW_S`.
        hop_s: Seconds from the start of one window to the next. Default: the length of
            a window.

    Raises:
        DatasetError: If windows are empty, or there are gaps between windows.
    """
    window = WINDOW_S if window_s is None else window_s
    hop = window if hop_s is None else hop_s
    if not 1 <= hop <= window:
        raise DatasetError(
            "Expected window_s of 1 or more, and hop_s from 1 to window_s, so that no "
            f"second is left out. Received: window_s={window}, hop_s={hop}."
        )
    return window, hop


def precheck(manifest: Manifest, lengths_s: Mapping[str, float]) -> list[str]:
    """Return errors that can be detected before features are extracted.

    `lengths_s` holds the lengths from the metadata of videos, by key, in seconds.
    """

    def describe(clip: CustomClip) -> _Facts | None:
        if clip.features:
            return _read_facts(clip, *clip.features)
        if clip.key not in lengths_s:
            return None
        return _Facts((lengths_s[clip.key],) * 2, None, _UNSURE_S)

    return _check_clips(manifest, describe)[1]


def open_custom(
    manifest: Manifest,
    extracted: Mapping[str, tuple[pathlib.Path, pathlib.Path]],
    window_s: int = WINDOW_S,
    hop_s: int = WINDOW_S,
) -> CustomData:
    """Check the shapes of all feature files, and return the data.

    Args:
        manifest: The manifest.
        extracted: Feature files extracted from videos, by the clips' keys.
        window_s: Length of the windows of training clips, in segments.
        hop_s: Segments from the start of one window to the next.

    Raises:
        DatasetError: If a file is damaged, or contradicts the manifest or other files.
    """
    paths = {clip.key: clip.features or extracted[clip.key] for clip in manifest.clips}
    facts, errors = _check_clips(
        manifest, lambda clip: _read_facts(clip, *paths[clip.key])
    )
    raise_errors(errors)
    lengths = tuple(each.num_segments for each in facts.values())
    warnings = [*_find_cuts(manifest, facts)]
    if window_s != WINDOW_S and window_s > max(lengths):
        warnings.append(
            f"a window of {window_s} s is longer than every clip, {max(lengths)} s at "
            "most: each training clip is one example"
        )
    widths = next(iter(facts.values())).widths
    files = tuple(paths.values())
    return CustomData(
        manifest, files, lengths, *widths, window_s, hop_s, tuple(warnings)
    )


def _check_clips(
    manifest: Manifest, describe: Callable[[CustomClip], _Facts | None]
) -> tuple[dict[str, _Facts], list[str]]:
    """Return the facts about each clip by key, and error messages."""
    facts: dict[str, _Facts] = {}
    errors, widths = [], None
    for clip in manifest.clips:
        where = f"{manifest.path}, line"
        try:
            clip_facts = describe(clip)
        except DatasetError as error:
            errors.append(f"{where} {clip.line}: {error}")
            continue
        if clip_facts is None:
            continue
        facts[clip.key] = clip_facts
        widths = widths or clip_facts.widths
        errors += [
            f"{where} {line}: clip {clip.key!r}: {text}"
            for line, text in _find_faults(clip, clip_facts, widths)
        ]
    return facts, errors


def _read_facts(
    clip: CustomClip, audio_path: pathlib.Path, visual_path: pathlib.Path
) -> _Facts:
    audio, visual = read_shape(audio_path), read_shape(visual_path)
    if len(audio) != 2 or len(visual) not in (2, 4) or 0 in (*audio, *visual):
        raise DatasetError(
            f"{audio_path} and {visual_path}: expected shapes (num_rows, width) and "
            "(num_rows, width) or (num_rows, rows, columns, width), of at least 1 row. "
            f"Received: {audio} and {visual}."
        )
    lengths_s = tuple(
        round(shape[0] * hop_s, 6)
        for shape, hop_s in zip((audio, visual), clip.hops_s, strict=True)
    )
    return _Facts(lengths_s, (audio[1], visual[1:]))


def _find_faults(
    clip: CustomClip, facts: _Facts, widths: tuple[int, tuple[int, ...]] | None
) -> Iterator[tuple[int, str]]:
    """Yield line and message of each error in a clip."""
    audio_s, visual_s = facts.lengths_s
    num_segments = facts.num_segments
    if abs(audio_s - visual_s) > clip.tolerance_s:
        yield (
            clip.line,
            f"its audio lasts {audio_s:g} s, and its visual features {visual_s:g} s. "
            f"Expected a difference of at most tolerance_s={clip.tolerance_s:g}. "
            "Change tolerance_s, audio_hop_s or visual_hop_s.",
        )
    if facts.widths not in (None, widths):
        yield (
            clip.line,
            "expected features of the first clip's shapes, "
            f"audio {widths[0]} and visual {widths[1]} a segment. "
            f"Received: {facts.widths[0]} and {facts.widths[1]}.",
        )
    elif facts.widths and clip.is_whole:
        size = 4 * num_segments * (facts.widths[0] + math.prod(facts.widths[1]))
        if size >= _MAX_EXAMPLE_BYTES:
            yield (
                clip.line,
                f"its {num_segments} segments take {size / 1e9:.1f} GB. Expected less "
                "than 2 GB. Cut it into several clips.",
            )
    latest_s = max(facts.lengths_s) + max(clip.tolerance_s, TAIL_S, facts.unsure_s)
    for event in clip.events:
        # An event may end, but not start, after the end of the shorter modality.
        if event.end_s > latest_s or event.start_s >= num_segments + facts.unsure_s:
            yield (
                event.line,
                f"its event lasts from {event.start_s} to {event.end_s} s. Expected "
                f"seconds within its {num_segments} segments of one second.",
            )


def _find_cuts(manifest: Manifest, facts: Mapping[str, _Facts]) -> Iterator[str]:
    """Yield warnings about features and events that are cut off."""
    num_clips = len(manifest.clips)
    uneven = [
        key
        for key, each in facts.items()
        if len({*map(count_segments, each.lengths_s)}) > 1
    ]
    if uneven:
        yield (
            f"audio and visual features of {len(uneven)} of {num_clips} clips differ "
            f"in length, so the longer is cut: {', '.join(shorten(uneven, 3))}"
        )
    late = [
        f"{clip.key} (line {event.line})"
        for clip in manifest.clips
        for event in clip.events
        if event.end_s > facts[clip.key].num_segments + TAIL_S
    ]
    if late:
        yield (
            f"{len(late)} event{'s' * (len(late) > 1)} cut where the clip ends: "
            f"{', '.join(shorten(late, 3))}"
        )
