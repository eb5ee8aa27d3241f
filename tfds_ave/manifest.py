"""Read and check manifest.csv and categories.txt."""

import csv
import dataclasses
import hashlib
import io
import json
import math
import os
import pathlib
import unicodedata
from collections.abc import Mapping

from avsdn_tf.files import expand_user
from avsdn_tf.schemas import read_bytes
from avsdn_tf.text import normalize, unmark_formula
from tfds_ave.categories import CATEGORIES, explain_unknown, read_categories
from tfds_ave.configs import BACKGROUND, SEGMENT_S, SPLITS
from tfds_ave.custom_clips import TOLERANCE_S, ClipLines, CustomClip, CustomEvent
from tfds_ave.errors import DatasetError, raise_errors

MANIFEST = "manifest.csv"

_COLUMNS = ("key", "split", "category", "start_s", "end_s")
_FEATURE_COLUMNS = ("audio", "visual")
_HOP_COLUMNS = ("audio_hop_s", "visual_hop_s")
_KNOWN_COLUMNS = (*_COLUMNS, "video", *_FEATURE_COLUMNS, *_HOP_COLUMNS, "tolerance_s")
# A million lines, at 64 bytes a line.
_MAX_BYTES = 64 * 2**20
# File names have at most 255 bytes, and the longest is KEY.source.json.
_MAX_KEY_BYTES = 240


@dataclasses.dataclass(frozen=True)
class Manifest:
    """Content of manifest.csv and categories.txt.

    Attributes:
        path: Path of manifest.csv.
        categories: Names of the categories, without background.
        clips: The clips, in the order of the file.
        unknown_columns: Names of columns that are ignored.
    """

    path: pathlib.Path
    categories: tuple[str, ...]
    clips: tuple[CustomClip, ...]
    unknown_columns: tuple[str, ...]

    @property
    def has_times(self) -> bool:
        """Whether every event has a start and an end."""
        return all(clip.has_times for clip in self.clips)

    def labels_hash(self, window_s: int, hop_s: int) -> str:
        """Return a hash of the windows and the clips' keys, splits, labels and hops."""
        labels = [
            (
                *(c.key, c.split, c.categories, c.hops_s),
                [(e.category, e.start_s, e.end_s) for e in c.events],
            )
            for c in self.clips
        ]
        content = json.dumps([labels, window_s, hop_s])
        return hashlib.sha256(content.encode()).hexdigest()


def read_manifest(folder: pathlib.Path) -> Manifest:
    """Read and check manifest.csv and categories.txt.

    Raises:
        DatasetError: If a file is missing or invalid; the message lists all lines with
            errors.
    """
    for name in (MANIFEST, CATEGORIES):
        if not (folder / name).is_file():
            raise DatasetError(
                f"{folder / name}: missing. Expected {MANIFEST} and {CATEGORIES} in "
                "one folder. Put them there, or build another folder: avsdn build "
                "FOLDER"
            )
    categories = read_categories(folder / CATEGORIES, _read_text(folder / CATEGORIES))
    path = folder / MANIFEST
    header, lines = _read_lines(path)
    known = {*categories, BACKGROUND}
    lines_of: dict[str, ClipLines] = {}
    errors: list[str] = []
    for number, values in lines:
        where = f"{path}, line {number}"
        try:
            if len(values) != len(header):
                raise DatasetError(
                    f"{where}: expected {len(header)} values, received {len(values)}. "
                    "Put text with commas in quotes, and write numbers with a point."
                )
            cells = (unmark_formula(value.strip()) for value in values)
            fields = dict(zip(header, cells, strict=True))
            fields["category"] = normalize(fields["category"])
            if fields["category"] not in known:
                explanation = explain_unknown(fields["category"], categories)
                raise DatasetError(f"{where}: unknown category. {explanation}")
            clip = _parse(fields, len(lines_of), number, where, folder)
            if clip.key in lines_of:
                lines_of[clip.key].add(clip, where)
            else:
                lines_of[clip.key] = ClipLines.start(clip)
        except DatasetError as error:
            errors.append(str(error))
    raise_errors(errors)
    clips = [lines.finish() for lines in lines_of.values()]
    used_splits = {clip.split for clip in clips}
    if missing := [split for split in SPLITS if split not in used_splits]:
        raise DatasetError(
            f"{path}: no clip of split {', '.join(missing)}. Expected at least one "
            f"clip of each of {', '.join(SPLITS)}."
        )
    used = {category for clip in clips for category in clip.categories}
    if not used:
        raise DatasetError(
            f"{path}: every clip is {BACKGROUND}. Expected an event of at least one of "
            f"the categories of {CATEGORIES}."
        )
    raise_errors(
        [
            f"{folder / CATEGORIES}: {name!r} is no clip's category. Expected a "
            f"category of {MANIFEST}, or a comment, which begins with '# '."
            for name in categories
            if name.startswith("#") and name not in used
        ]
    )
    unknown = tuple(name for name in header if name and name not in _KNOWN_COLUMNS)
    return Manifest(path, categories, tuple(clips), unknown)


def _read_text(path: pathlib.Path) -> str:
    try:
        content = io.BytesIO(read_bytes(path, _MAX_BYTES))
        # TextIOWrapper translates line ends.
        return io.TextIOWrapper(content, "utf-8-sig").read()
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: expected text in UTF-8. {error}.") from error
    except ValueError as error:
        raise DatasetError(
            f"{path}: expected at most {_MAX_BYTES:,} bytes. Received {error}."
        ) from error


def _read_lines(path: pathlib.Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the header, and the line number and values of each later line."""
    lines: list[tuple[int, list[str]]] = []
    try:
        reader = csv.reader(io.StringIO(_read_text(path)), strict=True)
        lines.extend((reader.line_num, values) for values in reader)
    except csv.Error as error:
        # An unclosed quote raises at the end of the file: report the line of the quote.
        number = lines[-1][0] + 1 if lines else 1
        raise DatasetError(
            f"{path}, line {number}: expected a CSV file, with quotes in pairs. "
            f"{error}."
        ) from error
    header = [name.strip() for name in lines[0][1]] if lines else []
    has_features = all(name in header for name in _FEATURE_COLUMNS)
    has_files = "video" in header or has_features
    if not (has_files and all(name in header for name in _COLUMNS)):
        raise DatasetError(
            f"{path}: wrong columns. Expected {', '.join(_COLUMNS)}, and video or "
            f"{' and '.join(_FEATURE_COLUMNS)}, separated by commas. "
            f"Received: {', '.join(header) or 'none'}."
        )
    twice = [name for name in _KNOWN_COLUMNS if header.count(name) > 1]
    if twice:
        raise DatasetError(f"{path}: expected one column {twice[0]}. Received several.")
    return header, [(number, values) for number, values in lines[1:] if any(values)]


def _parse(
    fields: Mapping[str, str],
    row: int,
    line: int,
    where: str,
    folder: pathlib.Path,
) -> CustomClip:
    """Parse a line as a clip with at most one event."""
    key, split, category = (fields[name] for name in ("key", "split", "category"))
    is_file_name = key and "/" not in key and not key.startswith(".")
    has_control = any(unicodedata.category(character) == "Cc" for character in key)
    if has_control or not is_file_name or len(key.encode()) > _MAX_KEY_BYTES:
        raise DatasetError(
            f"{where}: expected a key that is a valid file name of {_MAX_KEY_BYTES} "
            f"bytes at most, without '/', not hidden. Received: {key!r}."
        )
    if split not in SPLITS:
        raise DatasetError(
            f"{where}: unknown split. Expected one of {', '.join(SPLITS)}, received "
            f"{split!r}."
        )
    events = tuple(
        CustomEvent(category, *times_s, line) for times_s in _parse_times(fields, where)
    )
    video, features = _find_files(fields, where, folder)
    seconds = {
        name: _parse_seconds(name, fields[name], where)
        for name in (*_HOP_COLUMNS, "tolerance_s")
        if fields.get(name)
    }
    hops_s = tuple(seconds.get(name, SEGMENT_S) for name in _HOP_COLUMNS)
    if 0 in hops_s or (video and hops_s != (SEGMENT_S, SEGMENT_S)):
        raise DatasetError(
            f"{where}: wrong {' or '.join(_HOP_COLUMNS)}. Expected more than 0 s, and "
            f"{SEGMENT_S:g} s for a video. Received: {hops_s[0]:g} and {hops_s[1]:g}."
        )
    return CustomClip(
        row=row,
        key=key,
        line=line,
        split=split,
        categories=() if category == BACKGROUND else (category,),
        events=events,
        video=video,
        features=features,
        hops_s=hops_s,
        tolerance_s=seconds.get("tolerance_s", TOLERANCE_S),
    )


def _parse_seconds(name: str, text: str, where: str) -> float:
    """Parse a nonnegative number of seconds."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        point = " Write decimals with a point." * ("," in text)
        raise DatasetError(
            f"{where}: invalid times. Expected {name} in seconds, at least 0.{point} "
            f"Received: {name}={text!r}."
        )
    return value


def _parse_times(fields: Mapping[str, str], where: str) -> list[tuple[float, float]]:
    """Return the start and end of a line's event in seconds, or [] without times."""
    texts = (fields["start_s"], fields["end_s"])
    is_background = fields["category"] == BACKGROUND
    if texts == ("", ""):
        if not is_background and fields["split"] != "train":
            raise DatasetError(
                f"{where}: expected start_s and end_s, which scoring needs; only clips "
                "of split 'train' may lack them, for weak training. Received none in "
                f"split {fields['split']!r}."
            )
        return []
    start_s, end_s = (
        _parse_seconds(name, fields[name], where) for name in ("start_s", "end_s")
    )
    if not start_s < end_s:
        raise DatasetError(
            f"{where}: invalid times. Expected start_s < end_s. Received: "
            f"start_s={texts[0]!r}, end_s={texts[1]!r}."
        )
    if is_background:
        raise DatasetError(
            f"{where}: expected no times for {BACKGROUND}, which is no event. "
            f"Received: {start_s} to {end_s} s."
        )
    return [(start_s, end_s)]


def _find_files(
    fields: Mapping[str, str], where: str, folder: pathlib.Path
) -> tuple[pathlib.Path | None, tuple[pathlib.Path, pathlib.Path] | None]:
    """Return the path of a line's video, or the paths of its feature files."""
    video = fields.get("video", "")
    audio, visual = (fields.get(name, "") for name in _FEATURE_COLUMNS)
    if bool(audio) != bool(visual) or bool(video) == bool(audio):
        raise DatasetError(
            f"{where}: expected a video, or both feature files, audio and visual. "
            f"Received: video={video!r}, audio={audio!r}, visual={visual!r}."
        )
    paths = [folder / expand_user(name) for name in (video, audio, visual) if name]
    for path in paths:
        # Unlike Path.is_file, os.path.isfile never raises for invalid names.
        if not os.path.isfile(path):
            raise DatasetError(
                f"{where}: {path} is missing. Expected paths relative to {folder}."
            )
    return (paths[0], None) if video else (None, (paths[0], paths[1]))
