"""VGGSound-AVEL100k and -AVEL50k: ten flags a video, and a table of categories.

A JSON file holds `{VIDEO: {"label": [0, 1, ...]}}`, or a list of such dictionaries: for
each second, whether the event is heard and seen. `vggsound-avel100k.csv` has the
columns video_id, category and split. The table is described by the loader in
https://github.com/jasongief/CPSP (`cpsp_avel/dataset/vggsound_avel_dataset.py`), the
JSON files `vggsound-avel100k_annos.json` and `vggsound-avel50k_labels.json` by programs
of their users. The zip files of pickles that the loader reads are not read here, since
a pickle runs code.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from avsdn_tf.labels import table
from avsdn_tf.labels.files import (
    LabelFile,
    LabelledEvent,
    VideoLabels,
    parse_split,
    segments_to_times,
)


def entries(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield identifier and entry of each video of a JSON file."""
    for part in value if isinstance(value, list) else [value]:
        if isinstance(part, dict):
            yield from part.items()


def is_flags(value: Any, *names: str) -> bool:
    """Return whether a JSON value holds entries with these members."""
    first = next(entries(value), (None, None))[1]
    return isinstance(first, dict) and set(names) <= set(first)


def recognizes(file: LabelFile) -> bool:
    """Return whether a file holds the flags, or is the table."""
    if file.is_json_of(dict) or file.is_json_of(list):
        return is_flags(file.json, "label") and not is_flags(file.json, "category")
    # With times, it is a table like others.
    return file.has_columns("video_id", "category", "split") and not (
        {"start", "end"} <= set(table.find_columns(file.table.header))
    )


def read(files: Sequence[LabelFile], problems: list[str]) -> list[VideoLabels]:
    """Return the labels of each video that has flags; without flags, the categories."""
    if not any(file.path.suffix.lower() == ".json" for file in files):
        return table.read(files, problems)
    rows = read_table(files, "video_id", "category", problems)
    return read_flags(files, rows, problems)


def read_table(
    files: Sequence[LabelFile], video: str, category: str, problems: list[str]
) -> dict[str, tuple[str, str | None]]:
    """Return category and split of each video of the tables among some files."""
    return {
        row[video]: (row[category], parse_split(row["split"], where, problems))
        for file in files
        if file.has_columns(video, category, "split")
        for where, row in file.table.rows(file.name, problems)
    }


def read_flags(
    files: Sequence[LabelFile],
    rows: Mapping[str, tuple[str, str | None]],
    problems: list[str],
) -> list[VideoLabels]:
    """Return the labels of each video of the JSON files among some files.

    Args:
        files: JSON files, and others.
        rows: Category and split of each video; an entry may hold its own category.
        problems: Takes what is wrong.
    """
    found = []
    for file in files:
        if file.path.suffix.lower() != ".json":
            continue
        for video, entry in entries(file.json):
            where = f"{file.name}, {video}"
            category, split = rows.get(video, (None, None))
            if isinstance(entry, dict):
                category = entry.get("category", category)
            try:
                flags = _parse_flags(entry)
            except (TypeError, ValueError, KeyError, IndexError, RecursionError):
                problems.append(f"{where}: expected a label of zeros and ones.")
                continue
            if not isinstance(category, str):
                problems.append(f"{where}: no category. Expected a line of the table.")
                continue
            events = tuple(
                LabelledEvent(category, float(start), float(end), where)
                for start, end in segments_to_times(flags)
            )
            found.append(VideoLabels(video, file.name, events, split))
    return found


def _parse_flags(entry: Any) -> list[int]:
    label = entry["label"]
    flags = json.loads(label) if isinstance(label, str) else label
    # Also stored as an array of one row.
    flags = flags[0] if isinstance(flags[0], list) else flags
    if not all(flag in (0, 1) for flag in flags):
        raise ValueError("neither 0 nor 1")
    return [int(flag) for flag in flags]
