"""Localize events without training: map AVE's categories to classes of two classifiers.

Each line of `categories.csv` has a category, its sound classes (column `heard`) and its
image classes (column `seen`). Classes are separated by `;`. `A ... B` means all classes
from A to B in the classifier's order. A category without image classes is detected by
sound alone.

* YAMNet's sound classes include AVE's categories, under their names in AudioSet. The
  category `Speech` replaces AVE's two speech categories.
* ImageNet lacks helicopters (replaced by other aircraft), ukuleles and mandolins
  (replaced by other plucked instruments), people and shofars (speech and shofar are
  detected by sound alone).
* `yamnet.txt` lists YAMNet's 521 classes in order (yamnet_class_map.csv of
  https://github.com/tensorflow/models, Apache-2.0). `imagenet.txt` lists the 1,000
  classes of ILSVRC 2012. A class is named by the first name of its WordNet synset. Two
  synsets begin with `crane` and two with `maillot`; their names are made distinct.
"""

import csv
import difflib
import functools
import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from avsdn_tf.backbones import Backbones
from avsdn_tf.errors import UserError
from avsdn_tf.files import expand_user
from avsdn_tf.models.late_fusion import LateFusion

_FOLDER = pathlib.Path(__file__).parent
CATEGORIES = _FOLDER / "categories.csv"
DISCLAIMER = "Zero-shot: no training, two public classifiers"
# EfficientNetV2B0 is the most accurate network of its size in keras.applications:
# 78.7 % on ImageNet, 29 MB (https://keras.io/api/applications).
BACKBONES = Backbones(
    audio_network="yamnet_scores", visual_network="EfficientNetV2B0_classes"
)
_COLUMNS = ["category", "heard", "seen"]


class CategoryClasses(NamedTuple):
    """A category, and the indices of its sound classes and image classes.

    Example:
        >>> entry = avsdn_tf.zero_shot.CategoryClasses("Bark", heard=(70,), seen=(207,))
        >>> avsdn_tf.zero_shot.class_names("yamnet")[entry.heard[0]]
        'Bark'
    """

    category: str
    heard: tuple[int, ...]
    seen: tuple[int, ...]


@functools.cache
def class_names(classifier: str) -> tuple[str, ...]:
    """Return the classes of `"yamnet"` or `"imagenet"` in the order of its outputs.

    Example:
        >>> len(avsdn_tf.zero_shot.class_names("yamnet"))
        521
    """
    text = (_FOLDER / f"{classifier}.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())


def read_table(path: pathlib.Path = CATEGORIES) -> list[CategoryClasses]:
    """Read a table of categories.

    Args:
        path: A CSV file with the columns `category`, `heard` and `seen`.

    Raises:
        UserError: If the file can't be read, has an unknown class, repeats a category,
            or has a category without a sound class.

    Example:
        >>> table = avsdn_tf.zero_shot.read_table()
        >>> [entry.category for entry in table][:2]
        ['Church bell', 'Speech']
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(
            f"can't be read ({error}). Expected a CSV file of categories.",
            field="classes",
            value=path,
        ) from error
    if list(reader.fieldnames or ()) != _COLUMNS or not rows:
        raise UserError(
            f"Expected a header {','.join(_COLUMNS)}, and a line for each category.",
            field="classes",
            value=path,
        )
    table: dict[str, CategoryClasses] = {}
    for line, row in rows:
        try:
            entry = _read_row(row)
            if entry.category in table:
                raise ValueError(f"{entry.category!r} is on two lines")
        except ValueError as error:
            raise UserError(
                f"line {line}: {error}", field="classes", value=path
            ) from error
        table[entry.category] = entry
    return list(table.values())


def load(
    classes: str | os.PathLike[str] | None = None,
    multi_label: bool = False,
    **backbones: str | None,
) -> LateFusion:
    """Return a network that localizes events without training.

    Args:
        classes: Path of a table of categories, as for `read_table`. Default: AVE's
            categories.
        multi_label: Boolean. Whether events of several categories may overlap.
        **backbones: Fields of `Backbones` that replace YAMNet's scores and
            EfficientNetV2B0's probabilities.

    Raises:
        UserError: If the table is invalid.

    Example:
        >>> model = avsdn_tf.zero_shot.load()
        >>> model.backbones["audio_network"], model.backbones["visual_network"]
        ('yamnet_scores', 'EfficientNetV2B0_classes')
    """
    table = read_table(pathlib.Path(expand_user(classes)) if classes else CATEGORIES)
    return LateFusion(
        [entry.category for entry in table],
        len(class_names("yamnet")),
        (len(class_names("imagenet")),),
        heard=[entry.heard for entry in table],
        seen=[entry.seen for entry in table],
        multi_label=multi_label,
        segment_s=1.0,
        backbones=BACKBONES.override(**backbones).complete().to_dict(),
    )


def _read_row(row: Mapping[str, Any]) -> CategoryClasses:
    if None in row or None in row.values():
        raise ValueError("expected three cells; quote names that hold a comma")
    category = row["category"].strip()
    if not category:
        raise ValueError("the category has no name")
    heard = _read_classes(row["heard"], "yamnet")
    if not heard:
        raise ValueError(f"{category!r} has no sound class")
    return CategoryClasses(category, heard, _read_classes(row["seen"], "imagenet"))


def _read_classes(cell: str, classifier: str) -> tuple[int, ...]:
    """Return the indices of the classes in a cell."""
    names, indices = class_names(classifier), []
    for part in filter(None, map(str.strip, cell.split(";"))):
        ends = [part] if part in names else [end.strip() for end in part.split("...")]
        for end in ends:
            if end not in names:
                close = difflib.get_close_matches(end, names, n=1)
                hint = f". Did you mean {close[0]!r}?" if close else ""
                raise ValueError(f"no class of {classifier} is called {end!r}{hint}")
        first, last = names.index(ends[0]), names.index(ends[-1])
        if len(ends) > 2 or first > last:
            raise ValueError(f"{part!r} is no range of {classifier}'s classes")
        indices += range(first, last + 1)
    return tuple(dict.fromkeys(indices))
