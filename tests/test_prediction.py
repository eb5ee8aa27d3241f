"""From a video file to events: extraction, prediction, and the demo."""

import csv
import json

import av
import numpy as np
import pytest
from rich.console import Console

import avsdn_tf
from avsdn_tf import commands, demo, main, prediction
from avsdn_tf.errors import UserError
from avsdn_tf.evaluation import Predictions
from avsdn_tf.features import extract
from avsdn_tf.features.extract import Extractor, extract_all, find_videos
from avsdn_tf.features.video import VideoError
from avsdn_tf.localization import softmax, stitch_logits
from avsdn_tf.run_folder import RunFolder
from tests.test_custom import write_manifest
from tests.test_tfds_ave import build, examples, make_ave
from tfds_ave import DatasetError, extraction


class Loudness:
    """Audio features of a test: how loud, and two constants."""

    width = 3

    def __call__(self, seconds):
        loud = np.abs(seconds).mean(axis=1, keepdims=True)
        return np.concatenate([loud, loud, np.ones_like(loud)], 1).astype(np.float32)


class Brightness:
    """Visual features of a test: the mean colour."""

    shape = (3,)
    frames_per_second = 1

    def __call__(self, frames):
        return np.stack([f.mean(axis=(0, 1, 2)) for f in frames]).astype(np.float32)


def write_clip(path, seconds, sound=True, picture=True, tail_s=0):
    """Second s is (10 s) bright and 0.05 (s + 1) loud; a tail of picture may follow."""
    with av.open(str(path), "w") as container:
        if picture:
            video = container.add_stream("h264", rate=5)
            video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        if sound:
            audio = container.add_stream("aac", rate=16_000, layout="mono")
        for second in range(seconds):
            if picture:
                image = np.full((48, 64, 3), 10 * second, np.uint8)
                for _ in range(5):
                    frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                    container.mux(video.encode(frame))
            if sound:
                time_s = np.arange(16_000) / 16_000
                wave = 0.05 * (second + 1) * np.sign(np.sin(2 * np.pi * 200 * time_s))
                frame = av.AudioFrame.from_ndarray(
                    wave[None].astype(np.float32), format="fltp", layout="mono"
                )
                frame.sample_rate = 16_000
                frame.pts = second * 16_000
                container.mux(audio.encode(frame))
        if picture:
            for _ in range(round(5 * tail_s)):
                container.mux(video.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
            container.mux(video.encode())
        if sound:
            container.mux(audio.encode())
    return path


@pytest.fixture
def extractor():
    return Extractor(Loudness(), Brightness())


def test_features_come_second_by_second_however_long_the_video(tmp_path, extractor):
    path = write_clip(tmp_path / "a b's ünï.mp4", seconds=19)
    chunks = list(extractor.stream(path))
    assert [len(audio) for audio, _ in chunks] == [16, 3]
    audio, visual = extractor.extract(path)
    assert audio.shape == visual.shape == (19, 3)
    np.testing.assert_allclose(audio[:, 0], 0.05 * np.arange(1, 20), rtol=0.25)
    np.testing.assert_allclose(visual[:, 1], 10 * np.arange(19), atol=6)


@pytest.mark.parametrize("empty", ["audio", "visual"])
def test_a_missing_modality_is_refused_or_zero(tmp_path, extractor, empty):
    path = write_clip(
        tmp_path / "half.mp4", 2, sound=empty != "audio", picture=empty != "visual"
    )
    with pytest.raises(VideoError, match=rf"half.mp4: has no .*--empty={empty}"):
        extractor.extract(path)
    other = {"audio": "visual", "visual": "audio"}[empty]
    with pytest.raises(VideoError, match=rf"--empty={empty}"):
        Extractor(Loudness(), Brightness(), other).extract(path)
    allowed = Extractor(Loudness(), Brightness(), empty)
    found = dict(zip(("audio", "visual"), allowed.extract(path), strict=True))
    assert not found[empty].any()
    assert found[other].any()
    # Where both are there, nothing is taken away.
    assert all(
        part.any() for part in allowed.extract(write_clip(tmp_path / "b.mp4", 2))
    )


def test_extraction_goes_on_where_it_stopped_and_names_what_failed(tmp_path, extractor):
    folder = tmp_path / "videos"
    (folder / "deep").mkdir(parents=True)
    write_clip(folder / "one.mp4", 2)
    write_clip(folder / "two.mkv", 3)
    write_clip(folder / "deep" / "one.avi", 2)
    (folder / "empty.mp4").touch()
    (folder / "notes.txt").write_text("no video")
    videos = find_videos([folder])
    assert [video.name for video in videos] == [
        "one.avi",
        "empty.mp4",
        "one.mp4",
        "two.mkv",
    ]
    told = []

    def run(settings):
        told.clear()
        return extract_all(
            extractor,
            videos,
            tmp_path / "out",
            settings,
            workers=2,
            on_done=lambda video, failure: told.append((video.name, bool(failure))),
        )

    failures = run({"network": "a"})
    assert sorted(told) == [
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
        *(f"{stem}.{kind}.npy" for stem in ("one", "two") for kind in extract.KINDS),
    }
    assert np.load(tmp_path / "out" / "two.audio.npy").shape == (3, 3)

    before = (tmp_path / "out" / "two.audio.npy").stat().st_mtime_ns
    (tmp_path / "out" / "one.visual.npy").unlink()
    run({"network": "a"})
    assert (tmp_path / "out" / "two.audio.npy").stat().st_mtime_ns == before
    assert (tmp_path / "out" / "one.visual.npy").is_file()
    with pytest.raises(UserError, match=r"holds features of .*'a'.*'b'"):
        run({"network": "b"})
    for paths, message in (
        ([tmp_path / "no"], "expected a video, or a folder"),
        ([tmp_path / "out"], "expected at least one video"),
        ([], "expected at least one video"),
    ):
        with pytest.raises(UserError, match=message):
            find_videos(paths)


@pytest.fixture
def run_folder(tmp_path):
    """A run whose network reads the features of this test."""
    folder = tmp_path / "run"
    folder.mkdir()
    avsdn_tf.AVSDN(["Bark", "Flute"], 3, (3,), units=4).save(folder / "model.keras")
    labels = np.zeros((1, 4), int)
    Predictions(np.zeros(1), np.zeros((1, 4, 3)), labels, np.zeros(1)).save(
        folder / "predictions.npz"
    )
    (folder / "config.json").write_text('{"config": {}, "versions": {}}')
    (folder / "report.json").write_text('{"notice": "of no worth"}')
    return folder


def test_predict_writes_what_players_and_programs_read(
    tmp_path, run_folder, extractor, monkeypatch
):
    monkeypatch.setattr(prediction, "network_for", lambda model: "small")
    monkeypatch.setattr(commands, "build_extractor", lambda *_, **__: extractor)
    write_clip(tmp_path / "dog & <cat>.mp4", 9)
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    console = Console(quiet=True)
    out = tmp_path / "out"
    videos = [str(tmp_path / "dog & <cat>.mp4"), str(tmp_path / "broken.mp4")]
    assert commands.predict(str(run_folder), videos, str(out), {}, console) == 1
    stem = "dog & <cat>"
    assert {path.name for path in out.iterdir()} == {
        f"{stem}{end}"
        for end in (".events.json", ".events.csv", ".vtt", ".png", ".html")
    }
    found = json.loads((out / f"{stem}.events.json").read_text())
    assert found["notice"] == "Network of a run with this notice: of no worth"
    assert np.shape(found["probabilities"]) == (9, 3)
    np.testing.assert_allclose(np.sum(found["probabilities"], 1), 1, atol=1e-4)
    # Windows of four segments, as the network has learnt from.
    logits = stitch_logits(
        RunFolder(run_folder).load_model(), extractor.stream(videos[0]), window=4
    )
    np.testing.assert_allclose(found["probabilities"], softmax(logits), atol=1e-5)


def test_the_demo_finds_what_is_seen_and_heard_at_once(tmp_path):
    assert commands.predict(None, [], str(tmp_path), {}, Console(quiet=True)) == 0
    with (tmp_path / "demo.events.csv").open() as file:
        events = [
            (float(e["start_s"]), float(e["end_s"]), e["category"])
            for e in csv.DictReader(file)
        ]
    assert events == [(3, 7, "Bell"), (10, 14, "Engine"), (15, 20, "Bird")]
    assert demo.NOTICE in (tmp_path / "demo.html").read_text()


def test_an_event_ends_with_the_video(tmp_path, extractor):
    model = avsdn_tf.AVSDN(["Bark"], 3, (3,), units=2)
    # Always an event, whatever the features.
    model.decoder.head.set_weights([np.zeros((2, 2)), np.array([5.0, 0.0])])
    path = write_clip(tmp_path / "short.mp4", 2, tail_s=0.4)
    found = prediction.predict_video(model, extractor, path)
    ((start_s, end_s, category, _),) = found.events
    assert (start_s, category) == (0, "Bark")
    assert end_s == pytest.approx(2.4, abs=0.1)
    assert len(found.probabilities) == 3


def test_a_network_that_no_video_feeds_says_so():
    model = avsdn_tf.AVSDN(["Bark"], 3, (5,), units=2)
    with pytest.raises(UserError, match=r"\(5,\).*\(2048,\) \(resnet152\)"):
        prediction.network_for(model)
    assert prediction.network_for(avsdn_tf.AVSDN(["Bark"], units=2)) == "resnet152"


def test_what_does_not_go_together_is_one_message(capsys, tmp_path):
    for words, message in (
        (["predict"], "expected --run=DIR"),
        (["predict", "--demo", "a.mp4"], "expected neither --run nor videos"),
        (["predict", f"--run={tmp_path}", "a.mp4"], "config.json is missing"),
        (["extract"], "expected at least one video"),
    ):
        with pytest.raises(SystemExit) as stop:
            main.app.run(main.main, ["avsdn_tf", *words])
        assert stop.value.code == 2
        assert message in capsys.readouterr().err
        for name in ("run", "demo"):
            main.flags.FLAGS[name].unparse()


@pytest.fixture
def small_networks(monkeypatch):
    """Networks of the widths that AVE's videos are made into, and of no work."""

    class Audio(Loudness):
        width = 128

        def __call__(self, seconds):
            return np.repeat(super().__call__(seconds)[:, :1], 128, axis=1)

    class Visual(Brightness):
        shape = (2048,)

        def __call__(self, frames):
            return np.repeat(super().__call__(frames)[:, :1], 2048, axis=1)

    def build_extractor(network, vggish, visual_weights):
        assert (network, visual_weights) == ("resnet152", "some.h5")
        return Extractor(Audio(), Visual())

    monkeypatch.setattr(extraction, "build_extractor", build_extractor)


def test_ave_is_made_from_its_videos(tmp_path, small_networks):
    folder = make_ave(tmp_path / "ave", noisy=False)
    for name in ("audio_feature.h5", "visual_feature_vec.h5"):
        (folder / name).unlink()
    (folder / "features.json").write_text('{"visual_weights": "some.h5"}')
    with pytest.raises(DatasetError, match=r"lacks AVE's videos.*AVE_Dataset.zip"):
        build(folder, tmp_path / "data", "videos")
    clip = write_clip(tmp_path / "clip.mp4", 10).read_bytes()
    (folder / "AVE").mkdir()
    for row in range(30):
        (folder / "AVE" / f"-id{row:08d}.mp4").write_bytes(clip)
    broken = folder / "AVE" / "-id00000003.mp4"
    broken.write_bytes(clip[:2000])
    with pytest.raises(DatasetError, match=r"-id00000003: .*\n1 of 30 videos failed"):
        build(folder, tmp_path / "data", "videos")
    assert not (tmp_path / "data").exists()
    # The others are safe: only the mended one is made.
    kept = folder / "features" / "-id00000004.audio.npy"
    before = kept.stat().st_mtime_ns
    broken.write_bytes(clip)
    builder = build(folder, tmp_path / "data", "videos")
    assert kept.stat().st_mtime_ns == before
    assert set(builder.info.splits) == {"train", "validation", "test"}
    example = examples(builder, "test")[21]
    assert example["audio"].shape == (10, 128)
    np.testing.assert_allclose(example["visual"][:, 0], 10 * np.arange(10), atol=6)
    assert example["clip_label"] == 21


def test_ones_own_videos_are_made_into_features(tmp_path, small_networks):
    folder = tmp_path / "own"
    (folder / "clips").mkdir(parents=True)
    (folder / "features.json").write_text('{"visual_weights": "some.h5"}')
    (folder / "categories.txt").write_text("Beep\n")
    rows = []
    for index, split in enumerate(("train", "validation", "test")):
        write_clip(folder / "clips" / f"{split}.mp4", 3)
        rows.append([f"c{index}", split, "Beep", 1, 3, f"clips/{split}.mp4"])
    columns = ("key", "split", "category", "start_s", "end_s", "video")
    write_manifest(folder, rows, columns)
    builder = build(folder, tmp_path / "data", "custom")
    example = examples(builder, "train")[0]
    assert example["segment_labels"].tolist() == [1, 0, 0]
    assert builder.info.metadata["visual_shape"] == [2048]
    (folder / "features.json").write_text('{"visual_network": "alexnet"}')
    with pytest.raises(DatasetError, match=r"unknown visual_network.*'alexnet'"):
        build(folder, tmp_path / "data2", "custom")
