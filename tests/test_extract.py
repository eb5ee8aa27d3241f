"""Many videos at once: what goes on where another fails, and what a folder holds."""

import io
import json
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from rich.console import Console

from avsdn_tf.cli import commands, files, main, prediction
from avsdn_tf.training.config import CROSS_MODAL
from avsdn_tf.errors import UserError
from avsdn_tf.features.extractor import (
    Extractor,
    Source,
    claim_folder,
    extract_all,
    find_videos,
    read_source,
    settings_of,
)
from avsdn_tf.report import player
from tests.small_videos import Brightness, Loudness, write_clip

SETTINGS = settings_of("small", "a", "b")


def extract_quietly(extractor, videos, out, settings=SETTINGS, on_done=None):
    return extract_all(
        extractor, videos, out, settings, 1, on_done or (lambda video, failure: None)
    )


def test_another_video_of_the_same_name_is_refused_and_none_is_lost(
    tmp_path, extractor
):
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


def test_of_one_name_the_first_that_can_be_read_has_the_files(tmp_path, extractor):
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
    told = []
    failures = extract_quietly(
        extractor, videos, tmp_path / "out", on_done=lambda video, _: told.append(video)
    )
    assert sorted(told) == sorted(videos)
    assert set(failures) == {missing, long_name, broken, nothing, late}
    assert f"{late}: has the same name as {good}" in failures[late]
    assert "there is no such" in failures[missing] or "No such" in failures[missing]
    assert "directory" in failures[nothing]
    assert np.load(tmp_path / "out" / "same.audio.npy").shape == (2, 3)


def test_a_folder_is_not_taken_from_a_process_that_has_not_finished_a_video(
    tmp_path, extractor
):
    video = write_clip(tmp_path / "a.mp4", 2)
    out = tmp_path / "out"
    other = {**SETTINGS, "vggish": "other"}

    class Slow(Extractor):
        def stream(self, path):
            # Meanwhile another process finds no features there, and begins.
            assert not extract_quietly(extractor, [video], out, other)
            yield from super().stream(path)

    late = write_clip(tmp_path / "b.mp4", 2)
    with pytest.raises(UserError, match="expected vggish 'other', received 'a'"):
        extract_quietly(Slow(Loudness(), Brightness()), [late], out)
    assert read_source(out, "a") is not None
    assert read_source(out, "b") is None


def test_a_file_that_a_killed_process_left_is_no_feature(tmp_path):
    claim_folder(tmp_path, SETTINGS)
    (tmp_path / ".tmp-0.npy").touch()
    (tmp_path / "a.audio.npy").touch()
    claim_folder(tmp_path, {**SETTINGS, "vggish": "other"})


def test_features_of_another_precision_are_of_another_kind(tmp_path):
    half = settings_of("small", "a", "b", "mixed_bfloat16")
    # Of before there was a choice.
    old = {name: SETTINGS[name] for name in ("visual_network", "vggish")}
    (tmp_path / "extract.json").write_text(json.dumps({**old, "visual_weights": "b"}))
    (tmp_path / "a.source.json").touch()
    with pytest.raises(UserError, match=r"visual_precision 'float32', received 'mixed"):
        claim_folder(tmp_path, half)
    claim_folder(tmp_path, SETTINGS)
    told = json.loads((tmp_path / "extract.json").read_text())
    assert told["visual_precision"] == "float32"


@pytest.mark.parametrize("content", [b"[1]", b'"x"', b"\xff", b'{"a":'])
def test_damaged_settings_of_features_are_one_message(tmp_path, content):
    claim_folder(tmp_path, SETTINGS)
    (tmp_path / "a.source.json").touch()
    (tmp_path / "extract.json").write_bytes(content)
    with pytest.raises(UserError, match=r"extract.json: expected what made the feat"):
        claim_folder(tmp_path, SETTINGS)


def test_two_processes_may_write_the_features_of_one_video(tmp_path):
    path = tmp_path / "a.npy"
    with files.atomic_write(path) as first:
        first.write_text("first")
        with files.atomic_write(path) as second:
            second.write_text("secon")
            assert first.read_text() == "first"
        assert path.read_text() == "secon"
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_the_name_of_the_trained_weights_is_no_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("imagenet", "vggish"):
        (tmp_path / name).mkdir()
    settings = settings_of("small", "vggish", "imagenet")
    assert settings["visual_weights"] == "imagenet"
    assert settings["vggish"] == str(tmp_path / "vggish")


def test_features_that_are_not_whole_are_made_again(tmp_path, extractor):
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


def test_a_folder_is_of_one_kind_however_its_networks_are_named(
    tmp_path, extractor, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vggish").mkdir()
    silent = write_clip(tmp_path / "silent.mp4", 2, sound=False)
    loud = write_clip(tmp_path / "loud.mp4", 2)
    out = tmp_path / "out"
    named = settings_of("small", "vggish", "imagenet")
    assert "--empty=audio" in extract_quietly(extractor, [silent], out, named)[silent]
    # No features are there yet, so they may be of any kind.
    extract_quietly(extractor, [loud], out, SETTINGS)
    with pytest.raises(UserError, match=r"vggish 'a', received .*vggish'"):
        extract_quietly(extractor, [loud], out, named)

    for path in out.iterdir():
        path.unlink()
    extract_quietly(extractor, [loud], out, named)
    # What the message asked for, and the same folder by its full name.
    lenient = Extractor(Loudness(), Brightness(), "audio")
    full = settings_of("small", str(tmp_path / "vggish"), "imagenet")
    assert not extract_quietly(lenient, [silent], out, full)
    assert not np.load(out / "silent.audio.npy").any()


def test_ctrl_c_ends_at_once_and_keeps_what_is_finished(tmp_path, monkeypatch):
    interrupted = threading.Event()
    begun, chunks_of = threading.Event(), {"0": 0, "1": 0}

    class Waiting(Extractor):
        """The second video is in its first chunk when the first one is done."""

        def stream(self, path):
            for chunk in super().stream(path):
                chunks_of[path.stem] += 1
                if path.stem == "0":
                    assert begun.wait(60)
                else:
                    begun.set()
                    assert interrupted.wait(60)
                yield chunk

    # Of several chunks each.
    videos = [write_clip(tmp_path / f"{i}.mp4", 25) for i in range(5)]
    out = tmp_path / "out"
    shutdown = ThreadPoolExecutor.shutdown

    def tell(pool, **kwargs):
        # By then, those that run have been asked to stop.
        interrupted.set()
        shutdown(pool, **kwargs)

    def interrupt(video, failure):
        raise KeyboardInterrupt

    monkeypatch.setattr(ThreadPoolExecutor, "shutdown", tell)
    with pytest.raises(KeyboardInterrupt):
        extract_all(
            Waiting(Loudness(), Brightness()), videos, out, SETTINGS, 2, interrupt
        )
    assert read_source(out, "0") is not None
    # Neither went on with the one that was running, nor began another.
    assert chunks_of == {"0": 2, "1": 1}
    assert [read_source(out, str(i)) for i in range(1, 5)] == [None] * 4


def test_the_command_line_says_that_it_was_stopped(monkeypatch, capsys):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "extract", interrupted)
    main.flags.FLAGS(["avsdn"])
    with pytest.raises(SystemExit) as end:
        main.main(["avsdn", "extract", "a.mp4"])
    assert end.value.code == 128 + signal.SIGINT
    assert "extract was stopped" in capsys.readouterr().err


def test_extract_says_how_far_it_is_and_lists_failures_at_the_end(
    tmp_path, extractor, monkeypatch
):
    monkeypatch.setattr(commands, "build_extractor", lambda *_, **__: extractor)
    write_clip(tmp_path / "good [1].mp4", 2)
    (tmp_path / "bad [b].mp4").write_bytes(b"no video")
    shown = io.StringIO()
    networks = {"vggish": "a", "visual_weights": "b", "empty": None}
    videos = [str(tmp_path), str(tmp_path / "nowhere.mp4")]
    out = str(tmp_path / "out [x]")
    console = Console(file=shown, width=200)
    assert commands.extract(videos, out, "small", networks, 1, console) == 2
    lines = shown.getvalue().splitlines()
    assert sorted(line.split(" ", 1)[1] for line in lines[:3]) == [
        "bad [b].mp4: failed",
        "good [1].mp4",
        "nowhere.mp4: failed",
    ]
    assert lines[3] == f"1 of 3 videos in {out}"
    assert lines[4] == "2 of 3 videos failed:"
    assert "bad [b].mp4" in lines[5]
    assert "nowhere.mp4" in lines[6]
    assert (tmp_path / "out [x]" / "good [1].visual.npy").is_file()


def test_predict_goes_on_whatever_one_video_is_called(
    tmp_path, run_folder, extractor, monkeypatch
):
    monkeypatch.setattr(prediction, "network_for", lambda model: "small")
    monkeypatch.setattr(commands, "build_extractor", lambda *_, **__: extractor)
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
    shown = io.StringIO()
    videos = [str(tmp_path / name) for name in names]
    out = tmp_path / "out"
    console = Console(file=shown, width=200)
    assert commands.predict(str(run_folder), videos, str(out), {}, console) == 3
    pages = {path.name for path in out.glob("*.html")}
    assert pages == {
        "title [dQw4w9WgXcQ].html",
        os.fsdecode(b"caf\xe9 \xe7\x8a\xac.html"),
        "last.html",
    }
    text = shown.getvalue()
    assert f"Page to open: {out}/title [dQw4w9WgXcQ].html" in text
    end = text[text.index("3 of 6 videos failed:") :].splitlines()
    assert [names[0] in end[1], "File name too long" in end[2]] == [True, True]
    assert "nowhere.mp4" in end[3]
    assert "\N{REPLACEMENT CHARACTER}" in text


def test_a_large_video_is_referred_to_whatever_it_is_called(
    tmp_path, run_folder, extractor, monkeypatch
):
    monkeypatch.setattr(prediction, "network_for", lambda model: "small")
    monkeypatch.setattr(commands, "build_extractor", lambda *_, **__: extractor)
    monkeypatch.setattr(player, "EMBEDDED_BYTES_MAX", 0)
    video = write_clip(tmp_path / os.fsdecode(b"caf\xe9.mp4"), 2)
    out = tmp_path / "out"
    quiet = Console(quiet=True)
    assert commands.predict(str(run_folder), [str(video)], str(out), {}, quiet) == 0
    (path,) = out.glob("*.html")
    assert 'src="../caf%E9.mp4"' in path.read_text()


def test_predict_refuses_a_run_that_labels_no_segments(tmp_path, run_folder):
    (run_folder / "config.json").write_text(
        f'{{"config": {{"mode": "{CROSS_MODAL}", "model": "cross_modal"}}, '
        '"versions": {}}'
    )
    out = tmp_path / "out"
    with pytest.raises(UserError, match="a run that labels segments"):
        commands.predict(str(run_folder), ["a.mp4"], str(out), {}, Console(quiet=True))
    assert not out.exists()
