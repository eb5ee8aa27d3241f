"""Features of videos, and folders of features."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import avsdn_tf
from avsdn_tf import videos
from avsdn_tf.backbones import VGGISH, Backbones
from avsdn_tf.errors import UserError
from avsdn_tf.features import extractor as extractor_module
from avsdn_tf.features.extractor import MODALITIES, Extractor, build_extractor
from avsdn_tf.features.store import (
    Source,
    claim_folder,
    extract_all,
    read_source,
)
from avsdn_tf.features.video import VideoError, find_videos
from tests.small_videos import Brightness, Loudness, write_clip
from tests.test_video import click, grey_image, write

BACKBONES = Backbones("vggish", "a", "small", "b", "float32")


def small_extractor(empty=None, backbones=BACKBONES):
    return Extractor(Loudness(), Brightness(), empty, backbones)


@pytest.fixture
def extractor():
    return small_extractor()


def extract_quietly(extractor, videos, out, on_done=None):
    return extract_all(
        extractor, videos, out, 1, on_done or (lambda video, failure: None)
    )


def test_features_of_a_long_video_are_streamed_in_chunks(tmp_path, extractor):
    path = write_clip(tmp_path / "a b's ünï.mp4", seconds=19)
    chunks = list(extractor.stream(path))
    assert [len(chunk.audio) for chunk in chunks] == [16, 3]
    assert [(chunk.start_s, chunk.end_s) for chunk in chunks] == [(0, 16), (16, 19)]
    audio, visual = extractor.extract(path)
    assert audio.shape == visual.shape == (19, 3)
    np.testing.assert_allclose(audio[:, 0], 0.05 * np.arange(1, 20), rtol=0.25)
    np.testing.assert_allclose(visual[:, 1], 10 * np.arange(19), atol=6)


@pytest.mark.parametrize("empty", ["audio", "visual"])
def test_a_missing_modality_is_refused_or_replaced_by_zeros(tmp_path, extractor, empty):
    path = write_clip(
        tmp_path / "half.mp4", 2, sound=empty != "audio", picture=empty != "visual"
    )
    with pytest.raises(VideoError, match=rf'half.mp4: has no .*empty="{empty}"'):
        extractor.extract(path)
    other = {"audio": "visual", "visual": "audio"}[empty]
    with pytest.raises(VideoError, match=rf'empty="{empty}"'):
        small_extractor(other).extract(path)
    allowed = small_extractor(empty)
    found = dict(zip(("audio", "visual"), allowed.extract(path), strict=True))
    assert not found[empty].any()
    assert found[other].any()
    # An empty track counts as missing.
    if empty == "audio":
        write(
            str(tmp_path / "nothing.mkv"),
            images=[grey_image(3)] * 10,
            waveform=click(0.5, 1, 48_000),
            rate=48_000,
            silent_s=(0, 9),
        )
        audio, visual = allowed.extract(tmp_path / "nothing.mkv")
        assert not audio.any()
        assert visual.any()
    # `empty` doesn't drop a modality that the video has.
    assert all(
        part.any() for part in allowed.extract(write_clip(tmp_path / "b.mp4", 2))
    )


def test_extraction_resumes_and_names_failed_videos(tmp_path, extractor):
    folder = tmp_path / "videos"
    (folder / "deep").mkdir(parents=True)
    write_clip(folder / "one.mp4", 2)
    write_clip(folder / "two.mkv", 3)
    write_clip(folder / "deep" / "one.avi", 2)
    (folder / "empty.mp4").touch()
    (folder / "notes.txt").write_text("no video")
    # A metadata file of macOS.
    (folder / "._one.mp4").touch()
    videos = find_videos([folder])
    # Each video is listed once, even if several paths lead to it.
    again = [folder, folder / "one.mp4", folder / "deep" / ".." / "one.mp4"]
    assert find_videos(again) == videos
    assert [video.name for video in videos] == [
        "one.avi",
        "empty.mp4",
        "one.mp4",
        "two.mkv",
    ]
    reported = []

    def run(extractor):
        reported.clear()
        return extract_all(
            extractor,
            videos,
            tmp_path / "out",
            workers=2,
            on_done=lambda video, failure: reported.append((video.name, bool(failure))),
        )

    failures = run(extractor)
    assert sorted(reported) == [
        ("empty.mp4", True),
        ("one.avi", False),
        ("one.mp4", True),
        ("two.mkv", False),
    ]
    assert "same name as" in failures[folder / "one.mp4"]
    assert "empty.mp4" in failures[folder / "empty.mp4"]
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        "extract.json",
        *(f"{stem}.{kind}.npy" for stem in ("one", "two") for kind in MODALITIES),
        *(f"{stem}.source.json" for stem in ("one", "two")),
    }
    assert np.load(tmp_path / "out" / "two.audio.npy").shape == (3, 3)

    before = (tmp_path / "out" / "two.audio.npy").stat().st_mtime_ns
    (tmp_path / "out" / "one.visual.npy").unlink()
    run(extractor)
    assert (tmp_path / "out" / "two.audio.npy").stat().st_mtime_ns == before
    assert (tmp_path / "out" / "one.visual.npy").is_file()
    other = BACKBONES.override(visual_network="other")
    with pytest.raises(UserError, match=r"network 'small', received 'other'"):
        run(small_extractor(backbones=other))
    for paths, message in (
        ([tmp_path / "no"], "Expected at least one video.*Received: .*no"),
        ([tmp_path / "out"], "Expected at least one video"),
        ([], "Expected at least one video.*Received: none"),
    ):
        with pytest.raises(UserError, match=message):
            find_videos(paths)


def test_a_second_video_of_the_same_name_is_refused(tmp_path, extractor):
    for name, seconds in (("a", 2), ("b", 3)):
        (tmp_path / name).mkdir()
        write_clip(tmp_path / name / "same.mp4", seconds)
    out = tmp_path / "out"
    first, second = (tmp_path / name / "same.mp4" for name in "ab")
    assert not extract_quietly(extractor, [first], out)
    failures = extract_quietly(extractor, [second], out)
    assert str(second) in failures[second]
    assert "another video of this name" in failures[second]
    assert np.load(out / "same.audio.npy").shape == (2, 3)
    # The same content is the same video, wherever it lies.
    copy = tmp_path / "copy" / "same.mp4"
    copy.parent.mkdir()
    copy.write_bytes(first.read_bytes())
    assert not extract_quietly(extractor, [copy], out)


def test_the_first_readable_video_of_a_name_is_extracted(tmp_path, extractor):
    for name in "abcd":
        (tmp_path / name).mkdir()
    missing, broken, good, late = (tmp_path / name / "same.mp4" for name in "abcd")
    broken.write_bytes(b"no video")
    write_clip(good, 2)
    write_clip(late, 3)
    long_name = tmp_path / f"{'x' * 300}.mp4"
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    videos = find_videos([missing, long_name, broken, nothing, good, late])
    reported = []
    failures = extract_quietly(
        extractor,
        videos,
        tmp_path / "out",
        on_done=lambda video, _: reported.append(video),
    )
    assert sorted(reported) == sorted(videos)
    assert set(failures) == {missing, long_name, broken, nothing, late}
    assert f"{late}: has the same name as {good}" in failures[late]
    assert "there is no such" in failures[missing] or "No such" in failures[missing]
    assert "directory" in failures[nothing]
    assert np.load(tmp_path / "out" / "same.audio.npy").shape == (2, 3)


def test_a_folder_claimed_by_another_process_is_refused(tmp_path, extractor):
    video = write_clip(tmp_path / "a.mp4", 2)
    out = tmp_path / "out"
    other = small_extractor(backbones=BACKBONES.override(vggish="other"))

    class Slow(Extractor):
        def stream(self, path):
            # Another process finds no features in the folder and claims it.
            assert not extract_quietly(other, [video], out)
            yield from super().stream(path)

    late = write_clip(tmp_path / "b.mp4", 2)
    with pytest.raises(UserError, match="expected audio_weights 'other', received 'a'"):
        extract_quietly(Slow(Loudness(), Brightness(), None, BACKBONES), [late], out)
    assert read_source(out, "a") is not None
    assert read_source(out, "b") is None


def test_unfinished_files_of_a_killed_process_are_not_features(tmp_path):
    claim_folder(tmp_path, BACKBONES)
    (tmp_path / ".tmp-0.npy").touch()
    (tmp_path / "a.audio.npy").touch()
    claim_folder(tmp_path, BACKBONES.override(vggish="other"))


def test_a_folder_refuses_features_of_another_precision(tmp_path):
    half = BACKBONES.override(visual_precision="mixed_bfloat16")
    # Features without a recorded precision are float32.
    old = BACKBONES.to_dict()
    del old["visual_precision"]
    (tmp_path / "extract.json").write_text(json.dumps(old))
    (tmp_path / "a.source.json").touch()
    with pytest.raises(UserError, match=r"visual_precision 'float32', received 'mixed"):
        claim_folder(tmp_path, half)
    claim_folder(tmp_path, BACKBONES)
    reported = json.loads((tmp_path / "extract.json").read_text())
    assert reported["visual_precision"] == "float32"


@pytest.mark.parametrize("content", [b"[1]", b'"x"', b"\xff", b'{"a":', b'{"a": "b"}'])
def test_a_damaged_record_of_backbones_fails_with_one_message(tmp_path, content):
    claim_folder(tmp_path, BACKBONES)
    (tmp_path / "a.source.json").touch()
    (tmp_path / "extract.json").write_bytes(content)
    with pytest.raises(UserError, match=r"extract.json: expected the backbones"):
        claim_folder(tmp_path, BACKBONES)


def test_paths_of_weights_become_absolute_and_names_are_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("imagenet", "vggish"):
        (tmp_path / name).mkdir()
    backbones = Backbones("vggish", "vggish", "small", "imagenet").resolve()
    assert backbones.visual_weights == "imagenet"
    assert backbones.audio_weights == str(tmp_path / "vggish")


def test_incomplete_features_are_extracted_again(tmp_path, extractor):
    video = write_clip(tmp_path / "a.mp4", 2)
    out = tmp_path / "out"
    extract_quietly(extractor, [video], out)
    assert read_source(out, "a") == Source.of(video)
    for name, content in (("a.source.json", None), ("a.source.json", "{"), ("a.v", 0)):
        path = out / name if content != 0 else out / "a.visual.npy"
        path.write_text(content) if content else path.unlink()
        assert read_source(out, "a") is None
        extract_quietly(extractor, [video], out)
        assert read_source(out, "a") == Source.of(video)


def test_a_folder_refuses_features_of_other_backbones(tmp_path, extractor):
    silent = write_clip(tmp_path / "silent.mp4", 2, sound=False)
    loud = write_clip(tmp_path / "loud.mp4", 2)
    out = tmp_path / "out"
    named = BACKBONES.override(vggish="other")
    strict = small_extractor(backbones=named)
    assert 'empty="audio"' in extract_quietly(strict, [silent], out)[silent]
    # The folder has no features yet, so other backbones may claim it.
    extract_quietly(extractor, [loud], out)
    with pytest.raises(UserError, match=r"audio_weights 'a', received 'other'"):
        extract_quietly(strict, [loud], out)

    for path in out.iterdir():
        path.unlink()
    extract_quietly(strict, [loud], out)
    # `empty` may differ within a folder.
    assert not extract_quietly(small_extractor("audio", named), [silent], out)
    assert not np.load(out / "silent.audio.npy").any()


def test_ctrl_c_stops_at_once_and_keeps_finished_features(tmp_path, monkeypatch):
    interrupted = threading.Event()
    begun, chunks_of = threading.Event(), {"0": 0, "1": 0}

    class Waiting(Extractor):
        """Hold the second video in its first chunk until the interruption."""

        def stream(self, path):
            for chunk in super().stream(path):
                chunks_of[path.stem] += 1
                if path.stem == "0":
                    assert begun.wait(60)
                else:
                    begun.set()
                    assert interrupted.wait(60)
                yield chunk

    # Each video has several chunks.
    videos = [write_clip(tmp_path / f"{i}.mp4", 25) for i in range(5)]
    out = tmp_path / "out"
    shutdown = ThreadPoolExecutor.shutdown

    def interrupted_shutdown(pool, **kwargs):
        # The running extractions have been asked to stop.
        interrupted.set()
        shutdown(pool, **kwargs)

    def interrupt(video, failure):
        raise KeyboardInterrupt

    monkeypatch.setattr(ThreadPoolExecutor, "shutdown", interrupted_shutdown)
    with pytest.raises(KeyboardInterrupt):
        extract_all(Waiting(Loudness(), Brightness()), videos, out, 2, interrupt)
    assert read_source(out, "0") is not None
    # The running video stopped after its chunk; no other video started.
    assert chunks_of == {"0": 2, "1": 1}
    assert [read_source(out, str(i)) for i in range(1, 5)] == [None] * 4


def model_of(backbones, audio_width=3, visual_shape=(3,)):
    return avsdn_tf.AVSDN(
        ["Bark"], audio_width, visual_shape, units=2, backbones=backbones
    )


@pytest.mark.parametrize(
    ("model", "field"),
    [
        ({"backbones": {"visual_network": "other"}}, "visual_network"),
        ({"backbones": None, "visual_shape": (5,)}, "visual_network"),
        ({"backbones": {"visual_network": "small"}, "audio_width": 5}, "audio_network"),
        ({"backbones": {"visual_network": "small"}}, None),
        ({"backbones": {"audio_network": "yamnet"}}, "audio_network"),
        ({"backbones": {"audio_weights": "unknown"}}, None),
        ({"backbones": None}, None),
    ],
)
def test_check_fits_compares_backbones_and_shapes(extractor, model, field):
    model = model_of(**model)
    if field is None:
        extractor.check_fits(model)
        return
    with pytest.raises(UserError) as caught:
        extractor.check_fits(model)
    assert caught.value.field == field
    assert caught.value.value == extractor.backbones.to_dict()[field]


def test_the_backbones_of_a_model_are_loaded(monkeypatch, extractor):
    loaded = []

    def build(**given):
        loaded.append(given)
        return extractor

    monkeypatch.setattr(videos, "build_extractor", build)
    model = model_of({"audio_network": "vggish", "visual_network": "small"})
    videos.extractor_for(model)
    videos.extractor_for(model, empty="audio", audio_weights="mine")
    expected = {
        "audio_network": "vggish",
        "audio_weights": VGGISH,
        "visual_network": "small",
        "visual_weights": "imagenet",
        "visual_precision": "float32",
        "empty": None,
    }
    assert loaded == [
        expected,
        {**expected, "audio_weights": "mine", "empty": "audio"},
    ]


@pytest.mark.parametrize(
    ("backbones", "given", "shape"),
    [
        ({"visual_network": "vgg19"}, {"visual_network": "resnet152"}, (7, 7, 512)),
        (None, {}, (7, 7, 512)),
        (None, {"visual_network": "resnet50"}, (2048,)),
    ],
)
def test_mismatched_features_are_refused_before_weights_are_loaded(
    monkeypatch, backbones, given, shape
):
    monkeypatch.setattr(extractor_module, "AudioNetwork", None)
    with pytest.raises(UserError) as caught:
        videos.extractor_for(model_of(backbones, 128, shape), **given)
    assert caught.value.field == "visual_network"
    assert shape == (2048,) or "vgg19" in caught.value.message


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("visual_network", "resnet50"),
        ("empty", "sound"),
        ("visual_precision", "bf16"),
    ],
)
def test_the_error_of_an_unknown_value_names_its_field(field, value):
    with pytest.raises(UserError) as caught:
        build_extractor(**{field: value})
    assert (caught.value.field, caught.value.value) == (field, value)


def test_backbones_are_described_by_modality():
    assert Backbones().describe() == ""
    given = Backbones().override(audio_network="yamnet", visual_network="./module")
    text = given.complete().describe()
    assert text.startswith("sound: yamnet, https://")
    assert text.endswith("; picture: ./module, float32")
