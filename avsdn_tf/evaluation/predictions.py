"""Outputs of a network on a split, and their file format."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeVar

import numpy as np

from avsdn_tf.arrays import open_npz, read_npz
from avsdn_tf.errors import first_line
from avsdn_tf.files import atomic_write, open_regular

_T = TypeVar("_T", bound="ClipArrays")


class ClipArrays:
    """Base class of dataclasses whose arrays have one row per clip."""

    DTYPES: ClassVar[Mapping[str, type]]

    def __post_init__(self) -> None:
        """Convert the arrays to their dtypes."""
        for name, dtype in self.DTYPES.items():
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the arrays as an npz file, atomically."""
        with atomic_write(Path(path)) as tmp_path:
            np.savez(tmp_path, **{name: getattr(self, name) for name in self.DTYPES})

    @classmethod
    def load(cls: type[_T], path: str | os.PathLike[str]) -> _T:
        """Load a file that `save` wrote; raise ValueError if it can't be loaded."""
        expected = {name: (None, np.dtype(dtype)) for name, dtype in cls.DTYPES.items()}
        try:
            with open_regular(path) as file:
                return cls(**read_npz(open_npz(file), expected))
        except (OSError, ValueError) as error:
            raise ValueError(
                f"Expected predictions of a run, with {', '.join(cls.DTYPES)}, in "
                f"{path}. Received: {first_line(error)}"
            ) from error


@dataclass(frozen=True, eq=False)
class Predictions(ClipArrays):
    """Logits and labels of the clips of a split with K categories.

    Shorter clips are padded at their end: padding has the label -1 and undefined
    logits.

    Attributes:
        row: Row of each clip in Annotations.txt, `(num_clips,)` int64.
        logits: `(num_clips, num_segments, K + 1)` float32, background last; if
            multi-label, `(num_clips, num_segments, K)`.
        labels: True class of each segment, `(num_clips, num_segments)` int64; if
            multi-label, 1 where a category is active, else 0, `(num_clips,
            num_segments, K)` int8.
        clip_labels: True class of each clip, `(num_clips,)` int64.

    Raises:
        ValueError: If the shapes are inconsistent, or a multi-label label is not -1, 0
            or 1.
    """

    DTYPES: ClassVar = {
        "row": np.int64,
        "logits": np.float32,
        "labels": np.int64,
        "clip_labels": np.int64,
    }
    row: np.ndarray
    logits: np.ndarray
    labels: np.ndarray
    clip_labels: np.ndarray

    def __post_init__(self) -> None:
        """Convert the arrays to their dtypes and check their shapes."""
        super().__post_init__()
        shape = self.logits.shape
        fits = (
            self.logits.ndim == 3
            and self.labels.shape == (shape if self.multi_label else shape[:2])
            and self.row.shape == self.clip_labels.shape == shape[:1]
        )
        if not fits:
            raise ValueError(
                "Expected row (N,), logits (N, T, K + 1), labels (N, T) and "
                "clip_labels (N,), or logits and labels (N, T, K). Received: row "
                f"{self.row.shape}, logits {shape}, labels {self.labels.shape}, "
                f"clip_labels {self.clip_labels.shape}"
            )
        if self.multi_label:
            if self.labels.size and (self.labels.min() < -1 or self.labels.max() > 1):
                raise ValueError("Expected multi-label labels of -1, 0 and 1.")
            object.__setattr__(self, "labels", self.labels.astype(np.int8))

    @property
    def multi_label(self) -> bool:
        """Whether segments may have several categories."""
        return self.labels.ndim == 3

    @property
    def is_real(self) -> np.ndarray:
        """Mask of the segments that are not padding, `(num_clips, num_segments)`."""
        real = self.labels >= 0
        return real.all(axis=2) if self.multi_label else real
