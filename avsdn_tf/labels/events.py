"""Read NAME.events.json and NAME.events.csv of `predict`, corrected by a user.

`report/event_files.py` documents the layouts. The JSON's member `start_s` is the first
time of the video, and is subtracted from the times of the events in both files.
"""

import dataclasses
from collections.abc import Sequence

from avsdn_tf.labels import table
from avsdn_tf.labels.files import LabelFile, VideoLabels, parse_event, read_start


def recognizes(file: LabelFile) -> bool:
    """Return whether a file has a layout that `predict` writes."""
    if file.path.name.lower().endswith(".events.csv"):
        return file.has_columns("start_s", "end_s", "category")
    return file.is_json_of(dict) and isinstance(file.json.get("events"), list)


def read(files: Sequence[LabelFile], problems: list[str]) -> list[VideoLabels]:
    """Return the labels of each file. The name of a file is the name of its video."""
    tables = [file for file in files if file.path.suffix.lower() == ".csv"]
    jsons = [file for file in files if file not in tables]
    labels = [_read_json(file, problems) for file in jsons]
    for file in tables:
        zero_s = read_start(file, problems)
        labels.extend(_shift(each, zero_s) for each in table.read([file], problems))
    return labels


def _shift(labels: VideoLabels, zero_s: float) -> VideoLabels:
    """Subtract a time from the times of all events; weak labels have no times."""
    events = [
        event
        if event.start_s is None
        else dataclasses.replace(
            event, start_s=event.start_s - zero_s, end_s=event.end_s - zero_s
        )
        for event in labels.events
    ]
    return dataclasses.replace(labels, events=tuple(events))


def _read_json(file: LabelFile, problems: list[str]) -> VideoLabels:
    zero_s = read_start(file, problems)
    events = []
    for i, event in enumerate(file.json["events"], start=1):
        where = f"{file.name}, event {i}"
        if not isinstance(event, dict):
            problems.append(f"{where}: expected start_s, end_s and category.")
            continue
        values = (event.get(name) for name in ("category", "start_s", "end_s"))
        events.append(parse_event(*values, where, problems, zero_s=zero_s))
    return VideoLabels(file.stem, file.name, tuple(filter(None, events)))
