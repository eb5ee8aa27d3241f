"""Read label files as text, JSON or tables, and parse times, events and splits."""

import csv
import dataclasses
import functools
import io
import json
import math
import pathlib
import re
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from avsdn_tf.schemas import read_bytes

# Labels of 100,000 videos take 20 MB. In memory, a file of small values takes up to 80
# times its size.
_MAX_BYTES = 64 * 2**20
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
    """One line of a label file: a category with or without times.

    Attributes:
        category: Name of the category.
        start_s: Time from the start of the video, in seconds. With `ticks_per_s` of
            `collect_clips`, the unit is 1 / `ticks_per_s` seconds. None for a weak
            label.
        end_s: End, like `start_s`.
        where: File and line, for messages.
    """

    category: str
    start_s: float | None
    end_s: float | None
    where: str


@dataclasses.dataclass(frozen=True)
class VideoLabels:
    """All labels of one video in one source.

    Attributes:
        video: Name of the video in the source: a file name, with or without suffix and
            folder, or an identifier.
        source: The label file, for messages.
        events: The events. An empty tuple labels the video as background.
        split: The split in the source, or None.
        fields: All columns of the video's first line, by lower-case name.
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
        delimiter: Separator of columns.
        header: Names of the columns, in lower case.
        lines: Line number and values of each further line. A line may have more or
            fewer values than the header.
    """

    delimiter: str
    header: tuple[str, ...]
    lines: tuple[tuple[int, tuple[str, ...]], ...]

    def rows(
        self, shown: str, problems: list[str]
    ) -> Iterator[tuple[str, dict[str, str]]]:
        """Yield the location and the values of each line.

        Args:
            shown: Name of the file, for messages.
            problems: List to append errors to, about lines with too few or too many
                values.
        """
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
        path: Path of the file.
        name: Path relative to the folder of labels, with slashes, for messages and for
            the video's name.
    """

    path: pathlib.Path
    name: str

    @property
    def stem(self) -> str:
        """The name without suffixes, which is the video's name in some formats."""
        for suffix in (".events.json", ".events.csv", self.path.suffix):
            if suffix and self.name.lower().endswith(suffix.lower()):
                return self.name[: -len(suffix)]
        return self.name

    @functools.cached_property
    def text(self) -> str:
        """The text, with Unix line ends.

        Raises:
            ValueError: If the file can't be read or is not UTF-8.
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
            ValueError: If the file is not valid JSON.
        """
        try:
            return json.loads(self.text, parse_constant=_refuse_constant)
        except RecursionError as error:
            raise ValueError("JSON that is nested too deeply") from error

    @functools.cached_property
    def table(self) -> Table:
        """The table of a CSV or TSV file. The delimiter is guessed from the header.

        Raises:
            ValueError: If the file is empty or not valid CSV.
        """
        header_line = self.text.lstrip("\n").split("\n", 1)[0]
        delimiter = max("\t;,", key=header_line.count)
        lines = []
        try:
            reader = csv.reader(
                io.StringIO(self.text), delimiter=delimiter, strict=delimiter != "\t"
            )
            for values in reader:
                if any(values := tuple(map(str.strip, values))):
                    lines.append((reader.line_num, values))
        except csv.Error as error:
            number = lines[-1][0] + 1 if lines else 1
            raise ValueError(f"line {number}, no CSV: {error}") from error
        if not lines:
            raise ValueError("an empty file")
        header = tuple(name.lower() for name in lines[0][1])
        return Table(delimiter, header, tuple(lines[1:]))

    def has_columns(self, *names: str) -> bool:
        """Return whether the file is a table that includes these columns."""
        if self.path.suffix.lower() not in (".csv", ".tsv", ".txt"):
            return False
        try:
            return set(names) <= set(self.table.header)
        except ValueError:
            return False

    def is_json_of(self, kind: type) -> bool:
        """Return whether the file is JSON of a type, dict or list."""
        if self.path.suffix.lower() != ".json":
            return False
        try:
            return isinstance(self.json, kind)
        except ValueError:
            return False


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON")


def parse_time(value: Any, has_commas: bool = False) -> float:
    """Parse a time.

    Args:
        value: A number, or text such as `1.5`, `01:02.5` or `0:01:02.5`.
        has_commas: Whether to accept decimal commas.

    Raises:
        ValueError: If the value is not a time.
    """
    if isinstance(value, str):
        text = value.strip()
        if _DECIMAL_COMMA.fullmatch(text):
            if not has_commas:
                shown = reprlib.repr(text)
                raise ValueError(f"{shown} has a decimal comma. Expected a point")
            text = text.replace(",", ".")
        value = text
        if match := _CLOCK.fullmatch(text):
            hours, minutes, seconds = map(float, match.groups(default="0"))
            value = hours * 3600 + minutes * 60 + seconds
    try:
        number = float("nan") if isinstance(value, bool) else float(value)
    except (OverflowError, TypeError, ValueError):
        number = float("nan")
    if not math.isfinite(number):
        raise ValueError(f"{reprlib.repr(value)} is no time. Expected seconds")
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
    """Parse an event; report an error and return None if it is invalid.

    Args:
        category: Name of the category.
        start: Start.
        end: End.
        where: File and line, for messages.
        problems: List to append errors to.
        has_commas: As in `parse_time`.
        zero_s: Start of the video, which is subtracted from the times.
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


def read_start(file: LabelFile, problems: list[str]) -> float:
    """Return the player time at which a predicted video starts, in seconds.

    Files of `predict` contain the times that video players show. The start may be above
    0: the JSON file records it, also for the NAME.events.csv and NAME.vtt beside it.
    Without NAME.events.json, the start of these two is 0.

    Args:
        file: The JSON file, NAME.events.csv or NAME.vtt.
        problems: List to append errors to.
    """
    record = file
    if file.path.suffix.lower() != ".json":
        name = f"{file.stem}.events.json"
        record = LabelFile(file.path.with_name(pathlib.PurePath(name).name), name)
    if not record.is_json_of(dict):
        return 0.0
    try:
        return parse_time(record.json.get("start_s", 0.0))
    except ValueError as error:
        problems.append(f"{record.name}, start_s: {error}.")
        return 0.0


def parse_split(name: Any, where: str, problems: list[str]) -> str | None:
    """Parse the name of a split; report an unknown name and return None."""
    text = name.strip().lower() if isinstance(name, str) else name
    split = _SPLIT_NAMES.get(text) if isinstance(text, str) else None
    if split is None and text:
        problems.append(
            f"{where}: unknown split {reprlib.repr(name)}. Expected one of "
            f"{', '.join(SPLITS)}."
        )
    return split


def split_of_name(file: LabelFile) -> str | None:
    """Return the split in a file's name, such as `val.csv`, or None."""
    words = re.split(r"[^a-z]+", file.path.stem.lower())
    return next((_SPLIT_NAMES[word] for word in words if word in _SPLIT_NAMES), None)


def segments_to_times(flags: Sequence[int]) -> list[tuple[int, int]]:
    """Return start and end of each run of ones, in segments."""
    padded = [0, *flags, 0]
    edges = [i for i in range(len(flags) + 1) if padded[i] != padded[i + 1]]
    return list(zip(edges[::2], edges[1::2], strict=True))
