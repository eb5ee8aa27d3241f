"""Choose the frames of each second, and convert the chosen frames to RGB.

`frames_per_second=1` chooses the frame shown in the middle of a second. A larger n
chooses the frames shown i / n seconds after the start of the second, i = 0, ..., n - 1,
as in AVE's feature extraction.

The frame shown at time t is the last frame with a timestamp of t or earlier. The first
frame is shown from time 0, and the last frame until the sound ends.

Colours are decoded by the video's colour tags. Without tags, YUV is decoded as players
do: as BT.709 if the frame has at least 720 lines, else as BT.601.

Reference:
    Tian et al., ECCV 2018, https://github.com/YapengTian/AVE-ECCV18. For second
    s of a video with `interval` frames per second, their feature extraction reads the
    video's frames int(s * interval + i / 16 * interval), i = 0, ..., 15.
"""

import math
from collections import deque

import av
import numpy as np
from av.sidedata.sidedata import SideDataContainer
from av.video.reformatter import Colorspace, VideoReformatter

from avsdn_tf.features.video.clock import SECOND_FL

_LONGER_SIDE = 1080
_HD_LINES = 720
# ISO/IEC 23091-2 matrix coefficients: unspecified, reserved.
_NO_MATRICES = {2, 3}


class Picture:
    """Buffers the chosen frames until their second is complete.

    Attributes:
        first_fl: First timestamp in flicks (see `clock`), or None before the first
            frame.
        shown_fl: Start of the latest frame in flicks.
        end_fl: End of the latest frame in flicks.
    """

    def __init__(self, frames_per_second: int) -> None:
        self._frames_per_second = frames_per_second
        # An interval is 1 / frames_per_second seconds. The i-th chosen time of a second
        # is `_first_halves + 2 i` half intervals after the start of the second.
        self._first_halves = 1 if frames_per_second == 1 else 0
        self.first_fl: int | None = None
        self.shown_fl: int | float = -math.inf
        self.end_fl: int | float = -math.inf
        # The latest frame, and its RGB pixels after `_latest` has converted them.
        self._frame: av.VideoFrame | None = None
        self._pixels: np.ndarray | None = None
        # Start and pixels of the chosen frames before the latest frame.
        self._earlier: deque[tuple[int, np.ndarray]] = deque()
        self._size: tuple[int, int] | None = None
        self._reformatter = VideoReformatter()

    def show(
        self, frame: av.VideoFrame, start_fl: int, end_fl: int, zero_fl: int
    ) -> None:
        """Set the latest frame; buffer the previous frame if it is chosen.

        Args:
            frame: The new frame.
            start_fl: Start of the new frame.
            end_fl: End of the new frame.
            zero_fl: Time 0 of the video.
        """
        if self._frame is None:
            self.first_fl = start_fl
            # Show the first frame from time 0.
            start_fl = zero_fl
        elif self.is_chosen(self.shown_fl - zero_fl, start_fl - zero_fl):
            self._earlier.append((self.shown_fl, self._latest()))
        self._frame, self.shown_fl, self._pixels = frame, start_fl, None
        self.end_fl = end_fl

    def is_chosen(self, start_fl: int, end_fl: int) -> bool:
        """Return whether a frame is chosen, given its times relative to time 0."""
        return self._num_chosen_before(start_fl) < self._num_chosen_before(end_fl)

    def _num_chosen_before(self, time_fl: int) -> int:
        """Return the number of chosen times before a time."""
        halves = 2 * time_fl * self._frames_per_second - self._first_halves * SECOND_FL
        return -(-halves // (2 * SECOND_FL))

    def _latest(self) -> np.ndarray:
        """Return the latest frame in RGB, upright and resized to the first frame."""
        if self._pixels is None:
            frame = self._frame
            if self._size is None:
                scale = min(1.0, _LONGER_SIDE / max(frame.width, frame.height))
                self._size = (
                    max(1, round(frame.width * scale)),
                    max(1, round(frame.height * scale)),
                )
            width, height = self._size
            if frame.colorspace in _NO_MATRICES:
                is_hd = frame.height >= _HD_LINES
                frame.colorspace = Colorspace.ITU709 if is_hd else Colorspace.ITU601
            rgb = self._reformatter.reformat(
                frame, width, height, "rgb24", interpolation="AREA"
            )
            self._pixels = turn_upright(rgb.to_ndarray(), frame)
        return self._pixels

    def take(self, start_fl: int) -> np.ndarray:
        """Return the chosen frames of a second, and release earlier frames.

        Args:
            start_fl: Start of the second.

        Returns:
            `(frames_per_second, height, width, 3)` uint8.
        """
        frames = []
        for index in range(self._frames_per_second):
            halves = 2 * index + self._first_halves
            time_fl = start_fl + halves * SECOND_FL // (2 * self._frames_per_second)
            while len(self._earlier) > 1 and self._earlier[1][0] <= time_fl:
                self._earlier.popleft()
            if self.shown_fl <= time_fl:
                self._earlier.clear()
                frames.append(self._latest())
            else:
                frames.append(self._earlier[0][1])
        return np.stack(frames)


def turn_upright(pixels: np.ndarray, frame: av.VideoFrame) -> np.ndarray:
    """Rotate and mirror a frame's pixels by its display matrix.

    The matrix [[a, b, .], [c, d, .], ...] moves a pixel from (x, y) to
    (a x + c y, b x + d y). Angles are rounded to multiples of 90 degrees, the only
    angles that phones write.
    """
    try:
        # `frame.side_data` would create a reference cycle, which delays the release of
        # the frame's memory.
        entry = SideDataContainer(frame)["DISPLAYMATRIX"]
    except KeyError:
        return pixels
    except (TypeError, ValueError):
        # PyAV fails on unknown kinds of side data. `frame.rotation` still works, but
        # ignores mirroring.
        return np.rot90(pixels, round(frame.rotation / 90))
    a, b, _, c, d = np.frombuffer(entry, np.int32, count=5).tolist()
    if abs(b) > abs(a):
        pixels = pixels.swapaxes(0, 1)
        a, d = c, b
    if a < 0:
        pixels = pixels[:, ::-1]
    if d < 0:
        pixels = pixels[::-1]
    return pixels
