"""Read videos second by second: `reader`. `picture` says which frames are chosen."""

from avsdn_tf.features.video.container import VideoError, VideoInfo, probe
from avsdn_tf.features.video.find import find_videos
from avsdn_tf.features.video.reader import Second, read_seconds
from avsdn_tf.features.video.sound import SAMPLE_RATE_HZ

__all__ = [
    "SAMPLE_RATE_HZ",
    "Second",
    "VideoError",
    "VideoInfo",
    "find_videos",
    "probe",
    "read_seconds",
]
