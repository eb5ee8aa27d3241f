"""CSV or TSV with columns of start, end and label, one line an event.

Columns have any of the usual names. Without a column that names the video, the file has
its video's name. A line without times labels the whole clip; one without times and
label, or with the label Background, says that nothing happens there. A table may lack
columns of times. Commas are decimal points where semicolons separate columns.
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
from avsdn_tf.text import csv_cell

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


# Columns of times; a table that has others than those above is not read as weak.
_TIME_WORDS = {
    *("onset", "start", "begin", "offset", "end", "stop", "duration", "frame"),
}


def find_columns(header: Sequence[str]) -> dict[str, str]:
    """Return the header's name of each kind of column that it has."""
    plain = {re.sub(r"[^a-z]+", "_", name).strip("_"): name for name in header}
    return {
        kind: plain[name]
        for kind, names in _COLUMNS.items()
        for name in reversed(names)
        if name in plain
    }


def recognizes(file: LabelFile) -> bool:
    """Return whether a table has columns of labels, and of times or videos."""
    if not file.has_columns():
        return False
    found = set(find_columns(file.table.header))
    words = {word for name in file.table.header for word in re.split("[^a-z]+", name)}
    return {"start", "end", "label"} <= found or (
        {"video", "label"} <= found and not _TIME_WORDS & words
    )


def read(files: Sequence[LabelFile], problems: list[str]) -> list[VideoLabels]:
    """Return the labels of each video of the tables."""
    splits = _splits_of_names(files)
    return [
        labels
        for file in files
        for labels in _read_file(file, splits.get(file.name), problems)
    ]


def _splits_of_names(files: Sequence[LabelFile]) -> dict[str, str]:
    """Return the split of each table that names videos, if all tables are of a split.

    One table for all, such as `test.csv`, is of none.
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
        row = {name: _unmark(value) for name, value in row.items()}
        video = row[columns["video"]] if "video" in columns else file.stem
        if not video:
            problems.append(f"{where}: no video. Expected its name.")
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
            tuple(found),
            splits.get(video, named_split),
            fields.get(video, {}),
        )
        for video, found in events.items()
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


def _unmark(cell: str) -> str:
    """Return a cell without the apostrophe by which `csv_cell` marks text."""
    return cell[1:] if cell.startswith("'") and csv_cell(cell[1:]) == cell else cell
