"""Anyone's own data: the manifest, its errors, and training on it."""

import contextlib
import csv
import json
import pathlib
import textwrap

import numpy as np
import pytest
import tensorflow_datasets as tfds
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.portability.prism_runner import PrismRunner
from rich.console import Console

import avsdn_tf
from avsdn_tf.cli import commands, data
from avsdn_tf.training.config import Config
from avsdn_tf.errors import UserError
from avsdn_tf.features import extractor as extract
from avsdn_tf.features.extractor import Extractor
from tests.small_videos import Brightness, Loudness, write_clip
from tests.test_tfds_ave import build, examples, refused_by_tfds
from tfds_ave import DatasetError, custom, extraction
from tfds_ave.configs import CONFIGS
from tfds_ave.tfds_ave_dataset_builder import Builder

ROOT = pathlib.Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
QUIET = Console(quiet=True)
COLUMNS = ("key", "split", "category", "start_s", "end_s", "audio", "visual")


def write_manifest(folder, rows, columns=COLUMNS):
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)


def make_custom(folder, visual_shape=(6,), num_segments=4):
    """Nine clips of 4 s with two categories and 5 wide sounds, three a split."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    (folder / "categories.txt").write_text("# ours\nDoor, slamming\nKettle\n")
    rows = []
    for index in range(9):
        key = f"clip {index}"
        np.save(folder / f"{key}.a.npy", rng.normal(size=(num_segments, 5)))
        np.save(
            folder / f"{key}.v.npy",
            rng.random((num_segments, *visual_shape), np.float32),
        )
        category = ("Door, slamming", "Kettle", "Background")[index % 3]
        times = ("", "") if category == "Background" else (0.5, 2)
        split = ("train", "validation", "test")[index // 3]
        rows.append([key, split, category, *times, f"{key}.a.npy", f"{key}.v.npy"])
    write_manifest(folder, rows)
    return rows


@pytest.mark.parametrize("visual_shape", [(6,), (2, 3, 4)])
def test_categories_and_shapes_come_from_the_data(tmp_path, visual_shape):
    rows = make_custom(tmp_path / "own", visual_shape)
    builder = build(tmp_path / "own", tmp_path / "data", "custom")
    dataset = data.open_dataset("tfds_ave/custom", str(tmp_path / "data"))
    assert dataset.categories == ("Door, slamming", "Kettle")
    assert (dataset.audio_width, dataset.visual_shape) == (5, visual_shape)
    assert dataset.num_segments == 4
    assert dataset.notice is None
    found = examples(builder, "train")
    assert {e["video_id"].decode() for e in found.values()} == {r[0] for r in rows[:3]}
    # From 0.5 to 2: the middles of segments 0 and 1 lie within.
    assert found[0]["segment_labels"].tolist() == [0, 0, 2, 2]
    assert found[1]["segment_labels"].tolist() == [1, 1, 2, 2]
    assert found[2]["segment_labels"].tolist() == [2, 2, 2, 2]
    batch = next(iter(data.training_batches(dataset, Config(batch_size=3))))
    assert batch["visual"].shape == (3, 4, *visual_shape)
    for row, visual in zip(batch["row"].numpy(), batch["visual"], strict=True):
        stored = np.load(tmp_path / "own" / f"clip {row}.v.npy")
        np.testing.assert_array_equal(visual, stored)


def test_changed_labels_change_the_digest(tmp_path):
    rows = make_custom(tmp_path / "own")
    digests = []
    for start_s in (0.5, 0.5, 1.5):
        rows[0][3] = start_s
        write_manifest(tmp_path / "own", rows)
        data_dir = tmp_path / str(len(digests))
        build(tmp_path / "own", data_dir, "custom")
        digests.append(data.open_dataset("tfds_ave/custom", str(data_dir)).digest())
    assert digests[0] == digests[1] != digests[2]


def test_a_clip_may_have_several_events(tmp_path):
    rows = make_custom(tmp_path / "own")
    again = list(rows[0])
    again[3:5] = (2.25, 3.25)
    # A line of the same clip may stand anywhere.
    write_manifest(tmp_path / "own", [*rows, again])
    builder = build(tmp_path / "own", tmp_path / "data", "custom")
    clip = examples(builder, "train")[0]
    assert clip["segment_labels"].tolist() == [0, 0, 0, 2]
    assert (clip["start_s"], clip["end_s"]) == (0.5, 3.25)
    assert clip["segment_label_mean"].tolist() == [0.75, 0, 0.25]
    assert sum(builder.info.splits[s].num_examples for s in builder.info.splits) == 9


@pytest.mark.parametrize(
    ("start_s", "end_s", "covered"),
    [
        (0.5, 1.5, [0]),
        (0.6, 2.4, [1]),
        (0.6, 1.4, [0]),
        (0.9, 1.1, [0]),
        (2.95, 3.05, [2]),
        (0.7, 1.4, [1]),
        (3.6, 3.9, [3]),
        (2.5, 2.6, [2]),
        # Beyond the end of a video that is cut off.
        (3.8, 4.4, [3]),
    ],
)
def test_every_event_covers_a_segment(start_s, end_s, covered):
    found = custom.event_segments(start_s, end_s, 4)
    assert np.flatnonzero(found).tolist() == covered


def test_an_event_of_less_than_a_second_is_not_lost(tmp_path):
    rows = make_custom(tmp_path / "own")
    rows[0][3:5] = (1.7, 2.4)
    write_manifest(tmp_path / "own", rows)
    builder = build(tmp_path / "own", tmp_path / "data", "custom")
    clip = examples(builder, "train")[0]
    assert clip["segment_labels"].tolist() == [2, 2, 0, 2]
    assert clip["start_s"] == pytest.approx(1.7)


def test_several_events_are_matched_and_not_scored(tmp_path):
    rows = make_custom(tmp_path / "own")
    again = [list(rows[index]) for index in (0, 3, 6)]
    for row in again:
        row[3:5] = (3, 4)
    write_manifest(tmp_path / "own", [*rows, *again])
    build(tmp_path / "own", tmp_path / "data", "custom")
    config = Config(
        mode="cross_modal",
        model="cross_modal",
        dataset="tfds_ave/custom",
        data_dir=str(tmp_path / "data"),
        epochs=1,
    )
    commands.train(config, str(tmp_path / "run"), Console(quiet=True))
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    # Of a split's three clips, one has two events and one has none.
    assert (report["num_clips"], report["num_clips_left_out"]) == (1, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({3: "1.5", 4: "3"}, r"line 11: overlapping times.*1.5 to 3.0.*0.5 to 2.0"),
        ({3: "0", 4: "4"}, r"line 11: overlapping times"),
        ({1: "test"}, r"line 11: key 'clip 0' stands in line 2 .*another split"),
        ({2: "Kettle"}, r"line 11: key 'clip 0' .*several categories into clips"),
        ({5: "clip 1.a.npy"}, r"line 11: key 'clip 0' .*another split, category or f"),
        ({3: "", 4: ""}, r"line 11: key 'clip 0' .*Expected times in each line"),
    ],
)
def test_what_no_second_event_can_be_is_named(tmp_path, change, message):
    rows = make_custom(tmp_path / "own")
    again = list(rows[0])
    again[3:5] = ("2", "3")
    for column, value in change.items():
        again[column] = value
    write_manifest(tmp_path / "own", [*rows, again])
    with pytest.raises(DatasetError, match=message):
        build(tmp_path / "own", tmp_path / "data", "custom")


@pytest.mark.parametrize("mode", ["supervised", "weak"])
def test_a_network_of_these_shapes_trains_and_is_evaluated(tmp_path, mode):
    make_custom(tmp_path / "own")
    build(tmp_path / "own", tmp_path / "data", "custom")
    config = Config(
        mode=mode,
        dataset="tfds_ave/custom",
        data_dir=str(tmp_path / "data"),
        epochs=1,
        units=4,
    )
    run = tmp_path / "run"
    commands.train(config, str(run), Console(quiet=True))
    commands.evaluate(str(run), None, Console(quiet=True))
    assert "not AVE" not in (run / "report.html").read_text()


def test_a_run_is_evaluated_on_what_it_has_learnt(tmp_path):
    folder = tmp_path / "own"
    rows = make_custom(folder)
    build(folder, tmp_path / "data", "custom")
    config = Config(
        dataset="tfds_ave/custom", data_dir=str(tmp_path / "data"), epochs=1, units=4
    )
    run = tmp_path / "run"
    commands.train(config, str(run), QUIET)
    report = (run / "report.json").read_text()
    # The same two categories, in the other order.
    (folder / "categories.txt").write_text("Kettle\nDoor, slamming\n")
    build(folder, tmp_path / "other", "custom")
    with pytest.raises(UserError, match=r"expected the categories .*Door.*--data_dir"):
        commands.evaluate(str(run), str(tmp_path / "other"), QUIET)
    for row in rows:
        np.save(folder / row[5], np.zeros((4, 3)))
    build(folder, tmp_path / "narrow", "custom")
    with pytest.raises(UserError, match=r"audio_width .*learnt, 5\. Received 3"):
        commands.evaluate(str(run), str(tmp_path / "narrow"), QUIET)
    assert (run / "report.json").read_text() == report
    # Of a run, a network knows how long its clips were.
    assert avsdn_tf.load(run).num_segments == 4


def test_a_clip_without_times_is_learnt_from_its_category_alone(tmp_path):
    rows = make_custom(tmp_path / "own")
    rows[0][3:5] = ["", ""]
    write_manifest(tmp_path / "own", rows)
    build(tmp_path / "own", tmp_path / "data", "custom")
    common = {
        "dataset": "tfds_ave/custom",
        "data_dir": str(tmp_path / "data"),
        "units": 4,
        "epochs": 1,
    }
    for refused in (
        {"mode": "supervised"},
        {"mode": "weak"},
        {"mode": "cross_modal", "model": "cross_modal", "units": 128},
    ):
        with pytest.raises(UserError, match=r"without start and end.*weak_label=mil"):
            commands.train(Config(**{**common, **refused}), str(tmp_path / "no"), QUIET)
    assert not (tmp_path / "no").exists()
    commands.train(
        Config(mode="weak", weak_label="mil", **common),
        str(tmp_path / "run"),
        Console(quiet=True),
    )


def test_load_gives_what_was_built(tmp_path):
    make_custom(tmp_path / "own")
    build(tmp_path / "own", tmp_path / "data", "custom")
    dataset, info = tfds.load(
        "tfds_ave/custom",
        split="test",
        data_dir=tmp_path / "data",
        download=False,
        with_info=True,
    )
    assert len(dataset) == 3
    assert info.features["clip_label"].names[-1] == "Background"
    assert info.metadata["visual_shape"] == [6]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: {1: "dev"}}, r"line 2: unknown split.*'dev'"),
        ({1: {2: "Dog"}}, r"line 3: unknown category.*'Dog'"),
        ({0: {3: "3", 4: "1"}}, r"line 2: bad times.*start_s='3'"),
        ({0: {3: "x"}}, r"line 2: bad times.*start_s='x'"),
        ({0: {4: "9"}}, r"Clip 'clip 0': its event lasts .* to 9.0 s.* 4 segments"),
        ({3: {3: "", 4: ""}}, r"line 5: expected start_s and end_s.*weak"),
        ({2: {3: "0", 4: "1"}}, r"line 4: expected no times for Background"),
        ({1: {0: "clip 0"}}, r"line 3: key 'clip 0' stands in line 2 already"),
        ({1: {5: "gone.npy"}}, r"line 3: .*gone.npy is missing"),
        ({1: {5: ""}}, r"line 3: expected a video, or both feature files"),
        ({1: {0: "a/b"}}, r"line 3: expected a key that can name a file"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_left(tmp_path, change, message):
    rows = make_custom(tmp_path / "own")
    for row, values in change.items():
        for column, value in values.items():
            rows[row][column] = value
    write_manifest(tmp_path / "own", rows)
    with pytest.raises(DatasetError, match=message):
        build(tmp_path / "own", tmp_path / "data", "custom")
    assert not (tmp_path / "data").exists()


def test_all_wrong_lines_are_named_at_once(tmp_path):
    rows = make_custom(tmp_path / "own")
    rows[0][1] = rows[4][1] = "dev"
    write_manifest(tmp_path / "own", rows)
    with pytest.raises(DatasetError, match=r"(?s)line 2: .*line 6: "):
        build(tmp_path / "own", tmp_path / "data", "custom")


def test_lines_end_where_editors_end_them(tmp_path):
    rows = make_custom(tmp_path / "own")
    name = "Door\u2028slamming"
    (tmp_path / "own" / "categories.txt").write_text(f"{name}\r\nKettle\r\n")
    for row in rows:
        row[2] = row[2].replace("Door, slamming", name)
    # A value of two lines, which are counted as lines.
    rows[1][2] = "Ket\ntle"
    rows[2][1] = "dev"
    write_manifest(tmp_path / "own", rows)
    with pytest.raises(DatasetError, match=r"(?s)line 4: unknown cat.*line 5: ") as e:
        build(tmp_path / "own", tmp_path / "data", "custom")
    assert len(str(e.value).splitlines()) == 2


def test_a_key_can_name_its_files(tmp_path):
    rows = make_custom(tmp_path / "own")
    rows[0][0], rows[1][0] = "\u3042" * 80, "\u3042" * 81
    write_manifest(tmp_path / "own", rows)
    with pytest.raises(DatasetError, match="line 3: expected a key") as error:
        build(tmp_path / "own", tmp_path / "data", "custom")
    assert "line 2" not in str(error.value)
    assert extract.read_source(tmp_path, "\u3042" * 300) is None


def test_broken_files_are_one_message(tmp_path):
    folder = tmp_path / "own"
    rows = make_custom(folder)

    def message():
        with pytest.raises(DatasetError) as error:
            build(folder, tmp_path / "data", "custom")
        return str(error.value)

    good = (folder / "clip 1.a.npy").read_bytes()
    (folder / "clip 1.a.npy").write_bytes(good[:50])
    assert "clip 1.a.npy: damaged" in message()
    (folder / "clip 1.a.npy").write_bytes(b"")
    assert "clip 1.a.npy: damaged" in message()
    np.savez(folder / "archive", np.zeros((4, 5)))
    (folder / "archive.npz").rename(folder / "clip 1.a.npy")
    assert "clip 1.a.npy: damaged, or no .npy file (an archive of" in message()
    np.save(folder / "clip 1.a.npy", np.zeros((3, 5)))
    assert "same number of segments" in message()
    for kind in "av":
        np.save(folder / f"clip 1.{kind}.npy", np.zeros((0, 5)))
    assert "at least 1" in message()
    np.save(folder / "clip 1.v.npy", np.zeros((4, 6)))
    np.save(folder / "clip 1.a.npy", np.zeros((4, 6)))
    assert "'clip 1': expected features of the first clip's shapes" in message()
    np.save(folder / "clip 1.a.npy", np.zeros((4, 5), int))
    assert "floating point" in message()
    np.save(folder / "clip 1.a.npy", np.full((4, 5), np.nan))
    assert "NaN" in message()
    (folder / "clip 1.a.npy").write_bytes(good)
    write_manifest(folder, rows[:6])
    assert "no clip of split 'test'" in message()
    lines = (folder / "manifest.csv").read_text().splitlines()
    lines[3] = lines[3].replace("clip", '"clip', 1)
    (folder / "manifest.csv").write_text("\n".join(lines))
    assert (
        "manifest.csv, line 4: expected a CSV file, with quotes in pairs" in message()
    )
    write_manifest(folder, rows, columns=("name", *COLUMNS[1:]))
    assert "wrong columns" in message()
    write_manifest(folder, rows)
    (folder / "categories.txt").write_text("Kettle\nKettle\n")
    assert "each once" in message()
    (folder / "categories.txt").unlink()
    assert "categories.txt: missing" in message()
    assert not Builder(data_dir=tmp_path / "data", config="custom").is_prepared()


def test_all_clips_of_another_length_are_named_at_once(tmp_path):
    folder = tmp_path / "own"
    make_custom(folder)
    # One more or fewer is what videos of one length come to.
    for index, length in ((0, 6), (3, 5), (7, 2)):
        for kind, width in (("a", 5), ("v", 6)):
            np.save(folder / f"clip {index}.{kind}.npy", np.zeros((length, width)))
    with pytest.raises(
        DatasetError,
        match=r"2 of 9 clips .*Expected 4 segments.*'clip 0' 6, 'clip 7' 2\. Cut",
    ):
        build(folder, tmp_path / "data", "custom")


@pytest.fixture
def small_networks(monkeypatch):
    """Networks of no work; gives what was loaded."""
    loaded = []

    def build_extractor(network, vggish, visual_weights, empty, visual_precision):
        loaded.append((network, vggish, visual_weights, empty, visual_precision))
        return Extractor(Loudness(), Brightness(), empty)

    monkeypatch.setattr(extraction, "build_extractor", build_extractor)
    return loaded


VIDEO_COLUMNS = (*COLUMNS[:5], "video")


def make_videos(folder, lengths_s=(3, 3, 3)):
    """A clip a split, of one category, with an event from 1 to 3 s."""
    folder.mkdir()
    (folder / "categories.txt").write_text("Beep\n")
    rows = []
    for index, length_s in enumerate(lengths_s):
        write_clip(folder / f"{index}.mp4", length_s)
        split = ("train", "validation", "test")[min(index, 2)]
        rows.append([f"c{index}", split, "Beep", 1, 3, f"{index}.mp4"])
    write_manifest(folder, rows, VIDEO_COLUMNS)
    return rows


def loudness(builder, split):
    return [clip["audio"][-1, 0] for clip in examples(builder, split).values()]


def test_clips_of_videos_are_counted_for_matching(tmp_path, small_networks):
    make_videos(tmp_path / "own")
    build(tmp_path / "own", tmp_path / "data", "custom")
    dataset = data.open_dataset("tfds_ave/custom", str(tmp_path / "data"))
    assert dataset.networks
    counts = {"train": 1, "validation": 1, "test": 1}
    assert data.count_matching_clips(dataset).items() >= counts.items()


def test_features_of_another_or_a_changed_video_are_made_anew(tmp_path, small_networks):
    folder = tmp_path / "own"
    rows = make_videos(folder)
    build(folder, tmp_path / "data", "custom")
    kept = folder / "features" / "c2.audio.npy"
    before = kept.stat().st_mtime_ns
    # The manifest names another one for c0; that of c1 is replaced by another one.
    quiet = write_clip(tmp_path / "quiet.mp4", 2, tail_s=1)
    (folder / "quiet.mp4").write_bytes(quiet.read_bytes())
    (folder / "1.mp4").write_bytes(quiet.read_bytes())
    rows[0][5] = "quiet.mp4"
    write_manifest(folder, rows, VIDEO_COLUMNS)
    builder = build(folder, tmp_path / "data2", "custom")
    assert builder.info.metadata["visual_shape"] == [3]
    assert examples(builder, "train")[0]["segment_labels"].tolist() == [1, 0, 0]
    assert loudness(builder, "train") == loudness(builder, "validation")
    assert loudness(builder, "train")[0] < 0.1 < loudness(builder, "test")[0]
    assert kept.stat().st_mtime_ns == before
    # Where nothing has changed, nothing is loaded.
    small_networks.clear()
    build(folder, tmp_path / "data3", "custom")
    assert small_networks == []


def test_tfds_build_says_once_what_could_not_be_loaded(tmp_path, small_networks):
    folder = tmp_path / "own"
    make_videos(folder)
    (folder / "no module").mkdir()
    (folder / "features.json").write_text('{"vggish": "no module"}')
    message = refused_by_tfds("custom", folder, tmp_path / "data")
    assert f"{folder / 'features.json'}: vggish '{folder / 'no module'}'" in message
    assert f'{{"vggish": "FOLDER"}} in {folder / "features.json"}' in message
    assert "--" not in message
    assert len(message.splitlines()) == 1
    # Nothing is in the way of the next one.
    assert not (folder / "features").exists()
    (folder / "features.json").unlink()
    build(folder, tmp_path / "data", "custom")


def test_weights_that_do_not_fit_are_told_in_terms_of_features_json(
    tmp_path, monkeypatch
):
    folder = tmp_path / "own"
    make_videos(folder)
    monkeypatch.setattr(extract, "AudioNetwork", lambda handle: Loudness())
    (folder / "mine.weights.h5").write_text("no weights")
    (folder / "features.json").write_text('{"visual_weights": "mine.weights.h5"}')
    with pytest.raises(DatasetError) as error:
        build(folder, tmp_path / "data", "custom")
    message = str(error.value)
    path = folder / "features.json"
    assert message.startswith(f"{path}: visual_weights '{folder / 'mine.weights.h5'}'")
    assert f'{{"visual_weights": "FILE"}} in {path}' in message
    assert "--" not in message
    assert not (folder / "features").exists()


def test_a_folder_whose_name_is_a_pattern(tmp_path, small_networks):
    folder = tmp_path / "own [1080p]"
    make_videos(folder)
    broken = folder / "0.mp4"
    content = broken.read_bytes()
    broken.write_bytes(b"no video")
    with pytest.raises(DatasetError, match="1 of 3 videos failed") as error:
        build(folder, tmp_path / "data", "custom")
    assert str(broken) in str(error.value)
    broken.write_bytes(content)
    build(folder, tmp_path / "data", "custom")


def test_a_pipeline_that_fails_leaves_nothing_in_the_way(
    tmp_path, small_networks, monkeypatch
):
    folder = tmp_path / "own"
    make_videos(folder)
    with monkeypatch.context() as patch:
        patch.setattr(Loudness, "__call__", lambda self, seconds: 1 / 0)
        with pytest.raises(Exception, match="division by zero"):
            build(folder, tmp_path / "data", "custom")
    assert [path.name for path in (folder / "features").iterdir()] == ["extract.json"]
    (folder / "features.json").write_text('{"visual_network": "vgg19"}')
    build(folder, tmp_path / "data", "custom")
    assert not (folder / "features" / "failures").exists()
    (folder / "features.json").unlink()
    with pytest.raises(
        DatasetError, match=r"expected visual_network 'vgg19', received"
    ):
        build(folder, tmp_path / "data2", "custom")


def build_by(folder, data_dir, **beam):
    builder = Builder(data_dir=data_dir, config="custom")
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir=folder, **beam)
    )


def test_features_are_made_here_unless_a_runner_is_given(
    tmp_path, small_networks, monkeypatch
):
    folder = tmp_path / "own"
    make_videos(folder)
    tried = []
    run_here = FnApiRunner.run_pipeline

    class OwnRunner(FnApiRunner):
        def run_pipeline(self, *args):
            tried.append("own")
            return run_here(self, *args)

    def record(name, then):
        def run_pipeline(*args):
            tried.append(name)
            return then(*args)

        return run_pipeline

    def refuse(*args):
        raise OSError("no network in tests")

    monkeypatch.setattr(FnApiRunner, "run_pipeline", record("here", run_here))
    monkeypatch.setattr(PrismRunner, "run_pipeline", record("prism", refuse))
    build_by(folder, tmp_path / "data")
    assert tried == ["here"]
    for index, beam, expected in (
        (0, {"beam_runner": OwnRunner()}, ["own"]),
        (1, {"beam_options": PipelineOptions(["--runner=PrismRunner"])}, ["prism"]),
        (2, {"beam_options": PipelineOptions(["--direct_num_workers=1"])}, ["here"]),
    ):
        tried.clear()
        (folder / "features" / "c0.audio.npy").unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            build_by(folder, tmp_path / f"data{index}", **beam)
        assert tried == expected


@pytest.mark.parametrize("empty", ["audio", "visual"])
def test_a_clip_without_sound_or_picture_is_accepted_on_request(
    tmp_path, small_networks, empty
):
    folder = tmp_path / "own"
    make_videos(folder)
    write_clip(folder / "0.mp4", 3, sound=empty != "audio", picture=empty != "visual")
    with pytest.raises(DatasetError) as error:
        build(folder, tmp_path / "data", "custom")
    path = folder / "features.json"
    assert f'say {{"empty": "{empty}"}} in {path}.\n1 of 3 videos' in str(error.value)
    assert "--" not in str(error.value)
    # What was made already stays: it is of the same networks.
    path.write_text(json.dumps({"empty": empty}))
    builder = build(folder, tmp_path / "data", "custom")
    assert not examples(builder, "train")[0][empty].any()
    assert examples(builder, "test")[2][empty].any()


def test_a_path_of_features_json_goes_no_way_round(tmp_path):
    # The folder that it is relative to may have a name that TensorFlow can't read from.
    folder = tmp_path / "own [1]"
    folder.mkdir()
    (tmp_path / "vggish").mkdir()
    (folder / "features.json").write_text('{"vggish": "../vggish"}')
    (config,) = (config for config in CONFIGS if config.name == "custom")
    found = extraction.read_networks(folder, config)
    assert found.vggish == str(tmp_path / "vggish")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"empty": "sound"}, "unknown empty. Expected one of audio, visual"),
        ({"visual_network": "alexnet"}, "unknown visual_network.*'alexnet'"),
        ({"visual_precision": "half"}, "unknown visual_precision.*float32, mixed_bf"),
        ({"vggish": 1}, "vggish: expected text. Received: 1"),
        ({"vgish": "a"}, "expected a JSON object with some of .*vgish"),
        (["vggish"], "expected a JSON object"),
        ({"vggish": "gone"}, r"vggish: .*own/gone does not exist.*relative to .*own"),
        ({"vggish": "imagenet"}, "vggish: .*own/imagenet does not exist"),
        ({"visual_weights": "/gone"}, "visual_weights: /gone does not exist"),
    ],
)
def test_what_is_wrong_in_features_json_is_named(
    tmp_path, small_networks, content, message
):
    folder = tmp_path / "own"
    make_videos(folder)
    (folder / "features.json").write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=rf"features.json: {message}"):
        build(folder, tmp_path / "data", "custom")
    assert small_networks == []
    assert not (folder / "features").exists()


def test_paths_in_features_json_are_relative_to_the_folder(
    tmp_path, small_networks, monkeypatch
):
    folder = tmp_path / "own"
    make_videos(folder)
    (folder / "module").mkdir()
    (tmp_path / "weights.h5").touch()
    content = {
        "vggish": "module",
        "visual_weights": str(tmp_path / "weights.h5"),
        "visual_precision": "mixed_bfloat16",
    }
    (folder / "features.json").write_text(json.dumps(content))
    monkeypatch.chdir(tmp_path)
    build(pathlib.Path("own"), tmp_path / "data", "custom")
    weights = str(tmp_path / "weights.h5")
    assert small_networks == [
        ("resnet152", str(tmp_path / "own/module"), weights, None, "mixed_bfloat16")
    ]
    # A run on it can tell later what its videos have to go through.
    dataset = data.open_dataset("tfds_ave/custom", str(tmp_path / "data"))
    assert dataset.networks == {
        "visual_network": "resnet152",
        "vggish": str(tmp_path / "own/module"),
        "visual_weights": weights,
        "visual_precision": "mixed_bfloat16",
    }
    # However the folder is named, its features are of the same networks.
    monkeypatch.chdir(folder)
    build(folder, tmp_path / "data2", "custom")
    (folder / "features.json").write_text(
        json.dumps({"vggish": "https://example.org/1", "visual_weights": "imagenet"})
    )
    (folder / "features" / "c0.audio.npy").unlink()
    with pytest.raises(DatasetError, match=r"received 'https://example\.org/1'"):
        build(folder, tmp_path / "data3", "custom")
    assert small_networks[1:] == [
        ("resnet152", "https://example.org/1", "imagenet", None, "float32")
    ]


def test_videos_may_be_a_second_longer_or_shorter(tmp_path, small_networks):
    folder = tmp_path / "own"
    rows = make_videos(folder, (3, 2, 4, 3))
    rows[2][3:5] = (2, 3.5)
    write_manifest(folder, rows, VIDEO_COLUMNS)
    builder = build(folder, tmp_path / "data", "custom")
    assert builder.info.metadata["num_segments"] == 3
    (short,) = examples(builder, "validation").values()
    np.testing.assert_array_equal(short["audio"][2], short["audio"][1])
    assert short["segment_labels"].tolist() == [1, 0, 0]
    long = examples(builder, "test")[2]
    assert long["audio"].shape == (3, 3)
    assert long["segment_labels"].tolist() == [1, 1, 0]
    assert (long["start_s"], long["end_s"]) == (2, 3)
    for times_s in ((3, 4), (2, 5), (2, 4.1)):
        rows[2][3:5] = times_s
        write_manifest(folder, rows, VIDEO_COLUMNS)
        with pytest.raises(DatasetError, match=r"'c2': .*within its 3 segments"):
            build(folder, tmp_path / "data2", "custom")
    write_clip(folder / "2.mp4", 5)
    with pytest.raises(DatasetError, match=r"1 of 4 clips .*Expected 3 .*'c2' 5\. Cut"):
        build(folder, tmp_path / "data2", "custom")


def test_the_example_of_the_readme_is_built_and_trained(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = README.read_text()
    block = text[text.index("    import csv, pathlib") : text.index("\nand then\n")]
    exec(textwrap.dedent(block), {})
    build(tmp_path / "mydata", tmp_path / "data", "custom")
    config = Config(
        dataset="tfds_ave/custom",
        data_dir=str(tmp_path / "data"),
        epochs=3,
        units=8,
    )
    assert "--dataset=tfds_ave/custom --epochs=3 --units=8" in text
    commands.train(config, "run", Console(quiet=True))
    assert (tmp_path / "run" / "report.html").is_file()
