"""The user's own data: read and check manifest.csv and categories.txt."""

import csv
import dataclasses
import hashlib
import io
import json
import os
import pathlib
import unicodedata
from collections.abc import Mapping, Sequence

from avsdn_tf.files import expand_user
from tfds_ave.categories import (
    CATEGORIES,
    explain_unknown,
    normalize,
    read_categories,
)
from tfds_ave.configs import BACKGROUND, SPLITS
from tfds_ave.errors import DatasetError, raise_errors

MANIFEST = "manifest.csv"

_COLUMNS = ("key", "split", "category", "start_s", "end_s")
_FEATURE_COLUMNS = ("audio", "visual")
# A file name has 255 bytes at most; the longest one here is KEY.source.json.
_MAX_KEY_BYTES = 240


@dataclasses.dataclass(frozen=True)
class CustomClip:
    """One clip of the manifest, with either a video or an audio and a visual file.

    `times_s` are start and end of each event, without overlap; empty if unknown.
    """

    row: int
    key: str
    split: str
    category: str
    times_s: tuple[tuple[float, float], ...]
    video: pathlib.Path | None
    features: tuple[pathlib.Path, pathlib.Path] | None

    @property
    def files(self) -> tuple[pathlib.Path, ...]:
        """The video, or the feature files."""
        return self.features or (self.video,)


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The categories, and the clips in the order of the file."""

    categories: tuple[str, ...]
    clips: tuple[CustomClip, ...]

    @property
    def has_times(self) -> bool:
        """Whether every event has a start and an end."""
        return all(clip.times_s or clip.category == BACKGROUND for clip in self.clips)

    def labels_hash(self) -> str:
        """Return a hash of the keys, splits, categories and times of all clips."""
        labels = [(c.key, c.split, c.category, c.times_s) for c in self.clips]
        return hashlib.sha256(json.dumps(labels).encode()).hexdigest()


def read_manifest(folder: pathlib.Path) -> Manifest:
    """Read and check manifest.csv and categories.txt.

    Raises:
        DatasetError: If something is wrong; it names every wrong line.
    """
    for name in (MANIFEST, CATEGORIES):
        if not (folder / name).is_file():
            raise DatasetError(
                f"{folder / name}: missing. Expected {MANIFEST} and {CATEGORIES} in "
                "the manual folder. Put them there, or build with the manual folder "
                "that holds them: avsdn build --config=custom --manual_dir=FOLDER"
            )
    categories = read_categories(folder / CATEGORIES, _read_text(folder / CATEGORIES))
    path = folder / MANIFEST
    header, lines = _read_lines(path)
    clips: dict[str, CustomClip] = {}
    first_lines: dict[str, int] = {}
    errors: list[str] = []
    for number, values in lines:
        where = f"{path}, line {number}"
        try:
            if len(values) != len(header):
                raise DatasetError(
                    f"{where}: expected {len(header)} values, received {len(values)}."
                )
            fields = dict(zip(header, map(str.strip, values), strict=True))
            clip = _parse(fields, len(clips), where, folder, categories)
            if clip.key in clips:
                first = clips[clip.key]
                clip = _add_event(first, clip, where, first_lines[clip.key])
        except DatasetError as error:
            errors.append(str(error))
            continue
        first_lines.setdefault(clip.key, number)
        clips[clip.key] = clip
    raise_errors(errors)
    for split in SPLITS:
        if not any(clip.split == split for clip in clips.values()):
            raise DatasetError(
                f"{path}: no clip of split {split!r}. Expected at least one of each of "
                f"{', '.join(SPLITS)}."
            )
    used = {clip.category for clip in clips.values()}
    raise_errors(
        [
            f"{folder / CATEGORIES}: {name!r} names no clip. Expected a category of "
            f"{MANIFEST}, or a comment, which begins with '# '."
            for name in categories
            if name.startswith("#") and name not in used
        ]
    )
    return Manifest(categories, tuple(clips.values()))


def _read_text(path: pathlib.Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: expected text in UTF-8. {error}.") from error


def _read_lines(path: pathlib.Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the header of manifest.csv, and the other lines with their numbers."""
    lines: list[tuple[int, list[str]]] = []
    try:
        reader = csv.reader(io.StringIO(_read_text(path)), strict=True)
        lines.extend((reader.line_num, values) for values in reader)
    except csv.Error as error:
        # An open quote raises at the end of the file only.
        begun = lines[-1][0] + 1 if lines else 1
        raise DatasetError(
            f"{path}, line {begun}: expected a CSV file, with quotes in pairs. {error}."
        ) from error
    header = [name.strip() for name in lines[0][1]] if lines else []
    has_features = all(name in header for name in _FEATURE_COLUMNS)
    has_files = "video" in header or has_features
    if not (has_files and all(name in header for name in _COLUMNS)):
        raise DatasetError(
            f"{path}: wrong columns. Expected {', '.join(_COLUMNS)}, and video or "
            f"{' and '.join(_FEATURE_COLUMNS)}. "
            f"Received: {', '.join(header) or 'none'}."
        )
    return header, [(number, values) for number, values in lines[1:] if any(values)]


def _parse(
    fields: Mapping[str, str],
    row: int,
    where: str,
    folder: pathlib.Path,
    categories: Sequence[str],
) -> CustomClip:
    """Return the clip of one line, with one event at most."""
    key, split = fields["key"], fields["split"]
    category = normalize(fields["category"])
    is_file_name = key and "/" not in key and not key.startswith(".")
    has_control = any(unicodedata.category(character) == "Cc" for character in key)
    if has_control or not is_file_name or len(key.encode()) > _MAX_KEY_BYTES:
        raise DatasetError(
            f"{where}: expected a key that is a valid file name of {_MAX_KEY_BYTES} "
            f"bytes at most. Received: {key!r}."
        )
    if split not in SPLITS:
        raise DatasetError(
            f"{where}: unknown split. Expected one of {', '.join(SPLITS)}, received "
            f"{split!r}."
        )
    if category not in (*categories, BACKGROUND):
        explanation = explain_unknown(category, categories)
        raise DatasetError(f"{where}: unknown category. {explanation}")
    times_s = _parse_times({**fields, "category": category}, where)
    video, features = _find_files(fields, where, folder)
    return CustomClip(row, key, split, category, times_s, video, features)


def _parse_times(
    fields: Mapping[str, str], where: str
) -> tuple[tuple[float, float], ...]:
    """Return start and end of a line's event; nothing if the line has no times."""
    texts = (fields["start_s"], fields["end_s"])
    is_background = fields["category"] == BACKGROUND
    if texts == ("", ""):
        if not is_background and fields["split"] != "train":
            raise DatasetError(
                f"{where}: expected start_s and end_s, which scoring needs; only clips "
                "of split 'train' may lack them, for weak training. Received none in "
                f"split {fields['split']!r}."
            )
        return ()
    try:
        start_s, end_s = map(float, texts)
    except ValueError:
        start_s = end_s = float("nan")
    if not 0 <= start_s < end_s < float("inf"):
        raise DatasetError(
            f"{where}: invalid times. Expected seconds with 0 <= start_s < end_s, or "
            f"neither. Received: start_s={texts[0]!r}, end_s={texts[1]!r}."
        )
    if is_background:
        raise DatasetError(
            f"{where}: expected no times for {BACKGROUND}, which is no event. "
            f"Received: {start_s} to {end_s} s."
        )
    return ((start_s, end_s),)


def _find_files(
    fields: Mapping[str, str], where: str, folder: pathlib.Path
) -> tuple[pathlib.Path | None, tuple[pathlib.Path, pathlib.Path] | None]:
    """Return the video or the feature files that a line names."""
    video = fields.get("video", "")
    audio, visual = (fields.get(name, "") for name in _FEATURE_COLUMNS)
    if bool(audio) != bool(visual) or bool(video) == bool(audio):
        raise DatasetError(
            f"{where}: expected a video, or both feature files, audio and visual. "
            f"Received: video={video!r}, audio={audio!r}, visual={visual!r}."
        )
    paths = [folder / expand_user(name) for name in (video, audio, visual) if name]
    for path in paths:
        # Unlike Path.is_file, it accepts any text.
        if not os.path.isfile(path):
            raise DatasetError(
                f"{where}: {path} is missing. Expected paths relative to {folder}."
            )
    return (paths[0], None) if video else (None, (paths[0], paths[1]))


def _add_event(
    first: CustomClip, other: CustomClip, where: str, line: int
) -> CustomClip:
    """Return a clip with the event of another line; `line` is the first of its key."""
    same = ("split", "category", "video", "features")
    if any(getattr(first, name) != getattr(other, name) for name in same):
        raise DatasetError(
            f"{where}: key {other.key!r} also names line {line}, with another split, "
            "category or file. Expected lines of one clip to differ in times only. "
            "Give different clips different keys, and cut a video with events of "
            "several categories into clips."
        )
    if not (first.times_s and other.times_s):
        raise DatasetError(
            f"{where}: key {other.key!r} also names line {line}. Expected times in "
            "every line of a clip with several events, and one line for other clips."
        )
    ((start_s, end_s),) = other.times_s
    for earlier in first.times_s:
        if start_s < earlier[1] and earlier[0] < end_s:
            raise DatasetError(
                f"{where}: overlapping times. Expected events of a clip that don't "
                f"overlap. Received: {start_s} to {end_s} s, and {earlier[0]} to "
                f"{earlier[1]} s."
            )
    return dataclasses.replace(first, times_s=(*first.times_s, *other.times_s))
