"""Anyone's own data: manifest.csv and categories.txt, with videos or feature files."""

import collections
import csv
import dataclasses
import hashlib
import io
import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from tfds_ave.clips import MATCH_SPLITS, Clip
from tfds_ave.errors import DatasetError
from tfds_ave.videos import TOLERANCE_SEGMENTS, fit_to_segments, shape_of

MANIFEST = "manifest.csv"
CATEGORIES = "categories.txt"
BACKGROUND_CATEGORY = "Background"
SPLITS = ("train", "validation", "test")

_COLUMNS = ("key", "split", "category", "start_s", "end_s")
_FEATURE_COLUMNS = ("audio", "visual")
# Of the 255 of a file's name; the longest here is KEY.source.json.
_MOST_KEY_BYTES = 240
# The reader of videos leaves out a last second that is shorter.
_TAIL_S = 0.1
# More would only scroll the first ones away.
_MOST_ERRORS = 20


@dataclasses.dataclass(frozen=True)
class CustomClip:
    """One clip of the manifest.

    Attributes:
        row: Its number in the manifest, from 0.
        key: Its name.
        split: One of `SPLITS`.
        category: Name of its category, or "Background".
        times_s: Start and end of each of its events in seconds, which don't overlap;
            none if they are not known.
        video: Its video; None where features are given.
        features: Its audio and visual feature files; None where a video is given.
    """

    row: int
    key: str
    split: str
    category: str
    times_s: tuple[tuple[float, float], ...]
    video: pathlib.Path | None
    features: tuple[pathlib.Path, pathlib.Path] | None


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What the two files say.

    Attributes:
        categories: Names of the event categories.
        clips: The clips, in the order of the file.
    """

    categories: tuple[str, ...]
    clips: tuple[CustomClip, ...]

    @property
    def has_times(self) -> bool:
        """Whether every clip's event has a start and an end."""
        background = BACKGROUND_CATEGORY
        return all(c.times_s or c.category == background for c in self.clips)

    def labels_hash(self) -> str:
        """Return a hash of all clips' keys, splits, categories and times."""
        labels = [(c.key, c.split, c.category, c.times_s) for c in self.clips]
        return hashlib.sha256(json.dumps(labels).encode()).hexdigest()


def read_manifest(folder: pathlib.Path) -> Manifest:
    """Reads and checks manifest.csv and categories.txt.

    Raises:
        DatasetError: If something is wrong; it names every line that is.
    """
    for name in (MANIFEST, CATEGORIES):
        if not (folder / name).is_file():
            raise DatasetError(
                f"{folder / name}: missing. Expected the two files of your own data, "
                f"{MANIFEST} and {CATEGORIES}, in the manual folder. Put them there, "
                "or name another folder by --manual_dir=FOLDER."
            )
    categories = _read_categories(folder / CATEGORIES)
    path = folder / MANIFEST
    lines: list[tuple[int, list[str]]] = []
    try:
        # Not str.splitlines, which also parts names at rarer characters.
        reader = csv.reader(io.StringIO(path.read_text("utf-8-sig")), strict=True)
        lines.extend((reader.line_num, values) for values in reader)
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: expected a CSV file in UTF-8. {error}.") from error
    except csv.Error as error:
        # A quote that nothing closes is noticed at the end of the file.
        begun = lines[-1][0] + 1 if lines else 1
        raise DatasetError(
            f"{path}, line {begun}: expected a CSV file, with quotes in pairs. {error}."
        ) from error
    header = [name.strip() for name in lines[0][1]] if lines else []
    missing = [name for name in _COLUMNS if name not in header]
    has_features = all(name in header for name in _FEATURE_COLUMNS)
    if missing or not ("video" in header or has_features):
        raise DatasetError(
            f"{path}: wrong columns. Expected {', '.join(_COLUMNS)}, and video or "
            f"{' and '.join(_FEATURE_COLUMNS)}. "
            f"Received: {', '.join(header) or 'none'}."
        )
    clips: dict[str, CustomClip] = {}
    errors: list[str] = []
    lines_of: dict[str, int] = {}
    for number, values in lines[1:]:
        if not any(values):
            continue
        where = f"{path}, line {number}"
        try:
            if len(values) != len(header):
                raise DatasetError(
                    f"{where}: expected {len(header)} values, received {len(values)}."
                )
            fields = {n: v.strip() for n, v in zip(header, values, strict=True)}
            clip = _parse(fields, len(clips), where, folder, categories)
            if clip.key in lines_of:
                first = clips[clip.key]
                clip = _add_event(first, clip, where, lines_of[clip.key])
        except DatasetError as error:
            errors.append(str(error))
            continue
        lines_of.setdefault(clip.key, number)
        clips[clip.key] = clip
    _raise_if_any(errors)
    for split in SPLITS:
        if not any(clip.split == split for clip in clips.values()):
            raise DatasetError(
                f"{path}: no clip of split {split!r}. Expected at least one of each of "
                f"{', '.join(SPLITS)}."
            )
    return Manifest(categories, tuple(clips.values()))


def _raise_if_any(errors: Sequence[str]) -> None:
    if errors:
        more = len(errors) - _MOST_ERRORS
        rest = [f"and {more} more."] if more > 0 else []
        raise DatasetError("\n".join([*errors[:_MOST_ERRORS], *rest]))


def _read_categories(path: pathlib.Path) -> tuple[str, ...]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: expected text in UTF-8. {error}.") from error
    lines = [line.strip() for line in text.split("\n")]
    names = tuple(line for line in lines if line and not line.startswith("#"))
    repeated = sorted({name for name in names if names.count(name) > 1})
    if not names or repeated or BACKGROUND_CATEGORY in names:
        raise DatasetError(
            f"{path}: expected one category a line, each once, without "
            f"{BACKGROUND_CATEGORY}, which is the class of what is none of them. "
            f"Received: {', '.join(repeated) or ', '.join(names) or 'nothing'}."
        )
    return names


def _parse(
    fields: dict[str, str],
    row: int,
    where: str,
    folder: pathlib.Path,
    categories: Sequence[str],
) -> CustomClip:
    key, split, category = fields["key"], fields["split"], fields["category"]
    if (
        not key
        or "/" in key
        or key.startswith(".")
        or len(key.encode()) > _MOST_KEY_BYTES
    ):
        raise DatasetError(
            f"{where}: expected a key that can name a file, of {_MOST_KEY_BYTES} bytes "
            f"at most. Received: {key!r}."
        )
    if split not in SPLITS:
        raise DatasetError(
            f"{where}: unknown split. Expected one of {', '.join(SPLITS)}, received "
            f"{split!r}."
        )
    known = (*categories, BACKGROUND_CATEGORY)
    if category not in known:
        raise DatasetError(
            f"{where}: unknown category. Expected one of {list(known)}, as in "
            f"{CATEGORIES}, received {category!r}."
        )
    times_s = _parse_times(fields, where)
    if times_s and category == BACKGROUND_CATEGORY:
        raise DatasetError(
            f"{where}: expected no times for {BACKGROUND_CATEGORY}, which is no event. "
            f"Received: {times_s}."
        )
    if not times_s and category != BACKGROUND_CATEGORY and split != "train":
        raise DatasetError(
            f"{where}: expected start_s and end_s: without times a clip can be learnt "
            f"from, by --mode=weak, but not scored. Received none in split {split!r}."
        )
    video = fields.get("video", "")
    features = [fields.get(name, "") for name in _FEATURE_COLUMNS]
    if bool(video) == any(features) or (any(features) and not all(features)):
        raise DatasetError(
            f"{where}: expected a video, or both feature files, audio and visual. "
            f"Received: video={video!r}, audio={features[0]!r}, visual={features[1]!r}."
        )
    paths = [folder / name for name in ([video] if video else features)]
    for path in paths:
        # Unlike Path.is_file, it takes any name.
        if not os.path.isfile(path):
            raise DatasetError(
                f"{where}: {path} is missing. Expected paths relative to {folder}."
            )
    return CustomClip(
        row=row,
        key=key,
        split=split,
        category=category,
        times_s=(times_s,) if times_s else (),
        video=paths[0] if video else None,
        features=None if video else (paths[0], paths[1]),
    )


def _add_event(
    first: CustomClip, other: CustomClip, where: str, line: int
) -> CustomClip:
    """Returns a clip with the event of a later line of the same key."""
    same = ("split", "category", "video", "features")
    if any(getattr(first, name) != getattr(other, name) for name in same):
        raise DatasetError(
            f"{where}: key {other.key!r} stands in line {line} already, with another "
            "split, category or file. Expected lines of one clip to differ in times "
            "alone: name another clip otherwise, and cut a video with events of "
            "several categories into clips."
        )
    if not (first.times_s and other.times_s):
        raise DatasetError(
            f"{where}: key {other.key!r} stands in line {line} already. Expected times "
            "in each line of a clip with several events, and one line for any other."
        )
    ((start_s, end_s),) = other.times_s
    for earlier in first.times_s:
        if start_s < earlier[1] and earlier[0] < end_s:
            raise DatasetError(
                f"{where}: overlapping times. Expected events of a clip that follow "
                f"one another. Received: {start_s} to {end_s} s, beside "
                f"{earlier[0]} to {earlier[1]} s."
            )
    return dataclasses.replace(first, times_s=(*first.times_s, *other.times_s))


def _parse_times(fields: dict[str, str], where: str) -> tuple[float, float] | None:
    texts = (fields["start_s"], fields["end_s"])
    if texts == ("", ""):
        return None
    try:
        start_s, end_s = map(float, texts)
    except ValueError:
        start_s = end_s = float("nan")
    if not 0 <= start_s < end_s < float("inf"):
        raise DatasetError(
            f"{where}: bad times. Expected seconds with 0 <= start_s < end_s, or "
            f"neither. Received: start_s={texts[0]!r}, end_s={texts[1]!r}."
        )
    return start_s, end_s


@dataclasses.dataclass(frozen=True)
class CustomData:
    """The clips with their features, all of one shape once they are read.

    Attributes:
        manifest: What is known of the clips.
        paths: Audio and visual feature file of every clip, in the same order. They may
            hold `TOLERANCE_SEGMENTS` more or fewer.
        num_segments: Segments a clip.
        audio_width: Width of an audio feature.
        visual_shape: Shape of a segment's visual feature.
    """

    manifest: Manifest
    paths: tuple[tuple[pathlib.Path, pathlib.Path], ...]
    num_segments: int
    audio_width: int
    visual_shape: tuple[int, ...]

    def clips(self, split: str) -> Iterator[Clip]:
        """Yields a split's clips.

        Visual features are flattened, `(num_segments, width)`, since the rank of a TFDS
        feature can't depend on the data.

        Raises:
            DatasetError: If a feature is not finite.
        """
        background = len(self.manifest.categories)
        for clip, paths in zip(self.manifest.clips, self.paths, strict=True):
            if clip.split != split:
                continue
            audio, visual = (
                fit_to_segments(np.load(path).astype(np.float32), self.num_segments)
                for path in paths
            )
            for path, values in zip(paths, (audio, visual), strict=True):
                if not np.isfinite(values).all():
                    raise DatasetError(
                        f"{path}: NaN or infinite values. Expected finite features of "
                        f"clip {clip.key!r}."
                    )
            classes = (*self.manifest.categories, BACKGROUND_CATEGORY)
            category = classes.index(clip.category)
            is_event = np.zeros(self.num_segments, bool)
            for start_s, end_s in clip.times_s:
                is_event |= event_segments(start_s, end_s, self.num_segments)
            first_s, last_s = zip(*clip.times_s or [(0.0, 0.0)], strict=True)
            yield Clip(
                row=clip.row,
                video_id=clip.key,
                audio=audio,
                visual=visual.reshape(self.num_segments, -1),
                segment_labels=np.where(is_event, category, background),
                clip_label=category,
                start_s=min(first_s),
                end_s=min(max(last_s), self.num_segments),
                match_split=MATCH_SPLITS[SPLITS.index(split)],
            )


def event_segments(start_s: float, end_s: float, num_segments: int) -> np.ndarray:
    """Returns which segments of a clip an event covers, `(num_segments,)` Boolean.

    Those whose middle it covers. One of less than a second may cover none, and has the
    segment that it shares most time with then: nobody's event is lost.

    Args:
        start_s: When it starts, within the clip.
        end_s: When it ends.
        num_segments: Segments of one second in the clip.
    """
    starts_s = np.arange(num_segments)
    middles_s = starts_s + 0.5
    covered = (start_s <= middles_s) & (middles_s < end_s)
    if not covered.any():
        shared_s = np.minimum(end_s, starts_s + 1) - np.maximum(start_s, starts_s)
        # Rounded, since 1 - 0.9 and 1.1 - 1 differ in their last digits.
        covered[np.argmax(np.round(shared_s, 6))] = True
    return covered


def open_custom(
    manifest: Manifest, extracted: Mapping[str, tuple[pathlib.Path, pathlib.Path]]
) -> CustomData:
    """Checks that all features fit together, without reading them.

    A clip has as many segments as most clips have rows of features.

    Args:
        manifest: What is known of the clips.
        extracted: Audio and visual feature file of the clips that have a video.

    Raises:
        DatasetError: If a file can't be read, or differs from the others; it names
            every such file.
    """
    paths = [clip.features or extracted[clip.key] for clip in manifest.clips]
    shapes, errors = [], []
    for audio_path, visual_path in paths:
        try:
            shapes.append(_shapes_of(audio_path, visual_path))
        except DatasetError as error:
            errors.append(str(error))
    _raise_if_any(errors)
    lengths, audio_widths, visual_shapes = zip(*shapes, strict=True)
    counts = collections.Counter(lengths)
    # Of two that are as frequent, the smaller: nothing is made up then.
    num_segments = min(counts, key=lambda length: (-counts[length], length))
    _check_lengths(manifest.clips, lengths, num_segments)
    audio_width, visual_shape = audio_widths[0], visual_shapes[0]
    for clip, (length, *widths) in zip(manifest.clips, shapes, strict=True):
        if widths != [audio_width, visual_shape]:
            errors.append(
                f"Clip {clip.key!r}: expected features of the first clip's shapes, "
                f"audio {audio_width} and visual {visual_shape} a segment. Received: "
                f"{widths[0]} and {widths[1]}."
            )
        errors += _check_times(clip, length, num_segments)
    _raise_if_any(errors)
    return CustomData(manifest, tuple(paths), num_segments, audio_width, visual_shape)


def _shapes_of(
    audio_path: pathlib.Path, visual_path: pathlib.Path
) -> tuple[int, int, tuple[int, ...]]:
    """Returns a clip's seconds, audio width and visual shape, as the headers say."""
    audio, visual = shape_of(audio_path), shape_of(visual_path)
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


def _check_lengths(
    clips: Sequence[CustomClip], lengths: Sequence[int], num_segments: int
) -> None:
    """Raises `DatasetError` with all clips that are too short or too long."""
    wrong = [
        f"{clip.key!r} {length}"
        for clip, length in zip(clips, lengths, strict=True)
        if abs(length - num_segments) > TOLERANCE_SEGMENTS
    ]
    if wrong:
        more = len(wrong) - _MOST_ERRORS
        rest = [f"and {more} more"] if more > 0 else []
        raise DatasetError(
            f"{len(wrong)} of {len(clips)} clips have another length. Expected "
            f"{num_segments} segments of one second, as most clips have, or "
            f"{TOLERANCE_SEGMENTS} more or fewer. Received: "
            f"{', '.join([*wrong[:_MOST_ERRORS], *rest])}. Cut the clips to one length."
        )


def _check_times(clip: CustomClip, length: int, num_segments: int) -> Iterator[str]:
    """Yields what is wrong with a clip's times, given its length in seconds."""
    longest_s = max(length, num_segments) + _TAIL_S
    for start_s, end_s in clip.times_s:
        # An event may go on where a longer video is cut off, but not start there.
        if end_s >= longest_s or start_s >= num_segments:
            yield (
                f"Clip {clip.key!r}: its event lasts from {start_s} to {end_s} s. "
                f"Expected one within its {num_segments} segments of one second."
            )
