"""categories.txt: comments, and invalid and confusable names."""

import pathlib

import pytest

from tests.small_datasets import build, make_custom, write_manifest
from tfds_ave import DatasetError
from tfds_ave.categories import read_categories
from tfds_ave.manifest import read_manifest

PATH = pathlib.Path("own/categories.txt")
COMPOSED, DECOMPOSED = "Caf\u00e9", "Cafe\u0301"


def read(*lines):
    return read_categories(PATH, "\n".join(lines))


def refusal(*lines):
    with pytest.raises(DatasetError) as error:
        read(*lines)
    message = str(error.value)
    assert str(PATH) in message
    assert "each once" in message
    assert len(message.splitlines()) == 1
    return message


def test_a_comment_begins_with_a_number_sign_and_a_space():
    assert read("# ours", "#", "#\ttoo", "#1 Door", "Kettle", "") == (
        "#1 Door",
        "Kettle",
    )


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (COMPOSED, DECOMPOSED),
        ("Door", "door"),
        ("Stra\u00dfe", "STRASSE"),
        ("Door", "Do\u200bor"),
        ("Door", "Door\ufe0f"),
        ("Door", "\u202eDoor"),
        ("Car door", "Car\u00a0door"),
        ("Car door", "Car  door"),
        ("Door", "Door"),
    ],
)
def test_categories_that_look_alike_are_shown_with_escapes(first, second):
    message = refusal("Kettle", first, second)
    assert "line 3" in message
    assert "line 2" in message
    assert ascii(first) in message


@pytest.mark.parametrize(
    "name", ["Background", "background", "Back\u200bground", "\u200b", "a\x00b", "a\tb"]
)
def test_background_and_invisible_names_are_refused(name):
    assert "line 1" in refusal(name, "Kettle")


def test_names_of_other_scripts_are_kept():
    # A Persian name with a zero-width non-joiner, and a Cyrillic name that looks
    # like Cat.
    names = ("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "\u0421\u0430\u0442")
    assert read(*names, "Cat", "H2O", "H\u2082O") == (*names, "Cat", "H2O", "H\u2082O")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "own"


def rename(folder, rows, name, listed=None):
    """Rename the first category in the manifest and in categories.txt."""
    listed = name if listed is None else listed
    (folder / "categories.txt").write_text(f"{listed}\nKettle\n", encoding="utf-8")
    for row in rows:
        row[2] = row[2].replace("Door, slamming", name)
    write_manifest(folder, rows)


def test_a_category_that_begins_with_a_number_sign_is_built(tmp_path, folder):
    rename(folder, make_custom(folder), "#1 Door")
    builder = build(folder, tmp_path / "data", "custom")
    names = builder.info.features["clip_label"].names
    assert names == ["#1 Door", "Kettle", "Background"]


@pytest.mark.parametrize(
    ("listed", "used"), [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)]
)
def test_composed_and_decomposed_names_are_the_same_category(folder, listed, used):
    rename(folder, make_custom(folder), used, listed)
    manifest = read_manifest(folder)
    assert manifest.categories == (COMPOSED, "Kettle")
    assert manifest.clips[0].categories == (COMPOSED,)


@pytest.mark.parametrize(
    ("listed", "used", "parts"),
    [
        ("Door", "Do\u200bor", [r"'Do\u200bor'", "'Door'", "looks like"]),
        ("Door", "door", ["'door'", "'Door'", "looks like"]),
        ("# Door", "# Door", ["'# Door'", "comment"]),
        ("Door", "Dog", ["'Dog'", "'Door'"]),
    ],
)
def test_an_unknown_category_is_explained(folder, listed, used, parts):
    rename(folder, make_custom(folder), used, listed)
    with pytest.raises(DatasetError, match="line 2: unknown category") as error:
        read_manifest(folder)
    assert all(part in str(error.value) for part in parts)


def test_a_comment_without_a_space_is_explained(folder):
    make_custom(folder)
    (folder / "categories.txt").write_text("#ours\nDoor, slamming\nKettle\n")
    with pytest.raises(DatasetError, match=r"'#ours' is no clip's category\..*'# '"):
        read_manifest(folder)
