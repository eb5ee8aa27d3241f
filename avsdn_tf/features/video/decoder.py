"""Decode the picture: which packets can be skipped, and when each frame is shown.

Some containers hold times of decoding alone. FFmpeg computes from them when a frame is
shown, by rules that differ by codec: frames would be late or out of order. But decoders
hand out frames in order, each with the time of the packet that pushed it out:

* In ASF, that is the time at which the frame is shown.
* AVI counts packets, and its sound starts at 0. A frame is shown as many packets
  earlier as the decoder holds back to order frames.
* MXF has a constant frame rate. A frame is shown after the frame before it.
"""

import itertools
import statistics
from collections import deque
from collections.abc import Callable

import av

from avsdn_tf.features.video.clock import to_flicks
from avsdn_tf.features.video.container import Source

# Packets whose usual distance is taken.
_NUM_LATEST = 99


class PictureDecoder:
    """Decode the packets of the picture.

    `is_chosen` returns whether a frame is needed that is shown between two times, in
    flicks by the file's timestamps.
    """

    def __init__(self, source: Source, is_chosen: Callable[[int, int], bool]) -> None:
        self._stream = source.picture
        self._is_chosen = is_chosen
        # Timestamps of the frames that the decoder holds.
        self._held: list[int | None] = []
        # Those of doubtful packets.
        self._doubtful: list[int] = []
        self._format = source.container.format.name
        # Whether the timestamps are times of decoding alone; None before the first.
        self._times_decoding = {"asf": True, "avi": True, "mxf": None}.get(
            self._format, False
        )
        self._is_first = True
        # When the latest packets are decoded.
        self._decoding_times: deque[int] = deque(maxlen=_NUM_LATEST)

    def decode(
        self, packet: av.Packet | None, is_doubtful: bool = False
    ) -> list[tuple[av.VideoFrame, int | None]]:
        """Decode a packet; None makes the decoder hand out all frames.

        If bytes may be missing in the packet, its frame must come out.

        Returns frames in the order that they are shown in, with their timestamps in the
        stream's unit, or None for a frame without a timestamp.
        """
        if packet is not None:
            if self._times_decoding is None:
                # MXF has both times for some codecs.
                self._times_decoding = packet.pts == packet.dts
            if packet.dts is not None:
                self._decoding_times.append(packet.dts)
            # Most frames are not chosen. Skip those that no other frame is made from.
            needed = is_doubtful or self._may_be_chosen(packet)
            self._stream.codec_context.skip_frame = "DEFAULT" if needed else "NONREF"
            self._held.append(packet.pts)
            if is_doubtful and packet.pts is not None:
                self._doubtful.append(packet.pts)
        frames = []
        for frame in self._stream.decode(packet):
            self._release(frame)
            frames.append((frame, self._timestamp_of(frame)))
        return frames

    def _may_be_chosen(self, packet: av.Packet) -> bool:
        """Return whether a chosen time may lie between a frame and the frame after."""
        if self._times_decoding:
            return True
        later = [
            pts
            for pts in self._held
            if None not in (pts, packet.pts) and pts > packet.pts
        ]
        if not later:
            return True
        start_fl, end_fl = (
            to_flicks(pts, packet.time_base) for pts in (packet.pts, min(later))
        )
        return self._is_chosen(start_fl, end_fl)

    def _release(self, frame: av.VideoFrame) -> None:
        """Forget a frame that came out, and earlier frames, which never will.

        Raises ValueError if one of these was made of a doubtful packet.
        """
        held = [
            pts for pts in self._held if None in (pts, frame.pts) or pts > frame.pts
        ]
        if len(held) == len(self._held) and None in held:
            held.remove(None)
        self._held = held
        if frame.pts is not None:
            if any(pts < frame.pts for pts in self._doubtful):
                raise ValueError("a picture is missing")
            self._doubtful = [pts for pts in self._doubtful if pts > frame.pts]

    def _timestamp_of(self, frame: av.VideoFrame) -> int | None:
        """Return when a frame is shown; None if that is after the frame before it."""
        if not self._times_decoding:
            return frame.dts if frame.pts is None else frame.pts
        if self._format == "asf":
            return frame.dts
        if self._format == "mxf":
            is_first, self._is_first = self._is_first, False
            return frame.pts if is_first else None
        if frame.dts is None:
            return None
        # Steps differ where AVI repeats a frame by empty packets.
        steps = [later - dts for dts, later in itertools.pairwise(self._decoding_times)]
        usual_step = statistics.median_low(steps or [0])
        return frame.dts - self._stream.codec_context.reorder_depth * usual_step
