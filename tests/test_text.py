import csv
import io

import numpy as np
import pytest
from rich.console import Console

from avsdn_tf.cli.app import _print_error
from avsdn_tf.events import Event, VideoPrediction
from avsdn_tf.report import figures, player
from avsdn_tf.report.event_files import write_event_files
from avsdn_tf.report.terminal import (
    events_table,
    extraction_progress,
    print_plainly,
    results_table,
)
from avsdn_tf.text import count, csv_cell, printable, printable_lines, short_name

# Characters that clear the screen, reverse text, and return to the line's start.
HOSTILE = "dog\x1b[2J\u202egnp\u2069\r\x9b\x07"
SHOWN = r"dog\x1b[2J\u202egnp\u2069\r\x9b\x07"
RAW = set("\x1b\u202e\u2069\r\x9b\x07")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Door, slamming", "Door, slamming"),
        ("犬 שלום é", "犬 שלום é"),
        # Persian and emoji need their joiners.
        ("\u0645\u200c\u062e", "\u0645\u200c\u062e"),
        (HOSTILE, SHOWN),
        ("a\nb\tc\x00", r"a\nb\tc\x00"),
        ("a\u2028b", r"a\u2028b"),
        # Bytes of file names, invalid and valid in UTF-8.
        ("\udcff.mp4", "\ufffd.mp4"),
        ("\udcc3\udca9", "é"),
        ("\ud800", "\ufffd"),
    ],
)
def test_control_characters_are_escaped(text, shown):
    assert printable(text) == shown
    printable(text).encode()


def test_printable_lines_keeps_line_breaks():
    assert printable_lines("first\nse\x1bcond") == "first\nse\\x1bcond"


@pytest.mark.parametrize("name", ["x" * 6000, "\x1b" * 6000, "first" + "é" * 90])
def test_a_long_name_is_shortened_in_the_middle(name):
    short = short_name(name)
    assert len(short) <= 60
    assert "…" in short
    assert short_name("Bark") == "Bark"
    assert len(short_name(name, 20)) <= 20


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("=HYPERLINK(0)", "'=HYPERLINK(0)"),
        ("+1+2", "'+1+2"),
        ("-2+3", "'-2+3"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\uff1d1+1", "'\uff1d1+1"),
        (" =1+1", "' =1+1"),
        ("\t=1", "\\t=1"),
        ("\r=1", "\\r=1"),
        ("Bark = loud", "Bark = loud"),
        (-0.5, -0.5),
        ("-0.5", "-0.5"),
        (None, None),
        (3, 3),
    ],
)
def test_csv_cells_are_not_formulas(value, cell):
    assert csv_cell(value) == cell


def _prediction(category, name="clip.mp4", disclaimer=None):
    events = (Event(0.0, 1.0, category, 0.75),)
    probabilities = np.array([[0.75, 0.25]])
    return VideoPrediction(name, (category,), probabilities, 1.0, events, disclaimer)


def test_files_of_a_video_contain_no_control_characters(tmp_path):
    found = _prediction(HOSTILE, printable(HOSTILE), f"by {HOSTILE}")
    paths = write_event_files(tmp_path, "clip", found)
    (tmp_path / "clip.mp4").write_bytes(b"")
    player.write_player_page(tmp_path / "clip.html", found, tmp_path / "clip.mp4")
    for path in (*paths, tmp_path / "clip.html"):
        assert not RAW & set(path.read_text(encoding="utf-8")), path
    figure = figures.prediction(found)
    texts = figure.findobj(lambda artist: hasattr(artist, "get_text"))
    assert not RAW & set("".join(text.get_text() for text in texts))


def test_a_category_is_not_a_formula_in_csv(tmp_path):
    _, path, _ = write_event_files(tmp_path, "clip", _prediction("=1+1"))
    (row,) = csv.DictReader(io.StringIO(path.read_text()))
    assert row["category"] == "'=1+1"
    assert (float(row["start_s"]), float(row["score"])) == (0.0, 0.75)


def test_printed_text_contains_no_control_characters(capsys):
    shown = io.StringIO()
    console = Console(file=shown, width=200)
    console.print(events_table(_prediction(HOSTILE, HOSTILE, HOSTILE)))
    report = {
        "model": HOSTILE,
        "mode": "weak",
        "dataset": HOSTILE,
        "disclaimer": HOSTILE,
        "trivial": {"always_background": 0.1, "perfect_clip_classifier": 0.2},
        "interval": None,
        "num_clips": 1,
        "num_segments": 10,
        "selected_epoch": 1,
        "epochs_run": 1,
        **dict.fromkeys(
            (
                "accuracy",
                "partial_clip_accuracy",
                "background_recall",
                "event_f1",
                "validation_accuracy",
            ),
            0.5,
        ),
    }
    console.print(results_table(report))
    print_plainly(console, f"Page to open: {HOSTILE}")
    with extraction_progress(console, 1) as on_done:
        on_done(type("Video", (), {"name": HOSTILE})(), "failed")
    _print_error(f"{HOSTILE}: no such file")
    printed = shown.getvalue() + capsys.readouterr().err
    assert not RAW & set(printed)
    assert printed.count("dog") == 9


def test_a_long_category_does_not_widen_a_table():
    console = Console(file=io.StringIO(), width=100)
    console.print(events_table(_prediction("x" * 6000)))
    assert len(console.file.getvalue().splitlines()) < 8


def test_numbers_agree_with_their_nouns():
    assert count(1, "clip") == "1 clip"
    assert count(0, "clip") == "0 clips"
    assert count(2000, "category", "categories") == "2,000 categories"
