"""Check categories and times of labels, and convert labels to events of clips."""

import collections
import dataclasses
import difflib
import itertools
import math
import re
from collections.abc import Sequence

from avsdn_tf.errors import UserError
from avsdn_tf.labels.collect import LabelledMedium, Problems
from avsdn_tf.labels.files import LabelledEvent
from avsdn_tf.labels.formats import FORMATS
from avsdn_tf.labels.media import Medium
from avsdn_tf.text import count, normalize, printable, short_name, skeleton

BACKGROUND = "Background"
# Tools round lengths: cut an event that ends at most this long after its video.
MAX_SURPLUS_S = 1.0
# A last second shorter than this is no segment; see `features.video.reader`.
MIN_SEGMENT_S = 0.1
# Comparing more categories, or longer names, takes seconds.
_MAX_COMPARED = 200
_LONGEST_COMPARED = 200
# The similarity of Speech and Speach is 0.83; Cat and Car reach 0.67.
_MIN_SIMILARITY = 0.8


@dataclasses.dataclass(frozen=True)
class Clip:
    """A clip of the manifest.

    Attributes:
        medium: Video or feature files.
        events: Events in order of time, in seconds.
        split: Name of the split, or None while it is undecided.
        group: Name of the group. All clips of a group are in one split.
    """

    medium: Medium
    events: tuple[LabelledEvent, ...]
    split: str | None
    group: str

    @property
    def categories(self) -> set[str]:
        """The categories of the events."""
        return {event.category for event in self.events}

    @property
    def has_times(self) -> bool:
        """Whether all events have times."""
        return all(event.start_s is not None for event in self.events)


def check_categories(
    entries: Sequence[LabelledMedium], problems: Problems
) -> list[str]:
    """Report invalid names of categories, and categories with several spellings.

    Returns warnings about rare categories that may be misspelt.
    """
    counts: collections.Counter[str] = collections.Counter()
    first: dict[str, str] = {}
    for entry in entries:
        for event in entry.events:
            name = normalize(event.category)
            counts[name] += 1
            first.setdefault(name, event.where)
    spellings: dict[str, list[str]] = {}
    for name in counts:
        key = skeleton(name.replace("_", " ").replace("-", " "))
        if not key or printable(name) != name or name.split(" ")[0] == "#":
            problems.lines.append(
                f"{first[name]}: {name!a} can't be a category. Expected a name of "
                "printable characters that does not begin with '# '."
            )
        elif key != skeleton(BACKGROUND):
            spellings.setdefault(key, []).append(name)
    for names in spellings.values():
        names.sort(key=counts.__getitem__, reverse=True)
        problems.lines.extend(
            f"{first[name]}: {name!a} ({count(counts[name], 'label')}) looks like "
            f"{names[0]!a} ({count(counts[names[0]], 'label')}). Expected one spelling"
            f": write {names[0]!a}."
            for name in names[1:]
        )
    if len(counts) > _MAX_COMPARED or any(entry.is_published for entry in entries):
        return []
    return [
        f"{short_name(name)} ({count(counts[name], 'label')}) may be a misspelt "
        f"{short_name(other)} ({count(counts[other], 'label')})."
        for name in counts
        for other in counts
        if 3 * counts[name] <= counts[other] and _is_similar(name, other)
    ]


def _is_similar(name: str, other: str) -> bool:
    """Return whether two names differ in few characters and in no digit."""
    is_long = max(len(name), len(other)) > _LONGEST_COMPARED
    if is_long or re.findall(r"\d", name) != re.findall(r"\d", other):
        return False
    return difflib.SequenceMatcher(None, name, other).ratio() >= _MIN_SIMILARITY


def check_times(
    entries: Sequence[LabelledMedium], ticks_per_s: float, problems: Problems
) -> tuple[dict[str, list[LabelledEvent]], int]:
    """Check times; return each medium's events in seconds and the number of cut events.

    Reversed times and times outside of the video are reported. If times seem to be
    milliseconds or frames, a hint suggests `ticks_per_s`.
    """
    events_by_key: dict[str, list[LabelledEvent]] = {}
    num_cut, max_ratio = 0, 0.0
    for entry in entries:
        ticks = 1.0 if entry.is_published else ticks_per_s
        events = []
        for event in entry.events:
            category = normalize(event.category)
            if skeleton(category) == skeleton(BACKGROUND):
                continue
            event = dataclasses.replace(event, category=category)
            if event.start_s is None:
                events.append(event)
                continue
            start_s, end_s = (round(t / ticks, 6) for t in (event.start_s, event.end_s))
            event = dataclasses.replace(event, start_s=start_s, end_s=end_s)
            try:
                fitting = _fit(event, entry)
            except ValueError as error:
                problems.lines.append(f"{event.where}: {error}.")
                if not entry.is_published:
                    max_ratio = max(max_ratio, end_s / entry.medium.length_s)
                continue
            num_cut += not fitting or fitting.end_s < end_s
            events.extend([fitting] if fitting else [])
        # `collect.match` has already reported labels in two files.
        if len(entry.sources) < 2:
            _check_all_have_times(entry, events, problems)
            events = _merge(entry, events, problems)
        events_by_key[entry.medium.key] = events
    _hint_at_unit(max_ratio, problems)
    return events_by_key, num_cut


def _check_all_have_times(
    entry: LabelledMedium, events: Sequence[LabelledEvent], problems: Problems
) -> None:
    """Report events without times if other events of the medium have times."""
    untimed = [event for event in events if event.start_s is None]
    if len(untimed) < len(events):
        problems.lines.extend(
            f"{event.where}: {event.category} without times, although other labels of "
            f"{entry.medium.files[0].name} have some. Expected times in all or in none."
            for event in untimed
        )


def _fit(event: LabelledEvent, entry: LabelledMedium) -> LabelledEvent | None:
    """Cut an event at the end of its medium; return None if nothing is left.

    Raises:
        ValueError: If the times are invalid.
    """
    length_s = entry.medium.length_s
    is_padded = entry.format is not None and FORMATS[entry.format].is_padded
    fault = _find_fault(event.start_s, event.end_s, entry.medium)
    if fault and not is_padded:
        raise ValueError(fault)
    whole_s = math.floor(length_s)
    is_surplus = whole_s > 0 and length_s - whole_s < MIN_SEGMENT_S
    if event.start_s >= (whole_s if is_surplus else length_s):
        return None
    return dataclasses.replace(event, end_s=min(event.end_s, length_s))


def _find_fault(start_s: float, end_s: float, medium: Medium) -> str | None:
    """Return the error in an event's times, or None."""
    name, length_s = medium.files[0].name, medium.length_s
    times = f"{start_s:.10g} to {end_s:.10g} s"
    if end_s < start_s:
        return f"{times}: the end is before the start"
    if start_s < 0:
        return f"{times}: the start is before that of {name}"
    if end_s > length_s + MAX_SURPLUS_S or start_s >= length_s:
        return f"{times}: beyond the end of {name}, {length_s:.6g} s"
    return f"{times}: expected an end after the start" if end_s == start_s else None


def _hint_at_unit(ratio: float, problems: Problems) -> None:
    """Suggest `ticks_per_s` if times seem to be frames or milliseconds.

    `ratio` is the largest quotient of an event's end and its video's length.
    """
    unit, value = None, None
    if 5 <= ratio <= 63:
        unit, value = "frames, such as 25 a second", 25
    elif 63 < ratio <= 1050:
        unit, value = "milliseconds", 1000
    if unit:
        message = (
            f"Events end at up to {ratio:.0f} times their video's length. If times are "
            f"{unit}, this setting converts them."
        )
        problems.hints.append(UserError(message, field="ticks_per_s", value=value))


def _merge(
    entry: LabelledMedium, events: list[LabelledEvent], problems: Problems
) -> list[LabelledEvent]:
    """Return events in order of time, without overlaps within a category.

    Overlaps are merged in published data sets, and reported in others.
    """
    merged: dict[str, list[LabelledEvent]] = {}
    for event in sorted(events, key=_order):
        earlier = merged.setdefault(event.category, [])
        last = earlier[-1] if earlier else None
        if last is None or (event.start_s is not None and event.start_s >= last.end_s):
            earlier.append(event)
        elif event.start_s is None:
            pass  # A repeated weak label.
        elif entry.is_published:
            end_s = max(last.end_s, event.end_s)
            earlier[-1] = dataclasses.replace(last, end_s=end_s)
        else:
            problems.lines.append(
                f"{event.where}: {event.start_s:g} to {event.end_s:g} s of "
                f"{event.category} overlaps {last.where}. Expected events of one "
                "category that don't overlap: join them."
            )
    return sorted(itertools.chain.from_iterable(merged.values()), key=_order)


def _order(event: LabelledEvent) -> tuple[float, float, str]:
    return (event.start_s or 0.0, event.end_s or 0.0, event.category)


def without_labels(
    entries: Sequence[LabelledMedium], unlabelled: str | None, problems: Problems
) -> list[LabelledMedium]:
    """Return the media to use as clips.

    Args:
        entries: The media.
        unlabelled: `"background"` to use media without labels as background, `"skip"`
            to omit them, None to report them.
        problems: Collects errors.
    """
    missing = [
        entry
        for entry in entries
        if not entry.labels and not entry.medium.names & problems.named
    ]
    # If no label file could be read, the errors of the files are enough.
    is_explained = bool(problems.lines) and len(missing) == len(entries)
    if missing and unlabelled is None and not is_explained:
        problems.lines.extend(
            f"{entry.medium.files[0].name}: no labels." for entry in missing
        )
        message = (
            f"{len(missing)} of {count(len(entries), 'clip')} without labels. "
            "Expected an empty label file for each clip without events, or this "
            "setting: background uses clips without labels as background, skip omits "
            "them."
        )
        problems.hints.append(UserError(message, field="unlabelled"))
    if unlabelled == "skip":
        return [entry for entry in entries if entry.labels]
    return list(entries)
