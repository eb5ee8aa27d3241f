"""What the network found in one video, as files for other programs.

JSON holds everything, CSV the events for a spreadsheet, and WebVTT the events as
subtitles, which video players show over the picture. All times are seconds on the clock
of players, which starts at `VideoPrediction.start_s`.
"""

import csv
import html
import io
import math
import os
import pathlib
from dataclasses import dataclass

import numpy as np

from avsdn_tf.files import write_json, write_text
from avsdn_tf.localization import Event
from avsdn_tf.report.scores import percent


@dataclass(frozen=True, eq=False)
class VideoPrediction:
    """What a network says of one video.

    Times are those of players: segment i lasts from `start_s + i * segment_s` to
    `start_s + (i + 1) * segment_s`.

    Attributes:
        name: File name of the video, as people see it.
        categories: Names of the categories, without background.
        probabilities: `(num_segments, num_categories + 1)`, background last.
        segment_s: Length of a segment in seconds.
        events: The localized events, in order of time.
        notice: What must be said wherever a result of it appears, or None.
        start_s: When the first segment starts on the clock of players, in seconds: 0 in
            most videos, the first timestamp where that is later. See
            `features.video.Second.start_s`.

    Raises:
        ValueError: If there is no segment, the probabilities don't fit the categories
            or aren't finite, `segment_s` is not positive, `start_s` is negative or not
            finite, or an event is of another category.
    """

    name: str
    categories: tuple[str, ...]
    probabilities: np.ndarray
    segment_s: float
    events: tuple[Event, ...]
    notice: str | None
    start_s: float = 0.0

    def __post_init__(self) -> None:
        shape = np.shape(self.probabilities)
        num_classes = len(self.categories) + 1
        if len(shape) != 2 or shape[0] == 0 or shape[1] != num_classes:
            raise ValueError(
                f"Expected probabilities of shape (num_segments, {num_classes}), of at "
                f"least one segment. Received: shape {shape}"
            )
        if not np.isfinite(self.probabilities).all():
            raise ValueError("Expected finite probabilities. Received: NaN or infinite")
        if not self.segment_s > 0:
            raise ValueError(
                "Expected segment_s to be positive. "
                f"Received: segment_s={self.segment_s}"
            )
        if not 0 <= self.start_s < math.inf:
            raise ValueError(
                "Expected start_s to be finite and at least 0. "
                f"Received: start_s={self.start_s}"
            )
        unknown = {event.category for event in self.events} - {*self.categories}
        if unknown:
            raise ValueError(
                f"Expected events of the {len(self.categories)} categories. "
                f"Received: {sorted(unknown)}"
            )

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the columns of `probabilities`."""
        return (*self.categories, "Background")

    @property
    def duration_s(self) -> float:
        """How long the segments are together, in seconds."""
        return len(self.probabilities) * self.segment_s

    @property
    def end_s(self) -> float:
        """When the last segment ends on the clock of players, in seconds."""
        return self.start_s + self.duration_s


def write_event_files(
    folder: str | os.PathLike[str], stem: str, prediction: VideoPrediction
) -> tuple[pathlib.Path, pathlib.Path, pathlib.Path]:
    """Writes STEM.events.json, STEM.events.csv and STEM.vtt, each whole or not at all.

    The notice is a member of the JSON, a column of the CSV, and a line at the top of
    the picture for as long as the subtitles last. The JSON's members are `video`,
    `notice`, `segment_s`, `start_s`, `classes`, and as in `VideoPrediction`:

    - `events`: objects of `start_s`, `end_s`, `category` and `score`.
    - `probabilities`: a row a segment, of a number a class. Row i is about the seconds
      from `start_s + i * segment_s` on.

    Args:
        folder: An existing folder. Files of these names are replaced.
        stem: What the names of the files start with.
        prediction: What to write.

    Returns:
        The three paths, in that order.
    """
    folder = pathlib.Path(folder)
    json_path = folder / f"{stem}.events.json"
    csv_path = folder / f"{stem}.events.csv"
    vtt_path = folder / f"{stem}.vtt"
    write_json(json_path, _json_value(prediction))
    write_text(csv_path, _csv_text(prediction))
    write_text(vtt_path, _webvtt_text(prediction))
    return json_path, csv_path, vtt_path


def _json_value(prediction: VideoPrediction) -> dict[str, object]:
    # Six decimals are finer than any network is sure, and a third of the length.
    probabilities = np.asarray(prediction.probabilities, dtype=np.float64).round(6)
    return {
        "video": prediction.name,
        "notice": prediction.notice,
        "segment_s": prediction.segment_s,
        "start_s": prediction.start_s,
        "events": [event._asdict() for event in prediction.events],
        "classes": prediction.classes,
        "probabilities": probabilities.tolist(),
    }


def _csv_text(prediction: VideoPrediction) -> str:
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\n")
    # The notice is a column: no comment in CSV is one for every reader.
    writer.writerow((*Event._fields, "notice"))
    for event in prediction.events:
        writer.writerow(
            (
                round(event.start_s, 3),
                round(event.end_s, 3),
                event.category,
                round(event.score, 6),
                prediction.notice,
            )
        )
    return target.getvalue()


def _webvtt_text(prediction: VideoPrediction) -> str:
    cues = []
    if prediction.notice:
        times = f"{_timestamp(0)} --> {_timestamp(prediction.end_s)}"
        # Line 0 is the top of the picture; the events stand at the bottom.
        cues.append(f"{times} line:0\n{_cue_text(prediction.notice)}\n")
    for event in prediction.events:
        times = f"{_timestamp(event.start_s)} --> {_timestamp(event.end_s)}"
        text = f"{event.category} {percent(event.score)}"
        cues.append(f"{times}\n{_cue_text(text)}\n")
    return "\n".join(["WEBVTT\n", *cues])


def _timestamp(seconds: float) -> str:
    milliseconds = round(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{milliseconds / 1000:06.3f}"


def _cue_text(text: str) -> str:
    """Returns text on one line, without what WebVTT would take for its own.

    An empty line would end the cue, and an arrow would start another.
    """
    return html.escape(" ".join(text.split()), quote=False)
