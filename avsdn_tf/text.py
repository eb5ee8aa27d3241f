"""Foreign text, such as names of files and categories, made safe to show."""

import contextlib
import re
import unicodedata
from collections.abc import Iterable
from typing import Any

# Control characters, which command a terminal; marks that reorder the text around
# them; other line ends; and halves of surrogate pairs, which can't be encoded.
_UNSHOWABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
# What begins a formula in spreadsheets; the last four are the same in full width.
_FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")
# Characters that nothing shows, beside those of Unicode's category Cf.
_INVISIBLE = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u3164\ufe00-\ufe0f\uffa0]")
# Long enough for names of AudioSet, short enough for a table.
_LONGEST_NAME = 60


def printable(text: str) -> str:
    r"""Return text on one line that terminals, pages and pictures can show.

    Control characters and direction marks become escapes such as `\x1b` and `\u202e`,
    and bytes of a file name that are not UTF-8 become a replacement character.
    """
    if not _UNSHOWABLE.search(text):
        return text
    # How Python holds undecodable bytes of file names.
    text = re.sub("[\ud800-\udc7f\udd00-\udfff]", "\ufffd", text)
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return _UNSHOWABLE.sub(lambda match: ascii(match[0])[1:-1], text)


def printable_lines(text: str) -> str:
    """Return text as `printable` does, with its line ends."""
    return "\n".join(map(printable, text.split("\n")))


def short_name(name: str, longest: int = _LONGEST_NAME) -> str:
    """Return a name as `printable` does, without its middle if it is long."""
    # Escapes are longer than what they stand for.
    half = (longest - 1) // 2
    if len(name) > longest:
        name = f"{name[: half + 1]}…{name[-half:]}"
    name = printable(name)
    return name if len(name) <= longest else f"{name[:half]}…{name[-half:]}"


def count(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun, such as `1 clip` and `2,000 categories`.

    `plural` is the noun with an s by default.
    """
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def csv_cell(value: Any) -> Any:
    """Return a value of a CSV file so that no spreadsheet takes it for a formula.

    Numbers stay as they are. Text that begins like a formula gets an apostrophe before
    it, by which spreadsheets mark text; who reads such a cell removes it.
    """
    if not isinstance(value, str):
        return value
    text = printable_lines(value)
    return f"'{text}" if _is_formula(text) else text


def _is_formula(text: str) -> bool:
    with contextlib.suppress(ValueError):
        float(text)
        return False
    return text.lstrip().startswith(_FORMULA)


def normalize(name: str) -> str:
    """Return a name in Unicode's composed form, as most keyboards write it."""
    return unicodedata.normalize("NFC", name.strip())


def skeleton(name: str) -> str:
    """Return what a name shows, without case."""
    shown = (c for c in name if unicodedata.category(c) != "Cf")
    text = _INVISIBLE.sub("", unicodedata.normalize("NFC", "".join(shown)))
    return " ".join(text.casefold().split())


def find_look_alike(name: str, names: Iterable[str]) -> str | None:
    """Return the name that differs in case, spaces or invisible characters alone."""
    own = skeleton(name)
    return next((other for other in names if skeleton(other) == own), None)
