"""Inputs of all benchmark programs: network, batches and feature file.

The module doesn't import avsdn_tf, because the baselines import this module.
"""

import dataclasses
from collections.abc import Sequence

import h5py
import numpy as np

AUDIO_WIDTH = 128
NUM_CLASSES = 29
ATTENTION_UNITS = 512
VISUAL_SHAPES = {"avsdn": (2048,), "avel_att": (7, 7, 512)}
FEATURES = ("audio", "visual", "labels")
SPLITS = ("train", "validation")


@dataclasses.dataclass(frozen=True)
class Batch:
    """A network and the shapes of its batches, with AVE's audio width and classes.

    Attributes:
        network: A name of `Config.model`. AVSDN is unidirectional.
        visual_shape: Shape of a segment's visual feature.
        size: Clips per batch.
        num_segments: Segments per clip.
        units: Width of each LSTM in each direction.
    """

    network: str
    visual_shape: Sequence[int]
    size: int = 64
    num_segments: int = 10
    units: int = 128

    def random(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return random audio, visual features and one-hot segment labels."""
        rng = np.random.default_rng(0)
        segments = (self.size, self.num_segments)
        audio = rng.random((*segments, AUDIO_WIDTH), np.float32)
        visual = rng.random((*segments, *self.visual_shape), np.float32)
        return audio, visual, one_hot(rng.integers(NUM_CLASSES, size=segments))

    def __str__(self) -> str:
        shape = " x ".join(map(str, self.visual_shape))
        return f"batch {self.size}, {self.num_segments} segments, features {shape}"


def one_hot(labels: np.ndarray) -> np.ndarray:
    """Return one-hot labels, `(..., NUM_CLASSES)` float32."""
    return np.eye(NUM_CLASSES, dtype=np.float32)[labels]


def load_features(
    path: str, features_dtype: str | None = None, num_clips: int | None = None
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Load a feature file.

    Args:
        path: The file.
        features_dtype: The dtype of audio and visual features; default: as stored.
        num_clips: Number of clips to load, from the first; default: all.

    Returns:
        `FEATURES` of the clips, and the rows of each split.
    """
    with h5py.File(path) as file:
        clips = {}
        for name in FEATURES:
            dtype = file[name].dtype if name == "labels" else features_dtype
            # HDF5 converts while it reads, so no second array is needed.
            clips[name] = file[name].astype(dtype or file[name].dtype)[:num_clips]
        return clips, {split: file[f"rows_{split}"][...] for split in SPLITS}
