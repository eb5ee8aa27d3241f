"""Decode videos second by second.

`reader` decodes a video, `process` runs `reader` in a child process, and `picture`
chooses the frames of a second.
"""

from avsdn_tf.features.video.container import (
    VideoError,
    VideoInfo,
    describe,
    find_videos,
    probe,
)
from avsdn_tf.features.video.reader import Second, read_seconds
from avsdn_tf.features.video.sound import SAMPLE_RATE_HZ

__all__ = [
    "SAMPLE_RATE_HZ",
    "Second",
    "VideoError",
    "VideoInfo",
    "describe",
    "find_videos",
    "probe",
    "read_seconds",
]
