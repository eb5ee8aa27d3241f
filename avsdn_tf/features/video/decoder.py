"""Decode the video stream: skip packets that aren't needed, compute presentation times.

Some containers store decoding timestamps (DTS) only. For such files, FFmpeg's
presentation times may be late or out of order. The decoder, however, outputs frames in
presentation order, each with the DTS of the packet that was decoded last. This module
computes the presentation time of a frame by container:

* ASF: the time is this DTS.
* AVI: the time is this DTS less the decoder's reordering delay.
* MXF: the frame rate is constant, so each frame starts when the previous frame ends.
"""

import itertools
import statistics
from collections import deque
from collections.abc import Callable

import av

from avsdn_tf.features.video.clock import to_flicks
from avsdn_tf.features.video.container import Source

# Number of latest packets for the median time between two packets.
_NUM_LATEST = 99


class PictureDecoder:
    """Decodes the packets of the video stream.

    Args:
        source: The open file.
        is_chosen: Returns whether a frame is needed. Its arguments are the start and
            the end of the frame by the file's timestamps, in flicks (see `clock`).
    """

    def __init__(self, source: Source, is_chosen: Callable[[int, int], bool]) -> None:
        self._stream = source.picture
        self._is_chosen = is_chosen
        # Timestamps of packets whose frames the decoder has not yet output.
        self._held: list[int | None] = []
        # Timestamps of the packets that may lack bytes.
        self._doubtful: list[int] = []
        self._format = source.container.format.name
        # Whether the file has decoding timestamps only; None before the first packet.
        self._has_only_dts = {"asf": True, "avi": True, "mxf": None}.get(
            self._format, False
        )
        self._is_first = True
        # DTS of the latest packets.
        self._decoding_times: deque[int] = deque(maxlen=_NUM_LATEST)

    def decode(
        self, packet: av.Packet | None, is_doubtful: bool = False
    ) -> list[tuple[av.VideoFrame, int | None]]:
        """Decode a packet.

        Args:
            packet: The packet; None flushes the decoder.
            is_doubtful: Whether the packet may lack bytes. If its frame is never
                output, a later call raises ValueError.

        Returns:
            Frames in presentation order with their timestamps in the stream's unit, or
            None for a frame that starts when the previous frame ends.
        """
        if packet is not None:
            if self._has_only_dts is None:
                # MXF has both timestamps for some codecs.
                self._has_only_dts = packet.pts == packet.dts
            if packet.dts is not None:
                self._decoding_times.append(packet.dts)
            # Skip a frame that isn't chosen, unless other frames refer to it.
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
        """Return whether a packet's frame may be chosen.

        The frame ends at the latest at the next higher timestamp of the packets read so
        far.
        """
        if self._has_only_dts:
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
        """Forget the packets up to a frame that was output.

        Raise ValueError if the frame of an earlier doubtful packet was never output.
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
        """Return a frame's presentation time; None for the previous frame's end."""
        if not self._has_only_dts:
            return frame.dts if frame.pts is None else frame.pts
        if self._format == "asf":
            return frame.dts
        if self._format == "mxf":
            is_first, self._is_first = self._is_first, False
            return frame.pts if is_first else None
        if frame.dts is None:
            return None
        # Use the median: AVI's empty packets for repeated frames lengthen some steps.
        steps = [later - dts for dts, later in itertools.pairwise(self._decoding_times)]
        usual_step = statistics.median_low(steps or [0])
        return frame.dts - self._stream.codec_context.reorder_depth * usual_step
