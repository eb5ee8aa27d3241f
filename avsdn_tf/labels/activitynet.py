"""JSON in ActivityNet's layout, which UnAV-100 has, too.

`database` holds, by video, `subset`, `duration` and `annotations`; an annotation has a
`segment` of start and end in seconds, and a `label`. The layout is described with the
evaluation code of ActivityNet, https://github.com/activitynet/ActivityNet, and as
UnAV-100's in https://github.com/ttgeng233/UnAV (`data/unav100_annotations.json`). A
video of ActivityNet's test set has no annotations: they are not published.
"""

from collections.abc import Sequence
from typing import Any

from avsdn_tf.labels.files import (
    LabelFile,
    VideoLabels,
    parse_event,
    parse_split,
)


def recognizes(file: LabelFile) -> bool:
    """Return whether a JSON file has a database of videos."""
    return file.is_json_of(dict) and isinstance(file.json.get("database"), dict)


def read(files: Sequence[LabelFile], problems: list[str]) -> list[VideoLabels]:
    """Return the labels of each video of the databases."""
    found = [
        labels
        for file in files
        for video, entry in file.json["database"].items()
        if (labels := _read_video(file, video, entry, problems))
    ]
    # Without annotations in any test video, they are not published: no background.
    if not any(labels.events for labels in found if labels.split == "test"):
        found = [labels for labels in found if labels.split != "test"]
    return found


def _read_video(
    file: LabelFile, video: str, entry: Any, problems: list[str]
) -> VideoLabels | None:
    where = f"{file.name}, {video}"
    annotations = entry.get("annotations") if isinstance(entry, dict) else None
    if not isinstance(annotations, list):
        problems.append(f"{where}: expected a list of annotations.")
        return None
    split = parse_split(str(entry.get("subset") or ""), where, problems)
    events = []
    for i, annotation in enumerate(annotations):
        place = f"{where}, annotation {i + 1}"
        try:
            start, end = annotation["segment"]
            label = annotation["label"]
        except (KeyError, TypeError, ValueError):
            problems.append(f"{place}: expected a segment of two times, and a label.")
            continue
        events.append(parse_event(label, start, end, place, problems))
    found = tuple(event for event in events if event)
    return VideoLabels(video, file.name, found, split)
