"""Label tracks of Audacity: one text file per video, named after the video.

A line has start and end in seconds and a text, separated by tabs. A line that begins
with a backslash holds the frequencies of the preceding label. Format: Audacity's
manual, "Importing and Exporting Labels",
https://manual.audacityteam.org/man/importing_and_exporting_labels.html.
"""

import re
from collections.abc import Sequence

from avsdn_tf.labels import table
from avsdn_tf.labels.files import LabelFile, VideoLabels, parse_event

_TIME = r"-?\d+(?:[.,]\d+)?"
_LINE = re.compile(rf"{_TIME}\t{_TIME}(\t|$)")


def recognizes(file: LabelFile) -> bool:
    """Return whether a text file is empty, or has a line of a label track."""
    if file.path.suffix.lower() != ".txt" or table.recognizes(file):
        return False
    lines = [line for line in file.text.split("\n") if line.strip()]
    return not lines or any(map(_LINE.match, lines))


def read(files: Sequence[LabelFile], problems: list[str]) -> list[VideoLabels]:
    """Return the labels in each file. A file has the name of its video."""
    labels = []
    for file in files:
        events = []
        for number, line in enumerate(file.text.split("\n"), start=1):
            if not line.strip() or line.startswith("\\"):
                continue
            where = f"{file.name}, line {number}"
            values = line.split("\t")
            if len(values) < 2:
                problems.append(
                    f"{where}: expected start, end and text, separated by tabs."
                )
                continue
            category = " ".join(values[2:])
            events.append(parse_event(category, *values[:2], where, problems))
        events = tuple(event for event in events if event)
        labels.append(VideoLabels(file.stem, file.name, events))
    return labels
