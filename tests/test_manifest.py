"""Clips read from manifest.csv and categories.txt, and refused lines."""

import dataclasses

import pytest

from tests.small_datasets import FEATURE_COLUMNS, make_custom, write_manifest
from tfds_ave import DatasetError
from tfds_ave.manifest import read_manifest


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "own"


@pytest.fixture
def rows(folder):
    """Return the rows of a valid manifest; `rows[n]` is line n + 2 of the file."""
    return make_custom(folder)


def refusal(folder, rows=None):
    """Return the error message for a manifest."""
    if rows is not None:
        write_manifest(folder, rows)
    with pytest.raises(DatasetError) as error:
        read_manifest(folder)
    return str(error.value)


def test_clips_have_the_labels_and_files_of_all_their_lines(folder, rows):
    again = [*rows[0][:3], 2.25, 3.25, *rows[0][5:]]
    # The lines of a clip need not be adjacent.
    write_manifest(folder, [*rows, again])
    manifest = read_manifest(folder)
    assert manifest.categories == ("Door, slamming", "Kettle")
    assert [clip.row for clip in manifest.clips] == list(range(9))
    first, _, third, *_ = manifest.clips
    assert (first.key, first.split, first.line) == ("clip 0", "train", 2)
    assert first.categories == ("Door, slamming",)
    assert [dataclasses.astuple(event) for event in first.events] == [
        ("Door, slamming", 0.5, 2.0, 2),
        ("Door, slamming", 2.25, 3.25, 11),
    ]
    assert first.video is None
    assert first.features == (folder / "clip 0.a.npy", folder / "clip 0.v.npy")
    assert (third.categories, third.events) == ((), ())
    assert manifest.has_times


def test_a_clip_without_times_sets_has_times_to_false(folder, rows):
    rows[0][3:5] = ["", ""]
    write_manifest(folder, rows)
    assert not read_manifest(folder).has_times


def test_the_hash_depends_on_the_labels(folder, rows):
    hashes = []
    for start_s in (0.5, 0.5, 1.5):
        rows[0][3] = start_s
        write_manifest(folder, rows)
        hashes.append(read_manifest(folder).labels_hash(10, 10))
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.parametrize(
    ("row", "change", "parts"),
    [
        (0, {1: "dev"}, ["line 2", "split", "'dev'"]),
        (1, {2: "Dog"}, ["line 3", "category", "'Dog'"]),
        (0, {3: "3", 4: "1"}, ["line 2", "times", "start_s='3'"]),
        (0, {3: "x"}, ["line 2", "times", "start_s='x'"]),
        (0, {3: "nan"}, ["line 2", "times"]),
        (0, {4: "1,5"}, ["line 2", "end_s='1,5'", "point"]),
        (0, {2: ""}, ["line 2", "category", "Background"]),
        (0, {4: "inf"}, ["line 2", "times"]),
        (3, {3: "", 4: ""}, ["line 5", "start_s and end_s"]),
        (2, {3: "0", 4: "1"}, ["line 4", "times", "Background"]),
        (1, {0: "clip 0"}, ["line 3", "'clip 0'", "line 2"]),
        (1, {5: "gone.npy"}, ["line 3", "gone.npy is missing"]),
        (1, {5: ""}, ["line 3", "both feature files"]),
        (1, {0: ""}, ["line 3", "key"]),
        (1, {0: "a/b"}, ["line 3", "key", "'a/b'"]),
        (1, {0: ".a"}, ["line 3", "key", "'.a'"]),
        (1, {0: "a\x1bb"}, ["line 3", "key", r"'a\x1bb'"]),
        (1, {5: "~/gone.npy"}, ["line 3", "gone.npy is missing"]),
        # Line 11 is a second event of line 2's clip, whose event is from 0.5 to 2 s.
        (9, {3: "1.5", 4: "3"}, ["line 11", "overlapping", "1.5 to 3.0", "0.5 to 2.0"]),
        (9, {3: "0", 4: "4"}, ["line 11", "overlapping"]),
        (9, {1: "test"}, ["line 11", "'clip 0'", "line 2", "split"]),
        (9, {2: "Background", 3: "", 4: ""}, ["line 11", "'clip 0'", "Background"]),
        (9, {5: "clip 1.a.npy"}, ["line 11", "'clip 0'", "line 2", "file"]),
        (9, {3: "", 4: ""}, ["line 11", "'clip 0'", "line 2", "times"]),
    ],
)
def test_a_wrong_line_is_named(folder, rows, row, change, parts):
    rows.append([*rows[0][:3], "2", "3", *rows[0][5:]])
    for column, value in change.items():
        rows[row][column] = value
    message = refusal(folder, rows)
    for part in (str(folder / "manifest.csv"), *parts):
        assert part in message
    assert len(message.splitlines()) == 1


def test_all_wrong_lines_are_named_at_once(folder, rows):
    rows[0][1] = rows[4][1] = "dev"
    first, second = refusal(folder, rows).splitlines()
    assert "line 2: " in first
    assert "line 6: " in second
    many = refusal(folder, [["key", "dev"]] * 50).splitlines()
    assert len(many) == 50


def test_line_numbers_equal_those_of_editors(folder, rows):
    name = "Door\u2028slamming"
    (folder / "categories.txt").write_text(f"{name}\r\nKettle\r\n")
    for row in rows:
        row[2] = row[2].replace("Door, slamming", name)
    # The line break in this value adds a line to the file.
    rows[1][2] = "Ket\ntle"
    rows[2][1] = "dev"
    first, second = refusal(folder, rows).splitlines()
    assert "line 4: " in first
    assert "line 5: " in second


def test_a_key_too_long_for_file_names_is_refused(folder, rows):
    rows[0][0], rows[1][0] = "\u3042" * 80, "\u3042" * 81
    message = refusal(folder, rows)
    assert "line 3: " in message
    assert "line 2: " not in message


def test_a_key_with_a_null_byte_fails_with_one_message(folder, rows):
    # In Python 3.10, the csv module itself refuses null bytes.
    rows[1][0] = "a\0b"
    assert "manifest.csv, line 3: " in refusal(folder, rows)


def test_paths_may_begin_with_a_tilde(folder, rows, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for row in rows:
        row[5:] = [f"~/own/{name}" for name in row[5:]]
    write_manifest(folder, rows)
    audio, visual = read_manifest(folder).clips[0].files
    assert (audio, visual) == (folder / "clip 0.a.npy", folder / "clip 0.v.npy")


def test_incomplete_and_damaged_tables_are_refused(folder, rows):
    assert "no clip of split test. " in refusal(folder, rows[:6])
    assert "no clip of split validation, test. " in refusal(folder, rows[:3])
    write_manifest(folder, rows)
    lines = (folder / "manifest.csv").read_text().splitlines()
    lines[3] = lines[3].replace("clip", '"clip', 1)
    (folder / "manifest.csv").write_text("\n".join(lines))
    assert "manifest.csv, line 4" in refusal(folder)
    write_manifest(folder, rows, columns=("name", *FEATURE_COLUMNS[1:]))
    assert "columns" in refusal(folder)
    (folder / "manifest.csv").write_bytes(b"key,\xff")
    assert "UTF-8" in refusal(folder)
    (folder / "manifest.csv").write_text("")
    assert "columns" in refusal(folder)


def test_categories_are_unique_and_not_background(folder, rows):
    for text in ("Kettle\nKettle\n", "Kettle\nBackground\n", "# none\n"):
        (folder / "categories.txt").write_text(text)
        assert "each once" in refusal(folder)
    (folder / "categories.txt").unlink()
    assert "categories.txt: missing" in refusal(folder)


def test_events_need_not_be_in_order_of_time(folder, rows):
    times = [(80, 90), (0, 20), (50, 60), (20, 50)]
    events = [[*rows[0][:3], *each, *rows[0][5:]] for each in times]
    write_manifest(folder, [*events, *rows[1:]])
    first = read_manifest(folder).clips[0]
    assert [(e.start_s, e.end_s) for e in first.events] == times
    message = refusal(folder, [*events, [*rows[0][:3], 55, 85, *rows[0][5:]]])
    assert "55.0 to 85.0" in message
    assert "line 6" in message


def test_events_of_several_categories_may_overlap(folder, rows):
    rows[0][3:5] = ["", ""]
    sets = [[*rows[0][:2], "Kettle", "", "", *rows[0][5:]]]
    overlap = [[*rows[1][:2], "Door, slamming", 1, 3, *rows[1][5:]]]
    write_manifest(folder, [*rows, *sets, *overlap])
    first, second, *_ = read_manifest(folder).clips
    assert first.categories == ("Door, slamming", "Kettle")
    assert (first.events, first.has_times, first.is_whole) == ((), False, True)
    assert second.categories == ("Kettle", "Door, slamming")
    assert [(e.start_s, e.end_s) for e in second.events] == [(0.5, 2), (1, 3)]


OPTIONS = ("audio_hop_s", "visual_hop_s", "tolerance_s")


def test_hops_and_tolerance_are_columns(folder, rows):
    lines = [[*row, "", "", ""] for row in rows]
    lines[1][7:] = ["0.96", "0.5", "2"]
    write_manifest(folder, lines, (*FEATURE_COLUMNS, *OPTIONS))
    clips = read_manifest(folder).clips
    assert (clips[0].hops_s, clips[0].tolerance_s) == ((1, 1), 1)
    assert (clips[1].hops_s, clips[1].tolerance_s) == ((0.96, 0.5), 2)


@pytest.mark.parametrize("values", [("0", "", ""), ("", "-1", ""), ("", "", "0,5")])
def test_wrong_hops_are_named(folder, rows, values):
    write_manifest(
        folder,
        [[*rows[0], *values], *([*row, "", "", ""] for row in rows[1:])],
        (*FEATURE_COLUMNS, *OPTIONS),
    )
    assert "line 2: " in refusal(folder)


def test_the_error_about_unquoted_commas_has_a_hint(folder, rows):
    write_manifest(folder, rows)
    path = folder / "manifest.csv"
    path.write_text(path.read_text().replace("0.5", "0,5"))
    assert "line 2: expected 7 values, received 8. " in refusal(folder)
    path.write_text(path.read_text().replace(",", ";"))
    assert "separated by commas" in refusal(folder)


def test_ten_thousand_categories_are_read_and_compared(folder, rows):
    names = [f"Category {index}" for index in range(10_000)]
    (folder / "categories.txt").write_text("\n".join(names))
    for row in rows:
        row[2] = "Category 9999"
        row[3:5] = (0, 1)
    write_manifest(folder, rows)
    assert len(read_manifest(folder).categories) == 10_000
    wrong = [[row[0] + str(n), *row[1:]] for n in range(1_000) for row in rows]
    for row in wrong:
        row[2] = "category 9998"
    assert "'Category 9998'" in refusal(folder, wrong)


def test_repeated_columns_are_refused_and_unknown_columns_recorded(folder, rows):
    write_manifest(folder, [[*row, "x"] for row in rows], (*FEATURE_COLUMNS, "hop_s"))
    assert read_manifest(folder).unknown_columns == ("hop_s",)
    twice = (*FEATURE_COLUMNS, "category")
    write_manifest(folder, [[*row, "Kettle"] for row in rows], twice)
    assert "one column category" in refusal(folder)


def test_a_manifest_with_only_background_is_refused(folder, rows):
    for row in rows:
        row[2:5] = ["Background", "", ""]
    assert "Background" in refusal(folder, rows)
