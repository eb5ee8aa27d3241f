"""WebVTT: a subtitle file has the name of its video; a cue's text is a category.

Format: W3C's WebVTT, https://www.w3.org/TR/webvtt1/. Notes, styles, regions and tags
are ignored. `avsdn predict` writes two more parts, which are also ignored: the score
after the category, and the disclaimer. The disclaimer is the first cue, starts at time
0, and is displayed at the top of the picture.
"""

import html
import re
from collections.abc import Sequence

from avsdn_tf.labels.files import LabelFile, VideoLabels, parse_event, read_start

_TIME = r"(?:\d+:)?\d{2}:\d{2}\.\d{3}"
_TIMES = re.compile(rf"({_TIME})[ \t]+-->[ \t]+({_TIME})(.*)")
_TAG = re.compile(r"<[^<>]*>")
_MAX_CUE_LINES = 100
_SCORE = re.compile(r" \d+(\.\d+)? ?%$")


def recognizes(file: LabelFile) -> bool:
    """Return whether a file has WebVTT's suffix and header."""
    is_vtt = file.path.suffix.lower() == ".vtt"
    return is_vtt and file.text.startswith("WEBVTT")


def read(files: Sequence[LabelFile], problems: list[str]) -> list[VideoLabels]:
    """Return the labels in each file. A file has the name of its video."""
    return [_read_file(file, problems) for file in files]


def _read_file(file: LabelFile, problems: list[str]) -> VideoLabels:
    events, lines = [], file.text.split("\n")
    zero_s = read_start(file, problems)
    for i, line in enumerate(lines):
        if "-->" not in line:
            continue
        where = f"{file.name}, line {i + 1}"
        match = _TIMES.match(line.strip())
        if match is None:
            problems.append(
                f"{where}: expected times such as 00:01.000 --> 00:02.500. Received: "
                f"{line.strip()!r}."
            )
            continue
        text = []
        for following in lines[i + 1 : i + 1 + _MAX_CUE_LINES]:
            if not following.strip() or "-->" in following:
                break
            text.append(_unescape(_TAG.sub("", following)))
        start, end, settings = match.groups()
        if not events and "line:0" in settings.split() and not start.strip("0:."):
            continue  # The disclaimer.
        category = _SCORE.sub("", " ".join(text).strip())
        event = parse_event(category, start, end, where, problems, zero_s=zero_s)
        events.append(event)
    events = tuple(event for event in events if event)
    return VideoLabels(file.stem, file.name, events)


def _unescape(text: str) -> str:
    """Return text with its character references resolved, if they are valid."""
    try:
        return html.unescape(text)
    except ValueError:  # A character reference of thousands of digits.
        return text
