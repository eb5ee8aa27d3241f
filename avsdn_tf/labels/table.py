"""CSV or TSV with columns of start, end and label, one line per event.

Common names of the columns are recognized. If no column names the video, the file's
name does. A line without times is a weak label of the clip. A line without times and
label, or with the label Background, marks a clip without events. The columns of times
are optional. Decimal commas are accepted if semicolons separate columns.
"""

import re
from collections.abc import Mapping, Sequence

from avsdn_tf.labels.files import (
    LabelFile,
    LabelledEvent,
    VideoLabels,
    parse_event,
    parse_split,
    split_of_name,
)
from avsdn_tf.text import unmark_formula

# In order of preference.
_COLUMNS = {
    "video": (
        *("filename", "file", "video", "file_name", "video_id", "video_name", "path"),
        *("vid", "clip", "recording", "name", "key"),
    ),
    "start": (
        *("onset", "start", "begin", "start_s", "begin_s", "onset_s", "start_time"),
        *("begin_time", "start_time_s", "begin_time_s", "event_start", "from"),
    ),
    "end": (
        *("offset", "end", "stop", "end_s", "stop_s", "offset_s", "end_time"),
        *("stop_time", "end_time_s", "event_end", "to"),
    ),
    "label": (
        *("label", "category", "event_label", "class", "event", "event_labels"),
        *("labels", "annotation", "tag", "class_name", "event_class"),
    ),
    "split": ("split", "subset", "partition", "set"),
}
# A table with one of these words in a column's name is not read as weak labels.
_TIME_WORDS = {
    *("onset", "start", "begin", "offset", "end", "stop", "duration", "frame"),
}


def find_columns(header: Sequence[str]) -> dict[str, str]:
    """Return the name of each recognized column, by its kind."""
    plain = {re.sub(r"[^a-z]+", "_", name).strip("_"): name for name in header}
    return {
        kind: plain[name]
        for kind, names in _COLUMNS.items()
        for name in reversed(names)
        if name in plain
    }


def recognizes(file: LabelFile) -> bool:
    """Return whether a table has a column of labels, and columns of times or videos."""
    if not file.has_columns():
        return False
    kinds = set(find_columns(file.table.header))
    words = {word for name in file.table.header for word in re.split("[^a-z]+", name)}
    return {"start", "end", "label"} <= kinds or (
        {"video", "label"} <= kinds and not _TIME_WORDS & words
    )


def read(files: Sequence[LabelFile], problems: list[str]) -> list[VideoLabels]:
    """Return the labels of each video in the tables."""
    splits = _splits_of_names(files)
    return [
        labels
        for file in files
        for labels in _read_file(file, splits.get(file.name), problems)
    ]


def _splits_of_names(files: Sequence[LabelFile]) -> dict[str, str]:
    """Return the split in the name of each table with videos, such as `val.csv`.

    The result is empty if a name has no split, or all names have the same split.
    """
    tables = [file for file in files if "video" in find_columns(file.table.header)]
    splits = {file.name: split_of_name(file) for file in tables}
    is_divided = None not in splits.values() and len(set(splits.values())) > 1
    return splits if is_divided else {}


def _read_file(
    file: LabelFile, named_split: str | None, problems: list[str]
) -> list[VideoLabels]:
    columns = find_columns(file.table.header)
    twice = [name for name in columns.values() if file.table.header.count(name) > 1]
    if twice:
        problems.append(f"{file.name}: expected one column {twice[0]}.")
        return []
    events: dict[str, list[LabelledEvent]] = {}
    splits: dict[str, str] = {}
    fields: dict[str, Mapping[str, str]] = {}
    if "video" not in columns:
        events[file.stem] = []
    for where, row in file.table.rows(file.name, problems):
        row = {name: unmark_formula(value) for name, value in row.items()}
        video = row[columns["video"]] if "video" in columns else file.stem
        if not video:
            problems.append(f"{where}: expected a video. Received: nothing.")
            continue
        split = parse_split(row.get(columns.get("split", ""), ""), where, problems)
        if split and splits.setdefault(video, split) != split:
            problems.append(
                f"{where}: {video} is of split {split}, and of {splits[video]} above. "
                "Expected one split a video."
            )
        fields.setdefault(video, row)
        event = _read_event(row, columns, file.table.delimiter == ";", where, problems)
        events.setdefault(video, []).extend([event] if event else [])
    return [
        VideoLabels(
            video,
            file.name,
            tuple(video_events),
            splits.get(video, named_split),
            fields.get(video, {}),
        )
        for video, video_events in events.items()
    ]


def _read_event(
    row: Mapping[str, str],
    columns: Mapping[str, str],
    has_commas: bool,
    where: str,
    problems: list[str],
) -> LabelledEvent | None:
    label = row[columns["label"]]
    start, end = (row.get(columns.get(kind, ""), "") for kind in ("start", "end"))
    if not (start or end):
        return LabelledEvent(label, None, None, where) if label else None
    return parse_event(label, start, end, where, problems, has_commas=has_commas)
