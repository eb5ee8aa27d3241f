"""categories.txt: read it, and find names that look alike."""

import pathlib
import re
import unicodedata
from collections.abc import Iterable, Sequence

from tfds_ave.configs import BACKGROUND
from tfds_ave.errors import DatasetError, shorten

CATEGORIES = "categories.txt"
# A line that begins so is a comment; `#1` is a category.
_COMMENT = re.compile(r"#(\s|$)")
# Characters that nothing shows, beside those of Unicode's category Cf.
_INVISIBLE = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u3164\ufe00-\ufe0f\uffa0]")


def normalize(name: str) -> str:
    """Return a name in Unicode's composed form, as most keyboards write it."""
    return unicodedata.normalize("NFC", name.strip())


def is_comment(line: str) -> bool:
    """Return whether a line of categories.txt is a comment."""
    return bool(_COMMENT.match(line))


def find_look_alike(name: str, names: Iterable[str]) -> str | None:
    """Return the name that differs in case, spaces or invisible characters alone."""
    own = _skeleton(name)
    return next((other for other in names if _skeleton(other) == own), None)


def _skeleton(name: str) -> str:
    """Return what a name shows, without case."""
    shown = (c for c in name if unicodedata.category(c) != "Cf")
    text = _INVISIBLE.sub("", unicodedata.normalize("NFC", "".join(shown)))
    return " ".join(text.casefold().split())


def read_categories(path: pathlib.Path, text: str) -> tuple[str, ...]:
    """Return the categories of a categories.txt, one a line.

    Raises:
        DatasetError: If there is none, or a reader can't tell two of them apart; it
            names every wrong line.
    """
    names: dict[str, int] = {}
    wrong = []
    # Not splitlines(), which also splits at characters within a name.
    for number, line in enumerate(text.split("\n"), start=1):
        name = normalize(line)
        if not name or is_comment(name):
            continue
        if reason := _find_fault(name, names):
            wrong.append(f"line {number}, {line.strip()!a}, {reason}")
        names.setdefault(name, number)
    if wrong or not names:
        raise DatasetError(
            f"{path}: expected one category a line, each once, without {BACKGROUND}, "
            "the class of clips and segments without an event. Received: "
            f"{'; '.join(shorten(wrong)) or 'nothing'}."
        )
    return tuple(names)


def _find_fault(name: str, earlier: dict[str, int]) -> str | None:
    """Return what is wrong with a category, or None."""
    if any(unicodedata.category(c) == "Cc" for c in name):
        return "has a control character"
    if not _skeleton(name):
        return "shows nothing"
    if _skeleton(name) == _skeleton(BACKGROUND):
        return f"looks like {BACKGROUND}"
    other = find_look_alike(name, earlier)
    if other is None:
        return None
    return f"looks like {other!a} of line {earlier[other]}"


def explain_unknown(name: str, categories: Sequence[str]) -> str:
    """Return a sentence on a category that categories.txt lacks."""
    known = (*categories, BACKGROUND)
    if other := find_look_alike(name, known):
        return f"Expected {other!a}, received {name!a}, which looks like it."
    rule = ", where a line that begins with '# ' is a comment" * is_comment(name)
    return (
        f"Expected one of {', '.join(shorten(list(map(repr, known))))}, as in "
        f"{CATEGORIES}{rule}. Received: {name!r}."
    )
