"""Make untrusted text, such as file and category names, safe to display."""

import contextlib
import re
import unicodedata
from collections.abc import Iterable
from typing import Any

# Control characters, which terminals interpret; marks that change the direction of
# text; line separators; and lone surrogates, which can't be encoded.
_UNSHOWABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
# First characters of a spreadsheet formula; the last four are full-width forms.
_FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")
# Invisible characters outside Unicode's category Cf.
_INVISIBLE = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u3164\ufe00-\ufe0f\uffa0]")
# Long enough for AudioSet's category names, short enough for a table.
_LONGEST_NAME = 60


def printable(text: str) -> str:
    r"""Return text on one line that is safe to show in terminals, pages and pictures.

    Control characters and direction marks become escapes such as `\x1b` and `\u202e`,
    and bytes of a file name that are not UTF-8 become a replacement character.
    """
    if not _UNSHOWABLE.search(text):
        return text
    # Surrogates dc80 to dcff are undecodable bytes of file names; others are invalid.
    text = re.sub("[\ud800-\udc7f\udd00-\udfff]", "\ufffd", text)
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return _UNSHOWABLE.sub(lambda match: ascii(match[0])[1:-1], text)


def printable_lines(text: str) -> str:
    """Return text as `printable` does, but keep its line ends."""
    return "\n".join(map(printable, text.split("\n")))


def short_name(name: str, longest: int = _LONGEST_NAME) -> str:
    """Return a name as `printable` does, shortened in its middle if it is long."""
    half = (longest - 1) // 2
    if len(name) > longest:
        name = f"{name[: half + 1]}…{name[-half:]}"
    name = printable(name)
    # Escapes may have lengthened the name.
    return name if len(name) <= longest else f"{name[:half]}…{name[-half:]}"


def count(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun, such as `1 clip` and `2,000 categories`.

    Args:
        number: The number.
        noun: The noun in singular.
        plural: The noun in plural; default: the noun with an s.
    """
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def csv_cell(value: Any) -> Any:
    """Return a CSV value that no spreadsheet evaluates as a formula.

    Text that begins like a formula gets a leading apostrophe, which marks text in
    spreadsheets. Control characters are escaped in all text. Other types are unchanged.
    """
    if not isinstance(value, str):
        return value
    return mark_formula(printable_lines(value))


def mark_formula(text: str) -> str:
    """Return text, with an apostrophe in front if it begins like a formula."""
    return f"'{text}" if _is_formula(text.lstrip("'")) else text


def unmark_formula(text: str) -> str:
    """Return text without an apostrophe that `mark_formula` added."""
    is_marked = text.startswith("'") and mark_formula(text[1:]) == text
    return text[1:] if is_marked else text


def _is_formula(text: str) -> bool:
    with contextlib.suppress(ValueError):
        float(text)
        return False
    return text.lstrip().startswith(_FORMULA)


def normalize(name: str) -> str:
    """Return a name without outer spaces, in Unicode's composed form (NFC)."""
    return unicodedata.normalize("NFC", name.strip())


def skeleton(name: str) -> str:
    """Return a name in lower case, without invisible characters or extra spaces."""
    shown = (c for c in name if unicodedata.category(c) != "Cf")
    text = _INVISIBLE.sub("", unicodedata.normalize("NFC", "".join(shown)))
    return " ".join(text.casefold().split())


def find_look_alike(name: str, names: Iterable[str]) -> str | None:
    """Return the first of `names` that has the same skeleton as a name, or None."""
    own = skeleton(name)
    return next((other for other in names if skeleton(other) == own), None)
