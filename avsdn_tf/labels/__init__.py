"""From labels as tools write them to manifest.csv, which the config `custom` reads.

`formats` lists the formats, each of which has a module; `media` finds videos or feature
files; `collect` and `checks` bring both together, `splits` divides the clips, and
`write` writes the files.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence

from avsdn_tf.errors import UserError
from avsdn_tf.labels.checks import (
    Clip,
    check_categories,
    check_times,
    without_labels,
)
from avsdn_tf.labels.collect import (
    LabelledMedium,
    Labels,
    Problems,
    match,
    read_labels,
)
from avsdn_tf.labels.files import SPLITS, LabelledEvent
from avsdn_tf.labels.media import FeatureFiles, Medium, find_media
from avsdn_tf.labels.splits import (
    DEFAULT_SHARES,
    check_splits,
    draw_splits,
    find_groups,
)


@dataclasses.dataclass(frozen=True)
class Collection:
    """Clips with events and splits, and what was noticed on the way.

    Attributes:
        clips: The clips, in order of their names.
        labels: What the label files hold.
        unreadable: Why each video or pair of feature files that is left out can't be
            read.
        num_missing: Number of labelled videos that are not there.
        num_cut: Number of events that ended after their video, and end with it.
        num_skipped: Number of media without labels that are left out.
        are_splits_drawn: Whether some splits were drawn, not taken from the labels.
        warnings: What is unusual, and was allowed.
    """

    clips: list[Clip]
    labels: Labels
    unreadable: Mapping[Medium, str]
    num_missing: int
    num_cut: int
    num_skipped: int
    are_splits_drawn: bool
    warnings: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Splitting:
    """How clips are divided into splits.

    Attributes:
        splits: `"file"`: take splits from the labels; `"random"`: draw them; `"auto"`:
            take those that there are, and draw the others.
        shares: Shares of training, validation and test, where splits are drawn.
        seed: Draws the splits.
        group: Clips of one group go to one split; see `splits.find_groups`.
        allow_missing_categories: Whether a split may lack a category.
    """

    splits: str = "auto"
    shares: Sequence[float] = DEFAULT_SHARES
    seed: int = 0
    group: str | None = None
    allow_missing_categories: bool = False


def collect_clips(
    folder: pathlib.Path,
    labels: Sequence[pathlib.Path] = (),
    *,
    label_format: str | None = None,
    features: FeatureFiles | None = None,
    unlabelled: str | None = None,
    ticks_per_s: float = 1.0,
    splitting: Splitting | None = None,
    on_done: Callable[[int, int], None] = lambda done, total: None,
) -> Collection:
    """Bring the videos or feature files of a folder and their labels together.

    Args:
        folder: The folder of videos, or of feature files.
        labels: Label files, and folders of them; default: `folder`.
        label_format: The only format of labels to read, a name of `formats.FORMATS`.
        features: Which feature files to take, instead of videos.
        unlabelled: `"background"` or `"skip"`: what becomes of clips without labels.
        ticks_per_s: How many of the labels' unit of time are a second: 1000 for
            milliseconds. Those of published data sets are seconds.
        splitting: How clips are divided into splits.
        on_done: As in `media.find_media`.

    Raises:
        UserError: If there are no clips or labels, or something is wrong with them: one
            line each.
    """
    problems = Problems()
    media, unreadable = find_media(folder, features, on_done)
    found = read_labels(list(labels) or [folder], media, label_format, problems)
    entries, num_missing = match(media, found, unreadable, problems)
    misspelt = check_categories(entries, problems)
    events, num_cut = check_times(entries, ticks_per_s, problems)
    kept = without_labels(entries, unlabelled, problems)
    clips, are_drawn = _divide(kept, events, splitting or Splitting(), problems)
    problems.raise_all()
    if not any(clip.events for clip in clips):
        raise UserError("No clip has an event. Expected events of a category or more.")
    lenient = splitting is not None and splitting.allow_missing_categories
    warnings = check_splits(clips, lenient, problems)
    problems.raise_all()
    return Collection(
        clips=clips,
        labels=found,
        unreadable=unreadable,
        num_missing=num_missing,
        num_cut=num_cut,
        num_skipped=len(entries) - len(kept),
        are_splits_drawn=are_drawn,
        warnings=[*misspelt, *warnings],
    )


def _divide(
    entries: Sequence[LabelledMedium],
    events: Mapping[str, Sequence[LabelledEvent]],
    how: Splitting,
    problems: Problems,
) -> tuple[list[Clip], bool]:
    """Return the clips with their splits, and whether some were drawn."""
    groups = find_groups(entries, how.group)
    clips = []
    for entry in entries:
        key = entry.medium.key
        split = None if how.splits == "random" else entry.split
        clips.append(Clip(entry.medium, tuple(events[key]), split, groups[key]))
    are_drawn = how.splits != "file" and not all(clip.split for clip in clips)
    if are_drawn:
        clips = draw_splits(clips, how.shares, how.seed)
    problems.lines.extend(
        f"{clip.medium.key}: no split in its labels. Expected one of "
        f"{', '.join(SPLITS)}."
        for clip in clips
        if not clip.split
    )
    return clips, are_drawn
