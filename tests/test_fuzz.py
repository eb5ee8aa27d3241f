"""Damaged copies of videos are read or refused, without hanging or leaking memory."""

import pytest

from experiments.faults import fuzz
from tests.small_videos import find_clip
from tests.test_video import click, grey_image, write


def test_a_copy_that_hangs_is_counted(tmp_path):
    file = str(tmp_path / "video.mkv")
    write(file, images=[grey_image(0)] * 10)
    (outcome,) = fuzz.fuzz(file, copies=1, seed=0, limit_s=0)
    assert (outcome.status, outcome.memory_mib) == ("hung", 0)


def test_memory_growth_ignores_caches_and_single_peaks():
    def outcomes(memory_mib):
        return [fuzz.Outcome("cut", "ok", "1 s", 0.1, memory) for memory in memory_mib]

    # The first quarter fills caches; one copy needs much memory for a while.
    levelled = [1, 4, 7, 9, 9, 9, 9, 9, 99, 9, 9, 9]
    assert fuzz.memory_growth_mib(outcomes(levelled)) == 0
    assert fuzz.memory_growth_mib(outcomes([1, 2, 3, 4, 5, 6, 7, 8])) == 4
    assert fuzz.memory_growth_mib(outcomes([7])) == 0


def test_damaged_copies_are_read_or_refused(tmp_path):
    file = str(tmp_path / "video.mkv")
    images = [grey_image(index) for index in range(28)]
    write(file, images=images, waveform=click(2.25, 2.8, 44_100))
    outcomes = fuzz.fuzz(file, copies=20, seed=0, limit_s=20)
    assert len(outcomes) == 20
    failed = [entry for entry in outcomes if entry.status not in ("ok", "refused")]
    assert not failed
    assert {entry.status for entry in outcomes} == {"ok", "refused"}
    assert fuzz.memory_growth_mib(outcomes) < fuzz.LEAK_MIB


def test_a_missing_video_fails_with_one_message(capsys):
    with pytest.raises(SystemExit) as stop:
        fuzz.main(["nowhere.mp4"])
    assert stop.value.code == 2
    assert "nowhere.mp4: no such file" in capsys.readouterr().err


def test_damaged_copies_of_a_real_clip_are_read_or_refused(tmp_path):
    outcomes = fuzz.fuzz(str(find_clip("dog_02754.mp4")), copies=20, seed=0, limit_s=60)
    assert len(outcomes) == 20
    assert {entry.status for entry in outcomes} <= {"ok", "refused"}
    assert fuzz.memory_growth_mib(outcomes) < fuzz.LEAK_MIB
