"""Read the packets of each stream separately, however they are interleaved.

The file is read once, and packets of one stream are queued while the other stream is
behind. Beyond 64 MiB of queued packets, as in a file with all sound before the picture,
the file is opened again and read once per stream.

A corrupt packet is an error, except in MPEG transport streams: FFmpeg also marks intact
packets as corrupt where two streams were joined, because counters restart there. `next`
marks these packets as doubtful. If bytes are really missing,
there is a gap in the timestamps, the decoder fails, or the decoder outputs no frame for
a doubtful packet.
"""

import math
from collections import deque
from collections.abc import Iterator

import av

from avsdn_tf.features.video.clock import SECOND_FL, to_flicks
from avsdn_tf.features.video.container import Source

_MAX_WAITING_BYTES = 1 << 26
# Overhead of a packet besides its data.
_PACKET_BYTES = 1 << 10
# Gap to tolerate where two streams were joined.
_MAX_SEAM_FL = SECOND_FL // 10
_MAX_ROUNDING_FL = SECOND_FL // 1000
# The damage may be up to this many packets after the packet that FFmpeg marks.
_NUM_DOUBTFUL = 3


class Packets:
    """Reads and queues the packets of a source.

    Attributes:
        others_end_fl: Latest end of the other streams, such as subtitles, in the part
            of the file that was read; minus infinity if there are none.
    """

    def __init__(self, source: Source) -> None:
        self.others_end_fl: int | float = -math.inf
        self._source = source
        self._shared = source.container.demux()
        self._waiting = {stream: deque() for stream in source.streams}
        self._num_waiting_bytes = dict.fromkeys(source.streams, 0)
        # Number of packets read through the shared container.
        self._num_shared = dict.fromkeys(source.streams, 0)
        self._alone: dict[av.stream.Stream, Iterator[av.Packet]] = {}
        self._latest: dict[av.stream.Stream, av.Packet] = {}
        # Number of further packets to treat as doubtful.
        self._num_doubtful = dict.fromkeys(source.streams, 0)
        self._is_mpegts = source.container.format.name == "mpegts"

    def next(self, stream: av.stream.Stream) -> tuple[av.Packet | None, bool]:
        """Return the stream's next packet, and whether it is doubtful.

        The packet is None at the end of the stream. Raises ValueError for damage.
        """
        waiting = self._waiting[stream]
        if waiting:
            packet = waiting.popleft()
            self._num_waiting_bytes[stream] -= packet.size + _PACKET_BYTES
        else:
            alone = self._alone.get(stream)
            packet = next(alone, None) if alone else self._read_next(stream)
        if packet is None:
            return None, False
        is_doubtful = self._is_doubtful(stream, packet)
        self._latest[stream] = packet
        return packet, is_doubtful

    def end_of(self, stream: av.stream.Stream) -> int:
        """Return the end of the stream's latest packet by its decoding timestamp."""
        packet = self._latest[stream]
        end = (packet.dts or 0) + (packet.duration or 0)
        return to_flicks(end, packet.time_base)

    def _read_next(self, target: av.stream.Stream) -> av.Packet | None:
        """Return the target stream's next packet; queue the other stream's packets."""
        for packet in self._shared:
            # Skip empty packets, which some containers hold for repeated frames: to a
            # decoder, an empty packet is the end of the stream.
            if not packet.size:
                continue
            stream = packet.stream
            if stream not in self._waiting:
                self._record_end(packet)
            elif stream not in self._alone:
                self._num_shared[stream] += 1
                if stream is target:
                    return packet
                self._waiting[stream].append(packet)
                self._num_waiting_bytes[stream] += packet.size + _PACKET_BYTES
                if self._num_waiting_bytes[stream] > _MAX_WAITING_BYTES:
                    stream.discard = av.stream.Discard.all
                    self._alone[stream] = self._read_alone(stream)
        return None

    def _read_alone(self, stream: av.stream.Stream) -> Iterator[av.Packet]:
        """Reopen the file, and yield a stream's packets that weren't read before."""
        num_skipped = self._num_shared[stream]
        with self._source.reopen() as container:
            own = container.streams[stream.index]
            for other in set(container.streams) - {own}:
                other.discard = av.stream.Discard.all
            for packet in container.demux(own):
                if packet.size and num_skipped:
                    num_skipped -= 1
                elif packet.size:
                    yield packet

    def _record_end(self, packet: av.Packet) -> None:
        """Update `others_end_fl`."""
        if None not in (packet.pts, packet.time_base):
            # The duration is the time from this packet's DTS to the next packet's DTS.
            next_dts = (packet.dts or packet.pts) + (packet.duration or 0)
            end_fl = to_flicks(max(packet.pts, next_dts), packet.time_base)
            self.others_end_fl = max(self.others_end_fl, end_fl)

    def _is_doubtful(self, stream: av.stream.Stream, packet: av.Packet) -> bool:
        if not self._is_mpegts:
            if packet.is_corrupt:
                raise ValueError("a part of it is damaged or cut off")
            return False
        num_doubtful = self._num_doubtful[stream]
        if num_doubtful:
            gap_fl = to_flicks(packet.dts or 0, packet.time_base) - self.end_of(stream)
            if gap_fl > _MAX_SEAM_FL:
                gap_s = gap_fl / SECOND_FL
                raise ValueError(f"{gap_s:.1f} s are missing in the middle")
            # A step back means a joined stream, not damage; `Clock` limits the step.
            num_doubtful = 0 if gap_fl < -_MAX_ROUNDING_FL else num_doubtful - 1
        if packet.is_corrupt:
            num_doubtful = _NUM_DOUBTFUL
        self._num_doubtful[stream] = num_doubtful
        return num_doubtful > 0
