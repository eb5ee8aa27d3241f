"""From a video file to events: extraction, prediction, and the demo."""

import csv
import json
import pathlib

import keras
import numpy as np
import pytest
from rich.console import Console

import avsdn_tf
from avsdn_tf.cli import commands, demo, main, prediction
from avsdn_tf.errors import UserError
from avsdn_tf.features import extractor as extract
from avsdn_tf.features.extractor import Extractor, extract_all, find_videos
from avsdn_tf.features.video.reader import VideoError
from avsdn_tf.events import softmax, stitch_logits
from avsdn_tf.run_folder import RunFolder
from tests.small_videos import (
    REAL_CLIPS,
    Brightness,
    Loudness,
    find_clip,
    write_clip,
)
from tests.test_player import VISIT, title_in_chromium
from tests.test_video import click, grey_image, write


def test_features_come_second_by_second_however_long_the_video(tmp_path, extractor):
    path = write_clip(tmp_path / "a b's ünï.mp4", seconds=19)
    chunks = list(extractor.stream(path))
    assert [len(chunk.audio) for chunk in chunks] == [16, 3]
    assert [(chunk.start_s, chunk.end_s) for chunk in chunks] == [(0, 16), (16, 19)]
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
    # A track that holds nothing is none.
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
    # What macOS writes beside files on disks of others.
    (folder / "._one.mp4").touch()
    videos = find_videos([folder])
    # Each once, by whatever path.
    again = [folder, folder / "one.mp4", folder / "deep" / ".." / "one.mp4"]
    assert find_videos(again) == videos
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
        *(f"{stem}.source.json" for stem in ("one", "two")),
    }
    assert np.load(tmp_path / "out" / "two.audio.npy").shape == (3, 3)

    before = (tmp_path / "out" / "two.audio.npy").stat().st_mtime_ns
    (tmp_path / "out" / "one.visual.npy").unlink()
    run({"network": "a"})
    assert (tmp_path / "out" / "two.audio.npy").stat().st_mtime_ns == before
    assert (tmp_path / "out" / "one.visual.npy").is_file()
    with pytest.raises(UserError, match=r"network 'a', received 'b'"):
        run({"network": "b"})
    for paths, message in (
        ([tmp_path / "no"], "Expected at least one video.*Received: .*no"),
        ([tmp_path / "out"], "Expected at least one video"),
        ([], "Expected at least one video.*Received: none"),
    ):
        with pytest.raises(UserError, match=message):
            find_videos(paths)


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
    assert found["notice"] == (
        "Network of a run with this notice: of no worth. What made the features that "
        "it has learnt from is not recorded; unless it was what made this video's, "
        "these events mean nothing"
    )
    assert np.shape(found["probabilities"]) == (9, 3)
    np.testing.assert_allclose(np.sum(found["probabilities"], 1), 1, atol=1e-4)
    # Windows of four segments, as the network has learnt from.
    logits = stitch_logits(
        RunFolder(run_folder).load_model(), [extractor.extract(videos[0])], window=4
    )
    np.testing.assert_allclose(found["probabilities"], softmax(logits), atol=1e-5)


def test_the_demo_finds_what_is_seen_and_heard_at_once(tmp_path, monkeypatch):
    # A colon in the path starts no protocol.
    monkeypatch.chdir(tmp_path)
    tmp_path = pathlib.Path("demo:1")
    assert commands.predict(None, [], str(tmp_path), {}, Console(quiet=True)) == 0
    with (tmp_path / "demo.events.csv").open() as file:
        events = [
            (float(e["start_s"]), float(e["end_s"]), e["category"])
            for e in csv.DictReader(file)
        ]
    assert events == [(3, 7, "Bell"), (10, 14, "Engine"), (15, 20, "Bird")]
    assert demo.NOTICE in (tmp_path / "demo.html").read_text()


@pytest.fixture
def always_bark():
    """A network that says so, whatever the features of three numbers."""
    model = avsdn_tf.AVSDN(["Bark"], 3, (3,), units=2)
    model.decoder.head.set_weights([np.zeros((2, 2)), np.array([5.0, 0.0])])
    return model


def test_videos_go_through_the_networks_of_the_runs_data(
    tmp_path, run_folder, extractor, monkeypatch
):
    config = json.loads((run_folder / "config.json").read_text())
    made_by = {"visual_network": "small", "vggish": "own", "visual_weights": "w.h5"}
    (run_folder / "config.json").write_text(json.dumps({**config, "networks": made_by}))
    loaded = []

    def build_extractor(network, **networks):
        loaded.append((network, networks))
        return extractor

    monkeypatch.setattr(prediction, "network_for", lambda model: "small")
    for module in (commands, extract):
        monkeypatch.setattr(module, "build_extractor", build_extractor)
    videos = [str(write_clip(tmp_path / "a.mp4", 2))]
    for given in ({}, {"vggish": "other", "empty": "audio"}):
        commands.predict(
            str(run_folder), videos, str(tmp_path / "out"), given, Console(quiet=True)
        )
        assert "not recorded" not in (tmp_path / "out" / "a.html").read_text()
    avsdn_tf.localize(avsdn_tf.load(run_folder), videos[0])
    recorded = {"vggish": "own", "visual_weights": "w.h5"}
    assert loaded == [
        ("small", recorded),
        ("small", {"vggish": "other", "visual_weights": "w.h5", "empty": "audio"}),
        ("small", recorded),
    ]


def test_a_prediction_names_the_modality_that_is_empty(tmp_path, always_bark):
    path = write_clip(tmp_path / "silent.mp4", 2, sound=False)
    lenient = Extractor(Loudness(), Brightness(), "audio")
    for notice in (None, "Demo"):
        found = prediction.predict_video(always_bark, lenient, path, notice=notice)
        told = "This video has no sound: zeros stand in for its features"
        assert found.notice == (f"{notice}. {told}" if notice else told)
    both = write_clip(tmp_path / "both.mp4", 2)
    assert prediction.predict_video(always_bark, lenient, both).notice is None


def test_an_event_ends_with_the_video(tmp_path, extractor, always_bark):
    path = write_clip(tmp_path / "short.mp4", 2, tail_s=0.4)
    found = prediction.predict_video(always_bark, extractor, path)
    ((start_s, end_s, category, _),) = found.events
    assert (start_s, category) == (0, "Bark")
    assert end_s == pytest.approx(2.4, abs=0.1)
    assert len(found.probabilities) == 3
    assert found.start_s == 0


@pytest.mark.parametrize("delay_s", [0.4, 0.9, 7])
@pytest.mark.parametrize(
    ("suffix", "counts_from_zero"),
    [("mkv", False), ("webm", False), ("mp4", False), ("ts", True)],
)
def test_a_late_video_has_the_times_of_players(
    tmp_path, extractor, always_bark, suffix, counts_from_zero, delay_s
):
    # All timestamps are late: by more than the length, which MP4 states and Matroska
    # doesn't. Players count a transport stream from its start.
    path = tmp_path / f"late.{suffix}"
    start_s = 0 if counts_from_zero else delay_s
    write(
        str(path),
        times_s=delay_s + np.arange(24) / 10,
        images=[grey_image(index) for index in range(24)],
        waveform=click(1, 2.4, 48_000),
        rate=48_000,
        start_s=delay_s,
    )
    found = prediction.predict_video(always_bark, extractor, path)
    # The encoder's delay is a part of it.
    assert found.start_s == pytest.approx(start_s, abs=0.03)
    (event,) = found.events
    assert event.start_s == found.start_s
    assert event.end_s == pytest.approx(start_s + 2.4, abs=0.05)
    assert avsdn_tf.localize(always_bark, path, extractor=extractor) == [event]


class RandomSpectrum:
    """Audio features of a test: a few random sums of a spectrum."""

    width = 8

    def __call__(self, seconds):
        spectrum = np.log1p(np.abs(np.fft.rfft(seconds))[:, :512])
        weights = np.random.default_rng(1).normal(0, 0.1, (512, self.width))
        return (spectrum @ weights).astype(np.float32)


class RandomGrid:
    """Visual features of a test: a few random sums of 8 x 8 pixels."""

    shape = (8,)
    frames_per_second = 1

    def __call__(self, frames):
        grids = []
        for (frame,) in frames:
            rows, columns = frame.shape[0] // 8, frame.shape[1] // 8
            grids.append(frame[::rows, ::columns][:8, :8].reshape(-1) / 255)
        weights = np.random.default_rng(2).normal(0, 0.1, (192, *self.shape))
        return (np.stack(grids) @ weights).astype(np.float32)


@pytest.mark.parametrize(("name", "num_seconds"), REAL_CLIPS.items())
def test_real_clips(tmp_path, run_folder, monkeypatch, name, num_seconds):
    clip = find_clip(name)
    keras.utils.set_random_seed(0)
    model = avsdn_tf.AVSDN(["Bark", "Flute"], 8, (8,), units=4)
    kernel, bias = model.decoder.head.get_weights()
    # Background is not to win everywhere, whatever the random weights.
    model.decoder.head.set_weights([10 * kernel, bias - [0, 0, 1]])
    model.save(run_folder / "model.keras")
    RunFolder(run_folder).seal()
    extractor = Extractor(RandomSpectrum(), RandomGrid())
    monkeypatch.setattr(prediction, "network_for", lambda model: "small")
    monkeypatch.setattr(commands, "build_extractor", lambda *_, **__: extractor)
    out, console = tmp_path / "out", Console(quiet=True)
    assert commands.predict(str(run_folder), [str(clip)], str(out), {}, console) == 0

    found = json.loads((out / f"{clip.stem}.events.json").read_text())
    assert (found["start_s"], found["segment_s"]) == (0, 1)
    assert np.shape(found["probabilities"]) == (num_seconds, 3)
    classes = np.argmax(found["probabilities"], axis=1)
    events = found["events"]
    assert events
    # Each second's class again, from the events.
    from_events = np.full(num_seconds, 2)
    for event in events:
        seconds = slice(int(event["start_s"]), int(np.ceil(event["end_s"])))
        from_events[seconds] = ["Bark", "Flute"].index(event["category"])
    np.testing.assert_array_equal(from_events, classes)
    assert (out / f"{clip.stem}.vtt").read_text().count(" --> ") == 1 + len(events)
    assert (out / f"{clip.stem}.png").stat().st_size

    page = out / f"{clip.stem}.html"
    text = page.read_text(encoding="utf-8")
    page.write_text(text.replace("</body>", f"{VISIT}</body>"), encoding="utf-8")
    seen = title_in_chromium(page, tmp_path / "profile")
    assert seen["plays"]
    # Clicks into the timeline, the last second by the keyboard, the first event.
    for action, time_s in (
        ("timeline", 0.625 * num_seconds),
        ("again", 0.375 * num_seconds),
        ("key", num_seconds - 1),
        ("list", events[0]["start_s"]),
    ):
        state = seen[action]
        # A pixel of the timeline is 0.05 s in the longest clip.
        assert state["video_s"] == pytest.approx(time_s, abs=0.06)
        second = int(state["video_s"] + 1e-3)
        assert state["span"] == f"0:{second:02} to 0:{second + 1:02}"
        shown = found["classes"][classes[second]]
        assert state["slider"].startswith(f"0:{second:02}: {shown}, ")


def test_a_network_that_no_video_feeds_says_so():
    model = avsdn_tf.AVSDN(["Bark"], 3, (5,), units=2)
    with pytest.raises(UserError, match=r"\(5,\).*\(2048,\) \(resnet152\)"):
        prediction.network_for(model)
    assert prediction.network_for(avsdn_tf.AVSDN(["Bark"], units=2)) == "resnet152"


def test_what_does_not_go_together_is_one_message(capsys, tmp_path):
    for words, message in (
        (["predict"], "expected --run=DIR"),
        (["predict", "--demo", "a.mp4"], "expected no videos"),
        (["predict", f"--run={tmp_path}", "a.mp4"], "config.json is missing"),
        (["extract"], "Expected at least one video"),
    ):
        with pytest.raises(SystemExit) as stop:
            main.app.run(main.main, ["avsdn_tf", *words])
        assert stop.value.code == 2
        assert message in capsys.readouterr().err
        for name in ("run", "demo"):
            main.flags.FLAGS[name].unparse()
