"""LLP (Look, Listen and Parse): weak labels, and audible and visible events.

AVVP_train.csv, AVVP_val_pd.csv and AVVP_test_pd.csv have the columns filename and
event_labels, the categories of a video. AVVP_eval_audio.csv and AVVP_eval_visual.csv
have filename, onset, offset and event_labels, for validation and test. All files are
tab-separated, in https://github.com/YapengTian/AVVP-ECCV20 (`data`). This module
returns LLP's audio-visual events: the intersections of audible and visible events. As
in LLP's own evaluation, events of length zero are ignored.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

from avsdn_tf.labels.files import (
    LabelFile,
    LabelledEvent,
    VideoLabels,
    parse_event,
    split_of_name,
)

# Events by video, then by category.
_Times = dict[str, dict[str, list[LabelledEvent]]]


def _modality(file: LabelFile) -> str | None:
    if file.has_columns("filename", "onset", "offset", "event_labels"):
        name = file.path.name.lower()
        return next((kind for kind in ("audio", "visual") if kind in name), None)
    return None


def _is_weak(file: LabelFile) -> bool:
    has_names = file.has_columns("filename", "event_labels")
    return has_names and not file.has_columns("onset")


def recognizes(file: LabelFile) -> bool:
    """Return whether a table has LLP's columns."""
    return _is_weak(file) or _modality(file) is not None


def read(files: Sequence[LabelFile], problems: list[str]) -> list[VideoLabels]:
    """Return weak labels for training, and events for validation and test."""
    timed: dict[str, _Times] = {}
    for file in files:
        if kind := _modality(file):
            timed.setdefault(kind, {}).update(_read_times(file, problems))
    if len(timed) == 1:
        problems.append(
            "LLP: expected AVVP_eval_audio.csv and AVVP_eval_visual.csv, since an "
            f"event is heard and seen. Received events of {next(iter(timed))} alone."
        )
        return []
    audio, visual = timed.get("audio", {}), timed.get("visual", {})
    labels: dict[str, VideoLabels] = {}
    # Read AVVP_dataset_full.csv last: it repeats the other files without a split.
    weak = sorted(filter(_is_weak, files), key=lambda file: split_of_name(file) is None)
    for file in weak:
        for where, row in file.table.rows(file.name, problems):
            video, split = row["filename"], split_of_name(file)
            events = tuple(
                LabelledEvent(name, None, None, where)
                for name in row["event_labels"].split(",")
            )
            if video in labels:
                continue
            if video in audio or video in visual:
                events = _intersect(audio.get(video, {}), visual.get(video, {}))
            labels[video] = VideoLabels(video, file.name, events, split)
    for video in {**audio, **visual}:
        if video not in labels:
            events = _intersect(audio.get(video, {}), visual.get(video, {}))
            labels[video] = VideoLabels(video, "AVVP_eval", events)
    return list(labels.values())


def _read_times(file: LabelFile, problems: list[str]) -> _Times:
    """Return the events of each video by category."""
    times: _Times = {}
    for where, row in file.table.rows(file.name, problems):
        event = parse_event(
            row["event_labels"], row["onset"], row["offset"], where, problems
        )
        by_category = times.setdefault(row["filename"], {})
        if event and event.start_s < event.end_s:
            by_category.setdefault(event.category, []).append(event)
    return times


def _intersect(
    audio: dict[str, list[LabelledEvent]], visual: dict[str, list[LabelledEvent]]
) -> tuple[LabelledEvent, ...]:
    """Return the intersections of events of both modalities, by category."""
    return tuple(
        event
        for category in audio
        for event in _overlaps(_join(audio[category]), _join(visual.get(category, ())))
    )


def _join(events: Iterable[LabelledEvent]) -> list[LabelledEvent]:
    """Return events in order of time, and merge overlapping events."""
    joined: list[LabelledEvent] = []
    for event in sorted(events, key=lambda event: event.start_s):
        if joined and event.start_s < joined[-1].end_s:
            end_s = max(joined[-1].end_s, event.end_s)
            joined[-1] = dataclasses.replace(joined[-1], end_s=end_s)
        else:
            joined.append(event)
    return joined


def _overlaps(
    audio: Sequence[LabelledEvent], visual: Sequence[LabelledEvent]
) -> Iterator[LabelledEvent]:
    """Yield the intersections of two lists of merged events, in linear time."""
    i = j = 0
    while i < len(audio) and j < len(visual):
        start_s = max(audio[i].start_s, visual[j].start_s)
        end_s = min(audio[i].end_s, visual[j].end_s)
        if start_s < end_s:
            yield dataclasses.replace(audio[i], start_s=start_s, end_s=end_s)
        if audio[i].end_s < visual[j].end_s:
            i += 1
        else:
            j += 1
