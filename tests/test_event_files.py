import csv
import json

import numpy as np
import pytest

from avsdn_tf.events import Event, VideoPrediction
from avsdn_tf.report.event_files import write_event_files

CATEGORIES = ("Violin, fiddle", "<Frying> & co. --> loud")


def _prediction(disclaimer=None, **changes):
    values = {
        "name": "clip.mp4",
        "categories": CATEGORIES,
        "probabilities": np.array([[0.75, 0.25, 0.0], [1 / 3, 1 / 3, 1 / 3]]),
        "segment_s": 1.0,
        "events": (
            Event(0.0, 1.0, CATEGORIES[0], 0.75),
            Event(3599.5, 3661.25, CATEGORIES[1], 0.5),
        ),
        "disclaimer": disclaimer,
    }
    return VideoPrediction(**(values | changes))


def test_json_contains_the_whole_prediction(tmp_path):
    path, _, _ = write_event_files(tmp_path, "clip", _prediction("A demo."))
    assert path.name == "clip.events.json"
    assert json.loads(path.read_text()) == {
        "video": "clip.mp4",
        "disclaimer": "A demo.",
        "segment_s": 1.0,
        "start_s": 0.0,
        "events": [
            {"start_s": 0.0, "end_s": 1.0, "category": CATEGORIES[0], "score": 0.75},
            {
                "start_s": 3599.5,
                "end_s": 3661.25,
                "category": CATEGORIES[1],
                "score": 0.5,
            },
        ],
        "classes": [*CATEGORIES, "Background"],
        "multi_label": False,
        "probabilities": [[0.75, 0.25, 0.0], [0.333333] * 3],
    }


def test_files_of_a_multi_label_prediction_contain_overlapping_events(tmp_path):
    found = _prediction(
        probabilities=np.array([[0.75, 0.4], [0.2, 0.9]]),
        events=(Event(0, 1, CATEGORIES[0], 0.75), Event(0, 2, CATEGORIES[1], 0.65)),
        multi_label=True,
        thresholds=(0.5, 0.3),
    )
    path, csv_path, vtt_path = write_event_files(tmp_path, "clip", found)
    content = json.loads(path.read_text())
    assert content["multi_label"] is True
    assert content["thresholds"] == [0.5, 0.3]
    assert content["classes"] == list(CATEGORIES)
    assert content["probabilities"] == [[0.75, 0.4], [0.2, 0.9]]
    assert [event["end_s"] for event in content["events"]] == [1, 2]
    with csv_path.open(newline="", encoding="utf-8") as file:
        assert [row["end_s"] for row in csv.DictReader(file)] == ["1", "2"]
    # Players stack overlapping cues.
    assert vtt_path.read_text().count("00:00:00.000 -->") == 2


def test_csv_has_one_row_per_event(tmp_path):
    _, path, _ = write_event_files(tmp_path, "clip", _prediction('A "demo",\nreally.'))
    assert path.name == "clip.events.csv"
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    disclaimer = 'A "demo",\nreally.'
    assert rows == [
        ["start_s", "end_s", "category", "score", "disclaimer"],
        ["0.0", "1.0", CATEGORIES[0], "0.75", disclaimer],
        ["3599.5", "3661.25", CATEGORIES[1], "0.5", disclaimer],
    ]


def test_webvtt_is_escaped_and_has_times_past_an_hour(tmp_path):
    _, _, path = write_event_files(tmp_path, "clip", _prediction())
    assert path.name == "clip.vtt"
    assert path.read_bytes().decode() == (
        "WEBVTT\n"
        "\n"
        "00:00:00.000 --> 00:00:01.000\n"
        "Violin, fiddle 75.0 %\n"
        "\n"
        "00:59:59.500 --> 01:01:01.250\n"
        "&lt;Frying&gt; &amp; co. --&gt; loud 50.0 %\n"
    )


def test_webvtt_shows_the_disclaimer_all_the_time(tmp_path):
    prediction = _prediction("A demo.\n\n00:00 --> 00:01", events=())
    _, _, path = write_event_files(tmp_path, "clip", prediction)
    assert path.read_text() == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:02.000 line:0\nA demo. 00:00 --&gt; 00:01\n"
    )


def test_times_include_the_start_of_the_video(tmp_path):
    # An event in the second segment of a video that starts at 2.976 s.
    event = Event(3.976, 4.976, CATEGORIES[0], 1.0)
    prediction = _prediction("A demo.", events=(event,), start_s=2.976)
    assert (prediction.duration_s, prediction.end_s) == (2.0, 4.976)
    json_path, csv_path, vtt_path = write_event_files(tmp_path, "clip", prediction)
    found = json.loads(json_path.read_text())
    assert (found["start_s"], found["segment_s"]) == (2.976, 1.0)
    assert found["events"][0]["start_s"] == 3.976
    assert "\n3.976,4.976," in csv_path.read_text()
    # The disclaimer's cue starts at 0, whatever the video's start.
    assert vtt_path.read_text() == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:04.976 line:0\nA demo.\n\n"
        "00:00:03.976 --> 00:00:04.976\nViolin, fiddle 100.0 %\n"
    )


def test_times_round_into_the_next_minute(tmp_path):
    event = Event(59.9996, 360000.0, CATEGORIES[0], 1.0)
    _, _, path = write_event_files(tmp_path, "clip", _prediction(events=(event,)))
    assert "\n00:01:00.000 --> 100:00:00.000\n" in path.read_text()


def test_files_are_replaced_and_no_temporary_file_remains(tmp_path):
    write_event_files(tmp_path, "clip.part", _prediction("old"))
    paths = write_event_files(tmp_path, "clip.part", _prediction("new"))
    assert sorted(tmp_path.iterdir()) == sorted(paths)
    for path in paths:
        assert "new" in path.read_text()
        assert "old" not in path.read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"probabilities": np.zeros((0, 3))}, r"Received: shape \(0, 3\)"),
        ({"probabilities": np.zeros((4, 2))}, r"Received: shape \(4, 2\)"),
        ({"probabilities": np.full((1, 3), np.nan)}, "Received: NaN"),
        ({"segment_s": 0.0}, "Received: segment_s=0"),
        ({"start_s": -1.0}, "Received: start_s=-1"),
        ({"start_s": np.nan}, "Received: start_s=nan"),
        ({"events": (Event(0, 1, "Bark", 1.0),)}, r"Received: \['Bark'\]"),
    ],
)
def test_invalid_predictions_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        _prediction(**changes)
