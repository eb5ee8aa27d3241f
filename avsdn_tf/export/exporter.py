"""Models for programs that know nothing of this package: SavedModel, ONNX, LiteRT.

Every artefact is run by its format's own runtime before it is given its name: one that
does not compute what the Keras model computes is never left behind.
"""

import contextlib
import dataclasses
import errno
import functools
import importlib.util
import json
import os
import pathlib
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from avsdn_tf.errors import UserError
from avsdn_tf.features.audio import AudioNetwork, FrontEnd
from avsdn_tf.features.extractor import Extractor
from avsdn_tf.features.visual import VisualNetwork
from avsdn_tf.files import explain_unwritable, without_patterns, write_json
from avsdn_tf.events import softmax, stitch_logits
from avsdn_tf.models import SegmentClassifier
from avsdn_tf.models.lstm import leave_cudnn, leave_loops
from avsdn_tf.startup import quiet_startup

# Name of the metadata: a file, a member of a zip, or a key, as the format has it.
METADATA = "avsdn_tf.json"
# Largest difference from Keras, as a share of the largest logit if that is above 1.
BOUND = 1e-5

Clips = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Format:
    """A format that models can be exported to.

    Attributes:
        name: Name of the file or folder.
        packages: What must be installed besides the core, by the name of its import.
        write: Writes an `Exportable` of a number of segments, with metadata.
        run: Runs what was written on clips, by the format's own runtime; returns
            logits.
        summary: One line for `--help`.
        oldest_keras: The first version of Keras that can write it.
    """

    name: str
    packages: tuple[str, ...]
    write: Callable[["Exportable", pathlib.Path, Mapping[str, Any]], None]
    run: Callable[[pathlib.Path, Clips], np.ndarray]
    summary: str
    oldest_keras: tuple[int, int] = (3, 12)


class Exportable(keras.Model):
    """A network that returns its logits and probabilities by name, in float32.

    Args:
        model: The network.
    """

    def __init__(self, model: SegmentClassifier) -> None:
        super().__init__(dtype="float32")
        config = {**model.get_config(), "dtype": "float32"}
        self.network = type(model).from_config(config)
        self.network.set_weights(model.get_weights())
        leave_cudnn(self.network)
        self(self.signature(None))

    def call(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Returns `"logits"` and `"probabilities"`."""
        logits = self.network(inputs, training=False)
        return {"logits": logits, "probabilities": ops.softmax(logits)}

    def signature(self, num_segments: int | None) -> dict[str, keras.KerasTensor]:
        """Returns the inputs for clips of a number of segments; None: of any."""
        widths = {
            "audio": (self.network.audio_width,),
            "visual": self.network.visual_shape,
        }
        return {
            name: keras.KerasTensor((None, num_segments, *width), name=name)
            for name, width in widths.items()
        }

    def input_spec_for(self, num_segments: int | None) -> list[dict[str, Any]]:
        """Returns the same as what Keras's exporters want."""
        return [
            {
                name: keras.InputSpec(shape=tensor.shape, dtype="float32", name=name)
                for name, tensor in self.signature(num_segments).items()
            }
        ]


def export_model(
    model: keras.Model,
    name: str,
    out: str | os.PathLike[str],
    metadata: Mapping[str, Any],
    clips: Sequence[Clips],
) -> tuple[pathlib.Path, float]:
    """Writes a network in a format, checked against Keras.

    Args:
        model: A network that labels segments.
        name: One of `FORMATS`.
        out: The folder to write into; it is made if need be.
        metadata: What the artefact carries, ready for JSON. `num_segments` decides the
            clips of formats that want a fixed number.
        clips: Batches to check with: `"audio"` and `"visual"` as the model takes them.

    Returns:
        The file or folder, and the largest difference of a logit from Keras's.

    Raises:
        UserError: If the model is of another kind, packages are missing, the artefact
            is there already or can't be written, or computes something else. Nothing is
            left behind then.
    """
    _check_labels_segments(model)
    chosen = FORMATS[name]
    _check_installed(name, chosen)
    exportable = Exportable(model)
    largest = 0.0
    with _made_aside(pathlib.Path(out) / chosen.name) as (path, tmp_path), quiet_startup():
        with _explain_failure(path):
            chosen.write(exportable, tmp_path, metadata)
        for batch in clips:
            expected = exportable.network.predict_on_batch(dict(batch))
            with _explain_failure(path):
                found = chosen.run(tmp_path, batch)
            largest = max(largest, _compare(found, expected, path))
    return path, largest


def _check_labels_segments(model: keras.Model) -> None:
    if not isinstance(model, SegmentClassifier):
        raise UserError(
            "export: expected a network that labels segments. Received: "
            f"{type(model).__name__}"
        )


def export_end_to_end(
    model: keras.Model,
    extractor: Extractor,
    out: str | os.PathLike[str],
    metadata: Mapping[str, Any],
    seed: int = 0,
) -> tuple[pathlib.Path, float]:
    """Writes a SavedModel that takes sound and pictures, backbones included.

    Its signature takes `waveform`, `(num_samples,)` float32 mono at 16 kHz in [-1, 1],
    and `frames`, `(num_seconds, frames_per_second, height, width, 3)` uint8 RGB; and
    gives what `serving_default` of a plain SavedModel gives, for one clip. The sound
    may end within the last second. Longer videos are seen in windows, as
    `localization.stitch_logits` does.

    Args:
        model: A network that labels segments.
        extractor: The networks that make its features.
        out: The folder to write into.
        metadata: As for `export_model`.
        seed: Of the random sound and pictures to check with.

    Returns:
        The folder, and the largest difference of a probability from that of the
        features made step by step.

    Raises:
        UserError: As `export_model`; or the networks don't fit the model.
    """
    _check_labels_segments(model)
    if not isinstance(extractor.audio, AudioNetwork) or not isinstance(
        extractor.visual, VisualNetwork
    ):
        raise UserError("export: expected VGGish and a network of keras.applications.")
    extractor.check_fits(model)
    window = int(metadata["num_segments"])
    exportable = Exportable(model)
    metadata = {
        **metadata,
        "sample_rate_hz": FrontEnd().sample_rate_hz,
        "frames_per_second": extractor.visual.frames_per_second,
    }
    random = np.random.default_rng(seed)
    largest = 0.0
    with (
        _made_aside(pathlib.Path(out) / "end_to_end") as (path, tmp_path),
        quiet_startup(),
    ):
        with _explain_failure(path):
            _write_end_to_end(exportable, extractor, tmp_path, metadata)
            with without_patterns(tmp_path) as name:
                predict = tf.saved_model.load(name).signatures["serving_default"]
        for num_seconds in (1, window, 2 * window + window // 2 + 1):
            seconds = random.uniform(-1, 1, (num_seconds, FrontEnd().sample_rate_hz))
            seconds = seconds.astype(np.float32)
            seconds[-1, -999:] = 0
            shape = (num_seconds, extractor.visual.frames_per_second, 90, 120, 3)
            frames = random.integers(0, 256, shape, np.uint8)
            features = extractor.audio(seconds), extractor.visual(list(frames))
            logits = stitch_logits(exportable.network, [features], window)
            with _explain_failure(path):
                found = predict(
                    waveform=tf.constant(seconds.reshape(-1)[:-999]),
                    frames=tf.constant(frames),
                )["probabilities"].numpy()
            largest = max(largest, _compare(found, softmax(logits), path))
    return path, largest


def _write_end_to_end(
    exportable: Exportable,
    extractor: Extractor,
    path: pathlib.Path,
    metadata: Mapping[str, Any],
) -> None:
    audio, visual = extractor.audio, extractor.visual
    rate_hz, window = FrontEnd().sample_rate_hz, int(metadata["num_segments"])
    # One second at a time: memory grows with the video by its features alone.
    heard = functools.partial(
        tf.map_fn,
        lambda second: audio.features_of(second[None])[0],
        fn_output_signature=tf.TensorSpec((audio.width,), tf.float32),
    )
    seen = functools.partial(
        tf.map_fn,
        visual.features_of_second,
        fn_output_signature=tf.TensorSpec(visual.shape, tf.float32),
    )

    def predict(waveform: tf.Tensor, frames: tf.Tensor) -> dict[str, tf.Tensor]:
        num_seconds = tf.shape(frames)[0]
        missing = num_seconds * rate_hz - tf.size(waveform)
        told = "Expected as many seconds of sound as of pictures"
        tf.debugging.assert_non_negative(missing, told)
        tf.debugging.assert_less(missing, rate_hz, told)
        seconds = tf.reshape(tf.pad(waveform, [[0, missing]]), (-1, rate_hz))
        logits = _stitch(
            lambda inputs: exportable(inputs)["logits"],
            heard(seconds),
            seen(frames),
            window,
        )
        probabilities = tf.nn.softmax(logits)
        events = _events_of(probabilities[None], float(metadata["segment_s"]))
        del events["event_clip"]
        return {"logits": logits, "probabilities": probabilities, **events}

    archive = keras.export.ExportArchive()
    for resource in (exportable, audio.module, visual.network):
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
    _write_savedmodel_metadata(path, metadata)


def _stitch(
    logits_of: Callable[[dict[str, tf.Tensor]], tf.Tensor],
    audio: tf.Tensor,
    visual: tf.Tensor,
    window: int,
) -> tf.Tensor:
    """Does in a graph what `localization.stitch_logits` does."""
    num_segments = tf.shape(audio)[0]
    size = tf.minimum(window, num_segments)
    starts = tf.range(0, num_segments - size + 1, max(1, window // 2))
    # The last window ends with the video.
    starts = tf.unique(tf.concat([starts, [num_segments - size]], 0)).y
    rows = starts[:, None] + tf.range(size)
    logits = logits_of(
        {"audio": tf.gather(audio, rows), "visual": tf.gather(visual, rows)}
    )
    flat = tf.reshape(rows, [-1])
    return tf.math.unsorted_segment_mean(
        tf.reshape(logits, (tf.size(flat), -1)), flat, num_segments
    )


def _events_of(probabilities: tf.Tensor, segment_s: float) -> dict[str, tf.Tensor]:
    """Does in a graph what `localization.events_from_probabilities` does.

    Args:
        probabilities: `(batch, num_segments, num_classes)`, background last.
        segment_s: Length of a segment in seconds.

    Returns:
        A row an event, of all clips in order: `event_clip`, `event_start_s`,
        `event_end_s`, `event_class` and `event_score`, `(num_events,)` each.
    """
    shape = tf.shape(probabilities)
    classes = tf.argmax(probabilities, -1, tf.int32)
    is_event = classes != shape[2] - 1
    changes = classes[:, 1:] != classes[:, :-1]
    starts = is_event & tf.pad(changes, [(0, 0), (1, 0)], constant_values=True)
    numbers = tf.cumsum(tf.cast(tf.reshape(starts, [-1]), tf.int32)) - 1
    num_events = tf.reduce_sum(tf.cast(starts, tf.int32))
    clip, segment = tf.meshgrid(tf.range(shape[0]), tf.range(shape[1]), indexing="ij")
    kept = tf.reshape(is_event, [-1])

    def of_events(values: tf.Tensor) -> tf.Tensor:
        return tf.boolean_mask(tf.reshape(values, [-1]), kept)

    owners = of_events(numbers)

    def first(values: tf.Tensor) -> tf.Tensor:
        return tf.math.unsorted_segment_min(of_events(values), owners, num_events)

    last = tf.math.unsorted_segment_max(of_events(segment), owners, num_events)
    score = tf.reduce_max(probabilities, -1)
    return {
        "event_clip": first(clip),
        "event_start_s": tf.cast(first(segment), tf.float32) * segment_s,
        "event_end_s": tf.cast(last + 1, tf.float32) * segment_s,
        "event_class": first(classes),
        "event_score": tf.math.unsorted_segment_mean(
            of_events(score), owners, num_events
        ),
    }


def _write_savedmodel(
    exportable: Exportable, path: pathlib.Path, metadata: Mapping[str, Any]
) -> None:
    segment_s = float(metadata["segment_s"])

    def logits_of(inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {"logits": exportable(inputs)["logits"]}

    def events_of(inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        probabilities = exportable(inputs)["probabilities"]
        return {
            "probabilities": probabilities,
            **_events_of(probabilities, segment_s),
        }

    archive = keras.export.ExportArchive()
    archive.track(exportable)
    for name, function in (("logits", logits_of), ("serving_default", events_of)):
        archive.add_endpoint(name, function, exportable.input_spec_for(None))
    archive.write_out(str(path), verbose=False)
    _write_savedmodel_metadata(path, metadata)


def _write_savedmodel_metadata(path: pathlib.Path, metadata: Mapping[str, Any]) -> None:
    # The folder that TensorFlow leaves to those who save.
    (path / "assets.extra").mkdir()
    write_json(path / "assets.extra" / METADATA, metadata)


def _run_savedmodel(path: pathlib.Path, clips: Clips) -> np.ndarray:
    with without_patterns(path) as name:
        logits_of = tf.saved_model.load(name).signatures["logits"]
    return logits_of(**{n: tf.constant(v) for n, v in clips.items()})["logits"].numpy()


def _write_onnx(
    exportable: Exportable, path: pathlib.Path, metadata: Mapping[str, Any]
) -> None:
    import onnx

    with warnings.catch_warnings():
        # Keras looks whether NumPy still has a name that tf2onnx takes.
        warnings.filterwarnings("ignore", "In the future `np.", FutureWarning)
        exportable.export(
            str(path),
            format="onnx",
            input_signature=exportable.input_spec_for(None),
            verbose=False,
        )
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {METADATA: json.dumps(metadata)})
    onnx.save(model, path)


def _run_onnx(path: pathlib.Path, clips: Clips) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path))
    (logits,) = session.run(["logits"], dict(clips))
    return logits


def _write_litert(
    exportable: Exportable, path: pathlib.Path, metadata: Mapping[str, Any]
) -> None:
    leave_loops(exportable.network)
    exportable.export(
        str(path),
        format="litert",
        # Loops over an unknown number of segments want TensorFlow's own operations.
        input_signature=exportable.input_spec_for(int(metadata["num_segments"])),
        verbose=False,
    )
    _append_metadata(path, metadata)


def _run_litert(path: pathlib.Path, clips: Clips) -> np.ndarray:
    from ai_edge_litert.interpreter import Interpreter

    return Interpreter(str(path)).get_signature_runner()(**clips)["logits"]


def _write_keras(
    exportable: Exportable, path: pathlib.Path, metadata: Mapping[str, Any]
) -> None:
    exportable.network.save(path)
    _append_metadata(path, metadata)


def _run_keras(path: pathlib.Path, clips: Clips) -> np.ndarray:
    return keras.models.load_model(path, safe_mode=True).predict_on_batch(dict(clips))


def _append_metadata(path: pathlib.Path, metadata: Mapping[str, Any]) -> None:
    """Adds the metadata to a file that is a zip, or to which one may be appended.

    The second is how LiteRT's own tools associate files with a model.
    """
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(METADATA, json.dumps(metadata, indent=2))


FORMATS = {
    "savedmodel": Format(
        "savedmodel",
        (),
        _write_savedmodel,
        _run_savedmodel,
        "TensorFlow's SavedModel, with events",
    ),
    "onnx": Format(
        "model.onnx",
        ("onnx", "onnxruntime", "tf2onnx"),
        _write_onnx,
        _run_onnx,
        "ONNX",
    ),
    "litert": Format(
        "model.tflite",
        ("ai_edge_litert",),
        _write_litert,
        _run_litert,
        "LiteRT, for clips as long as those of training",
        oldest_keras=(3, 13),
    ),
    "keras": Format(
        "model.keras", (), _write_keras, _run_keras, "Keras, with metadata"
    ),
}


def _check_installed(name: str, chosen: Format) -> None:
    version = keras.version()
    if tuple(map(int, version.split(".")[:2])) < chosen.oldest_keras:
        oldest = ".".join(map(str, chosen.oldest_keras))
        raise UserError(
            f"--format={name}: expected Keras {oldest} or newer, which needs Python "
            f"3.11 or newer. Received: Keras {version}"
        )
    missing = [
        package
        for package in chosen.packages
        if importlib.util.find_spec(package) is None
    ]
    if missing:
        raise UserError(
            f"--format={name}: expected {', '.join(missing)}, which the extra `export` "
            "installs: pip install 'avsdn_tf[export]'"
        )


@contextlib.contextmanager
def _made_aside(path: pathlib.Path) -> Iterator[tuple[pathlib.Path, pathlib.Path]]:
    """Gives a path, and another to make it under; it has its name when all went well.

    Raises:
        UserError: If it is there already, or can't be written.
    """
    if path.exists():
        raise UserError(
            f"{path}: is there already. Remove it, or choose another folder by --out."
        )
    made = [folder for folder in path.parents if not folder.exists()]
    try:
        with explain_unwritable(path, "Nothing was left there."):
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix="tmp-", dir=path.parent) as folder:
                tmp_path = pathlib.Path(folder) / path.name
                yield path, tmp_path
                # Fails where another process has made such a folder meanwhile.
                tmp_path.rename(path)
    except BaseException:
        for folder in made:
            # Unless another process has put something there meanwhile.
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


@contextlib.contextmanager
def _explain_failure(path: pathlib.Path) -> Iterator[None]:
    """Turns what exporters and runtimes of formats raise into one message.

    Raises:
        UserError: If one of them failed.
    """
    try:
        yield
    except OSError:
        # A full disk and the like.
        raise
    # Each of those packages has errors of its own, of no common kind.
    except Exception as error:
        full = os.strerror(errno.ENOSPC)
        if isinstance(error, tf.errors.ResourceExhaustedError) and full in str(error):
            raise OSError(errno.ENOSPC, full) from error
        reason = next(iter(str(error).splitlines()), "")
        raise UserError(
            f"{path}: expected a network that this format can hold and run. Received: "
            f"{type(error).__name__}: {reason}. Nothing was kept."
        ) from error


def _compare(found: np.ndarray, expected: np.ndarray, path: pathlib.Path) -> float:
    """Returns the largest difference.

    Raises:
        UserError: If it is above the bound.
    """
    found, expected = np.asarray(found), np.asarray(expected)
    largest = float(np.abs(found - expected).max())
    if not largest <= BOUND * max(1.0, float(np.abs(expected).max())):
        raise UserError(
            f"{path}: expected what the Keras model computes, to {BOUND:g}. Received a "
            f"difference of {largest:.2g}; nothing was kept."
        )
    return largest
