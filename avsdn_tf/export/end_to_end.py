"""Export a SavedModel with its backbones, from waveform and frames to events."""

import functools
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from avsdn_tf.errors import UserError
from avsdn_tf.events import sigmoid, softmax, stitch_logits
from avsdn_tf.export.checked import (
    check_labels_segments,
    compare,
    explain_failure,
    write_temporary,
)
from avsdn_tf.export.format import Exportable
from avsdn_tf.export.savedmodel import events_of_clips, write_metadata
from avsdn_tf.features.audio import AudioNetwork
from avsdn_tf.features.extractor import Extractor
from avsdn_tf.features.vggish import FRONT_END
from avsdn_tf.features.visual import VisualNetwork
from avsdn_tf.files import expand_user, without_patterns


def export_end_to_end(
    model: keras.Model,
    extractor: Extractor,
    out: str | os.PathLike[str],
    metadata: Mapping[str, Any],
    seed: int = 0,
) -> tuple[pathlib.Path, float]:
    """Write a SavedModel that includes the backbones.

    The signature `serving_default` has these inputs, for one video:

    * `waveform`: `(num_samples,)` float32 in [-1, 1], mono, 16 kHz. The last
      second may be incomplete.
    * `frames`: `(num_seconds, frames_per_second, height, width, 3)` uint8, RGB.

    The outputs are `logits` and `probabilities`, `(num_seconds, num_classes)` each, and
    `event_start_s`, `event_end_s`, `event_class` and `event_score`, `(num_events,)`
    each. Long videos are processed in windows, as in `events.stitch_logits`.

    Args:
        model: A network that labels segments.
        extractor: The backbones of the model's features.
        out: Parent folder of the SavedModel, whose own folder is named `end_to_end`.
        metadata: As in `export_model`.
        seed: Seed of the random inputs for the comparison with Keras.

    Returns:
        The path, and the largest absolute difference of a probability from Keras.

    Raises:
        UserError: As in `export_model`, or if the backbones don't fit the model.
    """
    check_labels_segments(model)
    if not isinstance(extractor.audio, AudioNetwork) or not isinstance(
        extractor.visual, VisualNetwork
    ):
        raise UserError("Expected an AudioNetwork and a VisualNetwork.")
    extractor.check_fits(model)
    window = int(metadata["num_segments"])
    exportable = Exportable(model)
    metadata = {
        **metadata,
        "sample_rate_hz": FRONT_END.sample_rate_hz,
        "frames_per_second": extractor.visual.frames_per_second,
    }
    random = np.random.default_rng(seed)
    largest = 0.0
    out = pathlib.Path(expand_user(out))
    with write_temporary(out / "end_to_end") as (path, tmp_path):
        with explain_failure(path):
            _write_end_to_end(exportable, extractor, tmp_path, metadata)
            with without_patterns(tmp_path) as name:
                predict = tf.saved_model.load(name).signatures["serving_default"]
        for num_seconds in (1, window, 2 * window + window // 2 + 1):
            seconds = random.uniform(-1, 1, (num_seconds, FRONT_END.sample_rate_hz))
            seconds = seconds.astype(np.float32)
            seconds[-1, -999:] = 0
            shape = (num_seconds, extractor.visual.frames_per_second, 90, 120, 3)
            frames = random.integers(0, 256, shape, np.uint8)
            features = extractor.audio(seconds), extractor.visual(list(frames))
            logits = stitch_logits(exportable.network, [features], window)
            with explain_failure(path):
                probabilities = predict(
                    waveform=tf.constant(seconds.reshape(-1)[:-999]),
                    frames=tf.constant(frames),
                )["probabilities"].numpy()
            expected = (sigmoid if model.multi_label else softmax)(logits)
            largest = max(largest, compare(probabilities, expected, path))
    return path, largest


def _write_end_to_end(
    exportable: Exportable,
    extractor: Extractor,
    path: pathlib.Path,
    metadata: Mapping[str, Any],
) -> None:
    audio, visual = extractor.audio, extractor.visual
    rate_hz, window = FRONT_END.sample_rate_hz, int(metadata["num_segments"])
    # Map over seconds, so that memory grows only by each second's features.
    audio_features = functools.partial(
        tf.map_fn,
        lambda second: audio.features_of(second[None])[0],
        fn_output_signature=tf.TensorSpec((audio.width,), tf.float32),
    )
    visual_features = functools.partial(
        tf.map_fn,
        visual.features_of_second,
        fn_output_signature=tf.TensorSpec(visual.shape, tf.float32),
    )

    def predict(waveform: tf.Tensor, frames: tf.Tensor) -> dict[str, tf.Tensor]:
        num_seconds = tf.shape(frames)[0]
        missing = num_seconds * rate_hz - tf.size(waveform)
        message = "Expected as many seconds of sound as of pictures"
        tf.debugging.assert_non_negative(missing, message)
        tf.debugging.assert_less(missing, rate_hz, message)
        seconds = tf.reshape(tf.pad(waveform, [[0, missing]]), (-1, rate_hz))
        logits = _stitch(
            lambda inputs: exportable(inputs)["logits"],
            audio_features(seconds),
            visual_features(frames),
            window,
        )
        probabilities = exportable.probabilities(logits)
        events = events_of_clips(
            probabilities[None], float(metadata["segment_s"]), exportable.thresholds
        )
        del events["event_clip"]
        return {"logits": logits, "probabilities": probabilities, **events}

    archive = keras.export.ExportArchive()
    for resource in (exportable, audio.resource, visual.resource):
        archive.track(resource)
    frames_shape = (None, visual.frames_per_second, None, None, 3)
    archive.add_endpoint(
        "serving_default",
        predict,
        [
            tf.TensorSpec((None,), tf.float32, "waveform"),
            tf.TensorSpec(frames_shape, tf.uint8, "frames"),
        ],
    )
    archive.write_out(str(path), verbose=False)
    write_metadata(path, metadata)


def _stitch(
    logits_of: Callable[[dict[str, tf.Tensor]], tf.Tensor],
    audio: tf.Tensor,
    visual: tf.Tensor,
    window: int,
) -> tf.Tensor:
    """Compute `events.stitch_logits` in a graph."""
    num_segments = tf.shape(audio)[0]
    size = tf.minimum(window, num_segments)
    starts = tf.range(0, num_segments - size + 1, max(1, window // 2))
    # Align the last window with the end of the video.
    starts = tf.unique(tf.concat([starts, [num_segments - size]], 0)).y
    rows = starts[:, None] + tf.range(size)
    logits = logits_of(
        {"audio": tf.gather(audio, rows), "visual": tf.gather(visual, rows)}
    )
    flat = tf.reshape(rows, [-1])
    return tf.math.unsorted_segment_mean(
        tf.reshape(logits, (tf.size(flat), -1)), flat, num_segments
    )
