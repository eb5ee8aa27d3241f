"""Turn videos into the features that every network of the package reads."""

import dataclasses
import os
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from avsdn_tf.backbones import HUB, Backbones
from avsdn_tf.errors import UserError, call_all
from avsdn_tf.features.audio import AUDIO_NETWORKS, AudioNetwork
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
# Seconds that go through the backbones together: enough to keep them busy, and few
# enough that memory depends on neither the video's length nor the size of its frames.
_CHUNK_S = 16
_CHUNK_BYTES = 64 << 20


@dataclasses.dataclass(frozen=True, eq=False)
class Chunk:
    """The features of consecutive seconds: `(num_seconds, ...)` float32.

    `start_s` and `end_s` are on the players' clock; see `Second`.
    """

    audio: np.ndarray
    visual: np.ndarray
    start_s: float
    end_s: float


@dataclasses.dataclass(frozen=True)
class Extractor:
    """Makes the audio and visual features of videos.

    Attributes:
        audio: Makes features of sound: an `AudioNetwork`, or an object with the same
            `width` and call.
        visual: Makes features of pictures: a `VisualNetwork`, or an object with the
            same `shape`, `frames_per_second` and call.
        empty: A modality that a video may lack, `"audio"` or `"visual"`: its features
            are zeros then. None: both are required.
        backbones: Description of `audio` and `visual`.
        limits: Memory and time that a video may take. A child process reads it.
    """

    audio: AudioNetwork
    visual: VisualNetwork
    empty: str | None = None
    backbones: Backbones = dataclasses.field(default_factory=Backbones)
    limits: Limits = DEFAULT_LIMITS

    def check_fits(self, model: Any) -> None:
        """Check that a model reads features of these backbones.

        Raises:
            UserError: If the model was trained on features of another network, or reads
                another width or shape.
        """
        check_network(model, self.backbones, "audio", (self.audio.width,))
        check_network(model, self.backbones, "visual", tuple(self.visual.shape))

    def find_missing(self, path: str | os.PathLike[str]) -> str | None:
        """Return the modality that a video lacks, or None.

        Raises:
            VideoError: If the video lacks a modality that is required, or can't be
                read.
        """
        found = describe_in_child(path, self.limits).modalities
        missing = [name for name in MODALITIES if name not in found]
        if not missing:
            return None
        if missing != [self.empty]:
            what = {"audio": "sound", "visual": "picture"}[missing[0]]
            raise VideoError(
                f"{path}: has no {what}. Expected sound and picture, since an event is "
                f'heard and seen. Set empty="{missing[0]}" to use zeros instead.'
            )
        return missing[0]

    def stream(self, path: str | os.PathLike[str]) -> Iterator[Chunk]:
        """Yield a video's features in chunks of a few seconds, in order of time.

        Memory grows with neither the length of the video nor the size of its frames.

        Raises:
            VideoError: If the video can't be read, lacks a modality, or needs more than
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
                    f"{seconds[0].start_s:.0f} s. Expected finite ones. Check that the "
                    "backbones have their own weights."
                )
        return Chunk(audio, visual, seconds[0].start_s, seconds[-1].end_s)


def join(chunks: Iterable[Chunk]) -> tuple[np.ndarray, np.ndarray]:
    """Return the concatenated audio and visual features of chunks."""
    pairs = [(chunk.audio, chunk.visual) for chunk in chunks]
    audio, visual = (deque(parts) for parts in zip(*pairs, strict=True))
    del pairs
    return _concatenate(audio), _concatenate(visual)


def _concatenate(parts: deque[np.ndarray]) -> np.ndarray:
    """Do what `np.concatenate` does, and free the parts one by one."""
    num_rows = sum(map(len, parts))
    whole = np.empty((num_rows, *parts[0].shape[1:]), parts[0].dtype)
    start = 0
    while parts:
        part = parts.popleft()
        whole[start : start + len(part)] = part
        start += len(part)
    return whole


def check_network(
    model: Any, backbones: Backbones, modality: str, shape: tuple[int, ...]
) -> None:
    """Check that a model reads features of a modality's network, and of a shape.

    Raises:
        UserError: If it doesn't.
    """
    name = f"{modality}_network"
    recorded = Backbones.from_dict(getattr(model, "backbones", None))
    expected, received = getattr(recorded, name), getattr(backbones, name)
    where = {"field": name, "value": received}
    if None not in (expected, received) and expected != received:
        raise UserError(
            f"Expected {expected}, which made the features that the model was trained "
            f"on. Received: {received}",
            **where,
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
            **where,
        )


def check_names(backbones: Backbones, empty: str | None) -> None:
    """Raise UserError if there is no such network, precision or modality."""
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
    """Load the backbones that make features.

    Args:
        visual_network: See `VisualNetwork`.
        vggish: Short for `audio_weights` of the network VGGish.
        visual_weights: See `VisualNetwork`.
        empty: See `Extractor`.
        visual_precision: See `VisualNetwork`.
        audio_network: See `AudioNetwork`.
        audio_weights: See `AudioNetwork`.

    Raises:
        UserError: If an argument is unknown, a backbone can't be loaded, or Keras runs
            on another backend than TensorFlow.
    """
    check_backend()
    made = Backbones().override(
        audio_network=audio_network,
        audio_weights=audio_weights,
        vggish=vggish,
        visual_network=visual_network,
        visual_weights=visual_weights,
        visual_precision=visual_precision,
    )
    made = made.complete()
    check_names(made, empty)
    # Where both have to be downloaded first, one message names both.
    audio, visual = call_all(
        lambda: AudioNetwork(made.audio_weights, made.audio_network),
        lambda: VisualNetwork(
            made.visual_network, made.visual_weights, visual_precision
        ),
    )
    return Extractor(audio, visual, empty, made.resolve())
