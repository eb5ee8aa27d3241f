"""Read categories.txt, and explain unknown categories."""

import functools
import pathlib
import re
import unicodedata

from avsdn_tf.text import normalize, skeleton
from tfds_ave.configs import BACKGROUND
from tfds_ave.errors import DatasetError, shorten

CATEGORIES = "categories.txt"
# `# text` is a comment; `#1` is a category.
_COMMENT = re.compile(r"#(\s|$)")


def is_comment(line: str) -> bool:
    """Return whether a line of categories.txt is a comment."""
    return bool(_COMMENT.match(line))


def read_categories(path: pathlib.Path, text: str) -> tuple[str, ...]:
    """Return the categories of a categories.txt, one per line.

    Raises:
        DatasetError: If there are no categories, or invalid or confusable names, listed
            by line.
    """
    # Name and line by skeleton, which is equal for confusable names.
    names: dict[str, tuple[str, int]] = {}
    wrong = []
    # `splitlines` would also split at other characters in a name.
    for number, line in enumerate(text.split("\n"), start=1):
        name = normalize(line)
        if not name or is_comment(name):
            continue
        if reason := _find_fault(name, names):
            wrong.append(f"line {number}, {line.strip()!a}, {reason}")
        names.setdefault(skeleton(name), (name, number))
    if wrong or not names:
        raise DatasetError(
            f"{path}: expected one category per line, each once, without {BACKGROUND}, "
            "the class of clips and segments without an event. Received: "
            f"{'; '.join(shorten(wrong)) or 'nothing'}."
        )
    return tuple(name for name, _ in names.values())


def _find_fault(name: str, earlier: dict[str, tuple[str, int]]) -> str | None:
    """Return the error in a category, or None."""
    if any(unicodedata.category(c) == "Cc" for c in name):
        return "has a control character"
    if not skeleton(name):
        return "is invisible"
    if skeleton(name) == skeleton(BACKGROUND):
        return f"looks like {BACKGROUND}"
    if skeleton(name) not in earlier:
        return None
    other, line = earlier[skeleton(name)]
    return f"looks like {other!a} of line {line}"


def explain_unknown(name: str, categories: tuple[str, ...]) -> str:
    """Return an error message about a category that is not in categories.txt."""
    by_skeleton, shown = _index(categories)
    if not name:
        return f"Expected a category, or {BACKGROUND} for a clip without an event."
    if other := by_skeleton.get(skeleton(name)):
        return f"Expected {other!a}, received {name!a}, which looks like it."
    rule = ", where a line that begins with '# ' is a comment" * is_comment(name)
    return f"Expected one of {shown}, as in {CATEGORIES}{rule}. Received: {name!r}."


# Cached, because thousands of lines may have an error.
@functools.lru_cache(maxsize=1)
def _index(categories: tuple[str, ...]) -> tuple[dict[str, str], str]:
    """Return the classes by skeleton, and their names as text."""
    classes = (*categories, BACKGROUND)
    by_skeleton = {skeleton(name): name for name in classes}
    return by_skeleton, ", ".join(shorten(list(map(repr, classes))))
