"""Write the prediction of one video as JSON, CSV (events) and WebVTT (subtitles).

All times are in seconds, as video players show them: the first segment starts at
`VideoPrediction.start_s`.
"""

import csv
import html
import io
import os
import pathlib

import numpy as np

from avsdn_tf.events import Event, VideoPrediction
from avsdn_tf.files import write_json, write_text
from avsdn_tf.report.scores import percent
from avsdn_tf.text import csv_cell, printable, short_name

# This many values are 32 MiB of JSON: with segments of 1 s, 20 hours of AVE's 29
# classes, or 3 minutes of 10,000 classes.
MAX_PROBABILITIES = 2**21
_NUM_KEPT_CLASSES = 5


def write_event_files(
    folder: str | os.PathLike[str], stem: str, prediction: VideoPrediction
) -> tuple[pathlib.Path, pathlib.Path, pathlib.Path]:
    """Write STEM.events.json, STEM.events.csv and STEM.vtt atomically.

    The disclaimer is a member of the JSON, a column of the CSV, and a subtitle at the
    top of the picture throughout the video. Members of the JSON:

    * `probabilities`: a row per segment; segment i starts at `start_s + i * segment_s`.
      The last class is background, unless `multi_label` is true.
    * `most_probable` replaces `probabilities` of more than `MAX_PROBABILITIES` values:
      the five most probable classes per segment, as pairs of class index and
      probability.
    * `thresholds`, if `multi_label`: probability at which each class becomes active.
    * `heard_only`: categories that the network detects by sound alone.

    Returns:
        The paths of JSON, CSV and WebVTT.
    """
    folder = pathlib.Path(folder)
    json_path = folder / f"{stem}.events.json"
    csv_path = folder / f"{stem}.events.csv"
    vtt_path = folder / f"{stem}.vtt"
    probabilities = np.asarray(prediction.probabilities)
    content = {
        "video": prediction.name,
        "disclaimer": prediction.disclaimer,
        "segment_s": prediction.segment_s,
        "start_s": prediction.start_s,
        "events": [event._asdict() for event in prediction.events],
        "classes": prediction.classes,
        "multi_label": prediction.multi_label,
    }
    if prediction.multi_label:
        content["thresholds"] = prediction.thresholds
    if prediction.heard_only:
        content["heard_only"] = list(prediction.heard_only)
    if probabilities.size <= MAX_PROBABILITIES:
        # Six decimals take a third of the space of full precision.
        rounded = probabilities.astype(np.float64).round(6)
        content["probabilities"] = rounded.tolist()
    else:
        content["most_probable"] = _most_probable(probabilities)
    write_json(json_path, content)
    write_text(csv_path, _csv_text(prediction))
    write_text(vtt_path, _webvtt_text(prediction))
    return json_path, csv_path, vtt_path


def _most_probable(probabilities: np.ndarray) -> list[list[tuple[int, float]]]:
    rows = []
    for row in probabilities:
        most = np.argsort(-row, kind="stable")[:_NUM_KEPT_CLASSES]
        values = row[most].astype(np.float64).round(6)
        rows.append(list(zip(most.tolist(), values.tolist(), strict=True)))
    return rows


def _csv_text(prediction: VideoPrediction) -> str:
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\n")
    # The disclaimer is a column, because CSV has no standard syntax for comments.
    writer.writerow((*Event._fields, "disclaimer"))
    for event in prediction.events:
        times_s = round(event.start_s, 3), round(event.end_s, 3)
        score = round(event.score, 6)
        row = (*times_s, event.category, score, prediction.disclaimer)
        writer.writerow(map(csv_cell, row))
    return target.getvalue()


def _webvtt_text(prediction: VideoPrediction) -> str:
    cues = []
    if prediction.disclaimer:
        times = f"{_timestamp(0)} --> {_timestamp(prediction.end_s)}"
        # Line 0 is the top of the picture. Cues without a line are at the bottom.
        cues.append(f"{times} line:0\n{_cue_text(prediction.disclaimer)}\n")
    for event in prediction.events:
        times = f"{_timestamp(event.start_s)} --> {_timestamp(event.end_s)}"
        text = f"{short_name(event.category)} {percent(event.score)}"
        cues.append(f"{times}\n{_cue_text(text)}\n")
    return "\n".join(["WEBVTT\n", *cues])


def _timestamp(seconds: float) -> str:
    milliseconds = round(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{milliseconds / 1000:06.3f}"


def _cue_text(text: str) -> str:
    """Return text on one line, escaped: a blank line or `-->` would end the cue."""
    return html.escape(printable(" ".join(text.split())), quote=False)
