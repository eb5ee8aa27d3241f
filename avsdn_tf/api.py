"""The two calls that other programs begin with: load a network, localize events."""

import os
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from avsdn_tf.errors import UserError
from avsdn_tf.evaluation import num_segments_of
from avsdn_tf.localization import Event, events_from_logits
from avsdn_tf.models import AVDLN, SegmentClassifier
from avsdn_tf.run_folder import RunFolder, load_model_file

if TYPE_CHECKING:
    from avsdn_tf.features.extract import Extractor


def load(path: str | os.PathLike[str]) -> keras.Model:
    """Returns a trained network; code in the file is never run.

    Args:
        path: A run folder, or a `.keras` file. Of a run, it is compared with the digest
            that training wrote beside it, `SHA256SUMS`.

    Raises:
        UserError: If it can't be loaded, or is not the file that training wrote.

    Example:
        >>> model = avsdn_tf.load("runs/first")
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise UserError(
            f"{path}: expected a run folder or a .keras file. Received: none."
        )
    folder = RunFolder(path if path.is_dir() else path.parent)
    if path not in (folder.path, folder.model):
        return load_model_file(path)
    model = folder.load_model()
    # The last file that a run writes.
    if isinstance(model, SegmentClassifier) and folder.report.is_file():
        model.num_segments = num_segments_of(folder.predictions)
        model.networks = folder.read_networks()
    return model


def localize(
    model: keras.Model,
    source: str | os.PathLike[str] | Mapping[str, np.ndarray],
    *,
    segment_s: float = 1.0,
    window: int | None = None,
    extractor: "Extractor | None" = None,
) -> list[Event] | list[list[Event]]:
    """Localizes the events of a video, or of clips' features.

    Args:
        model: A network that labels segments, from `load`.
        source: A video file; or `{"audio": (batch, num_segments, audio_width),
            "visual": (batch, num_segments, ...)}`, the features of clips.
        segment_s: Length of a segment in seconds. Of a video it is always 1.
        window: Video only: segments of the clips that the model was trained on. If not
            given, what `load` read from the run folder, else 10, as AVE's clips have.
        extractor: Video only: what makes features, from
            `avsdn_tf.features.extract.build_extractor`. If not given, VGGish and the
            visual network are loaded anew, those that made the features of the run that
            `load` took the model from, as far as its data set tells, else those of
            `build_extractor`'s defaults; give one for many videos.

    Returns:
        Of a video, its events in order of time, on the clock of players: a video whose
        first timestamp is 3 s has no event before. Of clips, a list of events each.

    Raises:
        ValueError: If the model labels no segments, a modality is missing or of another
            shape than the model's, the two differ in batch or num_segments, the model's
            logits of clips are not finite, or `window` is less than 1.
        UserError: If a video's networks can't be loaded, don't fit the model, or make
            features of which its logits are not finite.
        VideoError: If a video can't be read, or lacks a modality.

    Example:
        >>> for event in avsdn_tf.localize(model, "dog.mp4"):
        ...     print(f"{event.start_s:4.1f} {event.end_s:4.1f} {event.category}")
         2.0  7.0 Bark
    """
    if isinstance(model, AVDLN):
        raise ValueError("Expected a network that labels segments. Received: AVDLN")
    if isinstance(source, (str, os.PathLike)):
        if window is None:
            window = getattr(model, "num_segments", None) or 10
        return _localize_video(model, pathlib.Path(source), window, extractor)
    if missing := {"audio", "visual"} - set(source):
        raise ValueError(
            f"Expected audio and visual. Received none of {', '.join(sorted(missing))}"
        )
    audio, visual = np.asarray(source["audio"]), np.asarray(source["visual"])
    if audio.ndim != 3 or visual.ndim < 3 or audio.shape[:2] != visual.shape[:2]:
        raise ValueError(
            "Expected audio (batch, num_segments, audio_width) and visual (batch, "
            "num_segments, ...) of the same batch and num_segments. "
            f"Received: audio {audio.shape}, visual {visual.shape}"
        )
    widths = (*audio.shape[2:], *visual.shape[2:])
    # Other networks with categories know of no widths.
    if isinstance(model, SegmentClassifier) and (
        not audio.shape[1] or widths != (model.audio_width, *model.visual_shape)
    ):
        raise ValueError(
            f"Expected audio (batch, num_segments, {model.audio_width}) and visual "
            f"(batch, num_segments, {', '.join(map(str, model.visual_shape))}), of one "
            f"segment or more. Received: audio {audio.shape}, visual {visual.shape}"
        )
    logits = model.predict_on_batch({"audio": audio, "visual": visual})
    return [events_from_logits(clip, model.categories, segment_s) for clip in logits]


def _localize_video(
    model: Any, path: pathlib.Path, window: int, extractor: "Extractor | None"
) -> list[Event]:
    # TensorFlow Hub and the video decoder are of no use to those who bring features.
    from avsdn_tf.features.extract import build_extractor
    from avsdn_tf.prediction import network_for, predict_video

    if extractor is None:
        networks = getattr(model, "networks", None) or {}
        extractor = build_extractor(network_for(model), **networks)
    return list(predict_video(model, extractor, path, window).events)
