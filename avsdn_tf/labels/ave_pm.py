"""AVE-PM: one event per clip, in train.csv, val.csv and test.csv.

The columns are sample_id, onset, offset and label. class_name_mapping.csv maps the
labels, which are class numbers (class_id), to names (class_name). The files are in
https://github.com/dzdydx/ave-pm (`dataset/AVE-PM`). Clips are named SAMPLE_ID.mp4.
"""

from collections.abc import Sequence

from avsdn_tf.labels.files import LabelFile, VideoLabels, parse_event, split_of_name
from avsdn_tf.text import short_name

_EVENTS = ("sample_id", "onset", "offset", "label")
_NAMES = ("class_id", "class_name")


def recognizes(file: LabelFile) -> bool:
    """Return whether a table has AVE-PM's columns."""
    return file.has_columns(*_EVENTS) or file.has_columns(*_NAMES)


def read(files: Sequence[LabelFile], problems: list[str]) -> list[VideoLabels]:
    """Return the labels of each clip in the tables."""
    names = {
        row["class_id"]: row["class_name"]
        for file in files
        if file.has_columns(*_NAMES)
        for _, row in file.table.rows(file.name, problems)
    }
    labels = []
    for file in files:
        if not file.has_columns(*_EVENTS):
            continue
        for where, row in file.table.rows(file.name, problems):
            name = names.get(row["label"])
            if name is None:
                problems.append(
                    f"{where}: expected a class_id of class_name_mapping.csv. "
                    f"Received: {short_name(row['label'])}."
                )
                continue
            event = parse_event(name, row["onset"], row["offset"], where, problems)
            events = (event,) if event else ()
            split = split_of_name(file)
            labels.append(VideoLabels(row["sample_id"], file.name, events, split))
    return labels
