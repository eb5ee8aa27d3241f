"""Load trained networks, and localize events with them."""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from avsdn_tf.errors import UserError
from avsdn_tf.events import Event, events_from_logits
from avsdn_tf.files import expand_user
from avsdn_tf.hub import fetch_run, is_address
from avsdn_tf.model_file import load_model_file
from avsdn_tf.models import AVDLN, SegmentClassifier
from avsdn_tf.run_folder import RunFolder

if TYPE_CHECKING:
    from avsdn_tf.features.extractor import Extractor


def load(path: str | os.PathLike[str]) -> keras.Model:
    """Load a trained network of this package. Untrusted files are safe to load.

    Loading runs no code from the file and reads no other file; docs/security.md lists
    the checks.

    Args:
        path: A run folder, a `.keras` file, or the address of a shared run,
            `hf://USER/NAME`. The model of a run is checked against the run's
            SHA256SUMS.

    Returns:
        The model, not compiled.

    Raises:
        UserError: If the file can't be loaded, holds no network of this package, or
            doesn't match its checksum.

    Example:
        >>> model = avsdn_tf.load("runs/first")
        >>> len(model.categories)
        28
    """
    path = fetch_run(path) if is_address(path) else pathlib.Path(expand_user(path))
    if not path.exists():
        raise UserError(
            f"{path}: no such file or folder. Expected a run folder or a .keras file."
        )
    if path.is_dir():
        return RunFolder(path).load_model()
    folder = RunFolder(path.parent)
    if path == folder.model:
        folder.check_model()
    return load_model_file(path)


def localize(
    model: keras.Model,
    source: str | os.PathLike[str] | Mapping[str, np.ndarray] | Sequence[np.ndarray],
    *,
    segment_s: float | None = None,
    window: int | None = None,
    extractor: "Extractor | None" = None,
) -> list[Event] | list[list[Event]]:
    """Localize the events of a video, or of clips' features.

    Args:
        model: A network that labels segments.
        source: A video file; or the features of clips, `{"audio": (batch, num_segments,
            audio_width), "visual": (batch, num_segments, ...)}` or the pair `(audio,
            visual)`. An optional `"mask"`, `(batch, num_segments)`, is nonzero in real
            segments and 0 in padding.
        segment_s: Length of a clip's segment in seconds; default: the model's
            `segment_s`, else 1. Videos always have segments of 1 s.
        window: Number of segments of each window over a video; default: the length of
            the model's training clips, else 10.
        extractor: Computes the features of a video; default: the model's backbones,
            loaded for this call. For many videos, build the extractor once with
            `avsdn_tf.features.extractor.build_extractor`.

    Returns:
        For a video, the list of its events in order of time. Times are in seconds, as
        video players show them: most videos start at 0, the others at their first
        timestamp. For clips, a list of events per clip. Events of a multi-label model
        may overlap.

    Raises:
        ValueError: If the model doesn't label segments, the features don't fit the
            model, features or logits are not finite, or `window` is less than 1.
        UserError: If a video's backbones can't be loaded or don't fit the model, or the
            extra `video` is not installed.
        VideoError: If a video can't be read, or lacks a modality.

    Example:
        >>> model = avsdn_tf.load("runs/first")
        >>> for event in avsdn_tf.localize(model, "dog.mp4"):
        ...     line = f"{event.start_s:4.1f} {event.end_s:4.1f} {event.category}"
        >>> clips = avsdn_tf.localize(model, {"audio": audio, "visual": visual})
        >>> len(clips)
        4
    """
    if isinstance(model, AVDLN):
        raise ValueError("Expected a network that labels segments. Received: AVDLN")
    if isinstance(source, (str, os.PathLike)):
        # Import these on first use: they need the extra `video`.
        from avsdn_tf.features.video import VideoError
        from avsdn_tf.videos import extractor_for, predict_video

        path = pathlib.Path(expand_user(source))
        # Check before loading the backbones, which may need a long download.
        if not path.is_file():
            raise VideoError(f"{path}: no such file. Expected a video.")
        if extractor is None:
            extractor = extractor_for(model)
        return list(predict_video(model, extractor, path, window).events)
    audio, visual = _as_clips(model, source)
    inputs = {"audio": audio, "visual": visual}
    is_real = np.ones(audio.shape[:2], bool)
    if isinstance(source, Mapping) and "mask" in source:
        inputs["mask"] = np.asarray(source["mask"])
        if inputs["mask"].shape != audio.shape[:2]:
            raise ValueError(
                f"Expected mask of shape {audio.shape[:2]}. "
                f"Received: {inputs['mask'].shape}"
            )
        is_real = inputs["mask"] > 0
    logits = model.predict_on_batch(inputs)
    segment_s = segment_s or getattr(model, "segment_s", None) or 1.0
    multi_label = getattr(model, "multi_label", False)
    thresholds = getattr(model, "thresholds", None) if multi_label else None
    return [
        events_from_logits(
            clip[real], model.categories, segment_s, multi_label, thresholds
        )
        for clip, real in zip(logits, is_real, strict=True)
    ]


def _as_clips(
    model: keras.Model, source: Mapping[str, Any] | Sequence[Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Return audio and visual features, checked against the model."""
    if isinstance(source, Mapping):
        if missing := sorted({"audio", "visual"} - set(source)):
            raise ValueError(
                f"Expected audio and visual. Received no {' and no '.join(missing)}"
            )
        source = (source["audio"], source["visual"])
    if len(source) != 2:
        raise ValueError(
            f"Expected the pair of audio and visual. Received: {len(source)} arrays"
        )
    audio, visual = map(np.asarray, source)
    fits = audio.ndim == 3 and visual.ndim >= 3 and audio.shape[:2] == visual.shape[:2]
    audio_width = visual_shape = "..."
    # Models of other packages don't record feature widths.
    if isinstance(model, SegmentClassifier):
        audio_width, visual_shape = model.audio_width, model.visual_shape
        widths = (audio_width, *visual_shape)
        fits = fits and audio.shape[1] > 0
        fits = fits and (*audio.shape[2:], *visual.shape[2:]) == widths
        visual_shape = ", ".join(map(str, visual_shape))
    if not fits:
        raise ValueError(
            f"Expected audio (batch, num_segments, {audio_width}) and visual (batch, "
            f"num_segments, {visual_shape}), of one segment or more. "
            f"Received: audio {audio.shape}, visual {visual.shape}"
        )
    for name, values in (("audio", audio), ("visual", visual)):
        # An LSTM saturates at infinite features, and its logits would be finite.
        finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
        if not finite.all():
            raise ValueError(
                f"Expected finite features. Received: NaN or infinite {name} features "
                f"in clips {np.flatnonzero(~finite)[:20].tolist()}"
            )
    return audio, visual
