"""Untrusted videos: refused files, and the child process that decodes videos."""

import contextlib
import gc
import io
import os
import pathlib
import signal
import struct
import subprocess
import sys
import textwrap
import threading
import time
import weakref
import zlib
from fractions import Fraction

import av
import numpy as np
import pytest

from avsdn_tf.features import extractor as extractor_module
from avsdn_tf.features import video
from avsdn_tf.features.extractor import Chunk, Extractor, join
from avsdn_tf.features.store import Source, claim_folder, extract_all, write_features
from avsdn_tf.features.video import process
from avsdn_tf.features.video.process import Limits, describe_in_child, read_in_child
from tests.processes import sigint_reset
from tests.small_videos import Brightness, Loudness, write_clip
from tests.test_video import click, grey_image, write

IS_LINUX = sys.platform == "linux"
needs_linux = pytest.mark.skipif(not IS_LINUX, reason="Only Linux limits memory")


def png(width, height):
    """Return the bytes of a black 1-bit PNG, which compresses well at any size."""

    def part(kind, content):
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(height * (1 + (width + 7) // 8)))
    parts = [part(b"IHDR", header), part(b"IDAT", rows), part(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def write_packets(file, codec, content, times_s, size=(64, 48), pix_fmt="yuvj420p"):
    """Write the same packet at several times."""
    with av.open(str(file), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height = size
        stream.pix_fmt = pix_fmt
        for time_s in times_s:
            packet = av.Packet(content)
            packet.stream, packet.time_base = stream, Fraction(1, 1000)
            packet.pts = packet.dts = round(time_s * 1000)
            packet.is_keyframe = True
            container.mux(packet)


def jpeg(size=(64, 48)):
    """Return the bytes of a JPEG picture."""
    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt = *size, "yuvj420p"
    encoder.time_base = Fraction(1, 10)
    frame = av.VideoFrame.from_ndarray(grey_image(3, size), "rgb24").reformat(
        format="yuvj420p"
    )
    frame.pts = 0
    packets = [*encoder.encode(frame), *encoder.encode(None)]
    return b"".join(map(bytes, packets))


def flac(rate_hz):
    """Return a FLAC file of 55 bytes: one frame of 65,535 equal samples."""

    def crc(content, num_bits, polynomial):
        value, top = 0, 1 << (num_bits - 1)
        for byte in content:
            value ^= byte << (num_bits - 8)
            for _ in range(8):
                value = (value << 1) ^ (polynomial if value & top else 0)
                value &= 2 * top - 1
        return value.to_bytes(num_bits // 8, "big")

    settings = (rate_hz << 44 | 15 << 36 | 65_535).to_bytes(8, "big")
    info = b"\xff" * 4 + bytes(6) + settings + bytes(16)
    frame = b"\xff\xf8\x70\x00\x00\xff\xfe"
    frame += crc(frame, 8, 0x07) + b"\x00\x00\x64"
    return b"fLaC\x80\x00\x00\x22" + info + frame + crc(frame, 16, 0x8005)


def write_long_index(file, num_samples):
    """Write an MP4 file of one frame; its index claims `num_samples` of 1 byte."""
    write_packets(file, "mjpeg", jpeg(), [0])
    content = bytearray(file.read_bytes())
    struct.pack_into(">II", content, content.index(b"stsz") + 8, 1, num_samples)
    struct.pack_into(">II", content, content.index(b"stts") + 12, num_samples, 1)
    struct.pack_into(">I", content, content.index(b"stsc") + 16, num_samples)
    file.write_bytes(content)


def write_long_step(file):
    """Write an MP4 file that states 2 s, but has frames 2.4 days apart."""
    write(str(file), images=[grey_image(index) for index in range(20)])
    content = bytearray(file.read_bytes())
    struct.pack_into(">I", content, content.index(b"stts") + 16, 2**31 - 1)
    file.write_bytes(content)


def write_wav(file, rate_hz):
    """Write a WAV file of 1,000 samples of silence."""
    settings = struct.pack("<IHHIIHH", 16, 1, 1, rate_hz, 0, 2, 16)
    samples = struct.pack("<I", 2_000) + bytes(2_000)
    content = b"WAVEfmt " + settings + b"data" + samples
    file.write_bytes(b"RIFF" + struct.pack("<I", len(content)) + content)


def write_tracks(file, num_tracks):
    """Write a video with `num_tracks` audio tracks."""
    with av.open(str(file), "w") as container:
        streams = [
            container.add_stream("pcm_s16le", rate=8_000, layout="mono")
            for _ in range(num_tracks)
        ]
        for stream in streams:
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 80), np.int16), "s16")
            frame.sample_rate, frame.pts = 8_000, 0
            container.mux(stream.encode(frame))


def write_sound_with_cover(file, side):
    """Write an MP3 file of 1 s with a cover image of `side` x `side` pixels."""
    sound = io.BytesIO()
    write(
        sound, waveform=click(0.5, 1, 44_100), codecs=(None, "libmp3lame"), format="mp3"
    )
    image = b"\x00image/png\x00\x03\x00" + png(side, side)
    frame = b"APIC" + struct.pack(">I", len(image)) + bytes(2) + image
    size = bytes(len(frame) >> shift & 127 for shift in (21, 14, 7, 0))
    tags = b"ID3\x03\x00\x00" + size + frame
    content = sound.getvalue()
    file.write_bytes(tags + content[content.index(b"\xff\xfb") :])


PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{}\n"
MASTER = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{}\n"
TEXTS = {
    "itself.m3u8": PLAYLIST.format("itself.m3u8"),
    "live.m3u8": PLAYLIST.format("video.mkv"),
    "video.m3u8": PLAYLIST.format("video.mkv") + "#EXT-X-ENDLIST\n",
    "net.m3u8": MASTER.format("http://127.0.0.1:9/video.m3u8"),
    "playlist.mp4": PLAYLIST.format("video.mkv"),
    "itself.ffconcat": "ffconcat version 1.0\nfile itself.ffconcat\n",
    "video.ffconcat": "ffconcat version 1.0\nfile video.mkv\n",
    "video.mkv.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nt=0 0\n"
    "m=video 9 RTP/AVP 96\n",
    "video.mpd": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"/>',
    "notes.txt": "Not a video at all.\n" * 50,
    "image.svg": "<svg xmlns='http://www.w3.org/2000/svg'/>",
}


@pytest.mark.parametrize("name", TEXTS)
def test_playlists_and_other_texts_are_refused(tmp_path, name):
    write(str(tmp_path / "video.mkv"), images=[grey_image(3)] * 10)
    (tmp_path / name).write_text(TEXTS[name])
    for read in (read_in_child, video.read_seconds):
        with pytest.raises(video.VideoError, match=name):
            list(read(tmp_path / name))


FILES = {
    "slow.flac": lambda file: file.write_bytes(flac(5)),
    "slower.flac": lambda file: file.write_bytes(flac(999)),
    # Timestamps of these three files span 32 years, 28 hours and 34 years.
    "far.mkv": lambda file: write_packets(file, "mjpeg", jpeg(), [0, 10**9]),
    "days.mov": lambda file: write_packets(file, "mjpeg", jpeg(), [0, 100_000]),
    "past.nut": lambda file: write_packets(file, "mjpeg", jpeg(), [-(2**30), 0, 1]),
    "index.mp4": lambda file: write_long_index(file, 400_000_000),
    "step.mp4": write_long_step,
    "slow.wav": lambda file: write_wav(file, 5),
    "fast.wav": lambda file: write_wav(file, 2**31 - 1),
    "tracks.mov": lambda file: write_tracks(file, 300),
    "tracks.mkv": lambda file: write_tracks(file, 300),
    **{
        f"{side}.{suffix}": lambda file, side=side: write_packets(
            file, "png", png(side, side), [0, 1, 2], pix_fmt="monob"
        )
        for side in (6_000, 16_200)
        for suffix in ("avi", "mov", "nut")
    },
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_declare_excessive_sizes_are_refused(tmp_path, name):
    file = tmp_path / name
    FILES[name](file)
    assert file.stat().st_size < 200_000
    extractor = Extractor(Loudness(), Brightness(), "audio")
    with pytest.raises(video.VideoError, match=name) as caught:
        for _ in extractor.stream(file):
            pass
    assert "30 s" not in str(caught.value)


def test_a_rate_and_a_length_within_the_limits_are_read(tmp_path):
    (tmp_path / "slow.flac").write_bytes(flac(1000))
    seconds = list(read_in_child(tmp_path / "slow.flac"))
    assert len(seconds) == 66
    assert seconds[1].waveform.std() < 1e-3
    file = tmp_path / "day.mkv"
    write_packets(file, "mjpeg", jpeg(), [0, 86_000])
    seconds = read_in_child(file)
    assert [next(seconds).index for _ in range(700)] == list(range(700))


def test_a_cover_image_allocates_no_memory(tmp_path):
    file = tmp_path / "sound.mp3"
    write_sound_with_cover(file, 16_200)
    limits = Limits(memory_bytes=300 << 20)
    assert describe_in_child(file, limits).modalities == {"audio"}
    assert [second.frames for second in read_in_child(file, limits=limits)] == [None]


def assert_equal(seconds, expected):
    assert [second.index for second in seconds] == [each.index for each in expected]
    for second, other in zip(seconds, expected, strict=True):
        assert (second.start_s, second.end_s) == (other.start_s, other.end_s)
        assert second.is_inverted is other.is_inverted
        for name in ("frames", "waveform"):
            array, wanted = getattr(second, name), getattr(other, name)
            if wanted is None:
                assert array is None
            else:
                assert array.dtype == wanted.dtype
                np.testing.assert_array_equal(array, wanted)


def test_the_child_and_its_parent_read_equal_seconds(tmp_path):
    both = write_clip(tmp_path / "a b's ünï.mp4", 4)
    seen = write_clip(tmp_path / "seen.mkv", 2, sound=False)
    heard = write_clip(tmp_path / "heard.mkv", 2, picture=False)
    for file, rate, without in (
        (both, 16, None),
        (both, 1, "audio"),
        (both, 1, "visual"),
        (seen, 2, None),
        (heard, 1, None),
    ):
        expected = list(video.read_seconds(file, rate, without))
        assert_equal(list(read_in_child(file, rate, without)), expected)
    for file in (both, seen, heard):
        assert describe_in_child(file) == video.describe(file)
    missing = tmp_path / "missing.mp4"
    with pytest.raises(video.VideoError) as here:
        video.describe(missing)
    with pytest.raises(video.VideoError) as there:
        describe_in_child(missing)
    assert str(there.value) == str(here.value)


def test_paths_are_relative_to_the_parent_process(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "a.mp4", 1)
    assert len(list(read_in_child("a.mp4"))) == 1
    (tmp_path / "deep").mkdir()
    monkeypatch.chdir(tmp_path / "deep")
    assert len(list(read_in_child("../a.mp4"))) == 1
    with pytest.raises(video.VideoError, match=r"^a.mp4: there is no such file"):
        list(read_in_child("a.mp4"))
    name = os.fsdecode(b"\xff line\nbreak.mp4")
    os.rename(tmp_path / "a.mp4", tmp_path / name)
    assert len(list(read_in_child(tmp_path / name))) == 1


@pytest.fixture
def children(monkeypatch):
    """Return the list of started child processes; end all idle children first."""
    process.end_idle()
    started = []

    class Popen(subprocess.Popen):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            started.append(self)

    monkeypatch.setattr(process.subprocess, "Popen", Popen)
    yield started
    process.end_idle()
    assert all(child.returncode is not None for child in started)


def test_one_child_reads_several_videos(tmp_path, children):
    videos = [write_clip(tmp_path / f"{index}.mp4", 2) for index in range(3)]
    for file in videos:
        describe_in_child(file)
        assert len(list(read_in_child(file))) == 2
    (child,) = children
    assert child.poll() is None
    process.end_idle()
    # With a return code, the child is no zombie.
    assert child.returncode is not None
    assert len(list(read_in_child(videos[0]))) == 2
    assert len(children) == 2


def test_a_child_without_work_exits(tmp_path, children, monkeypatch):
    monkeypatch.setattr(process, "_IDLE_S", 0)
    describe_in_child(write_clip(tmp_path / "a.mp4", 1))
    (child,) = children
    while child.returncode is None:
        time.sleep(0.01)


def test_closing_a_reader_stops_its_child(tmp_path, children):
    seconds = read_in_child(write_clip(tmp_path / "a.mp4", 5))
    next(seconds)
    (child,) = children
    assert child.poll() is None
    seconds.close()
    assert child.returncode is not None


def test_no_child_is_left_after_extraction(tmp_path, children):
    videos = [write_clip(tmp_path / f"{index}.mp4", 2) for index in range(4)]
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    extractor = Extractor(Loudness(), Brightness())
    failures = extract_all(
        extractor,
        [*videos, tmp_path / "broken.mp4"],
        tmp_path / "out",
        2,
        lambda *_: None,
    )
    assert list(failures) == [tmp_path / "broken.mp4"]
    assert 1 <= len(children) <= 3
    assert all(child.returncode is not None for child in children)


@needs_linux
def test_memory_is_limited_per_video(tmp_path, children):
    large, size = tmp_path / "large.mkv", (7680, 4320)
    write_packets(large, "mjpeg", jpeg(size), [0, 0.1], size)
    small = write_clip(tmp_path / "small.mp4", 2)
    limits = Limits(memory_bytes=130 << 20)
    with pytest.raises(video.VideoError, match=r"large.mkv: .*0.127 GiB of memory"):
        list(read_in_child(large, limits=limits))
    assert len(list(read_in_child(small))) == 2
    # Each video has its own limit: the child that read the small video reads the large
    # video with the default limit.
    assert len(list(read_in_child(large))) == 1
    assert len(children) == 2


def test_time_is_limited_per_video(tmp_path, children):
    file = write_clip(tmp_path / "a.mp4", 2)
    with pytest.raises(video.VideoError, match=r"a.mp4: .*more than the limit of 0 s"):
        list(read_in_child(file, limits=Limits(wait_s=0)))
    assert len(list(read_in_child(file))) == 2
    assert len(children) == 2


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_a_crashed_child_fails_only_its_own_video(tmp_path, children, number):
    file = write_clip(tmp_path / "a.mp4", 9)
    seconds = read_in_child(file, 16)
    next(seconds)
    os.kill(children[0].pid, number)
    with pytest.raises(video.VideoError, match=f"a.mp4: .*{signal.strsignal(number)}"):
        list(seconds)
    assert len(list(read_in_child(file))) == 9
    # A child may also die between two videos.
    os.kill(children[1].pid, number)
    children[1].wait()
    assert len(list(read_in_child(file))) == 9
    assert len(children) == 3


def test_a_child_that_cannot_start_reports_the_reason(tmp_path, children, monkeypatch):
    file = write_clip(tmp_path / "a.mp4", 1)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "av.py").write_text("raise ImportError('no PyAV here')")
    monkeypatch.setattr(process, "_SYS_PATH", [str(broken), *process._SYS_PATH])
    with pytest.raises(video.VideoError, match=r"a.mp4: .*no PyAV here"):
        describe_in_child(file)
    monkeypatch.setattr(process.multiprocessing.spawn, "get_executable", lambda: "no")
    with pytest.raises(video.VideoError, match=r"a.mp4: no process can be started"):
        describe_in_child(file)


def test_several_threads_read_in_their_own_children(tmp_path, children):
    files = [write_clip(tmp_path / f"{index}.mp4", 3 + index) for index in range(3)]
    expected = [list(video.read_seconds(file)) for file in files]
    found = {}

    def read(index):
        found[index] = [list(read_in_child(files[index])) for _ in range(3)]

    threads = [threading.Thread(target=read, args=[index]) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index in range(3):
        for seconds in found[index]:
            assert_equal(seconds, expected[index])
    assert len(children) <= 3


def run_program(text, *args, **kwargs):
    """Start Python with a program on standard input."""
    with sigint_reset():
        popen = subprocess.Popen(
            [sys.executable, "-", *map(str, args)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=pathlib.Path(__file__).parents[1],
            **kwargs,
        )
    popen.stdin.write(textwrap.dedent(text))
    popen.stdin.close()
    return popen


def test_a_program_from_standard_input_needs_no_main_guard(tmp_path):
    file = write_clip(tmp_path / "a.mp4", 2)
    program = run_program(
        """
        import os, sys
        sys.argv[0] = "avsdn"  # Commands import avsdn_tf without TensorFlow.
        from avsdn_tf.features.video.process import read_in_child
        print(os.getpid())
        # The child must not import numpy.py from the video's folder.
        os.chdir(os.path.dirname(sys.argv[1]))
        print(len(list(read_in_child(sys.argv[1]))))
        """,
        file,
    )
    (tmp_path / "numpy.py").write_text("raise SystemExit")
    output, errors = program.stdout.read(), program.stderr.read()
    assert program.wait() == 0, errors
    # The child did not run the program again.
    assert output.split() == [str(program.pid), "2"]
    program.stdout.close()
    program.stderr.close()


def test_the_child_imports_no_tensorflow():
    code = (
        "import sys; sys.argv[:] = ['avsdn-reader']; "
        "import avsdn_tf.features.video.child; "
        "print(sorted({'tensorflow', 'keras', 'matplotlib'} & set(sys.modules)))"
    )
    output = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert output.strip() == "[]"


ENDLESS = """
    import sys, time
    sys.argv[0] = "avsdn"
    from avsdn_tf.features.video import process
    seconds = process.read_in_child(sys.argv[1])
    next(seconds)
    (child,) = process._children
    print(child._process.pid, flush=True)
    for _ in seconds:
        time.sleep(1)
"""


@needs_linux
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_child_ends_with_its_parent_and_prints_nothing(tmp_path, number):
    file = write_clip(tmp_path / "a.mp4", 25)
    program = run_program(ENDLESS, file, start_new_session=True)
    pid = int(program.stdout.readline())
    # Ctrl+C also signals the whole process group.
    os.killpg(program.pid, number)
    errors = program.stderr.read()
    assert program.wait() != 0
    assert errors.count("Traceback") == (1 if number == signal.SIGINT else 0)
    program.stdout.close()
    program.stderr.close()
    # The child may remain as a zombie, which has no memory.
    memory = pathlib.Path(f"/proc/{pid}/statm")
    with contextlib.suppress(OSError):
        while memory.read_text().split()[0] != "0":
            time.sleep(0.01)


def test_frames_are_freed_without_the_cyclic_collector(tmp_path):
    file = str(tmp_path / "video.mkv")
    write(
        file,
        images=[grey_image(index) for index in range(40)],
        waveform=click(1, 4, 44_100),
    )
    step = tmp_path / "step.mp4"
    write_long_step(step)

    def count_frames():
        return sum(isinstance(each, av.VideoFrame) for each in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        seconds = video.read_seconds(file, 16)
        assert max(count_frames() for _ in seconds) < 10
        assert count_frames() == 0
        seconds = video.read_seconds(file, 16)
        next(seconds)
        seconds.close()
        video.describe(file)
        with pytest.raises(video.VideoError):
            list(video.read_seconds(step))
        del seconds
        assert count_frames() == 0
    finally:
        gc.enable()


class Recorder(Brightness):
    """Record the number of seconds per call."""

    def __init__(self):
        self.lengths = []

    def __call__(self, frames):
        self.lengths.append(len(frames))
        return super().__call__(frames)


def test_a_chunk_is_bounded_by_its_bytes(tmp_path, monkeypatch):
    file = write_clip(tmp_path / "a.mp4", 20)
    visual = Recorder()
    features = Extractor(Loudness(), visual).extract(file)
    assert visual.lengths == [16, 4]
    monkeypatch.setattr(extractor_module, "_CHUNK_BYTES", 3 * 64 * 48 * 3)
    visual.lengths.clear()
    smaller = Extractor(Loudness(), visual).extract(file)
    assert visual.lengths == [3] * 6 + [2]
    for array, expected in zip(smaller, features, strict=True):
        np.testing.assert_array_equal(array, expected)


def chunks_of(num_chunks, freed):
    """Yield chunks of 1, 2, ... seconds; record if all but the latest are freed."""
    alive = []
    for index in range(num_chunks):
        freed.append(all(each() is None for each in alive[:-2]))
        rows = np.full((index + 1, 5), index, np.float32)
        maps = np.full((index + 1, 2, 3), index, np.float32)
        alive += [weakref.ref(rows), weakref.ref(maps)]
        chunk = Chunk(rows, maps, 0.0, 1.0)
        del rows, maps
        yield chunk
        del chunk


def test_features_are_written_a_chunk_at_a_time(tmp_path, extractor):
    claim_folder(tmp_path, extractor.backbones)
    freed = []
    source = Source("a.mp4", 1, 2)
    write_features(tmp_path, "a", chunks_of(150, freed), source, extractor.backbones)
    # All chunks but the latest, which the writer's loop still holds, were freed.
    assert all(freed)
    expected = np.repeat(np.arange(150, dtype=np.float32), np.arange(1, 151))
    audio = np.load(tmp_path / "a.audio.npy")
    visual = np.load(tmp_path / "a.visual.npy")
    np.testing.assert_array_equal(audio, np.repeat(expected[:, None], 5, 1))
    assert visual.shape == (len(expected), 2, 3)
    np.testing.assert_array_equal(visual[:, 1, 2], expected)
    same = io.BytesIO()
    np.save(same, audio)
    assert (tmp_path / "a.audio.npy").read_bytes() == same.getvalue()
    joined = join(chunks_of(150, []))
    np.testing.assert_array_equal(joined[0], audio)
    np.testing.assert_array_equal(joined[1], visual)


def test_features_of_a_failed_video_are_not_written(tmp_path, extractor):
    claim_folder(tmp_path, extractor.backbones)

    def broken():
        yield from chunks_of(2, [])
        raise video.VideoError("broken")

    with pytest.raises(video.VideoError, match="broken"):
        write_features(
            tmp_path, "a", broken(), Source("a.mp4", 1, 2), extractor.backbones
        )
    assert [path.name for path in tmp_path.iterdir()] == ["extract.json"]
