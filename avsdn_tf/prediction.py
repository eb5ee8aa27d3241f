"""From videos to events: what a trained network says of them."""

import pathlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from avsdn_tf.errors import UserError
from avsdn_tf.features.extract import Extractor
from avsdn_tf.features.visual import RECIPES
from avsdn_tf.files import printable
from avsdn_tf.localization import events_from_probabilities, softmax, stitch_logits
from avsdn_tf.report.event_files import VideoPrediction

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
        UserError: If the features don't fit the model, or it makes no numbers of them.
    """
    empty = extractor.lacks(path)
    if empty:
        what = {"audio": "sound", "visual": "picture"}[empty]
        told = f"This video has no {what}: zeros stand in for its features"
        notice = f"{notice}. {told}" if notice else told
    extractor.check_fits(model)
    start_s = end_s = None

    def features() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        nonlocal start_s, end_s
        for chunk in extractor.stream(path):
            start_s = chunk.start_s if start_s is None else start_s
            end_s = chunk.end_s
            yield chunk.audio, chunk.visual

    logits = stitch_logits(model, features(), window)
    if not np.isfinite(logits).all():
        raise UserError(
            f"{path}: expected finite logits. Received NaN or infinite ones. Do the "
            "weights of VGGish and of the visual network belong to them?"
        )
    probabilities = softmax(logits)
    # To the microsecond: sums of fractions are not exact.
    events = [
        event._replace(
            start_s=round(start_s + event.start_s, 6),
            # The last second of a video is seldom a whole one.
            end_s=min(round(start_s + event.end_s, 6), end_s),
        )
        for event in events_from_probabilities(
            probabilities, model.categories, SEGMENT_S
        )
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
