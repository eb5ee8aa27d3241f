"""Find and read label files, and match them with videos or feature files."""

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
from avsdn_tf.text import short_name

_SUFFIXES = (".csv", ".json", ".tsv", ".txt", ".vtt")
# Files and folders that commands of this package write beside labels.
_OWN_FILES = {
    *("manifest.csv", "categories.txt", "features.json", "extract.json"),
}
_OWN_FOLDERS = {"tensorflow_datasets"}
# Limits of the search for similar names, which can take minutes: number of names to
# compare, number of errors with a hint, and length of a name.
_MAX_SEARCHED = 2000
_MAX_HINTS = 5
_LONGEST_SEARCHED = 60
# An error may quote a category, time or name that is as long as the label file.
_LONGEST_LINE = 1000
_YOUTUBE_ID = 11


@dataclasses.dataclass
class Problems:
    """Errors in labels.

    Attributes:
        lines: The errors, one line each.
        named: Names of the media whose label file has an error.
        hints: Hints that apply to several errors.
    """

    lines: list[str] = dataclasses.field(default_factory=list)
    named: set[str] = dataclasses.field(default_factory=set)
    hints: list[UserError] = dataclasses.field(default_factory=list)

    def raise_all(self) -> None:
        """Raise UserError with all lines and hints, if there are any lines."""
        if self.lines:
            lines = (UserError(short_name(line, _LONGEST_LINE)) for line in self.lines)
            raise CombinedUserError([*lines, *self.hints])


@dataclasses.dataclass(frozen=True)
class Labels:
    """Labels that were read from label files.

    Attributes:
        videos: Pairs `(name of the format, labels of a video)`.
        formats: Number of files of each format.
        ignored: Reason for each ignored file.
        num_predicted: Number of files that `predict` wrote and nobody has edited.
    """

    videos: list[tuple[str, VideoLabels]]
    formats: Mapping[str, int]
    ignored: Mapping[str, str]
    num_predicted: int


def read_labels(
    paths: Sequence[pathlib.Path],
    media: Sequence[Medium],
    label_format: str | None,
    problems: Problems,
) -> Labels:
    """Read label files, and all label files in folders.

    Args:
        paths: Files and folders.
        media: The media. A file with the name of a medium must contain labels.
        label_format: Name of the only format to read, or None for any format.
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
            if label_format and FORMATS[label_format].recognizes(file):
                name = label_format
        except ValueError as error:
            name, reason = None, str(error)
        else:
            reason = explain_unknown(file) if name is None else f"its format is {name}"
        if name is None or label_format not in (None, name):
            ignored[file.name] = reason
            is_broken = name is None and file.stem in known
            if is_broken or file.path in paths:
                expected = f"no {label_format} labels" if label_format else "no labels"
                problems.lines.append(f"{file.name}: {expected}: {reason}.")
                problems.named.add(file.stem)
            continue
        by_format.setdefault(name, []).append(file)
    if not by_format and not problems.lines:
        where = ", ".join(map(str, paths))
        reasons = "".join(f"\n{name}: {reason}." for name, reason in ignored.items())
        kinds = "; ".join(
            item.summary
            for name, item in FORMATS.items()
            if label_format in (None, name)
        )
        raise UserError(f"{where}: no labels. Expected one of: {kinds}.{reasons}")
    videos = []
    for name, format_files in by_format.items():
        read = FORMATS[name].read(format_files, problems.lines)
        videos.extend((name, labels) for labels in read)
    counts = {name: len(format_files) for name, format_files in by_format.items()}
    return Labels(videos, counts, ignored, num_predicted)


def _find_files(paths: Sequence[pathlib.Path]) -> list[LabelFile]:
    """Return the files that may hold labels."""
    files = []
    for path in paths:
        if not path.is_dir():
            files.append(LabelFile(path, path.name))
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
                files.append(LabelFile(file, name.as_posix()))
    return files


def _drop_unchanged(files: Sequence[LabelFile]) -> tuple[list[LabelFile], int]:
    """Drop redundant files that `predict` wrote.

    `predict` writes JSON, CSV and WebVTT for each video. Of each video's three files,
    keep the edited files, or only the JSON file if none is edited. Returns all kept
    files, and the number of unedited files of `predict` among them.
    """
    written = {
        folder: find_written(folder) for folder in {f.path.parent for f in files}
    }

    def is_unedited(file: LabelFile) -> bool | None:
        """Return whether a file of `predict` is unedited; None for other files."""
        return written[file.path.parent].get(file.path.name)

    edited = {file.stem for file in files if is_unedited(file) is False}
    kept = [
        file
        for file in files
        if not is_unedited(file)
        or (file.stem not in edited and file.path.suffix == ".json")
    ]
    return kept, sum(is_unedited(file) is True for file in kept)


@dataclasses.dataclass
class LabelledMedium:
    """A medium with its labels, if any.

    Attributes:
        medium: The medium.
        format: Name of the labels' format, or None.
        labels: All labels. More than one source is an error, which `match` reports.
    """

    medium: Medium
    format: str | None = None
    labels: list[VideoLabels] = dataclasses.field(default_factory=list)

    @property
    def is_published(self) -> bool:
        """Whether the labels belong to a published data set."""
        return self.format is not None and FORMATS[self.format].is_published

    @property
    def events(self) -> list[LabelledEvent]:
        """The events of all labels."""
        return [event for labels in self.labels for event in labels.events]

    @property
    def sources(self) -> list[str]:
        """The label files of the labels."""
        return list(dict.fromkeys(labels.source for labels in self.labels))

    @property
    def split(self) -> str | None:
        """The split in the labels, or None."""
        return next((labels.split for labels in self.labels if labels.split), None)


def match(
    media: Sequence[Medium],
    labels: Labels,
    unreadable: Collection[Medium],
    problems: Problems,
) -> tuple[list[LabelledMedium], int]:
    """Match labels with media; return the media, and the number of missing videos.

    Labels of unreadable videos, and published labels without a video, are omitted.
    Other labels without a video, and videos with labels in two files, are reported.
    """
    entries = {medium.key: LabelledMedium(medium) for medium in media}
    index, index_of_unreadable = _index(media), _index(unreadable)
    missing = []
    for name, video in labels.videos:
        matches = _find(video.video, index, FORMATS[name].is_published)
        if not matches and FORMATS[name].is_published:
            missing.append(video.video)
        elif len(matches) != 1:
            is_unreadable = bool(_find(video.video, index_of_unreadable, False))
            # An empty text file, read as Audacity labels, may be unrelated to videos.
            is_empty = name == "audacity" and not video.events
            if matches or not (is_unreadable or is_empty):
                names = [] if len(problems.lines) >= _MAX_HINTS else list(index)
                problems.lines.append(_explain_match(video, matches, names))
        else:
            entry = entries[matches[0].key]
            entry.format = entry.format or name
            entry.labels.append(video)
    for entry in entries.values():
        if len(entry.sources) > 1:
            names = " and ".join(entry.sources)
            problems.lines.append(
                f"{entry.medium.files[0].name}: labels in {names}. "
                "Expected one label file: set label_format to read one format, or "
                "remove the other files."
            )
    if missing and not any(entry.labels for entry in entries.values()):
        problems.lines.append(
            f"None of the {len(missing)} labelled videos, such as {missing[0]}, is "
            f"among {', '.join(list(entries)[:3])}."
        )
    return list(entries.values()), len(missing)


def _index(media: Collection[Medium]) -> dict[str, list[Medium]]:
    index: dict[str, list[Medium]] = {}
    for medium in media:
        for name in medium.names:
            index.setdefault(name, []).append(medium)
        # Also index by YouTube identifier. NUL distinguishes these keys from names.
        index.setdefault(f"\0{medium.key[:_YOUTUBE_ID]}", []).append(medium)
    return index


def _find(
    text: str, index: Mapping[str, list[Medium]], is_published: bool
) -> list[Medium]:
    """Return the media that match a name in labels."""
    name = unicodedata.normalize("NFC", text.replace("\\", "/")).removeprefix("./")
    base = name.rpartition("/")[2]
    # Ignore the suffix: the labels may name an audio file of the video.
    stem = re.sub(r"\.\w{1,4}$", "", base)
    for candidate in dict.fromkeys((name, base, stem)):
        if candidate in index:
            return index[candidate]
    if not is_published:
        return []
    # In labels and in file names, times may follow the identifier.
    longer = f"\0{base}" if len(base) == _YOUTUBE_ID else ""
    return index.get(base[:_YOUTUBE_ID]) or index.get(longer, [])


def _explain_match(
    video: VideoLabels, matches: Sequence[Medium], names: Sequence[str]
) -> str:
    """Return an error for labels that match no medium, or several.

    Args:
        video: The labels.
        matches: The media that match.
        names: Names to search for a similar name.
    """
    where = next((event.where for event in video.events), video.source)
    if matches:
        files = " and ".join(str(medium.files[0]) for medium in matches)
        return (
            f"{where}: {video.video} is the name of {files}. Expected a name that only "
            "one of them has."
        )
    close = []
    if len(names) <= _MAX_SEARCHED and len(video.video) <= _LONGEST_SEARCHED:
        folded = {name.casefold(): name for name in names if name[0] != "\0"}
        found = difflib.get_close_matches(video.video.casefold(), list(folded), n=1)
        close = [folded[name] for name in found]
    hint = f" Did you mean {close[0]}?" if close else ""
    # Here, the video's name comes from the label file's name, not from a column.
    if not hint and where.startswith(f"{video.video}."):
        hint = " Name the label file like its video, or add a column that names videos."
    return f"{where}: no video or features of the name {video.video}.{hint}"
