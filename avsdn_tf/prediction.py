"""From videos to events: what a trained network says of them."""

import pathlib
from typing import Any

import keras

from avsdn_tf.errors import UserError
from avsdn_tf.evaluation import Predictions
from avsdn_tf.features.extract import Extractor
from avsdn_tf.features.video import probe, read_seconds
from avsdn_tf.features.visual import RECIPES
from avsdn_tf.files import printable
from avsdn_tf.localization import events_from_probabilities, softmax, stitch_logits
from avsdn_tf.report.event_files import VideoPrediction
from avsdn_tf.run_folder import RunFolder

SEGMENT_S = 1.0


def network_for(model: Any) -> str:
    """Returns the name of the visual network whose features a model reads.

    Raises:
        UserError: If none makes such features.
    """
    for name, recipe in RECIPES.items():
        if recipe.shape == tuple(model.visual_shape):
            return name
    known = ", ".join(f"{recipe.shape} ({n})" for n, recipe in RECIPES.items())
    raise UserError(
        f"The model reads visual features of shape {tuple(model.visual_shape)}. "
        f"Expected one of {known}, which videos can be turned into."
    )


def num_segments_of(folder: RunFolder) -> int:
    """Returns how many segments the clips had that a run has learnt from.

    Raises:
        UserError: If the run's predictions can't be read.
    """
    try:
        return Predictions.load(folder.predictions).labels.shape[1]
    except ValueError as error:
        raise UserError(str(error)) from error


def predict_video(
    model: keras.Model,
    extractor: Extractor,
    path: pathlib.Path,
    window: int = 10,
    notice: str | None = None,
) -> VideoPrediction:
    """Localizes the events of a video of any length.

    Times are those of players; see `VideoPrediction`.

    Args:
        model: The network.
        extractor: Makes the features that it was trained on.
        path: The video.
        window: Segments of the clips that the network was trained on.
        notice: What must be said wherever the result appears.

    Raises:
        VideoError: If the video can't be read, or lacks a modality.
        UserError: If the features don't fit the model.
    """
    empty = extractor.lacks(path)
    if empty:
        what = {"audio": "sound", "visual": "picture"}[empty]
        told = f"This video has no {what}: zeros stand in for its features"
        notice = f"{notice}. {told}" if notice else told
    widths = (extractor.audio.width, tuple(extractor.visual.shape))
    if widths != (model.audio_width, tuple(model.visual_shape)):
        raise UserError(
            "Expected features as the model reads them: audio "
            f"{model.audio_width}, visual {tuple(model.visual_shape)}. "
            f"Received: audio {widths[0]}, visual {widths[1]}"
        )
    probabilities = softmax(stitch_logits(model, extractor.stream(path), window))
    events = events_from_probabilities(probabilities, model.categories, SEGMENT_S)
    start_s = next(read_seconds(path)).start_s
    duration_s = probe(path).duration_s
    if duration_s is not None and duration_s > len(probabilities) + 0.1:
        # MP4 states how long a video lasts, Matroska when it ends.
        duration_s -= start_s
    if duration_s is not None and duration_s > len(probabilities) - 1:
        # The last second of a video is seldom a whole one.
        events = [e._replace(end_s=min(e.end_s, duration_s)) for e in events]
    # To the microsecond, as FFmpeg has durations: sums of fractions are not exact.
    events = [
        event._replace(
            start_s=round(start_s + event.start_s, 6),
            end_s=round(start_s + event.end_s, 6),
        )
        for event in events
    ]
    return VideoPrediction(
        name=printable(path.name),
        categories=tuple(model.categories),
        probabilities=probabilities,
        segment_s=SEGMENT_S,
        events=tuple(events),
        notice=notice,
        start_s=start_s,
    )
