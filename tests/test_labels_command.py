"""`avsdn manifest`, `predict --labels_to`, and the commands of docs/labels.md."""

import csv
import pathlib
import re
import shlex
import subprocess

import numpy as np
import pytest

from avsdn_tf import runs, zero_shot
from avsdn_tf.errors import UserError
from avsdn_tf.events import Event, VideoPrediction
from avsdn_tf.features.extractor import Extractor
from avsdn_tf.labels.checks import Clip
from avsdn_tf.labels.files import SPLITS, LabelledEvent
from avsdn_tf.labels.media import FeatureFiles, Medium
from avsdn_tf.labels.picture import draw_summary
from avsdn_tf.labels.splits import count_clips, draw_splits
from avsdn_tf.labels.summary import summarize
from avsdn_tf.labels.write import write_manifest
from tests.commands import avsdn
from tests.small_videos import Brightness, Loudness, find_clip, write_clip
from tests.test_labels import collect, write_all, write_features
from tfds_ave import extraction
from tfds_ave.manifest import read_manifest

PAGE = pathlib.Path(__file__).resolve().parents[1] / "docs" / "labels.md"


def make_clip(name, *events, split=None, group=None, length_s=10.0):
    """Return a clip with events `(category, start_s, end_s)`."""
    medium = Medium(name, frozenset(), (pathlib.Path(f"{name}.mp4"),), length_s)
    found = tuple(LabelledEvent(*event, "") for event in events)
    return Clip(medium, found, split, group or name)


def rows(folder):
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def label(folder, names, category="Bark", **more):
    """Write feature files of 4 s, and a table with one event per file."""
    write_features(folder, **dict.fromkeys(names, 4))
    lines = [f"{name},1,2.5,{category}" for name in names]
    write_all(folder, {"all.csv": "\n".join(["file,start,end,label", *lines]), **more})


def test_read_manifest_reads_a_written_manifest(tmp_path):
    label(tmp_path, ["a", "b", "c"], '"Bark, loud"')
    assert avsdn("manifest", tmp_path) == 0
    manifest = read_manifest(tmp_path)
    assert manifest.categories == ("Bark, loud",)
    assert {clip.split for clip in manifest.clips} == set(SPLITS)
    assert [(e.start_s, e.end_s) for e in manifest.clips[0].events] == [(1.0, 2.5)]
    assert (tmp_path / "manifest.png").read_bytes().startswith(b"\x89PNG")


def test_patterns_hops_and_tolerance_are_written_as_columns(tmp_path):
    names = ("a", "b", "c")
    for folder, count in (("one", 8), ("two", 5)):
        (tmp_path / folder).mkdir()
        for name in names:
            array = np.zeros((count, 3), np.float32)
            np.save(tmp_path / folder / f"{name}.npy", array)
    lines = [f"{name},1,2.5,Bark" for name in names]
    write_all(tmp_path, {"all.csv": "\n".join(["file,start,end,label", *lines])})
    flags = ("--audio=one/*.npy", "--visual=two/*.npy", "--audio_hop_s=0.5")
    avsdn("manifest", tmp_path, *flags, "--tolerance_s=2", f"--out={tmp_path / 'out'}")
    row = rows(tmp_path / "out")[0]
    assert (row["audio"], row["visual"]) == ("../one/a.npy", "../two/a.npy")
    assert (float(row["audio_hop_s"]), float(row["tolerance_s"])) == (0.5, 2.0)
    assert "visual_hop_s" not in row
    (clip, *_) = read_manifest(tmp_path / "out").clips
    assert clip.hops_s == (0.5, 1.0)


def test_wrong_labels_raise_an_error_and_write_no_file(tmp_path):
    label(tmp_path, ["a", "b", "c"], **{"d.txt": "5\t6\tBark\n"})
    write_features(tmp_path, d=4)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError, match="line 1: 5 to 6 s"):
        avsdn("manifest", tmp_path)
    assert sorted(tmp_path.iterdir()) == before


def test_only_unchanged_manifests_are_overwritten(tmp_path):
    label(tmp_path, ["a", "b", "c"])
    categories = tmp_path / "categories.txt"
    categories.write_text("mine\n")
    for flags in ((), ("--overwrite",)):
        with pytest.raises(UserError, match=r"categories\.txt: exists"):
            avsdn("manifest", tmp_path, *flags)
    assert categories.read_text() == "mine\n"
    categories.unlink()
    avsdn("manifest", tmp_path)
    with pytest.raises(UserError, match="earlier manifest"):
        avsdn("manifest", tmp_path)
    avsdn("manifest", tmp_path, "--overwrite", "--seed=3")
    manifest = tmp_path / "manifest.csv"
    manifest.write_text(manifest.read_text().replace("2.5", "3"))
    with pytest.raises(UserError, match="was changed"):
        avsdn("manifest", tmp_path, "--overwrite")


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("nowhere",),
        ("{}", "--labels=nowhere"),
        ("{}", "--shares=1/2"),
        ("{}", "--shares=1/2/x"),
        ("{}", "--shares=1/2/0"),
        ("{}", "--ticks_per_s=0"),
        ("{}", "--audio=*.npy"),
        ("{}", "--audio=a.npy", "--visual=b.npy"),
        ("{}", "--label_format=audicity"),
        ("{}", "--unlabelled=yes"),
    ],
)
def test_wrong_command_arguments_are_refused(tmp_path, words):
    label(tmp_path, ["a", "b", "c"])
    with pytest.raises(UserError):
        avsdn("manifest", *(word.format(tmp_path) for word in words))


def test_splits_are_stratified_and_seeded_and_keep_groups_together():
    clips = [
        make_clip(f"{c}{i}", (c, 0, 1), group=f"{c}{i // 2}")
        for c, count in (("Bark", 120), ("Horn", 40), ("Rare", 6))
        for i in range(count)
    ]
    clips += [make_clip(f"quiet{i}") for i in range(20)]
    drawn = draw_splits(clips, (70, 15, 15), seed=0)
    assert drawn == draw_splits(clips, (70, 15, 15), seed=0)
    assert drawn != draw_splits(clips, (70, 15, 15), seed=1)
    of_group = {}
    for clip in drawn:
        assert of_group.setdefault(clip.group, clip.split) == clip.split
    for category, by_split in count_clips(drawn).items():
        assert all(by_split[split] for split in SPLITS), category
        share = by_split["train"] / by_split.total()
        assert share == pytest.approx(0.33 if category == "Rare" else 0.7, abs=0.06)


@pytest.mark.parametrize("sizes", [(1, 1, 1), (4, 4, 4), (10, 1, 1), (1, 1, 1, 9)])
def test_three_groups_are_enough_for_every_split(sizes):
    clips = [
        make_clip(f"{g}_{i}", ("Bark", 0, 1), group=str(g))
        for g, size in enumerate(sizes)
        for i in range(size)
    ]
    for seed in range(5):
        drawn = draw_splits(clips, (70, 15, 15), seed)
        assert {clip.split for clip in drawn} == set(SPLITS)


def test_no_split_is_empty_and_weakly_labelled_clips_are_in_train():
    clips = [make_clip(c, (c, 0, 1)) for c in ("Bark", "Horn", "Meow")]
    assert {clip.split for clip in draw_splits(clips, (8, 1, 1), 0)} == set(SPLITS)
    weak = [make_clip(str(i), ("Bark", None, None)) for i in range(5)]
    strong = [make_clip(f"s{i}", ("Bark", 0, 1)) for i in range(5)]
    drawn = draw_splits([*weak, *strong], (70, 15, 15), 0)
    assert {clip.split for clip in drawn if not clip.has_times} == {"train"}
    assert {clip.split for clip in drawn} == set(SPLITS)


def test_summary_of_clips():
    summary = summarize(
        [
            make_clip("a", ("Bark", 0, 4), ("Horn", 3, 6), split="train"),
            make_clip("b", ("Bark", 1, 2), ("Bark", 2, 3), split="test"),
            make_clip("c", split="train", length_s=5.0),
            make_clip("d", ("Horn", None, None), split="train"),
        ]
    )
    assert summary.num_splits == {"train": 3, "validation": 0, "test": 1}
    assert summary.events == {"Bark": {"train": 1, "test": 2}, "Horn": {"train": 2}}
    assert (summary.single_s, summary.overlap_s) == (7.0, 1.0)
    assert (summary.unlabelled_s, summary.background_s) == (12.0, 5.0)
    assert (summary.num_background, summary.num_untimed) == (1, 1)
    assert (summary.length_s, summary.num_overlapping) == (35.0, 1)


def test_the_summary_figure_accepts_many_hostile_category_names(tmp_path):
    names = [f"$\\frac{{{i}}} \u202e<b>{'x' * 200}" for i in range(100)]
    clips = [
        make_clip(str(i), (name, 0, 1), split=SPLITS[i % 3])
        for i, name in enumerate(names)
    ]
    figure = draw_summary(summarize(clips))
    assert figure.get_size_inches()[1] < 12
    write_manifest(tmp_path, clips, figure=figure)
    assert (tmp_path / "manifest.png").stat().st_size > 0


def test_names_like_flags_formulas_and_paths_are_read_unchanged(tmp_path):
    folder = tmp_path / "own"
    names = ["-Rjmgv0O_p0", "=1+1", "~root"]
    folder.mkdir()
    for name in names:
        write_clip(folder / f"{name}.mp4", 2)
        (folder / f"{name}.txt").write_text("0\t1\tBark\n")
    avsdn("manifest", folder)
    found = {clip.key: clip.video for clip in read_manifest(folder).clips}
    assert found == {name: folder / f"{name}.mp4" for name in found}
    assert set(found) == set(names)


def test_the_summary_is_printed(tmp_path, capsys):
    label(tmp_path, ["a", "b", "c"], **{"quiet.txt": "", "README.txt": "Hello\n"})
    write_features(tmp_path, quiet=4)
    (tmp_path / "broken.audio.npy").write_bytes(b"x")
    (tmp_path / "broken.visual.npy").write_bytes(b"x")
    avsdn("manifest", tmp_path)
    printed = capsys.readouterr().out
    for line in (
        r"clips +4, 16\.0 s",
        r"splits +train \d, validation \d, test \d \(drawn\)",
        r"labels +csv \(1 file\), audacity \(1 file\)",
        "events +3 of 1 category",
        r"background +1 clip, 4\.0 s",
        "unreadable +.*broken",
        r"no labels +README\.txt: ",
    ):
        assert re.search(line, printed), line


def predict(video, min_score=0.0):
    """Return one event, or none for quiet videos; the video starts at 5 s."""
    events = [] if "quiet" in video.name else [Event(6.0, 7.0, "Bark", 0.8)]
    return VideoPrediction(
        name=video.name,
        categories=("Bark",),
        probabilities=np.full((3, 2), 0.5),
        segment_s=1.0,
        events=tuple(events),
        disclaimer="No training",
        start_s=5.0,
    )


@pytest.fixture
def predictor(monkeypatch):
    """Replace the zero-shot networks by `predict`."""
    monkeypatch.setattr(zero_shot, "load", lambda *_, **__: None)
    monkeypatch.setattr(runs, "open_predictor", lambda *_, **__: predict)


def test_predicted_events_are_read_as_labels(tmp_path, predictor):
    folder, own = tmp_path / "videos", tmp_path / "own"
    folder.mkdir()
    for name in ("a", "b", "c", "quiet"):
        write_clip(folder / f"{name}.mp4", 3)
    words = ("predict", "--zero_shot", folder, f"--out={tmp_path / 'out'}")
    assert avsdn(*words, f"--labels_to={own}") == 0
    manifest = read_manifest(own)
    times = {c.key: [(e.start_s, e.end_s) for e in c.events] for c in manifest.clips}
    assert times == {**{key: [(1.0, 2.0)] for key in "abc"}, "quiet": []}
    assert {clip.split for clip in manifest.clips} == set(SPLITS)
    with pytest.raises(UserError, match=r"manifest\.csv: exists"):
        avsdn(*words, f"--labels_to={own}")
    with pytest.raises(UserError, match="does not read --labels_to"):
        avsdn("predict", "--demo", f"--labels_to={own}")


def test_predictions_without_events_are_refused(tmp_path, predictor):
    write_clip(tmp_path / "quiet.mp4", 3)
    words = ("predict", "--zero_shot", tmp_path, f"--out={tmp_path / 'out'}")
    with pytest.raises(UserError, match="No event was found"):
        avsdn(*words, f"--labels_to={tmp_path / 'own'}")


def test_labels_of_real_clips_are_summarized(tmp_path):
    texts = {
        "baby_01951": "0\t10\tBaby cry\n",
        "dog_02754": "0\t8.7\tBark\n",
        "dog_BjCEufrlXm4": "0.3\t2.2\tBark\n3.9\t10\tBark\n",
        "drum_02480": "0\t10\tDrums\n",
        "gun_00819": "1.06\t1.9\tGunshot\n2.1\t2.9\tGunshot\n3.1\t3.9\tGunshot\n",
        "long_jump_35s": "",
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.mp4").symlink_to(find_clip(f"{name}.mp4"))
        (tmp_path / f"{name}.txt").write_text(text)
    found = collect(tmp_path)
    summary = summarize(found.clips)
    assert (summary.num_clips, summary.num_background) == (6, 1)
    assert summary.length_s == pytest.approx(83, abs=1)
    assert summary.single_s == pytest.approx(10 + 8.7 + 8 + 10 + 2.44)


def commands():
    """Return the commands of docs/labels.md, in order."""
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def test_the_commands_of_the_labels_page_run(tmp_path, predictor, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def build_extractor(empty=None, **fields):
        return Extractor(Loudness(), Brightness(), empty)

    monkeypatch.setattr(extraction, "build_extractor", build_extractor)
    for folder in ("my_videos", "videos"):
        (tmp_path / folder).mkdir()
    for i in range(6):
        write_clip(tmp_path / "my_videos" / f"clip_{i}.mp4", 4)
        name = ("Bark", "Horn")[i % 2]
        (tmp_path / "my_videos" / f"clip_{i}.txt").write_text(f"1\t3\t{name}\n")
    (table,) = re.findall(r"```csv\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (tmp_path / "labels.csv").write_text(table)
    names = [line.split(".mp4")[0] for line in table.splitlines()[1:]]
    for folder, count in (("vggish", 4), ("r2plus1d", 8)):
        (tmp_path / "features" / folder).mkdir(parents=True)
        for name in names:
            array = np.zeros((count, 3), np.float32)
            np.save(tmp_path / "features" / folder / f"{name}.npy", array)
    for name in names:
        write_clip(tmp_path / "videos" / f"{name}.mp4", 4)
    seen = []
    for command in commands():
        program, *words = shlex.split(command)
        seen.append(words[0])
        if program == "ffmpeg":
            subprocess.run([program, *words], check=True, stdin=subprocess.DEVNULL)
            continue
        more = {"train": ["--epochs=1", "--units=4"], "build": ["--data_dir=tfds"]}
        assert avsdn(*words, *more.get(words[0], ())) == 0, command
    assert {"manifest", "train", "predict", "build"} <= set(seen)
    assert len(read_manifest(tmp_path / "second").clips) == 5


def test_audio_features_have_a_default_pattern():
    assert FeatureFiles().audio == "*.audio.npy"


def test_an_empty_split_is_refused(tmp_path):
    label(tmp_path, ["a", "b"])
    with pytest.raises(UserError, match="no clip of split test"):
        avsdn("manifest", tmp_path, "--allow_missing_categories")
    assert not (tmp_path / "manifest.csv").exists()
