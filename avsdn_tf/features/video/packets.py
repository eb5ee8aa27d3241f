"""Take the packets of each stream by themselves, however far apart they lie in a file.

The file is read once, and packets of one stream wait while the other one is behind.
Where more than 64 MiB would wait, as in a file that holds all of its sound before its
picture, the file is opened a second time and read once for each stream.

Damage. A packet that is not whole is an error. In MPEG transport streams, whole packets
count as corrupt too, where streams were joined: their counters start again. If bytes
are missing there, either time is missing, or the decoder complains, or a frame doesn't
come out: `next` says of which packets it must.
"""

import math
from collections import deque
from collections.abc import Iterator

import av

from avsdn_tf.features.video.clock import SECOND_FL, to_flicks
from avsdn_tf.features.video.container import Source

_MAX_WAITING_BYTES = 1 << 26
# What a packet takes besides its bytes.
_PACKET_BYTES = 1 << 10
# Streams that were joined do not fit to the sample.
_MAX_SEAM_FL = SECOND_FL // 10
_MAX_ROUNDING_FL = SECOND_FL // 1000
# FFmpeg marks the packet before the damage, or one still earlier.
_NUM_DOUBTFUL = 3


class Packets:
    """Hold the packets of a source that were read and not yet taken.

    `others_end_fl` is where the streams end that are not taken, such as subtitles, as
    far as they were read; minus infinity if there are none.
    """

    def __init__(self, source: Source) -> None:
        self.others_end_fl: int | float = -math.inf
        self._source = source
        self._shared = source.container.demux()
        self._waiting = {stream: deque() for stream in source.streams}
        self._num_waiting_bytes = dict.fromkeys(source.streams, 0)
        # Packets of each stream that were read through the shared container.
        self._num_shared = dict.fromkeys(source.streams, 0)
        self._alone: dict[av.stream.Stream, Iterator[av.Packet]] = {}
        self._latest: dict[av.stream.Stream, av.Packet] = {}
        # How many of the next packets are doubtful.
        self._num_doubtful = dict.fromkeys(source.streams, 0)
        self._is_mpegts = source.container.format.name == "mpegts"

    def next(self, stream: av.stream.Stream) -> tuple[av.Packet | None, bool]:
        """Return the stream's next packet, and whether bytes may be missing in it.

        Returns None after the last packet. Raises ValueError for damage.
        """
        waiting = self._waiting[stream]
        if waiting:
            packet = waiting.popleft()
            self._num_waiting_bytes[stream] -= packet.size + _PACKET_BYTES
        else:
            alone = self._alone.get(stream)
            packet = next(alone, None) if alone else self._read_until(stream)
        if packet is None:
            return None, False
        is_doubtful = self._is_doubtful(stream, packet)
        self._latest[stream] = packet
        return packet, is_doubtful

    def end_of(self, stream: av.stream.Stream) -> int:
        """Return where the stream's latest packet ends in the order of decoding."""
        packet = self._latest[stream]
        end = (packet.dts or 0) + (packet.duration or 0)
        return to_flicks(end, packet.time_base)

    def _read_until(self, wanted: av.stream.Stream) -> av.Packet | None:
        """Return a stream's next packet; let those of the other stream wait."""
        for packet in self._shared:
            # Some containers hold empty packets for repeated frames, but a decoder
            # takes an empty packet for the end.
            if not packet.size:
                continue
            stream = packet.stream
            if stream not in self._waiting:
                self._pass_by(packet)
            elif stream not in self._alone:
                self._num_shared[stream] += 1
                if stream is wanted:
                    return packet
                self._waiting[stream].append(packet)
                self._num_waiting_bytes[stream] += packet.size + _PACKET_BYTES
                if self._num_waiting_bytes[stream] > _MAX_WAITING_BYTES:
                    stream.discard = av.stream.Discard.all
                    self._alone[stream] = self._read_alone(stream)
        return None

    def _read_alone(self, stream: av.stream.Stream) -> Iterator[av.Packet]:
        """Yield a stream's packets after those of the shared container."""
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

    def _pass_by(self, packet: av.Packet) -> None:
        """Record the end of a stream that is not taken."""
        if None not in (packet.pts, packet.time_base):
            # A duration is the time to the next packet, which may be shown earlier.
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
            # What was joined starts earlier. `Clock` checks by how much.
            num_doubtful = 0 if gap_fl < -_MAX_ROUNDING_FL else num_doubtful - 1
        if packet.is_corrupt:
            num_doubtful = _NUM_DOUBTFUL
        self._num_doubtful[stream] = num_doubtful
        return num_doubtful > 0
