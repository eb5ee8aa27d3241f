"""Define a clip, convert it to a TFDS example, and read its feature files."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from avsdn_tf.arrays import open_npy
from tfds_ave.errors import DatasetError, shorten

# Containers round the length of a video by up to a second.
TOLERANCE_SEGMENTS = 1


@dataclasses.dataclass(frozen=True)
class Clip:
    """One clip: features, class indices and times; README.md describes the fields.

    `start_s` is the start of the first event, `end_s` the end of the last.
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
        """Return the TFDS example, including the mean of the one-hot segment labels."""
        counts = np.bincount(self.segment_labels, minlength=num_classes)
        mean = (counts / len(self.segment_labels)).astype(np.float32)
        return {**vars(self), "segment_label_mean": mean}


def background_name(row: int) -> str:
    """Return the `video_id` of a background clip. AVE doesn't identify these videos."""
    return f"background_{row:03d}"


def read_shape(path: pathlib.Path) -> tuple[int, ...]:
    """Return the shape of a feature file from its header."""
    try:
        array = open_npy(path)
    except (ValueError, OSError) as error:
        raise DatasetError(
            f"{path}: damaged, or no .npy file ({error}). Expected an array of "
            "features. If it was made from a video, remove the file and build again."
        ) from error
    if array.dtype.kind != "f" or not array.shape:
        raise DatasetError(
            f"{path}: expected floating point features. Received: {array.dtype} of "
            f"shape {array.shape}."
        )
    return array.shape


def check_lengths(lengths: Mapping[str, int], num_segments: int) -> None:
    """Raise DatasetError if lengths differ too much from `num_segments`."""
    wrong = [
        f"{name} {length}"
        for name, length in lengths.items()
        if abs(length - num_segments) > TOLERANCE_SEGMENTS
    ]
    if wrong:
        raise DatasetError(wrong_lengths_message(wrong, len(lengths), num_segments))


def wrong_lengths_message(
    wrong: Sequence[str], num_clips: int, num_segments: int
) -> str:
    """Return an error message; `wrong` lists clips with their lengths."""
    return (
        f"{len(wrong)} of {num_clips} clips have another length than {num_segments} "
        f"segments of one second. Expected at most {TOLERANCE_SEGMENTS} more or fewer. "
        f"Received: {', '.join(shorten(wrong))}. Replace these clips, or cut all clips "
        "to one length."
    )


def cut_warnings(lengths: Mapping[str, int], num_segments: int) -> list[str]:
    """Return a warning about clips that `read_segments` cuts off or pads, if any."""
    other = [name for name, length in lengths.items() if length != num_segments]
    if not other:
        return []
    return [
        f"{len(other)} of {len(lengths)} clips a second longer or shorter than "
        f"{num_segments} s, cut off or padded: {', '.join(shorten(other, 3))}"
    ]


def read_segments(path: pathlib.Path, num_segments: int) -> np.ndarray:
    """Read the features of a clip's segments, `(num_segments, ...)` float32.

    Surplus rows are cut off, and copies of the last row replace missing rows. Check the
    file's length with `check_lengths` first.
    """
    values = read_rows(path)
    missing = num_segments - len(values)
    if missing > 0:
        values = np.concatenate([values, np.repeat(values[-1:], missing, axis=0)])
    return values[:num_segments]


def read_rows(path: pathlib.Path) -> np.ndarray:
    """Read the features in a file as float32; raise DatasetError if not finite."""
    # Overflow is reported below.
    with np.errstate(over="ignore"):
        values = open_npy(path).read().astype(np.float32)
    if not np.isfinite(values).all():
        raise DatasetError(
            f"{path}: NaN or infinite values. Expected finite features. If the file "
            "was made from a video, check that the weights belong to their network, "
            "remove the file and build again."
        )
    return values
