"""Times of frames, ends of videos, and detection of damaged videos."""

import contextlib
import itertools
from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest

from avsdn_tf.features import video
from avsdn_tf.features.video import container
from tests.test_video import (
    SIZE,
    click,
    grey_image,
    heard_at,
    levels,
    read,
    refusal,
    sound_packets,
    write,
)

FPS = 25


def encode(output, codec, pts, bframes=0, gop=12, seed=None):
    """Add a stream and yield None; then yield the packets of its frames.

    `pts` are the times of the frames in 1 / FPS s. Frames are grey, or noise if `seed`
    is given.
    """
    stream = output.add_stream(codec, rate=FPS, options={"g": str(gop)})
    stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
    stream.bit_rate = 2_000_000
    stream.codec_context.max_b_frames = bframes
    if codec == "libx264":
        params = f"bframes={bframes}:b-adapt=0:keyint={gop}:scenecut=0"
        stream.codec_context.options = {"x264-params": params}
    yield
    rng = np.random.default_rng(seed)
    for index, time in enumerate(pts):
        image = grey_image(index)
        if seed is not None:
            image = rng.integers(0, 255, image.shape, np.uint8)
        frame = av.VideoFrame.from_ndarray(image, "rgb24")
        frame.pts, frame.time_base = time, Fraction(1, FPS)
        yield from stream.encode(frame)
    yield from stream.encode(None)


def mux(output, *generators):
    for generator in generators:
        next(generator)
    packets = [packet for generator in generators for packet in generator]
    for packet in sorted(packets, key=lambda each: each.dts * each.time_base):
        output.mux(packet)


# Eleven frames, the last of which is shown for ten seconds, and two more frames.
PAUSE = [*range(11), 261, 262]


@pytest.mark.parametrize("bframes", [0, 1, 3])
@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        ("mp4", {}),
        ("mp4", {"movflags": "frag_keyframe+empty_moov"}),
        ("mov", {}),
        ("mkv", {}),
        ("ts", {}),
        ("flv", {}),
    ],
)
def test_a_pause_before_the_last_frames_does_not_lengthen_them(
    tmp_path, suffix, options, bframes
):
    file = str(tmp_path / f"video.{suffix}")
    with av.open(file, "w", options=options) as output:
        mux(output, encode(output, "libx264", PAUSE, bframes))
    seconds = read(file)
    assert [second.index for second in seconds] == list(range(11))
    assert seconds[-1].end_s - seconds[0].start_s == pytest.approx(263 / FPS, abs=0.002)
    assert levels(seconds) == [*[[10]] * 10, [12]]


def test_a_cut_off_file_with_a_pause_is_refused(tmp_path):
    # The cut leaves only the first frames of the last five seconds.
    file = tmp_path / "video.mp4"
    pts = [*range(11), *range(261, 386)]
    with av.open(str(file), "w", options={"movflags": "faststart"}) as output:
        mux(output, encode(output, "libx264", pts, 1, seed=0))
    content = file.read_bytes()
    with av.open(str(file)) as opened:
        packets = [packet for packet in opened.demux() if packet.size]
        cut = packets[13].pos
    assert len(read(file)) == 16
    file.write_bytes(content[:cut])
    message = refusal(file)
    assert "cannot be read beyond 10." in message
    assert "it states 15.4 s, but holds 10." in message


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize(("duration", "num_seconds"), [(None, 1), (0, 1), (5, 5)])
def test_a_single_frame_lasts_for_its_duration(tmp_path, suffix, duration, num_seconds):
    file = str(tmp_path / f"video.{suffix}")
    with av.open(file, "w") as output:
        frames = encode(output, "libx264", [0])
        next(frames)
        (packet,) = frames
        if duration is not None:
            packet.duration = round(duration / packet.time_base)
        output.mux(packet)
    assert levels(read(file)) == [[0]] * num_seconds


def test_slides_last_as_long_as_the_file_states(tmp_path):
    file = str(tmp_path / "video.mp4")
    with av.open(file, "w") as output:
        frames = encode(output, "libx264", [0, 125, 250])
        next(frames)
        for packet in frames:
            packet.duration = round((5 if packet.pts < 250 else 9) / packet.time_base)
            output.mux(packet)
    assert levels(read(file)) == [*[[0]] * 5, *[[1]] * 5, *[[2]] * 9]


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_padding_of_the_last_sound_frame_adds_no_second(tmp_path, rate):
    # An AAC frame lasts 0.13 s at 8 kHz. The last packet states a shorter duration.
    file = str(tmp_path / "sound.mp4")
    with av.open(file, "w") as output:
        sound = sound_packets(output, "aac", click(1, 3, rate), rate, "mono")
        next(sound)
        packets = list(sound)
        last = next(each for each in packets if each.pts + 1024 >= 3 * rate)
        last.duration = 3 * rate - last.pts
        for packet in packets[: packets.index(last) + 1]:
            output.mux(packet)
    seconds = read(file)
    assert len(seconds) == 3
    assert seconds[-1].end_s == 3


@pytest.mark.parametrize("bframes", [0, 1, 2, 3])
@pytest.mark.parametrize(
    ("suffix", "codec"),
    [
        *itertools.product(["avi", "mkv", "wmv"], ["mpeg4", "mpeg2video", "libx264"]),
        ("mxf", "mpeg2video"),
        ("mxf", "libx264"),
    ],
)
def test_frames_are_shown_at_their_time(tmp_path, suffix, codec, bframes):
    file = str(tmp_path / f"video.{suffix}")
    with av.open(file, "w") as output:
        mux(
            output,
            encode(output, codec, range(50), bframes),
            sound_packets(output, "pcm_s16le", click(1.5, 2, 48_000), 48_000, "mono"),
        )
    seconds = read(file, FPS)
    assert np.ravel(levels(seconds)).tolist() == [index % 28 for index in range(50)]
    assert heard_at(seconds) == pytest.approx(1.5, abs=0.002)


@pytest.mark.parametrize("codec", ["mpeg4", "mpeg2video", "libx264"])
@pytest.mark.parametrize("bframes", [0, 2])
def test_empty_packets_in_avi_repeat_the_frame(tmp_path, codec, bframes):
    # Timestamps of a variable frame rate.
    pts = np.cumsum([0, 1, 1, *[1, 2, 1, 1, 4, 1, 3] * 3, 1, 1]).tolist()
    file = str(tmp_path / "video.avi")
    with av.open(file, "w") as output:
        mux(
            output,
            encode(output, codec, pts, bframes),
            sound_packets(output, "pcm_s16le", click(1, 2, 16_000), 16_000, "mono"),
        )
    shown = np.ravel(levels(read(file, FPS))).tolist()
    times = range(pts[-1])
    assert shown[: len(times)] == [sum(time <= at for time in pts) - 1 for at in times]


def packed(packets):
    """Pack frames like DivX: a B-frame shares the packet of its P-frame."""
    contents, packets = [], [*packets, None]
    while (packet := packets.pop(0)) is not None:
        contents.append(bytes(packet))
        if packets[0] is not None and packets[0].pts < packet.pts:
            contents[-1] += bytes(packets.pop(0))
            # An empty frame ("not coded") takes the place of the B-frame.
            contents.append(b"\0\0\1\xb6\x51\0\0")
    # The p at the end of the user data marks a packed stream.
    return [b"\0\0\1\xb2DivX503b1393p" + contents[0], *contents[1:]]


def test_packed_frames_in_avi_are_read(tmp_path):
    file = str(tmp_path / "video.avi")
    with av.open(str(tmp_path / "unpacked.avi"), "w") as output:
        frames = encode(output, "mpeg4", range(51), 1)
        next(frames)
        contents = packed(frames)
    with av.open(file, "w") as output:
        stream = output.add_stream("mpeg4", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for index, content in enumerate(contents):
            packet = av.Packet(content)
            packet.stream, packet.time_base = stream, Fraction(1, FPS)
            packet.pts = packet.dts = index
            packet.is_keyframe = index == 0
            output.mux(packet)
    seconds = read(file, FPS)
    assert np.ravel(levels(seconds))[:50].tolist() == [i % 28 for i in range(50)]


def write_segments(folder, num_segments=4, codec="libx264", bframes=2, **options):
    """Return transport stream segments of one second, with discontinuous counters."""
    pattern = str(folder / "%d.ts")
    options = {"segment_time": "1", "segment_format": "mpegts", **options}
    with av.open(pattern, "w", format="segment", options=options) as output:
        mux(
            output,
            encode(output, codec, range(FPS * num_segments), bframes, gop=FPS, seed=0),
            sound_packets(
                output, "mp2", click(2.5, num_segments, 48_000), 48_000, "mono"
            ),
        )
    segments = []
    for index in range(num_segments):
        content = np.fromfile(folder / f"{index}.ts", np.uint8).reshape(-1, 188)
        # Shift the continuity counters, which may be continuous by chance.
        counters = content[:, 3] + 5 * index
        content[:, 3] = content[:, 3] & 0xF0 | counters & 0x0F
        segments.append(content.tobytes())
    return segments


@pytest.mark.parametrize(
    ("codec", "bframes"), [("libx264", 0), ("libx264", 2), ("mpeg2video", 2)]
)
def test_joined_transport_streams_are_read_in_full(tmp_path, codec, bframes):
    file = tmp_path / "joined.ts"
    file.write_bytes(b"".join(write_segments(tmp_path, codec=codec, bframes=bframes)))
    with av.open(str(file)) as opened:
        assert any(packet.is_corrupt for packet in opened.demux())
    for frames_per_second in (1, FPS):
        seconds = read(file, frames_per_second)
        assert len(seconds) == 4
        assert heard_at(seconds) == pytest.approx(2.5, abs=0.03)


def test_a_transport_stream_without_a_segment_is_damaged(tmp_path):
    first, second, _, last = write_segments(tmp_path)
    file = tmp_path / "joined.ts"
    file.write_bytes(first + second + last)
    assert "s are missing in the middle" in refusal(file)


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
@pytest.mark.parametrize("num_lost", [100, 300])
def test_a_transport_stream_that_lost_packets_is_damaged(tmp_path, codec, num_lost):
    content = b"".join(write_segments(tmp_path, codec=codec))
    file = tmp_path / "lost.ts"
    for place in (0.3, 0.5, 0.7):
        start = int(place * len(content)) // 188 * 188
        file.write_bytes(content[:start] + content[start + 188 * num_lost :])
        refusal(file)


def test_probing_skips_empty_packets(tmp_path, monkeypatch):
    # Theora has empty packets for repeated frames, and its decoder refuses them.
    def refuse():
        raise av.error.ArgumentError(22, "Invalid argument")

    open_video = container.open_video

    @contextlib.contextmanager
    def open_with_empty_packets(path):
        with open_video(path) as source:
            opened = source.container

            def demux(streams):
                for packet in opened.demux(streams):
                    yield SimpleNamespace(size=0, stream=packet.stream, decode=refuse)
                    yield packet

            source.container = SimpleNamespace(
                demux=demux, duration=opened.duration, format=opened.format
            )
            yield source

    monkeypatch.setattr(container, "open_video", open_with_empty_packets)
    file = write(
        str(tmp_path / "video.mkv"),
        images=[grey_image(index) for index in range(10)],
        waveform=click(0.5, 1, 48_000),
        rate=48_000,
    )
    assert video.probe(file) == {"audio", "visual"}
