"""Decode the picture: which packets can be skipped, and when each frame is shown."""

from collections.abc import Callable

import av

from avsdn_tf.features.video.clock import MAX_APART_S, to_flicks
from avsdn_tf.features.video.container import Source


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
        # After a flush, the decoder can only continue from a key frame.
        self._is_flushed = False
        # AVI has no timestamps, and FFmpeg numbers frames of H.264 in the order of
        # decoding. There, a frame's time is the count of packets that went in, less
        # the count that the decoder held back before its first frame.
        self._counts_packets = (
            source.container.format.name == "avi"
            and self._stream.codec_context.name == "h264"
        )
        self._first_count: int | None = None
        self._num_held_back: int | None = None

    def decode(
        self, packet: av.Packet | None
    ) -> list[tuple[av.VideoFrame, int | None]]:
        """Decode a packet; None makes the decoder hand out all frames.

        Returns frames in the order that they are shown in, with their timestamps in the
        stream's unit, or None for a frame without a timestamp.
        """
        if packet is not None:
            if self._is_flushed and not packet.is_keyframe:
                raise ValueError(f"its picture stands still for over {MAX_APART_S} s")
            self._is_flushed = False
            # Most frames are not chosen. Skip those that no other frame is made from.
            needed = self._may_be_chosen(packet)
            self._stream.codec_context.skip_frame = "DEFAULT" if needed else "NONREF"
            self._held.append(packet.pts)
            # Decoders drop the packets before the first key frame.
            if self._first_count is None and packet.is_keyframe:
                self._first_count = packet.dts
        frames = []
        for frame in self._stream.decode(packet):
            self._release(frame)
            timestamp = frame.dts if frame.pts is None else frame.pts
            if self._counts_packets:
                timestamp = self._count_of(frame)
            frames.append((frame, timestamp))
        return frames

    def flush(self) -> list[tuple[av.VideoFrame, int | None]]:
        """Return the frames that the decoder holds, perhaps the last of the video."""
        if not self._held:
            return []
        frames = self.decode(None)
        self._stream.codec_context.flush_buffers()
        self._held = []
        self._is_flushed = True
        return frames

    def _may_be_chosen(self, packet: av.Packet) -> bool:
        """Return whether a chosen time may lie between a frame and the frame after."""
        if self._counts_packets:
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
        """Forget a frame that came out, and earlier frames, which never will."""
        held = [
            pts for pts in self._held if None in (pts, frame.pts) or pts > frame.pts
        ]
        if len(held) == len(self._held) and None in held:
            held.remove(None)
        self._held = held

    def _count_of(self, frame: av.VideoFrame) -> int | None:
        """Return a frame's time as a count of packets; None after the last packet."""
        if frame.dts is None or self._first_count is None:
            return None
        if self._num_held_back is None:
            self._num_held_back = frame.dts - self._first_count
        return frame.dts - self._num_held_back
