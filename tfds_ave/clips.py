"""A clip, whatever its source, and the TFDS example made of it."""

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Clip:
    """One clip.

    Attributes:
        row: Row of Annotations.txt or manifest.csv; in the background split, row of the
            noisy files.
        video_id: YouTube id, or another name for clips without one.
        audio: `(num_segments, audio_width)`.
        visual: `(num_segments, *visual_shape)`.
        segment_labels: `(num_segments,)` class indices.
        clip_label: Class index of the clip.
        start_s: Start of the (first) event in seconds.
        end_s: End of the (last) event in seconds.
        match_split: Split of cross-modality localization, AVE's *_match.
    """

    row: int
    video_id: str
    audio: np.ndarray
    visual: np.ndarray
    segment_labels: np.ndarray
    clip_label: int
    start_s: float
    end_s: float
    match_split: str

    def to_example(self, num_classes: int) -> dict[str, Any]:
        """Return the TFDS example, with the mean of the one-hot segment labels."""
        counts = np.bincount(self.segment_labels, minlength=num_classes)
        mean = (counts / len(self.segment_labels)).astype(np.float32)
        return {**vars(self), "segment_label_mean": mean}


def background_name(row: int) -> str:
    """Return the `video_id` of a background clip, which AVE leaves without one."""
    return f"background_{row:03d}"
