"""VGGSound-AVEL100k and -AVEL50k: ten flags per video, and a table of categories.

`vggsound-avel100k_annos.json` and `vggsound-avel50k_labels.json` hold `{VIDEO:
{"label": [0, 1, ...]}}`, or a list of such dictionaries. Each second has a flag, 1 if
the event is audible and visible. `vggsound-avel100k.csv` has the columns video_id,
category and split, as in `cpsp_avel/dataset/vggsound_avel_dataset.py` of
https://github.com/jasongief/CPSP. That loader's pickles are not supported, because
loading a pickle runs code.
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
    """Yield identifier and entry of each video in a JSON file."""
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, dict):
            yield from item.items()


def is_flags(value: Any, *names: str) -> bool:
    """Return whether the first entry of a JSON value has these members."""
    first = next(entries(value), (None, None))[1]
    return isinstance(first, dict) and set(names) <= set(first)


def recognizes(file: LabelFile) -> bool:
    """Return whether a file holds flags only, or is the table of categories."""
    if file.is_json_of(dict) or file.is_json_of(list):
        return is_flags(file.json, "label") and not is_flags(file.json, "category")
    # Tables with times belong to the module `table`.
    return file.has_columns("video_id", "category", "split") and not (
        {"start", "end"} <= set(table.find_columns(file.table.header))
    )


def read(files: Sequence[LabelFile], problems: list[str]) -> list[VideoLabels]:
    """Return the labels of each video.

    Without JSON files, an event has a category but no times (a weak label).
    """
    if not any(file.path.suffix.lower() == ".json" for file in files):
        return table.read(files, problems)
    rows = read_table(files, "video_id", "category", problems)
    return read_flags(files, rows, problems)


def read_table(
    files: Sequence[LabelFile], video: str, category: str, problems: list[str]
) -> dict[str, tuple[str, str | None]]:
    """Return category and split of each video in the tables among the files."""
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
    """Return the labels of each video in the JSON files.

    Args:
        files: JSON files and other files.
        rows: Category and split of each video. A category in the JSON has priority.
        problems: List to append errors to.
    """
    labels = []
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
                problems.append(
                    f"{where}: no category. Expected a row for this video in the table "
                    "of categories."
                )
                continue
            events = tuple(
                LabelledEvent(category, float(start), float(end), where)
                for start, end in segments_to_times(flags)
            )
            labels.append(VideoLabels(video, file.name, events, split))
    return labels


def _parse_flags(entry: Any) -> list[int]:
    label = entry["label"]
    flags = json.loads(label) if isinstance(label, str) else label
    # In some files, the flags are an array of one row.
    flags = flags[0] if isinstance(flags[0], list) else flags
    if not all(flag in (0, 1) for flag in flags):
        raise ValueError("neither 0 nor 1")
    return [int(flag) for flag in flags]
