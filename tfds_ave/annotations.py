"""Read Annotations.txt, and convert its rows to segment labels."""

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
    """One row of Annotations.txt: an event in [`start_s`, `end_s`) of a video.

    Some of AVE's videos have two or three rows. The quality is `good` in all rows.
    """

    category: str
    video_id: str
    quality: str
    start_s: int
    end_s: int


def read_annotations(
    path: pathlib.Path, categories: Sequence[str], num_segments: int
) -> list[Annotation]:
    """Read Annotations.txt. Header and last newline are optional; CRLF is accepted.

    Raises:
        DatasetError: If a line doesn't have five fields, or has an unknown category or
            invalid times.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{path}: not a text file ({error.reason} at byte {error.start}). Expected "
            f"lines of {_FIELDS}. Use the Annotations.txt of AVE."
        ) from error
    # `splitlines` would also split at other characters, such as form feeds.
    lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    first = 1 if lines[0].startswith("Category&VideoID&") else 0
    if len(lines) == first:
        raise DatasetError(
            f"{path}: no rows. Expected lines of {_FIELDS} after the header. Use the "
            "Annotations.txt of AVE."
        )
    return [
        _parse_line(line, f"{path}, line {number}", categories, num_segments)
        for number, line in enumerate(lines[first:], start=first + 1)
    ]


def _parse_line(
    line: str, where: str, categories: Sequence[str], num_segments: int
) -> Annotation:
    fields = line.split("&")
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
    # AVE has an event of length 0, with the times 0&0.
    if times != [0, 0] and (
        None in times or not 0 <= times[0] < times[1] <= num_segments
    ):
        raise DatasetError(
            f"{where}: invalid times. Expected whole seconds with 0 <= start < end <= "
            f"{num_segments}, received start={start!r}, end={end!r}. Correct the line."
        )
    return Annotation(category, video_id, quality, *times)


def segment_labels(
    category: int, start_s: int, end_s: int, num_segments: int, background: int
) -> np.ndarray:
    """Return a clip's segment labels: the category during the event, else background.

    Returns:
        `(num_segments,)` int64.
    """
    labels = np.full(num_segments, background, np.int64)
    labels[start_s:end_s] = category
    return labels
