"""Files and output of predict and extract, with backbones of width 3."""

import csv
import json
import os
import pathlib

import numpy as np
import pytest

import avsdn_tf
from avsdn_tf import demo, videos
from avsdn_tf.cli import app, extract
from avsdn_tf.events import softmax, stitch_logits
from avsdn_tf.features import extractor as extractors
from avsdn_tf.report import player
from avsdn_tf.run_folder import RunFolder
from avsdn_tf.training.config import CROSS_MODAL
from tests.small_videos import write_clip
from tests.test_video import grey_image, tone, write


@pytest.fixture
def call(capsys, extractor, monkeypatch):
    """Return a function that runs a command and returns exit code and output."""
    monkeypatch.setattr(videos, "extractor_for", lambda *_, **__: extractor)
    monkeypatch.setattr(extractors, "build_extractor", lambda *_, **__: extractor)

    def call(*words):
        code = app.main(app.parse(list(map(str, words))))
        return code, capsys.readouterr().out

    return call


def save_with(run_folder, **config):
    """Replace a run's model by a model with other settings."""
    model = avsdn_tf.AVSDN(["Bark", "Flute"], 3, (3,), units=4, **config)
    model.save(run_folder / "model.keras")
    RunFolder(run_folder).write_checksums()


def test_predict_writes_files_for_players_and_programs(
    tmp_path, run_folder, extractor, call
):
    save_with(run_folder, num_segments=4)
    stem = "dog & <cat>"
    video = write_clip(tmp_path / f"{stem}.mp4", 9)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    out = tmp_path / "out"
    code, _ = call("predict", f"--run={run_folder}", video, broken, f"--out={out}")
    assert code == 1
    assert {path.name for path in out.glob("[!.]*")} == {
        f"{stem}{end}"
        for end in (".events.json", ".events.csv", ".vtt", ".png", ".html")
    }
    found = json.loads((out / f"{stem}.events.json").read_text())
    assert "of no worth" in found["disclaimer"]
    assert "not recorded" in found["disclaimer"]
    assert np.shape(found["probabilities"]) == (9, 3)
    # Windows have four segments, like the training clips.
    logits = stitch_logits(
        RunFolder(run_folder).load_model(), [extractor.extract(video)], window=4
    )
    np.testing.assert_allclose(found["probabilities"], softmax(logits), atol=1e-5)


def test_flags_replace_the_recorded_backbones(
    tmp_path, run_folder, extractor, monkeypatch, call
):
    save_with(
        run_folder,
        backbones={
            "audio_network": "vggish",
            "audio_weights": "a",
            "visual_network": "small",
        },
    )
    loaded = []

    def extractor_for(model, empty, **backbones):
        loaded.append((empty, backbones))
        return extractor

    monkeypatch.setattr(videos, "extractor_for", extractor_for)
    words = ["predict", f"--run={run_folder}", f"--out={tmp_path}"]
    words.append(write_clip(tmp_path / "a.mp4", 2))
    assert call(*words)[0] == 0
    assert "not recorded" in (tmp_path / "a.html").read_text()
    assert call(*words, "--visual_weights=w", "--empty=audio")[0] == 0
    assert "not recorded" not in (tmp_path / "a.html").read_text()
    assert loaded == [(None, {}), ("audio", {"visual_weights": "w"})]


def test_the_demo_finds_events_seen_and_heard_at_once(tmp_path, monkeypatch, call):
    # A path with a colon is not a URL.
    monkeypatch.chdir(tmp_path)
    out = pathlib.Path("demo:1")
    assert call("predict", "--demo", f"--out={out}")[0] == 0
    with (out / "demo.events.csv").open() as file:
        events = [
            (float(e["start_s"]), float(e["end_s"]), e["category"])
            for e in csv.DictReader(file)
        ]
    assert events == [(3, 7, "Bell"), (10, 14, "Engine"), (15, 20, "Bird")]
    assert demo.DISCLAIMER in (out / "demo.html").read_text()


def test_predict_continues_after_failures_and_unusual_file_names(
    tmp_path, run_folder, call
):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "title [dQw4w9WgXcQ].mp4").write_bytes(b"no video")
    names = [
        "other/title [dQw4w9WgXcQ].mp4",
        "title [dQw4w9WgXcQ].mp4",
        "a" * 245 + ".mp4",
        os.fsdecode(b"caf\xe9 \xe7\x8a\xac.mp4"),
        "nowhere.mp4",
        "last.mp4",
    ]
    for name in [*names[1:4], names[5]]:
        write_clip(tmp_path / name, 2)
    out = tmp_path / "out"
    videos = [tmp_path / name for name in names]
    code, text = call("predict", f"--run={run_folder}", f"--out={out}", *videos)
    assert code == 1
    assert {path.name for path in out.glob("*.html")} == {
        "title [dQw4w9WgXcQ].html",
        os.fsdecode(b"caf\xe9 \xe7\x8a\xac.html"),
        "last.html",
    }
    assert f"Page to open: {out}/title [dQw4w9WgXcQ].html" in text
    end = text[text.index("3 of 6 videos failed:") :].splitlines()
    assert [names[0] in end[1], "File name too long" in end[2]] == [True, True]
    assert "nowhere.mp4" in end[3]
    assert "\N{REPLACEMENT CHARACTER}" in text


def test_a_large_video_of_any_name_is_linked(tmp_path, run_folder, monkeypatch, call):
    monkeypatch.setattr(player, "EMBEDDED_BYTES_MAX", 0)
    video = write_clip(tmp_path / os.fsdecode(b"caf\xe9.mp4"), 2)
    out = tmp_path / "out"
    assert call("predict", f"--run={run_folder}", video, f"--out={out}")[0] == 0
    (path,) = out.glob("*.html")
    assert 'src="../caf%E9.mp4"' in path.read_text()


def test_predict_refuses_a_cross_modality_run(tmp_path, run_folder, call):
    settings = {"config": {"mode": CROSS_MODAL}, "versions": {}}
    (run_folder / "config.json").write_text(json.dumps(settings))
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as stop:
        call("predict", f"--run={run_folder}", "a.mp4", f"--out={out}")
    assert stop.value.code == 2
    assert not out.exists()


def test_extract_prints_progress_and_lists_failures_at_the_end(tmp_path, call):
    write_clip(tmp_path / "good [1].mp4", 2)
    (tmp_path / "bad [b].mp4").write_bytes(b"no video")
    out = tmp_path / "out [x]"
    words = ["extract", "--workers=1", tmp_path, tmp_path / "nowhere.mp4"]
    code, text = call(*words, f"--out={out}")
    assert code == 1
    lines = text.splitlines()
    assert sorted(line.split(" ", 1)[1] for line in lines[:3]) == [
        "bad [b].mp4: failed",
        "good [1].mp4",
        "nowhere.mp4: failed",
    ]
    assert lines[3] == f"1 of 3 videos in {out}"
    assert lines[4] == "2 of 3 videos failed:"
    assert "bad [b].mp4" in lines[5]
    assert "nowhere.mp4" in lines[6]
    assert (out / "good [1].visual.npy").is_file()


@pytest.mark.parametrize("command", ["extract", "predict"])
def test_inverted_channels_are_reported_once(tmp_path, run_folder, call, command):
    clip = str(tmp_path / "stereo.mp4")
    sound = tone(0.5)
    write(
        clip,
        images=[grey_image(3)] * 30,
        waveform=np.stack([sound, -sound]),
        layout="stereo",
    )
    run = [f"--run={run_folder}"] if command == "predict" else []
    code, printed = call(command, *run, clip, f"--out={tmp_path / 'out'}")
    assert code == 0
    assert printed.replace("\n", " ").count("channels is silent") == 1


def test_an_interrupted_extraction_prints_how_to_resume(monkeypatch, capsys, call):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(extract, "run", interrupt)
    assert app.main(app.parse(["extract", "a.mp4"])) == 130
    assert "Repeat the command to resume" in capsys.readouterr().err
