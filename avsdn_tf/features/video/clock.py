"""Convert a video's times to flicks, and check its timestamps.

Time 0 is the smaller of the first timestamps of picture and sound. A `ValueError` is
raised for timestamps that can't align picture and sound:

* a timestamp more than 600 s after all earlier frames and the file's stated end;
* a timestamp more than 1 s before the previous frame's;
* a gap of more than 1 s in picture and sound at once, because FFmpeg skips damaged
  bytes without an error. A gap in one stream may be intended, such as a still picture.
"""

import math
from fractions import Fraction

# A flick is 1 / 705,600,000 s. Common frame rates, sample rates and container clocks
# are whole numbers of flicks, and integers are ten times as fast as `Fraction`. The
# suffix _fl marks times in flicks.
SECOND_FL = 705_600_000
# A damaged or malicious header may state a length of years.
MAX_LENGTH_S = 24 * 60 * 60
# A longer gap counts as damage.
MAX_MISSING_FL = SECOND_FL
_MAX_STEP_BACK_FL = SECOND_FL
_MAX_JUMP_S = 600
_MAX_JUMP_FL = _MAX_JUMP_S * SECOND_FL
_MAX_LENGTH_FL = MAX_LENGTH_S * SECOND_FL


def to_flicks(count: int, unit_s: Fraction) -> int:
    """Return `count * unit_s` in whole flicks.

    Times that are whole seconds apart stay so, because all times are rounded down.
    """
    numerator, denominator = unit_s.as_integer_ratio()
    return count * numerator * SECOND_FL // denominator


class Clock:
    """Checks the timestamps of a video.

    Args:
        stated_end_fl: The file's stated end; minus infinity if the file states no end.

    Attributes:
        zero_fl: Time 0, or None while it is unknown.
    """

    def __init__(self, stated_end_fl: int | float) -> None:
        self.zero_fl: int | None = None
        self._stated_end_fl = stated_end_fl
        # The latest gap of each stream.
        self._gaps: dict[str, tuple[int, int]] = {}
        # The longest time between two frames.
        self._longest_interval_fl: int | None = None

    def start(self, picture_fl: int, sound_fl: int | None) -> None:
        """Set time 0 to the smaller first timestamp of picture and, if any, sound."""
        if sound_fl is not None and abs(picture_fl - sound_fl) > _MAX_JUMP_FL:
            raise ValueError(f"its sound and picture start over {_MAX_JUMP_S} s apart")
        self.zero_fl = picture_fl if sound_fl is None else min(picture_fl, sound_fl)

    def check_jump(self, time_fl: int, end_fl: int | float) -> None:
        """Raise ValueError if a time is too far after the end of all earlier frames.

        `end_fl` is minus infinity before the first frame. The first timestamp may have
        any value: a recorder may count from the moment when it was switched on.
        """
        self.check_length(time_fl)
        limit_fl = max(end_fl, self._stated_end_fl) + _MAX_JUMP_FL
        if end_fl > -math.inf and time_fl > limit_fl:
            raise ValueError(
                f"its timestamps jump forwards by {(time_fl - end_fl) / SECOND_FL:.1f} "
                "s"
            )

    def check_length(self, end_fl: int | float) -> None:
        """Raise ValueError if the video is longer than `MAX_LENGTH_S`."""
        if self.zero_fl is not None and end_fl > self.zero_fl + _MAX_LENGTH_FL:
            raise ValueError(f"it lasts longer than {MAX_LENGTH_S // 3600} h")

    def check_step_back(self, kind: str, time_fl: int, latest_fl: int | float) -> None:
        """Raise ValueError if a frame starts over 1 s before the previous frame.

        Args:
            kind: Kind of the stream, for the message.
            time_fl: Start of the frame.
            latest_fl: Start of the previous video frame, or end of the previous sound
                frame.
        """
        if time_fl < latest_fl - _MAX_STEP_BACK_FL:
            raise ValueError(
                f"the timestamps of its {kind} stream jump back by "
                f"{(latest_fl - time_fl) / SECOND_FL:.1f} s"
            )

    def check_interval(self, start_fl: int, end_fl: int) -> None:
        """Check for a gap in the picture.

        A gap is over 1 s longer than every earlier interval between frames.
        """
        usual_fl = self._longest_interval_fl
        if usual_fl is not None and end_fl - start_fl > usual_fl + MAX_MISSING_FL:
            self.check_gap("picture", start_fl, end_fl)
        self._longest_interval_fl = max(usual_fl or 0, end_fl - start_fl)

    def check_gap(self, kind: str, start_fl: int, end_fl: int) -> None:
        """Raise ValueError if the other stream has a gap at the same time."""
        self._gaps[kind] = (start_fl, end_fl)
        starts, ends = zip(*self._gaps.values(), strict=True)
        missing_fl = min(ends) - max(starts)
        if len(starts) == 2 and missing_fl > MAX_MISSING_FL:
            raise ValueError(
                f"{missing_fl / SECOND_FL:.1f} s are missing in the middle"
            )
