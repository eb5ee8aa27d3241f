"""Localize the events of a video: load backbones, and predict in windows."""

import pathlib
from collections.abc import Iterator

import keras
import numpy as np

from avsdn_tf.attention import stitch_outputs
from avsdn_tf.backbones import Backbones
from avsdn_tf.errors import UserError
from avsdn_tf.events import (
    Event,
    VideoPrediction,
    events_from_probabilities,
    sigmoid,
    softmax,
)
from avsdn_tf.features.extractor import (
    Extractor,
    build_extractor,
    check_network,
)
from avsdn_tf.features.visual import RECIPES
from avsdn_tf.text import printable

# Window in segments for models without `num_segments`: the length of AVE's clips.
_NUM_SEGMENTS = 10
# Extractors compute one feature per second.
_SEGMENT_S = 1.0


def extractor_for(
    model: keras.Model, empty: str | None = None, **given: str | None
) -> Extractor:
    """Load the backbones that computed the features of a model's training data.

    Args:
        model: A network that labels segments.
        empty: A modality that videos may lack; see `Extractor`.
        **given: Fields of `Backbones` that replace the recorded ones. Fields that are
            neither given nor recorded have the defaults of `build_extractor`. Recorded
            weights from other sources than the default must be given again: a model
            file may be untrusted, and loading a TensorFlow Hub module or a SavedModel
            runs its code.

    Raises:
        UserError: If a backbone can't be loaded, doesn't fit the model, or must be
            given.
    """
    recorded = Backbones.from_dict(getattr(model, "backbones", None))
    recorded.check_trusted(given)
    backbones = recorded.override(**given).complete()
    if recipe := RECIPES.get(backbones.visual_network):
        # Check before the weights are downloaded.
        check_network(model, backbones, "visual", recipe.shape)
    try:
        extractor = build_extractor(**backbones.names(), empty=empty)
    except UserError as error:
        is_name = error.field in ("audio_network", "visual_network")
        if not is_name or getattr(recorded, error.field) != error.value:
            raise
        raise UserError(
            f"The model needs features of an unknown network ({error.value}). In "
            "Python, call `localize` with an extractor that computes these features.",
            field=error.field,
        ) from error
    extractor.check_fits(model)
    return extractor


def predict_video(
    model: keras.Model,
    extractor: Extractor,
    path: pathlib.Path,
    window: int | None = None,
    disclaimer: str | None = None,
    min_score: float = 0.0,
) -> VideoPrediction:
    """Localize the events of a video of any length, in overlapping windows.

    Args:
        model: A network that labels segments.
        extractor: Computes the features that the model was trained on.
        path: The video.
        window: As in `localize`.
        disclaimer: Text that must accompany the result, or None.
        min_score: Drop events of a lower score.

    Raises:
        VideoError: If the video can't be read, or lacks a modality.
        UserError: If the features don't fit the model, or its logits are not finite.
    """
    missing = extractor.find_missing(path)
    if missing:
        stream = {"audio": "sound", "visual": "picture"}[missing]
        zeros = f"This video has no {stream}: zeros replace its features"
        disclaimer = f"{disclaimer}. {zeros}" if disclaimer else zeros
    extractor.check_fits(model)
    if window is None:
        window = getattr(model, "num_segments", None) or _NUM_SEGMENTS
    start_s = end_s = None

    def features() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        nonlocal start_s, end_s
        for chunk in extractor.stream(path):
            start_s = chunk.start_s if start_s is None else start_s
            end_s = chunk.end_s
            yield chunk.audio, chunk.visual

    logits, attention = stitch_outputs(model, features(), window)
    if not np.isfinite(logits).all():
        raise UserError(
            f"{path}: the logits are NaN or infinite. Check that the backbones have "
            "the weights of the model's training data."
        )
    multi_label = getattr(model, "multi_label", False)
    thresholds = getattr(model, "thresholds", None) if multi_label else None
    probabilities = sigmoid(logits) if multi_label else softmax(logits)
    events = events_from_probabilities(
        probabilities, model.categories, _SEGMENT_S, multi_label, thresholds
    )
    return VideoPrediction(
        name=printable(path.name),
        categories=tuple(model.categories),
        probabilities=probabilities,
        segment_s=_SEGMENT_S,
        events=tuple(
            _shift(event, start_s, end_s)
            for event in events
            if event.score >= min_score
        ),
        disclaimer=disclaimer,
        start_s=start_s,
        heard_only=tuple(getattr(model, "heard_only", ())),
        multi_label=multi_label,
        thresholds=thresholds,
        # Attention to the zeros of a missing picture means nothing.
        attention=None if missing == "visual" else attention,
    )


def _shift(event: Event, start_s: float, end_s: float) -> Event:
    """Shift an event to a video's time axis; the last segment may be short."""
    # Round to the microsecond: sums of fractions are not exact.
    return event._replace(
        start_s=round(start_s + event.start_s, 6),
        end_s=min(round(start_s + event.end_s, 6), end_s),
    )
