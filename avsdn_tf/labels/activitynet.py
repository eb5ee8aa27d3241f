"""JSON in the layout of ActivityNet and UnAV-100.

`database` holds `subset`, `duration` and `annotations` of each video. An annotation has
a `segment` (start and end in seconds) and a `label`. Examples: the evaluation code of
ActivityNet, https://github.com/activitynet/ActivityNet, and
`data/unav100_annotations.json` in https://github.com/ttgeng233/UnAV. ActivityNet
doesn't publish the annotations of its test set.
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
    """Return the labels of each video in the databases."""
    all_labels = [
        labels
        for file in files
        for video, entry in file.json["database"].items()
        if (labels := _read_video(file, video, entry, problems))
    ]
    # If no test video has annotations, they are unpublished: omit the test split.
    if not any(labels.events for labels in all_labels if labels.split == "test"):
        all_labels = [labels for labels in all_labels if labels.split != "test"]
    return all_labels


def _read_video(
    file: LabelFile, video: str, entry: Any, problems: list[str]
) -> VideoLabels | None:
    where = f"{file.name}, {video}"
    annotations = entry.get("annotations") if isinstance(entry, dict) else None
    if not isinstance(annotations, list):
        problems.append(f"{where}: expected a list of annotations.")
        return None
    split = parse_split(entry.get("subset"), where, problems)
    events = []
    for i, annotation in enumerate(annotations):
        where_event = f"{where}, annotation {i + 1}"
        try:
            start, end = annotation["segment"]
            label = annotation["label"]
        except (KeyError, TypeError, ValueError):
            problems.append(
                f"{where_event}: expected a segment of two times, and a label."
            )
            continue
        events.append(parse_event(label, start, end, where_event, problems))
    return VideoLabels(video, file.name, tuple(filter(None, events)), split)
