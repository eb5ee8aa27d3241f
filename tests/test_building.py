"""Builds: locks, errors before the first feature, kept data sets, and cleanup."""

import errno
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from avsdn_tf.data.dataset import open_dataset
from avsdn_tf.errors import UserError
from avsdn_tf.features.extractor import Extractor
from avsdn_tf.files import lock
from tests.small_datasets import (
    VIDEO_COLUMNS,
    build,
    examples,
    make_ave,
    make_custom,
    make_custom_videos,
    write_manifest,
)
from tests.small_videos import Brightness, Loudness, write_clip
from tfds_ave import DatasetError, extraction, look, sources, synthetic
from tfds_ave.tfds_ave_dataset_builder import Builder

ROOT = pathlib.Path(__file__).resolve().parents[1]
_MODE = tfds.GenerateMode.REUSE_CACHE_IF_EXISTS


@pytest.fixture
def loaded(monkeypatch):
    """Replace the backbones; return a list with an entry for each load."""
    calls = []

    def build_extractor(empty=None, **_):
        calls.append(empty)
        return Extractor(Loudness(), Brightness(), empty)

    monkeypatch.setattr(extraction, "build_extractor", build_extractor)
    return calls


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def test_simultaneous_programs_build_one_data_set(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    tfds_build = (
        *("-m", "tensorflow_datasets.scripts.cli.main", "build", "tfds_ave"),
        *("--imports=tfds_ave", "--data_dir=data"),
    )
    avsdn = ("-m", "avsdn_tf.main", "--data_dir=data", "--epochs=1", "--run=run")
    together = [
        subprocess.Popen(
            [sys.executable, *words],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for words in (tfds_build, (*avsdn, "--units=4"), (*avsdn[:3], "--help"))
    ]
    output = [process.communicate(timeout=300)[0] for process in together]
    assert [process.returncode for process in together] == [0, 0, 0], output
    assert names(tmp_path / "data" / "tfds_ave" / "synthetic") == ["1.2.0"]
    opened = open_dataset("tfds_ave/synthetic", str(tmp_path / "data"))
    assert opened.num_clips("train") == 480


def test_a_second_build_waits_for_the_data_set_of_the_first(tmp_path):
    make_custom(tmp_path / "own")
    build(tmp_path / "own", tmp_path / "other", "custom")
    folder = tmp_path / "data" / "tfds_ave" / "custom"
    folder.mkdir(parents=True)
    waiting = Builder(data_dir=tmp_path / "data", config="custom")
    said = []

    def end_first_build(text):
        said.append(text)
        shutil.copytree(tmp_path / "other/tfds_ave/custom/1.3.0", folder / "1.3.0")
        held.__exit__(None, None, None)

    held = lock(folder)
    held.__enter__()
    waiting.say = end_first_build
    waiting.download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir=tmp_path / "own")
    )
    assert "Waiting for another process" in said[0]
    assert waiting.info.splits["train"].num_examples == 3
    assert len(examples(waiting, "train")) == 3


def test_reading_needs_no_lock(tmp_path):
    make_custom(tmp_path / "own")
    folder = pathlib.Path(build(tmp_path / "own", tmp_path, "custom").data_path)
    with lock(folder.parent):
        loaded = tfds.load("tfds_ave/custom", split="train", data_dir=tmp_path)
        assert len(loaded) == 3
        build(tmp_path / "own", tmp_path, "custom")


def test_leftovers_of_killed_builds_are_removed(tmp_path, loaded):
    rows = make_custom_videos(tmp_path / "own")
    config, features = tmp_path / "data/tfds_ave/custom", tmp_path / "own/features"
    for path in (
        config / "incomplete.ABC123_1.3.0",
        config / "mine",
        features / ".failures-abc",
        features / ".tmp-abc",
    ):
        path.mkdir(parents=True)
        (path / "c0.audio.npy").touch()
    build(tmp_path / "own", tmp_path / "data", "custom")
    # Files that a build didn't write are kept.
    assert names(config) == ["1.3.0", "mine"]
    kept = {f"{row[0]}.{kind}" for row in rows for kind in ("audio.npy", "visual.npy")}
    assert {*names(features)} >= kept
    assert not [name for name in names(features) if name.startswith(".")]


def test_a_build_keeps_files_of_another_running_build(tmp_path, loaded):
    make_custom_videos(tmp_path / "own")
    results = tmp_path / "own" / "features" / ".failures-abc"
    results.mkdir(parents=True)
    with lock(results):
        build(tmp_path / "own", tmp_path / "data", "custom")
    assert results.is_dir()


@pytest.mark.parametrize("has_new_data_set", [False, True])
def test_a_data_set_is_restored_after_a_killed_build(tmp_path, has_new_data_set):
    make_custom(tmp_path / "own")
    folder = pathlib.Path(build(tmp_path / "own", tmp_path, "custom").data_path)
    replaced = folder.with_name("replaced.1.3.0")
    if has_new_data_set:
        shutil.copytree(folder, replaced)
    else:
        folder.rename(replaced)
    builder = build(tmp_path / "own", tmp_path, "custom")
    assert names(folder.parent) == ["1.3.0"]
    assert len(examples(builder, "train")) == 3


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EROFS, "Read-only file system"),
        tf.errors.ResourceExhaustedError(None, None, "No space left on device"),
    ],
)
def test_a_full_disk_fails_with_one_message_and_leaves_no_files(
    tmp_path, monkeypatch, error
):
    def fail(config, split):
        yield from list(generate(config, split))[:3]
        raise error

    generate = synthetic.generate_clips
    monkeypatch.setattr(synthetic, "generate_clips", fail)
    with pytest.raises(UserError) as raised:
        open_dataset("tfds_ave/synthetic", str(tmp_path))
    message = str(raised.value)
    assert str(tmp_path / "tfds_ave" / "synthetic") in message
    assert "space" in message
    assert len(message.splitlines()) == 1
    assert names(tmp_path / "tfds_ave" / "synthetic") == []
    assert names(tmp_path) == ["tfds_ave"]


def test_too_little_space_is_reported_before_writing(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=10_000_000)
    monkeypatch.setattr(look.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DatasetError, match=r"too little space\. .*0\.06 GB.* 0\.01 GB"):
        Builder(data_dir=tmp_path).download_and_prepare()
    assert names(tmp_path / "tfds_ave" / "synthetic") == []


def test_a_folder_that_cannot_be_created_fails_with_one_message(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file.*can't be built"):
        open_dataset("tfds_ave/synthetic", str(tmp_path / "file"))


def test_a_folder_without_a_data_set_fails_with_one_message(tmp_path):
    make_custom(tmp_path / "own")
    folder = tmp_path / "data" / "tfds_ave" / "custom" / "1.3.0"
    folder.mkdir(parents=True)
    with pytest.raises(DatasetError, match=r"1\.3\.0: this folder holds no data set"):
        build(tmp_path / "own", tmp_path / "data", "custom")
    build(tmp_path / "own", tmp_path / "data", "custom", download_mode=_MODE)


def refusal(folder, data_dir):
    """Return the error message of a build that fails before computing features."""
    with pytest.raises(DatasetError) as error:
        build(folder, data_dir, "custom")
    assert not (folder / "features").exists()
    return str(error.value)


def test_all_errors_are_reported_before_the_first_feature_is_extracted(
    tmp_path, loaded
):
    """The errors: wrong feature lengths, no sound, no video, an event past the end."""
    folder = tmp_path / "own"
    rows = make_custom_videos(folder, (3, 3, 3, 3, 3, 3, 3))
    write_clip(folder / "3.mp4", 3, sound=False)
    (folder / "5.mp4").write_bytes(b"no video")
    rows[6][3:5] = (2, 9)
    for name, num_rows in (("a", 9), ("v", 7)):
        np.save(folder / f"{name}.npy", np.zeros((num_rows, 3), np.float32))
    rows = [[*row, "", ""] for row in rows]
    rows[4][5:] = ["", "a.npy", "v.npy"]
    write_manifest(folder, rows, (*VIDEO_COLUMNS, "audio", "visual"))
    message = refusal(folder, tmp_path / "data")
    assert "line 6: clip 'c4': its audio lasts 9 s" in message
    assert 'Set empty="audio"' in message
    assert f"c5: {folder / '5.mp4'}" in message
    assert "2 of 6 videos failed" in message
    assert "line 8: clip 'c6': its event lasts from 2.0 to 9.0 s" in message
    assert loaded == []


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "ts"])
def test_lengths_of_every_container_are_read_before_extraction(
    tmp_path, loaded, suffix
):
    folder = tmp_path / "own"
    rows = make_custom_videos(folder, (1, 1, 1))
    for index, row in enumerate(rows):
        row[3:5] = (0, 6 if index == 1 else 1)
        row[5] = f"{index}.{suffix}"
        write_clip(folder / row[5], 2)
    write_manifest(folder, rows, VIDEO_COLUMNS)
    message = refusal(folder, tmp_path / "data")
    assert "line 3: clip 'c1': its event lasts from 0.0 to 6.0 s" in message
    assert len(message.splitlines()) == 1
    assert loaded == []


def test_lengths_near_a_bound_are_not_refused():
    # The length that a container states may exceed its content by half a second.
    stated_s = {"a": 10.0, "b": 10.05, "c": 11.45, "d": 8.7, "e": 12.0, "f": 7.9}
    assert look.find_wrong_lengths(stated_s, 10) == ["e 12", "f 8"]


def test_a_video_in_two_splits_is_reported_and_recorded(tmp_path, loaded):
    folder = tmp_path / "own"
    make_custom_videos(folder)
    shutil.copy(folder / "0.mp4", folder / "2.mp4")
    write_clip(folder / "1.mp4", 2)
    (folder / "categories.txt").write_text("Beep\nKettle\n")
    builder, said = Builder(data_dir=tmp_path / "data", config="custom"), []
    builder.say = said.append
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir=folder)
    )
    opened = open_dataset("tfds_ave/custom", str(tmp_path / "data"))
    shared, gaps, cut = opened.source.warnings
    assert "1 video in several splits" in shared
    assert "c0 (train) = c2 (test)" in shared
    assert gaps == "no clip of Kettle in train and validation and test"
    assert "1 event cut where the clip ends: c1 (line 3)" in cut
    assert all(any(w in text for text in said) for w in (shared, gaps, cut))


def test_building_ave_reports_ids_in_two_splits_and_progress(tmp_path):
    folder = make_ave(tmp_path / "ave", noisy=False)
    lines = (folder / "Annotations.txt").read_text().splitlines()
    lines[21] = lines[21].replace("-id00000021", "-id00000020")
    (folder / "Annotations.txt").write_text("\n".join(lines))
    builder, stages = Builder(data_dir=tmp_path / "data", config="resnet152"), []
    builder.on_progress = lambda *step: stages.append(step)
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir=folder)
    )
    opened = open_dataset("tfds_ave/resnet152", str(tmp_path / "data"))
    shared = opened.source.warnings[0]
    assert "-id00000020 (validation) = -id00000020 (test)" in shared
    assert stages[-1] == ("writing clips", 30, 30)


def test_custom_data_do_not_cite_ave(tmp_path):
    make_custom(tmp_path / "own")
    info = build(tmp_path / "own", tmp_path / "data", "custom").info
    assert "tian" not in (info.citation or "").lower()
    assert "AVE-ECCV18" not in repr(info)
    assert "tian2018ave" in Builder(data_dir=tmp_path).info.citation


def test_unfinished_downloads_are_removed(tmp_path, monkeypatch):
    folder = make_ave(tmp_path / "ave", noisy=False)
    (folder / "Annotations.txt").unlink()
    downloads = tmp_path / "data" / "downloads"
    left = downloads / "tfds_ave" / "old.tmp.0123"
    left.mkdir(parents=True)

    def download(self, urls):
        assert not left.exists()
        (downloads / "tfds_ave" / "new.tmp.4567").mkdir()
        raise OSError("no network in tests")

    monkeypatch.setattr(sources, "_probe", lambda *_: None)
    monkeypatch.setattr(tfds.download.DownloadManager, "download", download)
    with pytest.raises(DatasetError, match=r"no network in tests[\s\S]*Annotations"):
        build(folder, tmp_path / "data")
    assert not downloads.exists()


def test_downloads_in_a_user_folder_are_kept(tmp_path):
    (tmp_path / "mine").mkdir()
    builder = Builder(data_dir=tmp_path / "data")
    builder.download_and_prepare(download_dir=tmp_path / "mine")
    assert (tmp_path / "mine").is_dir()
