"""LLP (Look, Listen and Parse): weak labels, and events heard and events seen.

AVVP_train.csv, AVVP_val_pd.csv and AVVP_test_pd.csv have the columns filename and
event_labels, the categories of a video. AVVP_eval_audio.csv and AVVP_eval_visual.csv
have filename, onset, offset and event_labels, for validation and test. All are
separated by tabs and are in https://github.com/YapengTian/AVVP-ECCV20 (`data`). An
event here is heard and seen at once, as LLP's audio-visual events. Events that begin
and end in the same second count for nothing in LLP's own evaluation, nor here.
"""

from collections.abc import Sequence

from avsdn_tf.labels.files import (
    LabelFile,
    LabelledEvent,
    VideoLabels,
    parse_event,
    split_of_name,
)

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
    """Return the weak labels of training, and the events of validation and test."""
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
    found: dict[str, VideoLabels] = {}
    # AVVP_dataset_full.csv repeats the others and names no split.
    weak = sorted(filter(_is_weak, files), key=lambda file: split_of_name(file) is None)
    for file in weak:
        for where, row in file.table.rows(file.name, problems):
            video, split = row["filename"], split_of_name(file)
            events = tuple(
                LabelledEvent(name, None, None, where)
                for name in row["event_labels"].split(",")
            )
            if video in audio or video in visual:
                events = _both(audio.get(video, {}), visual.get(video, {}))
            found.setdefault(video, VideoLabels(video, file.name, events, split))
    for video in {**audio, **visual}:
        events = _both(audio.get(video, {}), visual.get(video, {}))
        found.setdefault(video, VideoLabels(video, "AVVP_eval", events))
    return list(found.values())


def _read_times(file: LabelFile, problems: list[str]) -> _Times:
    """Return the events of each video by category."""
    found: _Times = {}
    for where, row in file.table.rows(file.name, problems):
        times = row["onset"], row["offset"]
        event = parse_event(row["event_labels"], *times, where, problems)
        of_video = found.setdefault(row["filename"], {})
        if event and event.start_s < event.end_s:
            of_video.setdefault(event.category, []).append(event)
    return found


def _both(
    audio: dict[str, list[LabelledEvent]], visual: dict[str, list[LabelledEvent]]
) -> tuple[LabelledEvent, ...]:
    """Return where events of both modalities overlap, by category."""
    return tuple(
        LabelledEvent(category, start_s, end_s, heard.where)
        for category in audio
        for heard in audio[category]
        for seen in visual.get(category, ())
        if (start_s := max(heard.start_s, seen.start_s))
        < (end_s := min(heard.end_s, seen.end_s))
    )
