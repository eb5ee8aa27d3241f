"""Decoding of videos that PyAV writes; grey levels identify frames."""

import io
import pathlib
import struct
import tracemalloc
import weakref
from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest

from avsdn_tf.features import video
from avsdn_tf.features.video import packets, picture
from avsdn_tf.features.video.container import Source
from tests.small_videos import REAL_CLIPS, find_clip

SIZE = (64, 48)
FPS = 10
# Container: codecs of picture and sound, and the sound's rate.
CONTAINERS = {
    "mp4": ("libx264", "aac", 44_100),
    "mov": ("mjpeg", "pcm_s16le", 8_000),
    "mkv": ("libx264", "flac", 48_000),
    "avi": ("mpeg4", "pcm_s16le", 22_050),
    "webm": ("libvpx", "libopus", 48_000),
    "ts": ("libx264", "mp2", 32_000),
    "flv": ("flv1", "libmp3lame", 44_100),
}
PIXEL_FORMATS = {"mjpeg": "yuvj420p", "ffv1": "bgr0"}


def grey(index):
    """Return a frame's grey level. Levels are 8 apart to tolerate coding errors."""
    return 16 + 8 * (index % 28)


def level(frame):
    """Return the number of a frame, 0 to 27, from its grey level."""
    return round((float(frame.mean()) - 16) / 8)


def levels(seconds):
    return [[level(frame) for frame in second.frames] for second in seconds]


def grey_image(index, size=SIZE):
    return np.full((size[1], size[0], 3), grey(index), np.uint8)


def click(at_s, length_s, rate, channels=1):
    """Silence with a click of 2 ms in all channels, `(channels, samples)`."""
    sound = np.zeros((channels, round(length_s * rate)), np.float32)
    start = round(at_s * rate)
    sound[:, start : start + rate // 500] = 0.8
    return sound


def picture_packets(container, codec, times_s, images, fps):
    time_base = Fraction(1, 1000)
    height, width = images[0].shape[:2] if images else SIZE[::-1]
    stream = container.add_stream(codec, rate=fps)
    stream.width, stream.height = width, height
    stream.pix_fmt = PIXEL_FORMATS.get(codec, "yuv420p")
    stream.bit_rate = 400_000
    if codec != "mpeg4":
        stream.codec_context.time_base = time_base
    if codec == "libx264":
        # A key frame every second, as from cameras, and reordered B-frames.
        stream.codec_context.options = {
            "g": "10",
            "preset": "veryfast",
            "sc_threshold": "0",
        }
    yield
    for time_s, image in zip(times_s, images, strict=True):
        frame = av.VideoFrame.from_ndarray(image, "rgb24")
        frame.time_base = time_base
        frame.pts = round(time_s / time_base)
        yield from stream.encode(frame)
    yield from stream.encode(None)


def sound_packets(container, codec, waveform, rate, layout, start_s=0.0):
    stream = container.add_stream(codec, rate=rate, layout=layout)
    yield
    resampler = av.AudioResampler(
        stream.format, stream.layout, rate, frame_size=stream.frame_size or 1024
    )
    # Use a packed format: PyAV 18.1 can't fill the planes of more than 7 channels.
    frame = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(waveform.T).reshape(1, -1), "flt", layout
    )
    frame.sample_rate = rate
    frame.time_base = Fraction(1, rate)
    frame.pts = round(start_s * rate)
    for piece in [*resampler.resample(frame), *resampler.resample(None)]:
        if piece is not None:
            yield from stream.encode(piece)
    yield from stream.encode(None)


def write(
    file,
    *,
    times_s=None,
    images=None,
    waveform=None,
    rate=44_100,
    layout="mono",
    start_s=0.0,
    codecs=None,
    fps=FPS,
    order=None,
    silent_s=(0, 0),
    **options,
):
    """Write a video of images and a waveform.

    `times_s`: Times of the images; default: 10 a second.
    `order`: Sort key of the packets; default: their time.
    `silent_s`: Start and end of an interval without packets of sound.
    """
    if codecs is None:
        codecs = CONTAINERS[pathlib.Path(file).suffix[1:]][:2]
    if images is not None and times_s is None:
        times_s = np.arange(len(images)) / FPS
    with av.open(file, "w", **options) as container:
        generators = []
        if images is not None:
            generators.append(
                picture_packets(container, codecs[0], times_s, images, fps)
            )
        if waveform is not None:
            generators.append(
                sound_packets(container, codecs[1], waveform, rate, layout, start_s)
            )
        for generator in generators:
            next(generator)
        packets = [packet for generator in generators for packet in generator]
        packets.sort(key=order or (lambda packet: packet.dts * packet.time_base))
        for packet in packets:
            start_s, end_s = silent_s
            is_sound = packet.stream.type == "audio"
            if not (is_sound and start_s <= packet.dts * packet.time_base < end_s):
                container.mux(packet)
    return file


def read(file, frames_per_second=1):
    return list(video.read_seconds(file, frames_per_second))


def heard_at(seconds):
    """Return the start of the click in seconds: its middle, less 1 ms."""
    waveform = np.concatenate([second.waveform for second in seconds])
    loud = np.flatnonzero(np.abs(waveform) > 0.3 * np.abs(waveform).max())
    return (loud[0] + loud[-1]) / 2 / video.SAMPLE_RATE_HZ - 0.001


def refusal(file):
    """Return the error message of a video that can't be read."""
    with pytest.raises(video.VideoError) as caught:
        read(file)
    message = str(caught.value)
    assert message.startswith(f"{file}: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_every_container_is_read(tmp_path, suffix):
    *codecs, rate = CONTAINERS[suffix]
    file = write(
        str(tmp_path / f"video.{suffix}"),
        # Half a frame late, so that silence that an encoder puts before the sound
        # doesn't change which frames are chosen.
        times_s=0.05 + np.arange(28) / 10,
        images=[grey_image(index) for index in range(28)],
        # AVI has a fixed frame rate, and fills gaps with empty packets.
        fps=20,
        waveform=click(2.25, 2.8, rate),
        rate=rate,
        codecs=codecs,
    )
    seconds = read(file)
    assert [second.index for second in seconds] == [0, 1, 2]
    assert levels(seconds) == [[4], [14], [24]]
    # Encoders blur a click over a few milliseconds. TS and FLV don't record how much
    # silence the encoder put before the sound.
    tolerance_s = 0.03 if suffix in ("ts", "flv") else 0.006
    assert heard_at(seconds) == pytest.approx(2.25, abs=tolerance_s)
    for second in seconds:
        assert second.frames.shape == (1, 48, 64, 3)
        assert second.frames.dtype == np.uint8
        assert second.waveform.shape == (16_000,)
        assert second.waveform.dtype == np.float32
    assert video.probe(file) == {"audio", "visual"}


@pytest.mark.parametrize("frames_per_second", [1, 2, 5, 16])
def test_several_frames_per_second_are_read(tmp_path, frames_per_second):
    images = [grey_image(index) for index in range(25)]
    file = write(str(tmp_path / "video.mkv"), images=images)
    expected = [
        [
            min(24, int(10 * (second + within_s)))
            for within_s in (
                [0.5]
                if frames_per_second == 1
                else np.arange(frames_per_second) / frames_per_second
            )
        ]
        for second in range(3)
    ]
    assert levels(read(file, frames_per_second)) == expected
    with pytest.raises(ValueError, match=r"at least 1\. Received: 0"):
        video.read_seconds(file, 0)


def test_a_frame_is_shown_from_its_timestamp(tmp_path):
    # Frame 2 starts exactly at the middle of second 0. Frame 4 starts just after the
    # middle of second 1. No frame starts in second 2.
    times_s = [0, 0.49, 0.5, 0.51, 1.501, 3.2]
    images = [grey_image(index) for index in range(len(times_s))]
    file = write(str(tmp_path / "video.mkv"), times_s=times_s, images=images)
    assert levels(read(file)) == [[2], [3], [4], [5]]


@pytest.mark.parametrize(("frames_per_second", "fps"), [(5, 5), (5, 25), (16, 2)])
def test_reordered_frames_in_avi_are_read_in_order(tmp_path, frames_per_second, fps):
    # AVI has no timestamps, and FFmpeg's timestamps for H.264 are out of order.
    file = str(tmp_path / "video.avi")
    with av.open(file, "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"bf": "3"})
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for index in range(4 * fps):
            frame = av.VideoFrame.from_ndarray(grey_image(index), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with av.open(file) as container:
        order = [frame.pts for frame in container.decode(video=0)]
        assert order != sorted(order), "FFmpeg orders the timestamps"
    expected = [
        [
            (s * fps + i * fps // frames_per_second) % 28
            for i in range(frames_per_second)
        ]
        for s in range(4)
    ]
    assert levels(read(file, frames_per_second)) == expected


def test_reordered_frames_in_avi_after_a_cut_are_read(tmp_path):
    # Packets before the first key frame can't be decoded, but have a duration.
    file = str(tmp_path / "video.avi")
    with av.open(file, "w") as container:
        options = {"bf": "3", "g": "20", "sc_threshold": "0"}
        stream = container.add_stream("libx264", rate=10, options=options)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        frames = [
            av.VideoFrame.from_ndarray(grey_image(index), "rgb24")
            for index in range(60)
        ]
        packets = [packet for frame in frames for packet in stream.encode(frame)]
        packets += stream.encode(None)
        for packet in packets[7:]:
            container.mux(packet)
    seconds = read(file, 10)
    assert level(seconds[0].frames[0]) == 20
    assert levels(seconds)[1] == [(30 + i) % 28 for i in range(10)]
    # The first frame's decoding time, two frames before its presentation time.
    assert seconds[0].start_s == 1.8


def test_a_picture_of_one_frame_per_second_is_read(tmp_path):
    file = write(
        str(tmp_path / "video.mp4"),
        times_s=range(4),
        images=[grey_image(index) for index in range(4)],
        waveform=click(2.25, 4, 44_100),
    )
    assert levels(read(file)) == [[0], [1], [2], [3]]


CORNERS = np.zeros((48, 64, 3), np.uint8)
CORNERS[:24, :32] = (250, 20, 20)
CORNERS[:24, 32:] = (20, 250, 20)
CORNERS[24:, :32] = (20, 20, 250)
CORNERS[24:, 32:] = (230, 230, 230)


@pytest.mark.parametrize(
    ("matrix", "turn"),
    [
        ((1, 0, 0, 1), lambda image: image),
        ((0, 1, -1, 0), lambda image: np.rot90(image, -1)),
        ((-1, 0, 0, -1), lambda image: np.rot90(image, 2)),
        ((0, -1, 1, 0), lambda image: np.rot90(image, 1)),
        ((-1, 0, 0, 1), lambda image: image[:, ::-1]),
        ((1, 0, 0, -1), lambda image: image[::-1]),
        ((0, 1, 1, 0), lambda image: image.swapaxes(0, 1)),
        ((0, -1, -1, 0), lambda image: image.swapaxes(0, 1)[::-1, ::-1]),
    ],
)
def test_frames_are_upright(tmp_path, matrix, turn):
    file = tmp_path / "phone.mp4"
    write(str(file), images=[CORNERS] * 10)
    content = bytearray(file.read_bytes())
    # ISO 14496-12, 8.3.2: the matrix of the track header, in 16.16 fixed point.
    start = content.index(b"tkhd") + 44
    a, b, c, d = (entry << 16 for entry in matrix)
    struct.pack_into(">9i", content, start, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    file.write_bytes(content)
    (second,) = read(str(file))
    expected = turn(CORNERS).astype(int)
    (frame,) = second.frames.astype(int)
    assert frame.shape == expected.shape
    for row in (4, -4):
        for column in (4, -4):
            np.testing.assert_allclose(
                frame[row, column], expected[row, column], atol=8
            )


# Weights of red and blue in luma, by code of ISO/IEC 23091-2.
LUMA = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 9: (0.2627, 0.0593)}


@pytest.mark.parametrize(
    ("lines", "tag", "color_range", "matrix"),
    [
        (718, 2, 0, 5),
        (720, 2, 0, 1),
        (720, 2, 2, 1),
        (720, 5, 0, 5),
        (720, 9, 0, 9),
        (48, 2, 0, 5),
        (48, 1, 0, 1),
        (48, 1, 2, 1),
    ],
)
def test_colors_are_converted_to_rgb(tmp_path, lines, tag, color_range, matrix):
    luma, *chroma = yuv = (100, 90, 160)
    file = str(tmp_path / "video.mp4")
    with av.open(file, "w") as container:
        stream = container.add_stream("libx264", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, lines, "yuv420p"
        context = stream.codec_context
        context.colorspace, context.color_range = tag, color_range
        for _ in range(5):
            frame = av.VideoFrame(64, lines, "yuv420p")
            frame.colorspace, frame.color_range = tag, color_range
            for plane, value in zip(frame.planes, yuv, strict=True):
                plane.update(bytes([value]) * plane.buffer_size)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    is_full = color_range == 2
    luma = luma / 255 if is_full else (luma - 16) / 219
    cb, cr = ((each - 128) / (255 if is_full else 224) for each in chroma)
    k_red, k_blue = LUMA[matrix]
    red, blue = luma + 2 * (1 - k_red) * cr, luma + 2 * (1 - k_blue) * cb
    green = (luma - k_red * red - k_blue * blue) / (1 - k_red - k_blue)
    (second,) = read(file)
    expected = 255 * np.array([red, green, blue])
    np.testing.assert_allclose(second.frames.mean(axis=(0, 1, 2)), expected, atol=3)


def test_rotation_is_read_beside_unknown_side_data():
    class Frame:
        rotation = 90

        @property
        def side_data(self):
            raise ValueError("38 is not a valid Type")

    turned = picture.turn_upright(CORNERS, Frame())
    np.testing.assert_array_equal(turned, np.rot90(CORNERS))


@pytest.mark.parametrize("size", [(65, 49), (1, 1), (17, 3)])
def test_frames_of_odd_sizes_are_read(tmp_path, size):
    file = str(tmp_path / "video.mkv")
    images = [grey_image(index, size) for index in range(10)]
    write(file, images=images, codecs=("ffv1", "flac"))
    (second,) = read(file)
    np.testing.assert_array_equal(second.frames, images[5][None])


# 7680 x 4320 is 8K.
@pytest.mark.parametrize(("size", "height"), [((1620, 30), 20), ((7680, 4320), 608)])
def test_large_frames_are_scaled_down(tmp_path, size, height):
    file = str(tmp_path / "video.mkv")
    write(file, images=[grey_image(3, size)], codecs=("mjpeg", "flac"))
    (second,) = read(file)
    assert second.frames.shape == (1, height, 1080, 3)
    assert levels([second]) == [[3]]


def test_a_frame_size_that_changes_is_read(tmp_path):
    parts = []
    for size in ((64, 48), (96, 32)):
        part = io.BytesIO()
        images = [grey_image(index, size) for index in range(10)]
        write(part, images=images, codecs=("mjpeg", None), format="mjpeg")
        parts.append(part.getvalue())
    file = tmp_path / "video.mjpeg"
    file.write_bytes(b"".join(parts))
    # FFmpeg assumes 25 frames a second for a stream without timestamps.
    (second,) = read(str(file), 5)
    assert second.frames.shape == (5, 48, 64, 3)
    assert levels([second]) == [[0, 5, 0, 5, 9]]


def test_streams_without_timestamps_are_read(tmp_path):
    file = str(tmp_path / "video.h264")
    images = [grey_image(index) for index in range(25)]
    write(file, images=images, fps=25, codecs=("libx264", None))
    # Frames in presentation order, 25 a second.
    assert levels(read(file, 5)) == [[0, 5, 10, 15, 20]]


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize(
    ("layout", "channels"), [("mono", 1), ("stereo", 2), ("5.1", 6), ("7.1", 8)]
)
def test_channels_and_rates_are_converted(tmp_path, rate, layout, channels):
    file = str(tmp_path / "sound.wav")
    waveform = click(2.25, 3, rate, channels)
    waveform[:, rate : 3 * rate // 2] = 0.6
    write(file, waveform=waveform, rate=rate, layout=layout, codecs=(None, "pcm_s16le"))
    seconds = read(file)
    assert len(seconds) == 3
    assert all(second.frames is None for second in seconds)
    assert heard_at(seconds[2:]) + 2 == pytest.approx(2.25, abs=0.002)
    # The mean of equal channels is as loud as each channel.
    np.testing.assert_allclose(seconds[1].waveform[1000:7000], 0.6, atol=0.01)
    assert video.probe(file) == {"audio"}


def test_sound_is_the_mean_of_the_channels(tmp_path):
    file = str(tmp_path / "sound.wav")
    waveform = np.zeros((2, 44_100), np.float32)
    waveform[0] = 0.5
    write(file, waveform=waveform, layout="stereo", codecs=(None, "pcm_s16le"))
    (second,) = read(file)
    np.testing.assert_allclose(second.waveform[100:-100], 0.25, atol=1e-3)


def tone(loudness, period=0.003):
    """Return a tone of 3 s, sampled at 44,100 Hz."""
    times_s = np.arange(3 * 44_100) / 44_100
    return loudness * np.sin(2 * np.pi * times_s / period).astype(np.float32)


def write_channels(file, *channels, layout="stereo"):
    return write(
        file, waveform=np.stack(channels), layout=layout, codecs=(None, "pcm_s16le")
    )


@pytest.mark.parametrize(
    ("layout", "channels"),
    [
        ("stereo", (1, -1)),
        # Slightly different loudness.
        ("stereo", (1, -0.9)),
        ("quad", (1, -1, 0, 0)),
    ],
)
def test_inverted_channels_are_detected(tmp_path, caplog, layout, channels):
    file = str(tmp_path / "sound.wav")
    write_channels(file, *(tone(0.5 * each) for each in channels), layout=layout)
    seconds = read(file)
    assert [second.is_inverted for second in seconds] == [True] * 3
    # The waveform is as loud as the mean would be if no channel were inverted.
    expected = tone(0.5 * np.abs(channels).mean())
    for second in seconds:
        assert second.waveform.std() == pytest.approx(expected.std(), rel=0.02)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert f"{file}: the mean of the sound's channels is silent" in record.getMessage()


@pytest.mark.parametrize(
    "channels",
    [
        (tone(0.5), tone(0.5)),
        (tone(0.5), tone(0)),
        (tone(0.5), tone(-0.5) + tone(0.3)),
        # Almost silent.
        (tone(0.002), tone(-0.002)),
        (tone(0.5), tone(0.5, period=0.002)),
    ],
)
def test_different_channels_are_not_called_inverted(tmp_path, caplog, channels):
    seconds = read(write_channels(str(tmp_path / "sound.wav"), *channels))
    assert [second.is_inverted for second in seconds] == [False] * 3
    expected = np.mean(channels, axis=0)
    for second in seconds:
        assert second.waveform.std() == pytest.approx(
            expected.std(), rel=0.02, abs=1e-4
        )
    assert not caplog.records


def test_loud_sound_is_clipped(tmp_path):
    file = str(tmp_path / "sound.wav")
    waveform = np.sign(np.sin(np.arange(44_100) / 30))[None].astype(np.float32) * 1.5
    write(file, waveform=waveform, codecs=(None, "pcm_f32le"))
    (second,) = read(file)
    assert np.abs(second.waveform).max() == 1


def test_nonfinite_samples_are_refused(tmp_path):
    file = str(tmp_path / "sound.wav")
    waveform = np.full((1, 44_100), np.nan, np.float32)
    write(file, waveform=waveform, codecs=(None, "pcm_f32le"))
    assert "not finite numbers" in refusal(file)


def test_a_video_without_sound_is_read(tmp_path):
    file = str(tmp_path / "video.mp4")
    write(file, images=[grey_image(index) for index in range(20)])
    seconds = read(file)
    assert levels(seconds) == [[5], [15]]
    assert [second.waveform for second in seconds] == [None, None]
    assert "audio" not in video.probe(file)


def test_a_cover_image_is_not_read_as_picture(tmp_path):
    file = str(tmp_path / "song.flac")
    with av.open(file, "w") as container:
        packets = sound_packets(
            container, "flac", click(0.5, 1, 44_100), 44_100, "mono"
        )
        next(packets)
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = *SIZE, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic.value
        (packet,) = cover.encode(av.VideoFrame.from_ndarray(grey_image(3), "rgb24"))
        container.mux([packet, *packets])
    with av.open(file) as container:
        assert container.streams.video
    (second,) = read(file)
    assert second.frames is None
    assert heard_at([second]) == pytest.approx(0.5, abs=0.002)
    assert "visual" not in video.probe(file)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_picture_that_ends_early_is_held(tmp_path, suffix):
    file = str(tmp_path / f"video.{suffix}")
    images = [grey_image(index) for index in range(12)]
    write(file, images=images, waveform=click(2.25, 3, 44_100))
    seconds = read(file)
    assert levels(seconds) == [[5], [11], [11]]
    assert heard_at(seconds) == pytest.approx(2.25, abs=0.006)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_sound_that_ends_early_is_padded(tmp_path, suffix):
    file = str(tmp_path / f"video.{suffix}")
    images = [grey_image(index) for index in range(28)]
    write(file, images=images, waveform=click(0.25, 1.2, 44_100))
    seconds = read(file)
    assert levels(seconds) == [[5], [15], [25]]
    assert heard_at(seconds) == pytest.approx(0.25, abs=0.006)
    assert not seconds[2].waveform.any()
    assert not seconds[1].waveform[5000:].any()


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_picture_that_starts_late_is_read(tmp_path, suffix):
    file = str(tmp_path / f"video.{suffix}")
    write(
        file,
        times_s=1.2 + np.arange(18) / 10,
        images=[grey_image(index) for index in range(18)],
        waveform=click(2.25, 3, 44_100),
    )
    seconds = read(file)
    assert levels(seconds) == [[0], [3], [13]]
    assert heard_at(seconds) == pytest.approx(2.25, abs=0.006)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_sound_that_starts_late_is_read(tmp_path, suffix):
    file = str(tmp_path / f"video.{suffix}")
    images = [grey_image(index) for index in range(28)]
    write(file, images=images, waveform=click(1.0, 1.5, 44_100), start_s=1.25)
    seconds = read(file)
    assert levels(seconds) == [[5], [15], [25]]
    assert heard_at(seconds) == pytest.approx(2.25, abs=0.006)
    assert not seconds[0].waveform.any()


def test_time_counts_from_the_first_timestamp(tmp_path):
    # Some recorders' timestamps count from the time at which they were switched on.
    for suffix, is_late in (("mkv", True), ("mp4", True), ("ts", False)):
        file = str(tmp_path / f"video.{suffix}")
        rate = CONTAINERS[suffix][2]
        write(
            file,
            # Half a frame late, so that silence that an encoder puts before the sound
            # doesn't change which frames are chosen.
            times_s=5000.05 + np.arange(28) / 10,
            images=[grey_image(index) for index in range(28)],
            waveform=click(2.25, 2.8, rate),
            rate=rate,
            start_s=5000,
        )
        seconds = read(file)
        assert levels(seconds) == [[4], [14], [24]]
        assert heard_at(seconds) == pytest.approx(2.25, abs=0.03)
        # In player time, MKV and MP4 start at their first timestamp, and transport
        # streams start at 0.
        start_s = 5000 if is_late else 0
        assert [second.index for second in seconds] == [0, 1, 2]
        for second in seconds:
            assert second.start_s == pytest.approx(start_s + second.index, abs=0.03)


@pytest.mark.parametrize(
    ("first_s", "start_s"), [(0.0, 0.0), (0.1, 0.0), (0.12, 0.12), (2.976, 2.976)]
)
def test_start_s_ignores_a_short_delay(tmp_path, first_s, start_s):
    times_s = first_s + np.arange(20) / 10
    images = [grey_image(index) for index in range(20)]
    file = write(str(tmp_path / "video.mkv"), times_s=times_s, images=images)
    assert [second.start_s for second in read(file)] == [start_s, start_s + 1]


@pytest.mark.parametrize(
    ("num_frames", "num_seconds"), [(1, 1), (5, 1), (10, 1), (11, 1), (12, 2), (20, 2)]
)
def test_the_number_of_seconds_follows_from_the_frames(
    tmp_path, num_frames, num_seconds
):
    # In a video of 1.1 s, the last 0.1 s may come from a container's rounding.
    images = [grey_image(index) for index in range(num_frames)]
    seconds = read(write(str(tmp_path / "video.mp4"), images=images))
    assert levels(seconds)[0] == [min(5, num_frames - 1)]
    assert len(seconds) == num_seconds


def test_half_a_second_of_silence_is_one_second(tmp_path):
    file = str(tmp_path / "video.mp4")
    write(
        file,
        images=[grey_image(index) for index in range(5)],
        waveform=np.zeros((1, 22_050), np.float32),
    )
    (second,) = read(file)
    assert levels([second]) == [[4]]
    assert not second.waveform.any()


@pytest.mark.parametrize(
    "name", ["a b.mp4", 'it\'s "so".mp4', "büro 犬.mp4", "c:d.mp4"]
)
def test_special_file_names_are_read(tmp_path, name):
    file = write(str(tmp_path / "video.mp4"), images=[grey_image(0)] * 10)
    renamed = pathlib.Path(file).rename(tmp_path / name)
    assert len(read(renamed)) == 1


def test_a_gap_and_an_overlap_in_the_sound_are_read(tmp_path):
    # One second of constant sound each at 0 s, at 1.5 s (after a gap) and at 2.2 s
    # (0.3 s before the previous sound ends).
    file = str(tmp_path / "sound.mkv")
    with av.open(file, "w") as container:
        stream = container.add_stream("pcm_f32le", rate=16_000, layout="mono")
        for start_s, loudness in ((0.0, 0.2), (1.5, 0.4), (2.2, 0.6)):
            for part in range(2):
                samples = np.full((1, 8_000), loudness, np.float32)
                frame = av.AudioFrame.from_ndarray(samples, "flt", "mono")
                frame.sample_rate = 16_000
                frame.time_base = Fraction(1, 16_000)
                frame.pts = round(start_s * 16_000) + 8_000 * part
                for packet in stream.encode(frame):
                    container.mux(packet)
    seconds = read(file)
    waveform = np.concatenate([second.waveform for second in seconds])
    expected = np.zeros(4 * 16_000, np.float32)
    expected[:16_000] = 0.2
    expected[24_000:40_000] = 0.4
    expected[40_000:51_200] = 0.6
    np.testing.assert_allclose(waveform, expected, atol=1e-6)


class Pipe(io.RawIOBase):
    """A file that can't seek, so that FFmpeg writes no duration."""

    def __init__(self):
        self.written = io.BytesIO()

    def writable(self):
        return True

    def seekable(self):
        return False

    def write(self, content):
        return self.written.write(content)


def write_streamed(file, **arguments):
    pipe = Pipe()
    write(pipe, codecs=("libx264", "flac"), format="matroska", **arguments)
    file.write_bytes(pipe.written.getvalue())
    return str(file)


def test_a_far_jump_of_timestamps_needs_a_stated_duration(tmp_path):
    images = [grey_image(index) for index in range(4)]
    file = write_streamed(
        tmp_path / "video.mkv", times_s=[0, 0.5, 1, 1000], images=images
    )
    assert "jump forwards by 99" in refusal(file)
    # A file that states this duration is accepted.
    file = write(str(tmp_path / "long.mkv"), times_s=[0, 0.5, 1, 1000], images=images)
    seconds = video.read_seconds(file)
    assert levels([next(seconds) for _ in range(700)]) == [[1], *[[2]] * 699]


def test_timestamps_that_jump_back_are_refused(tmp_path):
    # Two recordings, one after the other in one transport stream.
    parts = []
    for start_s in (20, 10):
        part = str(tmp_path / f"{start_s}.ts")
        waveform = click(0.25, 2, 32_000)
        write(part, waveform=waveform, rate=32_000, start_s=start_s)
        parts.append(pathlib.Path(part).read_bytes())
    file = tmp_path / "video.ts"
    file.write_bytes(b"".join(parts))
    assert "jump back by 1" in refusal(file)


@pytest.mark.parametrize("first", ["audio", "video"])
@pytest.mark.parametrize("max_waiting_bytes", [1 << 26, 4000])
def test_streams_far_apart_in_the_file_are_read(
    tmp_path, monkeypatch, first, max_waiting_bytes
):
    # In the file, all packets of one stream precede the packets of the other stream,
    # except for the other stream's first packet. If too many bytes would be buffered,
    # the file is opened a second time.
    monkeypatch.setattr(packets, "_MAX_WAITING_BYTES", max_waiting_bytes)
    reopen, opened = Source.reopen, []
    monkeypatch.setattr(
        Source, "reopen", lambda source: opened.append(source) or reopen(source)
    )
    file = write(
        str(tmp_path / "video.mkv"),
        times_s=np.arange(28) * 4,
        images=[grey_image(index) for index in range(28)],
        waveform=click(2.25, 100, 48_000),
        rate=48_000,
        order=lambda packet: packet.stream.type != first and packet.dts > 0,
    )
    seconds = read(file)
    assert levels(seconds) == [[second // 4] for second in range(108)]
    assert heard_at(seconds) == pytest.approx(2.25, abs=0.002)
    assert len(opened) == (max_waiting_bytes == 4000)


def test_a_picture_much_longer_than_the_sound_is_read(tmp_path):
    # The reader doesn't wait for sound that may follow.
    images = [grey_image(index) for index in range(28)]
    file = str(tmp_path / "video.mkv")
    write(file, times_s=range(0, 112, 4), images=images, waveform=click(0.5, 1, 44_100))
    seconds = read(file)
    # The last frame lasts 0.1 s, by the frame rate.
    assert levels(seconds) == [[second // 4] for second in range(108)]
    assert not any(second.waveform.any() for second in seconds[1:])


def test_sound_with_a_long_pause_is_read(tmp_path):
    images = [grey_image(index) for index in range(28)]
    waveform = click(0.5, 100, 8_000) + click(95.5, 100, 8_000)
    file = str(tmp_path / "video.mkv")
    times_s = np.arange(28) * 4
    write(
        file,
        times_s=times_s,
        images=images,
        waveform=waveform,
        rate=8_000,
        silent_s=(2, 94),
    )
    seconds = read(file)
    assert heard_at(seconds[:2]) == pytest.approx(0.5, abs=0.002)
    assert not any(second.waveform.any() for second in seconds[3:94])
    assert heard_at(seconds[95:96]) == pytest.approx(0.5, abs=0.002)
    assert levels(seconds) == [[second // 4] for second in range(108)]


def test_a_picture_with_a_long_pause_is_read(tmp_path):
    arguments = {
        "times_s": [0, 1, 2, 95, 96],
        "images": [grey_image(index) for index in range(5)],
        "waveform": click(1, 97, 8_000),
        "rate": 8_000,
    }
    file = str(tmp_path / "jpeg.mkv")
    seconds = read(write(file, codecs=("mjpeg", "flac"), **arguments))
    assert levels(seconds) == [[0], [1], *[[2]] * 93, [3], [4]]
    # The decoder of H.264 holds frames back, and no key frame follows.
    arguments["times_s"] = [0, 1, 2, 95, 96, 97, 98, 99]
    arguments["images"] = [grey_image(index) for index in range(8)]
    seconds = read(write(str(tmp_path / "h264.mkv"), **arguments))
    assert levels(seconds) == [[0], [1], *[[2]] * 93, *[[i] for i in range(3, 7)]]


def test_streams_without_packets_are_refused(tmp_path):
    # Headers without packets.
    file = str(tmp_path / "sound.wav")
    write(file, waveform=np.zeros((1, 1), np.float32), codecs=(None, "pcm_s16le"))
    content = pathlib.Path(file).read_bytes()
    pathlib.Path(file).write_bytes(content[: content.index(b"data") + 8])
    assert "sound holds no sample" in refusal(file)

    waveform = click(0.5, 1, 48_000)
    file = str(tmp_path / "video.mkv")
    write(file, images=[], waveform=waveform, rate=48_000)
    assert "picture holds no frame" in refusal(file)
    assert "visual" not in video.probe(file)
    # `without` skips the damaged stream.
    (second,) = video.read_seconds(file, without="visual")
    assert second.frames is None
    assert second.waveform.any()

    write(file, images=[grey_image(0)], waveform=waveform, rate=48_000, silent_s=(0, 9))
    assert "sound holds no sample" in refusal(file)
    assert "audio" not in video.probe(file)
    (second,) = video.read_seconds(file, without="audio")
    assert second.waveform is None
    assert levels([second]) == [[0]]


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_an_unused_stream_may_be_longer(tmp_path, suffix):
    file = str(tmp_path / f"video.{suffix}")
    codec = CONTAINERS[suffix][1]
    with av.open(file, "w") as container:
        images = [grey_image(index) for index in range(20)]
        generators = [
            picture_packets(container, "libx264", np.arange(20) / FPS, images, FPS),
            # FFmpeg prefers the stream of 48 kHz.
            sound_packets(container, codec, click(1, 2, 48_000), 48_000, "mono"),
            sound_packets(container, codec, click(4, 5, 8_000), 8_000, "mono"),
        ]
        for generator in generators:
            next(generator)
        packets = [packet for generator in generators for packet in generator]
        for packet in sorted(packets, key=lambda each: each.dts * each.time_base):
            container.mux(packet)
    with av.open(file) as container:
        assert container.duration > 4.5 * av.time_base
        assert container.streams.best("audio").sample_rate == 48_000
    seconds = read(file)
    assert len(seconds) == 2
    assert heard_at(seconds) == pytest.approx(1, abs=0.002)


def test_sound_that_starts_after_more_than_a_minute_is_read(tmp_path):
    images = [grey_image(index) for index in range(28)]
    file = str(tmp_path / "video.mkv")
    times_s = np.arange(28) * 4
    waveform = click(0.25, 1, 44_100)
    write(file, times_s=times_s, images=images, waveform=waveform, start_s=90)
    seconds = read(file)
    assert levels(seconds) == [[second // 4] for second in range(108)]
    assert not any(second.waveform.any() for second in seconds[:90])
    assert heard_at(seconds[90:]) == pytest.approx(0.25, abs=0.002)


def test_streams_that_start_too_far_apart_are_refused(tmp_path):
    file = str(tmp_path / "video.mkv")
    images = [grey_image(index) for index in range(10)]
    write(file, images=images, waveform=click(0.5, 1, 44_100), start_s=700)
    assert "start over 600 s apart" in refusal(file)


def test_sound_much_longer_than_the_picture_is_read(tmp_path):
    images = [grey_image(index) for index in range(8)]
    file = str(tmp_path / "video.mkv")
    write(file, images=images, waveform=click(90.5, 100, 8_000), rate=8_000)
    seconds = read(file)
    assert levels(seconds) == [[5], *[[7]] * 99]
    assert heard_at(seconds) == pytest.approx(90.5, abs=0.002)


def test_a_picture_that_starts_after_more_than_a_minute_is_read(tmp_path):
    images = [grey_image(index) for index in range(8)]
    file = str(tmp_path / "video.mkv")
    times_s = 80 + np.arange(8) / 10
    write(
        file,
        times_s=times_s,
        images=images,
        waveform=click(1, 81, 8_000),
        rate=8_000,
    )
    seconds = read(file)
    assert levels(seconds) == [*[[0]] * 80, [5]]
    assert heard_at(seconds) == pytest.approx(1, abs=0.002)


@pytest.mark.parametrize(("suffix", "bframes"), [("mkv", 0), ("mkv", 3), ("mp4", 3)])
def test_slides_are_read(tmp_path, suffix, bframes):
    # One frame per 100 s. Only the first frame is a key frame.
    file = str(tmp_path / f"video.{suffix}")
    with av.open(file, "w") as output:
        sound = sound_packets(output, "flac", click(430, 500, 8_000), 8_000, "mono")
        next(sound)
        options = {"x264-params": f"bframes={bframes}:b-adapt=0:scenecut=0"}
        stream = output.add_stream("libx264", rate=1, options=options)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for packet in sound:
            output.mux(packet)
        for index in range(5):
            frame = av.VideoFrame.from_ndarray(grey_image(index), "rgb24")
            frame.pts, frame.time_base = 100 * index, Fraction(1)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    seconds = read(file)
    assert levels(seconds) == [[second // 100] for second in range(500)]
    assert heard_at(seconds) == pytest.approx(430, abs=0.002)


def test_seconds_are_returned_before_the_whole_file_is_read(tmp_path):
    file = tmp_path / "video.mkv"
    rng = np.random.default_rng(0)
    # Noise does not compress: half of the bytes are half of the duration.
    images = [rng.integers(0, 255, (48, 64, 3), np.uint8) for _ in range(100)]
    write(str(file), images=images, waveform=click(1, 10, 44_100))
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    seconds = video.read_seconds(file)
    assert [next(seconds).index for _ in range(3)] == [0, 1, 2]
    with pytest.raises(video.VideoError, match=r"beyond [3-6]\.\d s: "):
        list(seconds)


def test_memory_does_not_grow_with_the_length(tmp_path, monkeypatch):
    size = (160, 120)
    file = str(tmp_path / "video.mp4")
    images = [grey_image(index, size) for index in range(28)] * 21 + [
        grey_image(index, size) for index in range(12)
    ]
    write(file, images=images, waveform=click(1, 60, 44_100))

    class Reformatter:
        converted = 0

        def __init__(self):
            self._reformatter = av.video.reformatter.VideoReformatter()

        def reformat(self, *args, **kwargs):
            Reformatter.converted += 1
            return self._reformatter.reformat(*args, **kwargs)

    monkeypatch.setattr(picture, "VideoReformatter", Reformatter)
    given = []

    tracemalloc.start()
    try:
        for second in video.read_seconds(file, 2):
            given.append(weakref.ref(second.frames))
            del second
            assert given[-1]() is None
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(given) == 60
    assert Reformatter.converted == 120
    # All frames would be 7 MB, all sound 4 MB.
    assert peak < 2_000_000


def test_files_without_video_are_refused(tmp_path, capfd):
    folder = tmp_path / "folder.mp4"
    folder.mkdir()
    assert "is a folder" in refusal(folder)
    assert "no such file" in refusal(tmp_path / "missing.mp4")
    contents = {
        "empty.mp4": (b"", "empty"),
        "noise.mp4": (np.random.default_rng(0).bytes(10_000), "Invalid data"),
        "notes.txt": (b"Not a video at all.\n" * 50, "not a video"),
        "titles.srt": (
            b"1\n00:00:01,000 --> 00:00:02,000\nHello\n\n",
            "not a video",
        ),
    }
    for name, (content, reason) in contents.items():
        file = tmp_path / name
        file.write_bytes(content)
        assert reason in refusal(file)
        with pytest.raises(video.VideoError, match=reason):
            video.probe(file)
    assert capfd.readouterr() == ("", "")


def test_an_image_is_refused(tmp_path):
    file = tmp_path / "photo.png"
    part = io.BytesIO()
    frame = av.VideoFrame.from_ndarray(grey_image(3), "rgb24")
    with av.open(part, "w", format="image2pipe") as container:
        stream = container.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "rgb24"
        container.mux([*stream.encode(frame), *stream.encode(None)])
    file.write_bytes(part.getvalue())
    assert "not a video" in refusal(file)


def test_an_unknown_codec_is_refused(tmp_path):
    file = tmp_path / "video.mp4"
    write(str(file), images=[grey_image(0)] * 10)
    file.write_bytes(file.read_bytes().replace(b"avc1", b"zzz9"))
    assert "no decoder for its picture" in refusal(file)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
def test_a_file_damaged_in_the_middle_is_refused(tmp_path, suffix, capfd):
    file = tmp_path / f"video.{suffix}"
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (48, 64, 3), np.uint8) for _ in range(60)]
    rate = CONTAINERS[suffix][2]
    write(str(file), images=images, waveform=click(1, 6, rate), rate=rate)
    content = bytearray(file.read_bytes())
    # Damage packets, and the container's structure between packets.
    third = len(content) // 3
    content[third : 2 * third] = rng.bytes(third)
    file.write_bytes(content)
    assert "cannot be read beyond" in refusal(file)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "flv"])
@pytest.mark.parametrize("share", [0.5, 0.8])
def test_cut_off_files_are_refused(tmp_path, suffix, share):
    file = tmp_path / f"video.{suffix}"
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (48, 64, 3), np.uint8) for _ in range(80)]
    rate = CONTAINERS[suffix][2]
    # Write the MP4's tables first: without tables, no packet can be read.
    options = {"options": {"movflags": "faststart"}} if suffix == "mp4" else {}
    write(str(file), images=images, waveform=click(1, 8, rate), rate=rate, **options)
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    assert "cannot be read beyond" in refusal(file)


def test_a_cut_off_file_with_an_attachment_is_refused(tmp_path):
    # FFmpeg reports the container's duration as the duration of an attachment.
    file = tmp_path / "video.mkv"
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (48, 64, 3), np.uint8) for _ in range(60)]
    write(str(file), images=images, waveform=click(1, 6, 48_000), rate=48_000)
    with av.open(str(file)) as whole, av.open(str(tmp_path / "a.mkv"), "w") as copy:
        streams = {s.index: copy.add_stream_from_template(s) for s in whole.streams}
        copy.add_attachment("font.ttf", "font/ttf", bytes(1000))
        for packet in whole.demux():
            if packet.size:
                packet.stream = streams[packet.stream.index]
                copy.mux(packet)
    content = (tmp_path / "a.mkv").read_bytes()
    assert len(read(tmp_path / "a.mkv")) == 6
    (tmp_path / "a.mkv").write_bytes(content[: len(content) // 2])
    assert "cannot be read beyond" in refusal(tmp_path / "a.mkv")


def test_a_file_without_a_duration_is_read(tmp_path):
    # A streamed file. FFmpeg guesses a far too long duration from the bit rate.
    file = tmp_path / "video.mkv"
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (48, 64, 3), np.uint8) for _ in range(30)]
    with file.open("wb") as opened:
        stream = SimpleNamespace(write=opened.write)
        codecs = ("mpeg4", "libmp3lame")
        kind = {"format": "matroska", "codecs": codecs}
        write(stream, images=images, waveform=click(1, 3, 44_100), **kind)
    seconds = read(file)
    assert len(seconds) == 3
    assert heard_at(seconds) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("suffix", ["mkv", "flv"])
def test_a_file_cut_between_two_packets_is_refused(tmp_path, suffix):
    # No decoder fails; only the stated duration reveals the cut.
    file = tmp_path / f"video.{suffix}"
    rate = CONTAINERS[suffix][2]
    images = [grey_image(index) for index in range(28)]
    write(str(file), images=images, waveform=click(1, 2.8, rate), rate=rate)
    with av.open(str(file)) as container:
        ends = [packet.pos + packet.size for packet in container.demux() if packet.size]
    content = file.read_bytes()
    middle = len(ends) // 3
    reasons = []
    for end in ends[middle : middle + 6]:
        file.write_bytes(content[:end])
        reasons.append(refusal(file))
    assert any("it states 2.8 s, but holds " in reason for reason in reasons)


def test_a_file_with_a_missing_middle_is_refused(tmp_path):
    # FFmpeg skips damaged bytes without an error.
    arguments = {
        "times_s": [*np.arange(20) / 10, *(4 + np.arange(20) / 10)],
        "images": [grey_image(index) for index in range(40)],
        "waveform": click(1, 6, 48_000),
        "rate": 48_000,
        "codecs": ("mjpeg", "flac"),
    }
    file = str(tmp_path / "video.mkv")
    write(file, **arguments, silent_s=(2, 4))
    assert "s are missing in the middle" in refusal(file)
    # A gap in one stream may be intended.
    assert len(read(write(file, **arguments))) == 6


@pytest.mark.parametrize(("name", "num_seconds"), REAL_CLIPS.items())
def test_real_clips_are_read(name, num_seconds):
    file = find_clip(name)
    seconds = read(file)
    assert [second.start_s for second in seconds] == list(range(num_seconds))
    # Find the frame shown at 4.5 s with PyAV alone.
    with av.open(str(file)) as container:
        for frame in container.decode(video=0):
            if frame.time > 4.5:
                break
            shown = frame
    if shown.colorspace == 2 and shown.height >= 720:
        shown.colorspace = 1
    (frame,) = seconds[4].frames
    height, width, _ = frame.shape
    expected = shown.to_ndarray(
        format="rgb24", width=width, height=height, interpolation="AREA"
    )
    np.testing.assert_allclose(frame.astype(int), expected, atol=2)
