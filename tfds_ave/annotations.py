"""Annotations.txt: its rows, and the labels that follow from them."""

import dataclasses
import pathlib
import re
from collections.abc import Sequence

import numpy as np

from tfds_ave.errors import DatasetError

_FIELDS = "Category&VideoID&Quality&Start&End"
_WHOLE_NUMBER = re.compile(r"[0-9]+", re.ASCII)


@dataclasses.dataclass(frozen=True)
class Annotation:
    """One row of Annotations.txt.

    Attributes:
        category: Name of the clip's event category.
        video_id: YouTube id. Not unique: AVE has ids with two and three rows.
        quality: `good` in every row of AVE.
        start_s: Second in which the event begins.
        end_s: Second before which it ends.
    """

    category: str
    video_id: str
    quality: str
    start_s: int
    end_s: int


def read_annotations(
    path: pathlib.Path, categories: Sequence[str], num_segments: int
) -> list[Annotation]:
    """Reads Annotations.txt: with LF or CRLF, with or without header and last newline.

    Args:
        path: The file.
        categories: Names a row may carry.
        num_segments: Seconds of a clip, so the highest end time.

    Returns:
        One annotation a row, in the order of the file.

    Raises:
        DatasetError: If a line has not five fields, another category, or times that
            are no run of seconds within the clip; it names file and line.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{path}: not a text file ({error.reason} at byte {error.start}). Expected "
            f"lines of {_FIELDS}. Take the Annotations.txt of AVE."
        ) from error
    # Not splitlines(), which also breaks at characters that are part of a line.
    lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    first = 1 if lines[0].startswith("Category&VideoID&") else 0
    annotations = [
        _parse_line(line, f"{path}, line {number}", categories, num_segments)
        for number, line in enumerate(lines[first:], start=first + 1)
    ]
    if not annotations:
        raise DatasetError(
            f"{path}: no rows. Expected lines of {_FIELDS}, received a header alone. "
            "Take the Annotations.txt of AVE."
        )
    return annotations


def _parse_line(
    line: str, where: str, categories: Sequence[str], num_segments: int
) -> Annotation:
    fields = line.split("&")  # Nothing else: a category holds commas and spaces.
    if len(fields) != 5 or not fields[1]:
        raise DatasetError(
            f"{where}: wrong fields. Expected {_FIELDS}, received {line!r}. Correct "
            "the line."
        )
    category, video_id, quality, start, end = fields
    if category not in categories:
        raise DatasetError(
            f"{where}: unknown category. Expected one of {list(categories)}, received "
            f"{category!r}. Correct the line."
        )
    times = [
        int(time) if _WHOLE_NUMBER.fullmatch(time) else None for time in (start, end)
    ]
    # AVE has one event without length, written 0&0; any other one is a slip.
    if times != [0, 0] and (
        None in times or not 0 <= times[0] < times[1] <= num_segments
    ):
        raise DatasetError(
            f"{where}: bad times. Expected whole seconds with 0 <= start < end <= "
            f"{num_segments}, received start={start!r}, end={end!r}. Correct the line."
        )
    return Annotation(category, video_id, quality, *times)


def segment_labels(
    category: int, start_s: int, end_s: int, num_segments: int, background: int
) -> np.ndarray:
    """Returns a clip's segment labels: the event where it lasts, else background.

    Args:
        category: Index of the event's category.
        start_s: Second in which the event begins.
        end_s: Second before which it ends.
        num_segments: Segments a clip.
        background: Index of the background class.

    Returns:
        `(num_segments,)` int64.
    """
    labels = np.full(num_segments, background, np.int64)
    labels[start_s:end_s] = category
    return labels
