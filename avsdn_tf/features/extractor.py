"""Extract audio and visual features of videos."""

import dataclasses
import os
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import numpy as np

from avsdn_tf.backbones import HUB, Backbones
from avsdn_tf.errors import CombinedUserError, UserError, call_all
from avsdn_tf.features.audio import AUDIO_NETWORKS, AudioNetwork
from avsdn_tf.features.downloads import find_missing
from avsdn_tf.features.video import Second, VideoError
from avsdn_tf.features.video.process import (
    DEFAULT_LIMITS,
    Limits,
    describe_in_child,
    read_in_child,
)
from avsdn_tf.features.visual import (
    PRECISIONS,
    RECIPES,
    VisualNetwork,
    recipe_of,
)
from avsdn_tf.startup import check_backend

MODALITIES = ("audio", "visual")
# Seconds per call of the backbones; fewer where the frames are large.
_CHUNK_S = 16
_CHUNK_BYTES = 64 << 20


@dataclasses.dataclass(frozen=True, eq=False)
class Chunk:
    """Features of consecutive seconds, `(num_seconds, ...)` float32.

    `start_s` and `end_s` are player times; see `Second`.

    Example:
        >>> from avsdn_tf.features.extractor import Chunk
        >>> chunk = Chunk(audio[0], visual[0], start_s=0.0, end_s=10.0)
        >>> len(chunk.audio)
        10
    """

    audio: np.ndarray
    visual: np.ndarray
    start_s: float
    end_s: float


@dataclasses.dataclass(frozen=True)
class Extractor:
    """Extracts audio and visual features of videos.

    Attributes:
        audio: An `AudioNetwork`, or a callable with the same signature and `width`.
        visual: A `VisualNetwork`, or a callable with the same signature, `shape` and
            `frames_per_second`.
        empty: `"audio"` or `"visual"` to use zeros as features of that modality in
            videos without it. None requires both modalities.
        backbones: Description of `audio` and `visual`.
        limits: Memory and time limits of the child process that decodes a video.

    Example:
        >>> from avsdn_tf.features.audio import AudioNetwork
        >>> from avsdn_tf.features.extractor import Extractor
        >>> from avsdn_tf.features.visual import VisualNetwork
        >>> extractor = Extractor(
        ...     AudioNetwork(network="yamnet"), VisualNetwork("MobileNetV2")
        ... )
        >>> [(chunk.start_s, chunk.end_s) for chunk in extractor.stream("dog.mp4")]
        [(0.0, 10.0)]
    """

    audio: AudioNetwork
    visual: VisualNetwork
    empty: str | None = None
    backbones: Backbones = dataclasses.field(default_factory=Backbones)
    limits: Limits = DEFAULT_LIMITS

    def check_fits(self, model: Any) -> None:
        """Check that a model accepts features of these backbones.

        Raises:
            UserError: If the model was trained on features of another network, or
                expects another shape.
        """
        check_network(model, self.backbones, "audio", (self.audio.width,))
        check_network(model, self.backbones, "visual", tuple(self.visual.shape))

    def find_missing(self, path: str | os.PathLike[str]) -> str | None:
        """Return the modality that a video lacks, or None.

        Raises:
            VideoError: If the video lacks a required modality or can't be read.
        """
        modalities = describe_in_child(path, self.limits).modalities
        return check_modalities(path, modalities, self.empty)

    def stream(self, path: str | os.PathLike[str]) -> Iterator[Chunk]:
        """Yield a video's features in order of time, in chunks of at most 16 s.

        Memory use doesn't grow with the video's length or frame size.

        Raises:
            VideoError: If the video can't be read, lacks a required modality or exceeds
                `limits`, or its features are not finite.
        """
        missing = self.find_missing(path)
        rate = self.visual.frames_per_second
        seconds: list[Second] = []
        num_bytes = 0
        for second in read_in_child(path, rate, missing, self.limits):
            seconds.append(second)
            num_bytes += 0 if second.frames is None else second.frames.nbytes
            if len(seconds) == _CHUNK_S or num_bytes >= _CHUNK_BYTES:
                chunk = self._features(path, seconds)
                seconds, num_bytes = [], 0
                yield chunk
        if seconds:
            yield self._features(path, seconds)

    def extract(self, path: str | os.PathLike[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return a whole video's audio and visual features; see `stream`."""
        return join(self.stream(path))

    def _features(self, path: str | os.PathLike[str], seconds: list[Second]) -> Chunk:
        if seconds[0].waveform is None:
            audio = np.zeros((len(seconds), self.audio.width), np.float32)
        else:
            audio = self.audio(np.stack([second.waveform for second in seconds]))
        if seconds[0].frames is None:
            visual = np.zeros((len(seconds), *self.visual.shape), np.float32)
        else:
            visual = self.visual([second.frames for second in seconds])
        for name, values in (("audio", audio), ("visual", visual)):
            if not np.isfinite(values).all():
                raise VideoError(
                    f"{path}: NaN or infinite {name} features after "
                    f"{seconds[0].start_s:.0f} s. Expected finite values. Check the "
                    "weights of the backbones."
                )
        return Chunk(audio, visual, seconds[0].start_s, seconds[-1].end_s)


def check_modalities(
    path: str | os.PathLike[str], modalities: Collection[str], empty: str | None
) -> str | None:
    """Return the modality that a video lacks, or None.

    Raises:
        VideoError: If the video lacks a modality other than `empty`.
    """
    missing = [name for name in MODALITIES if name not in modalities]
    if not missing:
        return None
    if missing != [empty]:
        noun = {"audio": "sound", "visual": "picture"}[missing[0]]
        raise VideoError(
            f"{path}: has no {noun}. Expected sound and picture, since an event is "
            f'heard and seen. Set empty="{missing[0]}" to use zeros instead.'
        )
    return missing[0]


def join(chunks: Iterable[Chunk]) -> tuple[np.ndarray, np.ndarray]:
    """Return the concatenated audio and visual features of chunks."""
    pairs = [(chunk.audio, chunk.visual) for chunk in chunks]
    audio, visual = (deque(arrays) for arrays in zip(*pairs, strict=True))
    del pairs
    return _concatenate(audio), _concatenate(visual)


def _concatenate(arrays: deque[np.ndarray]) -> np.ndarray:
    """Concatenate arrays like `np.concatenate`, but free each after it is copied."""
    num_rows = sum(map(len, arrays))
    result = np.empty((num_rows, *arrays[0].shape[1:]), arrays[0].dtype)
    start = 0
    while arrays:
        array = arrays.popleft()
        result[start : start + len(array)] = array
        start += len(array)
    return result


def check_network(
    model: Any, backbones: Backbones, modality: str, shape: tuple[int, ...]
) -> None:
    """Check that a model accepts features of a network and a shape.

    Raises:
        UserError: If the model was trained on features of another network, or expects
            another shape.
    """
    name = f"{modality}_network"
    recorded = Backbones.from_dict(getattr(model, "backbones", None))
    expected, received = getattr(recorded, name), getattr(backbones, name)
    argument = {"field": name, "value": received}
    if None not in (expected, received) and expected != received:
        raise UserError(
            f"Expected {expected}, the network of the features that the model was "
            f"trained on. Received: {received}",
            **argument,
        )
    shapes = {"audio": (model.audio_width,), "visual": tuple(model.visual_shape)}
    if shape != shapes[modality]:
        hint = ""
        if modality == "visual":
            fitting = [
                n for n, recipe in RECIPES.items() if recipe.shape == shapes[modality]
            ]
            hint = f", such as those of {', '.join(fitting)}" if fitting else ""
        raise UserError(
            f"Expected {modality} features of shape {shapes[modality]}, which the "
            f"model reads{hint}. Received: shape {shape}",
            **argument,
        )


def check_names(backbones: Backbones, empty: str | None) -> None:
    """Raise UserError if a network, the precision or the modality is unknown."""
    for field, value, known in (
        ("audio_network", backbones.audio_network, AUDIO_NETWORKS),
        ("visual_precision", backbones.visual_precision, PRECISIONS),
        ("empty", empty, (None, *MODALITIES)),
    ):
        if value not in known:
            names = ", ".join(name for name in known if name)
            raise UserError(f"Expected one of {names}", field=field, value=value)
    if backbones.visual_network != HUB:
        recipe_of(backbones.visual_network)


def build_extractor(
    visual_network: str = "resnet152",
    vggish: str | None = None,
    visual_weights: str | None = None,
    empty: str | None = None,
    visual_precision: str = PRECISIONS[0],
    *,
    audio_network: str = "vggish",
    audio_weights: str | None = None,
) -> Extractor:
    """Load the backbones and return an extractor.

    Args:
        visual_network: See `VisualNetwork`.
        vggish: URL or path of VGGish weights; sets `audio_network` and
            `audio_weights`.
        visual_weights: See `VisualNetwork`.
        empty: See `Extractor`.
        visual_precision: See `VisualNetwork`.
        audio_network: See `AudioNetwork`.
        audio_weights: See `AudioNetwork`.

    Raises:
        UserError: If an argument is unknown, a backbone can't be loaded, or Keras runs
            on another backend than TensorFlow.

    Example:
        >>> from avsdn_tf.features.extractor import build_extractor
        >>> extractor = build_extractor("MobileNetV2", audio_network="yamnet")
        >>> audio, visual = extractor.extract("dog.mp4")
        >>> audio.shape, visual.shape
        ((10, 1024), (10, 1280))
    """
    check_backend()
    backbones = (
        Backbones()
        .override(
            audio_network=audio_network,
            audio_weights=audio_weights,
            vggish=vggish,
            visual_network=visual_network,
            visual_weights=visual_weights,
            visual_precision=visual_precision,
        )
        .complete()
    )
    check_names(backbones, empty)
    try:
        # One error names both backbones if neither can be downloaded.
        audio, visual = call_all(
            lambda: AudioNetwork(backbones.audio_weights, backbones.audio_network),
            lambda: VisualNetwork(
                backbones.visual_network, backbones.visual_weights, visual_precision
            ),
        )
    except UserError as error:
        errors = getattr(error, "errors", [error])
        fields = {each.field for each in errors}
        failed = [m for m in MODALITIES if backbones.weights_field(m) in fields]
        if names := find_missing(backbones, failed):
            raise CombinedUserError(
                [
                    *errors,
                    UserError(
                        "Without a network connection: run `avsdn fetch "
                        f"{' '.join(names)} --to=FOLDER` on a connected computer, "
                        "copy FOLDER to this computer, and set the variables that the "
                        "command prints."
                    ),
                ]
            ) from error
        raise
    return Extractor(audio, visual, empty, backbones.resolve())
