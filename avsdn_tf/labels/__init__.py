"""Convert labels of annotation tools to manifest.csv, which the config `custom` reads.

`formats` lists the formats, one module each; `media` finds videos or feature files;
`collect` matches labels with media, and `checks` checks them; `splits` divides the
clips; `write` writes the files.
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
    """Clips with events and splits.

    Attributes:
        clips: The clips, sorted by name.
        labels: Labels in the label files.
        unreadable: Error of each video or pair of feature files that can't be read, and
            is omitted.
        num_missing: Number of labelled videos that don't exist.
        num_cut: Number of events that were cut at the end of their video.
        num_skipped: Number of omitted media without labels.
        are_splits_drawn: Whether some splits were drawn at random.
        warnings: Unusual labels that were accepted.
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
    """How to divide clips into splits.

    Attributes:
        splits: `"file"` uses the splits in the labels, `"random"` draws the split of
            every clip, and `"auto"` draws it only for clips without a split in their
            labels.
        shares: Proportions of training, validation and test in drawn splits.
        seed: Random seed of drawn splits.
        group: Defines groups of clips that stay in one split; see `splits.find_groups`.
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
    """Match the videos or feature files in a folder with their labels.

    Args:
        folder: Folder of videos or feature files.
        labels: Label files and folders with label files. Default: `folder`.
        label_format: A name in `formats.FORMATS` to read only labels in that format.
        features: The feature files to use instead of videos.
        unlabelled: `"background"` to use clips without labels as background, `"skip"`
            to omit them. None reports them as errors.
        ticks_per_s: Number of the labels' time units in a second, such as 1000 for
            milliseconds. Ignored for published data sets, whose unit is the second.
        splitting: How to divide the clips into splits.
        on_done: As in `media.find_media`.

    Raises:
        UserError: If there are no clips or labels, or labels are wrong, with one line
            per error.
    """
    problems = Problems()
    media, unreadable = find_media(folder, features, on_done)
    all_labels = read_labels(list(labels) or [folder], media, label_format, problems)
    entries, num_missing = match(media, all_labels, unreadable, problems)
    misspelt = check_categories(entries, problems)
    events, num_cut = check_times(entries, ticks_per_s, problems)
    kept = without_labels(entries, unlabelled, problems)
    clips, are_drawn = _divide(kept, events, splitting or Splitting(), problems)
    problems.raise_all()
    if not any(clip.events for clip in clips):
        raise UserError(
            "No clip has an event. Expected events of at least one category."
        )
    lenient = splitting is not None and splitting.allow_missing_categories
    warnings = check_splits(clips, lenient, problems)
    problems.raise_all()
    return Collection(
        clips=clips,
        labels=all_labels,
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
    splitting: Splitting,
    problems: Problems,
) -> tuple[list[Clip], bool]:
    """Return the clips with their splits, and whether any split was drawn."""
    groups = find_groups(entries, splitting.group)
    clips = []
    for entry in entries:
        key = entry.medium.key
        split = None if splitting.splits == "random" else entry.split
        clips.append(Clip(entry.medium, tuple(events[key]), split, groups[key]))
    are_drawn = splitting.splits != "file" and not all(clip.split for clip in clips)
    if are_drawn:
        clips = draw_splits(clips, splitting.shares, splitting.seed)
    problems.lines.extend(
        f"{clip.medium.key}: no split in its labels. Expected one of "
        f"{', '.join(SPLITS)}."
        for clip in clips
        if not clip.split
    )
    return clips, are_drawn
