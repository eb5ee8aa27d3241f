"""Label files as text, JSON and tables, and the events that their readers return."""

import csv
import dataclasses
import functools
import io
import json
import math
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from avsdn_tf.schemas import read_bytes

# The labels of 100,000 videos take 20 MB.
_MAX_BYTES = 256 * 2**20
_CLOCK = re.compile(r"(?:(\d+):)?(\d+):(\d+(?:\.\d*)?)")
_DECIMAL_COMMA = re.compile(r"\d+,\d+")
SPLITS = ("train", "validation", "test")
_SPLIT_NAMES = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "validate"), "validation"),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
}


@dataclasses.dataclass(frozen=True)
class LabelledEvent:
    """One line of a label file: a category, and its times if they are known.

    Attributes:
        category: Name of the category.
        start_s: Start in the file's own unit of time, seconds unless a flag says
            otherwise, from the start of the video; None if only the clip is labelled.
        end_s: End in that unit, or None.
        where: The file and the line, for messages.
    """

    category: str
    start_s: float | None
    end_s: float | None
    where: str


@dataclasses.dataclass(frozen=True)
class VideoLabels:
    """All labels of one video in one source.

    Attributes:
        video: The video as the source names it: a file name, with or without suffix and
            folder, or an identifier.
        source: The label file, for messages.
        events: Its events; none means that the source says that nothing happens.
        split: The split that the source names, or None.
        fields: Other columns of the source, by lower-case name.
    """

    video: str
    source: str
    events: tuple[LabelledEvent, ...]
    split: str | None = None
    fields: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Table:
    """A CSV or TSV file.

    Attributes:
        delimiter: What separates its columns.
        header: Names of its columns, in lower case.
        lines: Number and values of each other line; a line of another length too.
    """

    delimiter: str
    header: tuple[str, ...]
    lines: tuple[tuple[int, tuple[str, ...]], ...]

    def rows(
        self, shown: str, problems: list[str]
    ) -> Iterator[tuple[str, dict[str, str]]]:
        """Yield place and values of each line; report lines of another length."""
        for number, values in self.lines:
            where = f"{shown}, line {number}"
            if len(values) == len(self.header):
                yield where, dict(zip(self.header, values, strict=True))
                continue
            hint = ""
            if self.delimiter == "," and len(values) > len(self.header):
                hint = (
                    " Write decimal points, or separate columns by ';', if commas are "
                    "decimal."
                )
            problems.append(
                f"{where}: expected {len(self.header)} values, received "
                f"{len(values)}.{hint}"
            )


@dataclasses.dataclass(frozen=True)
class LabelFile:
    """A file that may hold labels.

    Attributes:
        path: The file.
        name: Its path in the folder of labels, with slashes; its name if it was named.
    """

    path: pathlib.Path
    name: str

    @property
    def stem(self) -> str:
        """The name without suffixes: that of the video, if each has its own file."""
        for suffix in (".events.json", ".events.csv", self.path.suffix):
            if suffix and self.name.lower().endswith(suffix.lower()):
                return self.name[: -len(suffix)]
        return self.name

    @functools.cached_property
    def text(self) -> str:
        """The text, with the line ends of Unix.

        Raises:
            ValueError: If it can't be read, or is not UTF-8.
        """
        try:
            content = read_bytes(self.path, _MAX_BYTES).decode("utf-8-sig")
        except OSError as error:
            raise ValueError(error.strerror or str(error)) from error
        except UnicodeDecodeError as error:
            raise ValueError("not UTF-8. Save it as text in UTF-8") from error
        return content.replace("\r\n", "\n").replace("\r", "\n")

    @functools.cached_property
    def json(self) -> Any:
        """The value of a JSON file.

        Raises:
            ValueError: If it is none.
        """
        try:
            return json.loads(self.text, parse_constant=_refuse_constant)
        except RecursionError as error:
            raise ValueError("JSON that is nested too deeply") from error

    @functools.cached_property
    def table(self) -> Table:
        """The table of a CSV or TSV file; the header decides what separates columns.

        Raises:
            ValueError: If it has no header, or an open quote.
        """
        first = self.text.lstrip("\n").split("\n", 1)[0]
        delimiter = max("\t;,", key=first.count)
        lines = []
        try:
            reader = csv.reader(
                io.StringIO(self.text), delimiter=delimiter, strict=delimiter != "\t"
            )
            for values in reader:
                if any(values := tuple(map(str.strip, values))):
                    lines.append((reader.line_num, values))
        except csv.Error as error:
            begun = lines[-1][0] + 1 if lines else 1
            raise ValueError(f"line {begun}, no CSV: {error}") from error
        if not lines:
            raise ValueError("an empty file")
        header = tuple(name.lower() for name in lines[0][1])
        return Table(delimiter, header, tuple(lines[1:]))

    def has_columns(self, *names: str) -> bool:
        """Return whether it is a table with these columns among others."""
        if self.path.suffix.lower() not in (".csv", ".tsv", ".txt"):
            return False
        try:
            return set(names) <= set(self.table.header)
        except ValueError:
            return False

    def is_json_of(self, kind: type) -> bool:
        """Return whether it is a JSON file that holds a dictionary, or a list."""
        if self.path.suffix.lower() != ".json":
            return False
        try:
            return isinstance(self.json, kind)
        except ValueError:
            return False


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON")


def parse_time(value: Any, has_commas: bool = False) -> float:
    """Return a time: a number, or text such as `1.5`, `01:02.5` or `0:01:02.5`.

    Args:
        value: The number or text.
        has_commas: Whether a comma is a decimal point there.

    Raises:
        ValueError: If it is no time; the message says why.
    """
    if isinstance(value, str):
        text = value.strip()
        if _DECIMAL_COMMA.fullmatch(text):
            if not has_commas:
                raise ValueError(f"{text!r} has a decimal comma. Expected a point")
            text = text.replace(",", ".")
        if match := _CLOCK.fullmatch(text):
            hours, minutes, seconds = match.groups(default="0")
            return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
        value = text
    try:
        number = float("nan") if isinstance(value, bool) else float(value)
    except (OverflowError, TypeError, ValueError):
        number = float("nan")
    if not math.isfinite(number):
        raise ValueError(f"{value!r} is no time. Expected seconds")
    return number


def parse_event(
    category: Any,
    start: Any,
    end: Any,
    where: str,
    problems: list[str],
    *,
    has_commas: bool = False,
    zero_s: float = 0.0,
) -> LabelledEvent | None:
    """Return the event of a line; report what is wrong with the line, and return None.

    Times are checked against the video later. `zero_s` is when the video starts.
    """
    try:
        times = [parse_time(value, has_commas) - zero_s for value in (start, end)]
    except ValueError as error:
        problems.append(f"{where}: {error}.")
        return None
    if not isinstance(category, str) or not category.strip():
        problems.append(f"{where}: no category. Expected its name.")
        return None
    return LabelledEvent(category, *times, where)


def parse_split(text: str, where: str, problems: list[str]) -> str | None:
    """Return the split that a word means; report unknown words, and return None."""
    split = _SPLIT_NAMES.get(text.strip().lower())
    if split is None and text.strip():
        problems.append(
            f"{where}: unknown split {text!r}. Expected one of {', '.join(SPLITS)}."
        )
    return split


def split_of_name(file: LabelFile) -> str | None:
    """Return the split that a file's name holds as a word, such as `val.csv`."""
    words = re.split(r"[^a-z]+", file.path.stem.lower())
    found = [_SPLIT_NAMES[word] for word in words if word in _SPLIT_NAMES]
    return found[0] if found else None


def segments_to_times(flags: Sequence[int]) -> list[tuple[int, int]]:
    """Return start and end of each run of ones, in segments."""
    padded = [0, *flags, 0]
    edges = [i for i in range(len(flags) + 1) if padded[i] != padded[i + 1]]
    return list(zip(edges[::2], edges[1::2], strict=True))
