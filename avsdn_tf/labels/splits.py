"""Check splits, and draw splits by group, stratified by category."""

import collections
import dataclasses
import random
import re
from collections.abc import Iterable, Mapping, Sequence

from avsdn_tf.errors import UserError
from avsdn_tf.labels.checks import BACKGROUND, Clip
from avsdn_tf.labels.collect import LabelledMedium, Problems
from avsdn_tf.labels.files import SPLITS
from avsdn_tf.text import short_name

DEFAULT_SHARES = (70.0, 15.0, 15.0)


def find_groups(entries: Sequence[LabelledMedium], group: str | None) -> dict[str, str]:
    """Return a dictionary from the key of each medium to the medium's group.

    Args:
        entries: The media.
        group: A column of the labels, or a regular expression with parentheses, which
            is searched in each key: its first capturing group is the medium's group.
            Default: each medium is a group of its own.

    Raises:
        UserError: If the expression is invalid, or no medium has a group.
    """
    groups = {entry.medium.key: entry.medium.key for entry in entries}
    if group is None:
        return groups
    found = {}
    if "(" in group:
        try:
            pattern = re.compile(group)
            matches = {key: pattern.search(key) for key in groups}
            found = {key: match[1] for key, match in matches.items() if match}
        except (re.error, IndexError) as error:
            message = f"Expected a regular expression with a group. {error}."
            raise UserError(message, field="group", value=group) from error
    else:
        for entry in entries:
            for labels in entry.labels:
                if value := labels.fields.get(group.lower()):
                    found[entry.medium.key] = value
    found = {key: value for key, value in found.items() if value}
    if not found:
        message = (
            "No clip has such a group. Expected a column of the labels, or a pattern "
            r"such as '(.+)_\d+', which is searched in the clips' names."
        )
        raise UserError(message, field="group", value=group)
    # The prefix distinguishes groups from the keys of media without a group.
    return {key: f"={found[key]}" if key in found else key for key in groups}


def check_splits(
    clips: Sequence[Clip], may_lack_categories: bool, problems: Problems
) -> list[str]:
    """Report errors of the splits in `problems`, and return the warnings.

    Errors are a group in two splits, events without times outside the train split, an
    empty split, and a category that a split lacks. With `may_lack_categories`, the last
    two are warnings.
    """
    by_group: dict[str, Clip] = {}
    for clip in clips:
        first = by_group.setdefault(clip.group, clip)
        if first.split != clip.split:
            problems.lines.append(
                f"{clip.medium.key}: of split {clip.split}, and {first.medium.key} of "
                f"split {first.split}. Expected one split for clips of one group."
            )
    problems.lines.extend(
        f"{clip.medium.key}: events without times, in split {clip.split}. Expected "
        "times, which scoring needs; or split train, for weak training."
        for clip in clips
        if clip.split != "train" and not clip.has_times
    )
    counts = count_clips(clips)
    used = {clip.split for clip in clips}
    gaps = []
    if empty := [split for split in SPLITS if split not in used]:
        untimed = " Clips without times are for training alone."
        gaps.append(
            f"no clip of split {' and '.join(empty)}. Expected at least one clip of "
            f"each of {', '.join(SPLITS)}."
            + untimed
            * any(not clip.has_times for clip in clips)
        )
    for category, by_split in counts.items():
        lacking = [s for s in SPLITS if s in used and not by_split[s]]
        if lacking and category != BACKGROUND:
            gaps.append(
                f"{short_name(category)}: no clip of split {' and '.join(lacking)} "
                f"({_describe(by_split)})."
            )
    if may_lack_categories:
        return gaps
    problems.lines.extend(gaps)
    if any(": no clip" in gap for gap in gaps):
        message = (
            "Expected clips of each category in each split, which takes three groups "
            "per category. Label more clips, or allow missing categories by this "
            "setting."
        )
        problems.hints.append(UserError(message, field="allow_missing_categories"))
    return []


def _describe(by_split: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {by_split[name]}" for name in SPLITS if by_split[name])


def count_clips(clips: Iterable[Clip]) -> dict[str, collections.Counter[str]]:
    """Return the number of clips of each category, and of background, by split."""
    counts: dict[str, collections.Counter[str]] = {}
    for clip in clips:
        for category in sorted(_strata(clip)):
            counts.setdefault(category, collections.Counter())[clip.split] += 1
    return dict(sorted(counts.items(), key=lambda item: item[0] == BACKGROUND))


def draw_splits(
    clips: Sequence[Clip], shares: Sequence[float], seed: int
) -> list[Clip]:
    """Draw splits with about the same proportions in every category.

    The algorithm of Sechidis et al., "On the stratification of multi-label data", 2011,
    starts with the rarest category, and assigns each of its groups to the split that
    lacks the category most. A category with at least three groups reaches every split.
    Groups stay together, clips without times go to the train split, and a clip that
    already has a split keeps it, together with its group.

    Args:
        clips: The clips.
        shares: Relative sizes of `SPLITS`; their sum may be any number.
        seed: Random seed for ties.

    Returns:
        The clips with splits.
    """
    groups: dict[str, list[Clip]] = {}
    for clip in clips:
        groups.setdefault(clip.group, []).append(clip)
    drawing = _Drawing(groups, shares)
    order = sorted(groups)
    random.Random(seed).shuffle(order)
    # Assign large groups first: later, they would exceed a split's share.
    order.sort(key=lambda name: -len(groups[name]))
    holders: dict[str, list[str]] = {}
    for name in order:
        for category in drawing.contents[name]:
            holders.setdefault(category, []).append(name)
    for clip in clips:
        if clip.split and clip.group not in drawing.chosen:
            drawing.choose(clip.group, clip.split)
    for category in sorted(holders, key=lambda c: (len(holders[c]), c)):
        names = [name for name in holders[category] if name not in drawing.chosen]
        for i, name in enumerate(names):
            drawing.choose(name, drawing.best(name, category, len(names) - i))
    return [
        dataclasses.replace(clip, split=clip.split or drawing.chosen[clip.group])
        for clip in clips
    ]


class _Drawing:
    """State of `draw_splits`: chosen splits, and number of clips each split lacks."""

    def __init__(
        self, groups: Mapping[str, Sequence[Clip]], shares: Sequence[float]
    ) -> None:
        self.groups = groups
        self.contents = {
            name: collections.Counter(c for clip in clips for c in _strata(clip))
            for name, clips in groups.items()
        }
        counts: collections.Counter[str] = collections.Counter()
        for content in self.contents.values():
            counts.update(content)
        self.chosen: dict[str, str] = {}
        self.used: set[str] = set()
        self.splits_with: dict[str, set[str]] = {c: set() for c in counts}
        self.lacking = {c: _divide(count, shares) for c, count in counts.items()}
        self.lacking_clips = _divide(sum(map(len, groups.values())), shares)

    def choose(self, name: str, split: str) -> None:
        """Assign a group to a split."""
        self.chosen[name] = split
        self.used.add(split)
        self.lacking_clips[split] -= len(self.groups[name])
        for category, count in self.contents[name].items():
            self.lacking[category][split] -= count
            self.splits_with[category].add(split)

    def best(self, name: str, category: str, num_left: int) -> str:
        """Return the best split for a group.

        `num_left` is the number of groups with the category and without a split.
        """
        empty = [split for split in SPLITS if split not in self.used]
        without = [s for s in SPLITS if s not in self.splits_with[category]]
        candidates: Sequence[str] = SPLITS
        if not all(clip.has_times for clip in self.groups[name]):
            candidates = ["train"]
        elif empty and len(self.groups) - len(self.chosen) <= len(empty):
            candidates = empty
        elif without and num_left <= len(without):
            candidates = without
        lacking = self.lacking[category]
        return max(
            candidates, key=lambda s: (round(lacking[s], 9), self.lacking_clips[s])
        )


def _strata(clip: Clip) -> set[str]:
    return clip.categories or {BACKGROUND}


def _divide(count: int, shares: Sequence[float]) -> dict[str, float]:
    """Divide a count among the splits."""
    counts = (count * share / sum(shares) for share in shares)
    return dict(zip(SPLITS, counts, strict=True))
