"""categories.txt: read it, and explain names that it lacks."""

import functools
import pathlib
import re
import unicodedata

from avsdn_tf.text import normalize, skeleton
from tfds_ave.configs import BACKGROUND
from tfds_ave.errors import DatasetError, shorten

CATEGORIES = "categories.txt"
# A line that begins so is a comment; `#1` is a category.
_COMMENT = re.compile(r"#(\s|$)")


def is_comment(line: str) -> bool:
    """Return whether a line of categories.txt is a comment."""
    return bool(_COMMENT.match(line))


def read_categories(path: pathlib.Path, text: str) -> tuple[str, ...]:
    """Return the categories of a categories.txt, one a line.

    Raises:
        DatasetError: If there is none, or a reader can't tell two of them apart; it
            names every wrong line.
    """
    # Of each name, by what it shows: the name and its line.
    names: dict[str, tuple[str, int]] = {}
    wrong = []
    # Not splitlines(), which also splits at characters within a name.
    for number, line in enumerate(text.split("\n"), start=1):
        name = normalize(line)
        if not name or is_comment(name):
            continue
        if reason := _find_fault(name, names):
            wrong.append(f"line {number}, {line.strip()!a}, {reason}")
        names.setdefault(skeleton(name), (name, number))
    if wrong or not names:
        raise DatasetError(
            f"{path}: expected one category a line, each once, without {BACKGROUND}, "
            "the class of clips and segments without an event. Received: "
            f"{'; '.join(shorten(wrong)) or 'nothing'}."
        )
    return tuple(name for name, _ in names.values())


def _find_fault(name: str, earlier: dict[str, tuple[str, int]]) -> str | None:
    """Return what is wrong with a category, or None."""
    if any(unicodedata.category(c) == "Cc" for c in name):
        return "has a control character"
    if not skeleton(name):
        return "shows nothing"
    if skeleton(name) == skeleton(BACKGROUND):
        return f"looks like {BACKGROUND}"
    if skeleton(name) not in earlier:
        return None
    other, line = earlier[skeleton(name)]
    return f"looks like {other!a} of line {line}"


def explain_unknown(name: str, categories: tuple[str, ...]) -> str:
    """Return a sentence on a category that categories.txt lacks."""
    by_look, shown = _look_up(categories)
    if not name:
        return f"Expected a category, or {BACKGROUND} for a clip without an event."
    if other := by_look.get(skeleton(name)):
        return f"Expected {other!a}, received {name!a}, which looks like it."
    rule = ", where a line that begins with '# ' is a comment" * is_comment(name)
    return f"Expected one of {shown}, as in {CATEGORIES}{rule}. Received: {name!r}."


# Once for all wrong lines: both may have thousands.
@functools.lru_cache(maxsize=1)
def _look_up(categories: tuple[str, ...]) -> tuple[dict[str, str], str]:
    """Return all classes by what they show, and a list of them to show."""
    known = (*categories, BACKGROUND)
    by_look = {skeleton(name): name for name in known}
    return by_look, ", ".join(shorten(list(map(repr, known))))
