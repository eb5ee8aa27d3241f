"""Find label files, read them, and give each video or pair of feature files its own."""

import dataclasses
import difflib
import pathlib
import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence

from avsdn_tf.errors import CombinedUserError, UserError
from avsdn_tf.labels.files import LabelFile, LabelledEvent, VideoLabels
from avsdn_tf.labels.formats import FORMATS, explain_unknown, recognize
from avsdn_tf.labels.media import Medium
from avsdn_tf.report.prediction import find_written

_SUFFIXES = (".csv", ".json", ".tsv", ".txt", ".vtt")
# What this package writes beside labels.
_OWN_FILES = {
    *("manifest.csv", "categories.txt", "features.json", "extract.json"),
}
# Folders that commands write below the one of a manifest.
_OWN_FOLDERS = {"tensorflow_datasets"}
# More names are not searched for similar ones, which would take seconds.
_MAX_SEARCHED = 2000
_YOUTUBE_ID = 11


@dataclasses.dataclass
class Problems:
    """Errors, one line each, and hints that apply to several.

    `named` are the media whose own label file has been reported.
    """

    lines: list[str] = dataclasses.field(default_factory=list)
    named: set[str] = dataclasses.field(default_factory=set)
    hints: list[UserError] = dataclasses.field(default_factory=list)

    def raise_all(self) -> None:
        """Raise one error with all lines; with none, do nothing."""
        if self.lines:
            raise CombinedUserError([*map(UserError, self.lines), *self.hints])


@dataclasses.dataclass(frozen=True)
class Labels:
    """What label files hold.

    Attributes:
        videos: The labels, each with the name of its format.
        formats: Number of files of each format.
        ignored: Why each other file is no label file.
        num_predicted: Number of files that are as `predict` wrote them.
    """

    videos: list[tuple[str, VideoLabels]]
    formats: Mapping[str, int]
    ignored: Mapping[str, str]
    num_predicted: int


def read_labels(
    paths: Sequence[pathlib.Path],
    media: Sequence[Medium],
    wanted: str | None,
    problems: Problems,
) -> Labels:
    """Read label files, and those in folders.

    Args:
        paths: Files and folders.
        media: The media, whose names tell label files from other text files.
        wanted: Name of the only format to read, or None for any.
        problems: Collects errors in the files.

    Raises:
        UserError: If there is no label file.
    """
    files, num_predicted = _drop_unchanged(_find_files(paths))
    known = {name for medium in media for name in medium.names}
    by_format: dict[str, list[LabelFile]] = {}
    ignored: dict[str, str] = {}
    for file in files:
        try:
            name = recognize(file)
            if wanted and name != wanted and FORMATS[wanted].recognizes(file):
                name = wanted
        except ValueError as error:
            name, reason = None, str(error)
        else:
            reason = explain_unknown(file) if name is None else f"its format is {name}"
        if name is None or wanted not in (None, name):
            ignored[file.name] = reason
            is_broken = name is None and file.stem in known
            if is_broken or file.path in paths:
                expected = f"no {wanted} labels" if wanted else "no labels"
                problems.lines.append(f"{file.name}: {expected}: {reason}.")
                problems.named.add(file.stem)
            continue
        by_format.setdefault(name, []).append(file)
    if not by_format and not problems.lines:
        where = ", ".join(map(str, paths))
        reasons = "".join(f"\n{name}: {reason}." for name, reason in ignored.items())
        kinds = "; ".join(
            known.summary for name, known in FORMATS.items() if wanted in (None, name)
        )
        raise UserError(f"{where}: no labels. Expected one of: {kinds}.{reasons}")
    videos = []
    for name, of_format in by_format.items():
        read = FORMATS[name].read(of_format, problems.lines)
        videos.extend((name, labels) for labels in read)
    counts = {name: len(of_format) for name, of_format in by_format.items()}
    return Labels(videos, counts, ignored, num_predicted)


def _find_files(paths: Sequence[pathlib.Path]) -> list[LabelFile]:
    """Return the files that may hold labels."""
    found = []
    for path in paths:
        if not path.is_dir():
            found.append(LabelFile(path, path.name))
            continue
        for file in sorted(path.rglob("*")):
            name = file.relative_to(path)
            is_hidden = any(part.startswith(".") for part in name.parts)
            is_own = (
                file.name in _OWN_FILES
                or file.name.endswith(".source.json")
                or not _OWN_FOLDERS.isdisjoint(name.parts)
            )
            if is_hidden or is_own or file.suffix.lower() not in _SUFFIXES:
                continue
            if file.is_file():
                found.append(LabelFile(file, name.as_posix()))
    return found


def _drop_unchanged(files: Sequence[LabelFile]) -> tuple[list[LabelFile], int]:
    """Leave out files of a prediction that a person corrected in another file.

    `predict` writes JSON, CSV and subtitles of a video; of three unchanged files, JSON
    stays. Return the others, and how many of them are as `predict` wrote them.
    """
    written = {
        folder: find_written(folder) for folder in {f.path.parent for f in files}
    }

    def state(file: LabelFile) -> bool | None:
        return written[file.path.parent].get(file.path.name)

    corrected = {file.stem for file in files if state(file) is False}
    kept = [
        file
        for file in files
        if not state(file)
        or (file.stem not in corrected and file.path.suffix == ".json")
    ]
    return kept, sum(state(file) is True for file in kept)


@dataclasses.dataclass
class LabelledMedium:
    """A medium with the labels of its source, if it has any.

    Attributes:
        medium: The medium.
        format: Name of the format of its labels.
        labels: All its labels; `match` reports several sources.
    """

    medium: Medium
    format: str | None = None
    labels: list[VideoLabels] = dataclasses.field(default_factory=list)

    @property
    def is_published(self) -> bool:
        """Whether the labels are those of a published data set."""
        return self.format is not None and FORMATS[self.format].is_published

    @property
    def events(self) -> list[LabelledEvent]:
        """All events."""
        return [event for labels in self.labels for event in labels.events]

    @property
    def sources(self) -> list[str]:
        """The label files that hold its labels; more than one is a mistake."""
        return list(dict.fromkeys(labels.source for labels in self.labels))

    @property
    def split(self) -> str | None:
        """The split that the source names, or None."""
        return next((labels.split for labels in self.labels if labels.split), None)


def match(
    media: Sequence[Medium],
    labels: Labels,
    unreadable: Collection[Medium],
    problems: Problems,
) -> tuple[list[LabelledMedium], int]:
    """Give each medium its labels; return also how many labelled videos are missing.

    Labels of unreadable videos, and published labels without a video, are left out.
    Other labels without a video are reported, and videos with labels of two sources.
    """
    found = {medium.key: LabelledMedium(medium) for medium in media}
    index, index_of_unreadable = _index(media), _index(unreadable)
    missing = []
    for name, video in labels.videos:
        matches = _find(video.video, index, FORMATS[name].is_published)
        if not matches and FORMATS[name].is_published:
            missing.append(video.video)
        elif len(matches) != 1:
            is_unreadable = bool(_find(video.video, index_of_unreadable, False))
            # An empty text file need not be of a video.
            is_empty = name == "audacity" and not video.events
            if matches or not (is_unreadable or is_empty):
                problems.lines.append(_explain_match(video, matches, index))
        else:
            entry = found[matches[0].key]
            entry.format = entry.format or name
            entry.labels.append(video)
    for entry in found.values():
        if len(entry.sources) > 1:
            names = " and ".join(entry.sources)
            problems.lines.append(
                f"{entry.medium.files[0].name}: labels in {names}. "
                "Expected those of one source: set label_format, or move the others."
            )
    if missing and not any(entry.labels for entry in found.values()):
        problems.lines.append(
            f"None of the {len(missing)} labelled videos, such as {missing[0]}, is "
            f"among {', '.join(list(found)[:3])}."
        )
    return list(found.values()), len(missing)


def _index(media: Collection[Medium]) -> dict[str, list[Medium]]:
    index: dict[str, list[Medium]] = {}
    for medium in media:
        for name in medium.names:
            index.setdefault(name, []).append(medium)
        # Longer names that begin with an identifier; NUL keeps them apart.
        index.setdefault(f"\0{medium.key[:_YOUTUBE_ID]}", []).append(medium)
    return index


def _find(
    text: str, index: Mapping[str, list[Medium]], is_published: bool
) -> list[Medium]:
    """Return the media that a name in labels means."""
    name = unicodedata.normalize("NFC", text.replace("\\", "/")).removeprefix("./")
    base = name.rpartition("/")[2]
    # Sound that was labelled alone has another suffix.
    stem = re.sub(r"\.\w{1,4}$", "", base)
    for candidate in dict.fromkeys((name, base, stem)):
        if candidate in index:
            return index[candidate]
    if not is_published:
        return []
    # Either the labels or the files have more than the identifier: the times.
    longer = f"\0{base}" if len(base) == _YOUTUBE_ID else ""
    return index.get(base[:_YOUTUBE_ID]) or index.get(longer, [])


def _explain_match(
    video: VideoLabels, matches: Sequence[Medium], index: Mapping[str, list[Medium]]
) -> str:
    where = next((event.where for event in video.events), video.source)
    if matches:
        names = " and ".join(str(medium.files[0]) for medium in matches)
        return f"{where}: {video.video} is the name of {names}. Expected one of them."
    close = []
    if len(index) <= _MAX_SEARCHED:
        names = {name.casefold(): name for name in index if name[0] != "\0"}
        found = difflib.get_close_matches(video.video.casefold(), list(names), n=1)
        close = [names[name] for name in found]
    hint = f" Did you mean {close[0]}?" if close else ""
    if not hint and where.startswith(f"{video.video}."):  # Named by its file alone.
        hint = " Expected a file of a video's name, or a column that names videos."
    return f"{where}: no video or features of the name {video.video}.{hint}"
