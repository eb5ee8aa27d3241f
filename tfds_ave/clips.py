"""A clip as the builder takes it, whatever it was read or made from."""

import dataclasses
from typing import Any

import numpy as np

# The splits of the cross-modality task.
MATCH_SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class Clip:
    """One clip.

    Attributes:
        row: Row of Annotations.txt; of the noisy files in the background split.
        video_id: YouTube id, or a made-up name where there is none.
        audio: `(num_segments, audio_width)`.
        visual: `(num_segments, *visual_shape)`.
        segment_labels: `(num_segments,)` class indices.
        clip_label: Class index of the clip.
        start_s: When the event begins, in seconds: whole ones in AVE; the first of
            several.
        end_s: When it ends; the last of several.
        match_split: Split of the cross-modality task: one of `MATCH_SPLITS`.
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
        """Returns the TFDS example, with the mean of the one-hot segment labels."""
        counts = np.bincount(self.segment_labels, minlength=num_classes)
        return {
            "row": self.row,
            "video_id": self.video_id,
            "audio": self.audio,
            "visual": self.visual,
            "segment_labels": self.segment_labels,
            "clip_label": self.clip_label,
            "segment_label_mean": (counts / len(self.segment_labels)).astype(
                np.float32
            ),
            "start_s": self.start_s,
            "end_s": self.end_s,
            "match_split": self.match_split,
        }


def background_name(row: int) -> str:
    """Returns a background clip's `video_id`: AVE gives none, and this can't be one."""
    return f"background_{row:03d}"
