"""avsdn build: the chosen config, the printed summary, and errors."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from avsdn_tf.cli import app, build
from avsdn_tf.cli.start import DATASETS
from avsdn_tf.data.dataset import open_dataset
from avsdn_tf.errors import UserError
from tests.commands import avsdn
from tests.small_datasets import make_custom, write_manifest
from tfds_ave.tfds_ave_dataset_builder import Builder

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Return the folder `my_data` of own data, in the working folder."""
    monkeypatch.chdir(tmp_path)
    make_custom(tmp_path / "my_data")
    (tmp_path / "empty").mkdir()
    return tmp_path / "my_data"


def parsed(*words):
    args = app.parse(["build", *words])
    return args.dataset.removeprefix("tfds_ave/"), args.manual_dir


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], ("synthetic", None)),
        (["custom"], ("custom", None)),
        (["tfds_ave/vgg19"], ("vgg19", None)),
        (["--config=custom", "--manual_dir=my_data"], ("custom", "my_data")),
        (["custom", "--manual_dir=my_data"], ("custom", "my_data")),
        (["custom", "--config=custom"], ("custom", None)),
        (["my_data"], ("custom", "my_data")),
        (["--manual_dir=my_data"], ("custom", "my_data")),
        (["resnet152", "--manual_dir=empty"], ("resnet152", "empty")),
    ],
)
def test_build_resolves_the_name_or_folder_of_a_config(own, words, expected):
    assert parsed(*words) == expected


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["custm"], ["custm", "Did you mean custom?"]),
        (["--config=vgg"], ["vgg", "vgg19"]),
        (["custom", "--config=vgg19"], ["vgg19", "custom"]),
        (["custom", "videos"], ["custom", "videos"]),
        (["--manual_dir=empty"], ["custom", "empty", "manifest.csv"]),
        (["empty"], ["empty", "manifest.csv"]),
        (["custom", "--manual_dir=empty"], ["empty", "manifest.csv"]),
        (["my_dta"], ["my_dta", "the folder of your data"]),
        (["custom", "--manual_dir=gone"], ["manual_dir", "gone"]),
        (["synthetic", "--manual_dir=empty"], ["manual_dir", "simulated"]),
    ],
)
def test_an_unknown_config_or_folder_is_explained(own, words, parts):
    with pytest.raises(UserError) as error:
        parsed(*words)
    assert all(part in str(error.value) for part in parts)


def test_missing_data_are_reported_before_tensorflow_starts(own, monkeypatch):
    monkeypatch.setattr(build, "start", pytest.fail)
    with pytest.raises(UserError, match=r"--manual_dir=DIR.*manifest\.csv"):
        avsdn("build", "custom", "--data_dir=data")


def test_the_build_command_lists_all_configs():
    assert set(DATASETS) == set(Builder.builder_configs)


def test_custom_data_are_built_and_described(own, capsys):
    assert (
        avsdn("build", "--config=custom", "--manual_dir=my_data", "--data_dir=d") == 0
    )
    printed = capsys.readouterr().out
    for part in (
        str(own),
        "20 files",
        "train 3, validation 3, test 3",
        "2: Door, slamming; Kettle",
        "audio (4, 5) float32, visual (4, 6) float32",
        "not recorded",
        "lengths     4 s",
        "windows     none",
        "overlap     none",
        "d/tfds_ave/custom/1.3.0",
        "--dataset=tfds_ave/custom --data_dir=d",
    ):
        assert part in printed
    assert len(printed.splitlines()) <= 15
    assert "cite" not in printed.lower()
    assert open_dataset("tfds_ave/custom", "d").num_clips("train") == 3


def test_lengths_windows_and_overlap_are_in_the_summary(own, capsys):
    rows = make_custom(own.parent / "long", num_segments=9)
    for key in ("clip 3", "clip 6"):
        for kind, width in (("a", 5), ("v", 6)):
            path = own.parent / "long" / f"{key}.{kind}.npy"
            np.save(path, np.zeros((12, width), np.float32))
    rows.append([*rows[0][:2], "Kettle", 1, 3, *rows[0][5:]])
    write_manifest(own.parent / "long", rows)
    avsdn("build", "long", "--data_dir=d", "--window_s=4", "--hop_s=2")
    printed = capsys.readouterr().out
    for part in (
        "clips       train 3, validation 3, test 3",
        "lengths     9 to 12 s, median 9 s",
        "windows     12 for training, of 4 s, one every 2 s",
        "overlap     several categories at once",
        "audio (5,) float32, visual (6,) float32 a segment",
    ):
        assert part in printed
    avsdn("build", "long", "--data_dir=d")
    with pytest.raises(UserError, match="window_s=4, not 5"):
        avsdn("build", "long", "--data_dir=d", "--window_s=5")
    with pytest.raises(UserError, match="hop_s"):
        avsdn("build", "long", "--data_dir=e", "--window_s=5", "--hop_s=6")


def test_warnings_are_in_the_summary(own, capsys):
    rows = make_custom(own.parent / "more")
    for index in (5, 8):
        rows[index][5:] = rows[2][5:]
    rows[4][2] = "Door, slamming"
    rows[0][3:5] = ["", ""]
    write_manifest(own.parent / "more", rows)
    avsdn("build", "more", "--data_dir=d")
    assert capsys.readouterr().out.count("in several splits") == 1
    avsdn("build", "more", "--data_dir=d")
    printed = capsys.readouterr().out
    for part in (
        "built already",
        "clip 2 (train) = clip 5 (validation) = clip 8 (test)",
        "no clip of Kettle in validation",
        "--weak_label=mil",
    ):
        assert part in printed


def test_a_changed_source_is_rebuilt_with_overwrite(own, capsys):
    avsdn("build", "my_data", "--data_dir=d")
    (own / "categories.txt").write_text("Kettle\nDoor, slamming\n")
    # Without a folder, the build checks the folder that the data set was built from.
    for words in (["my_data"], ["custom"]):
        with pytest.raises(UserError, match=r"categories\.txt has changed"):
            avsdn("build", *words, "--data_dir=d")
    avsdn("build", "my_data", "--data_dir=d", "--overwrite")
    assert open_dataset("tfds_ave/custom", "d").categories[0] == "Kettle"


def test_invalid_data_are_a_user_error(own):
    (own / "categories.txt").unlink()
    with pytest.raises(UserError, match=r"categories\.txt is missing"):
        avsdn("build", "my_data", "--data_dir=d")
    with pytest.raises(UserError, match=r"avsdn build resnet152"):
        avsdn("build", "resnet152", "--manual_dir=empty", "--data_dir=d")


def test_pipeline_options_are_passed_to_beam(own):
    words = ("--manual_dir=my_data", "--beam_pipeline_options=a=1,runner=Own")
    config = build._download_config(app.parse(["build", "custom", *words]))
    assert isinstance(config.beam_options, PipelineOptions)
    assert config.beam_options.get_all_options(drop_default=True)["runner"] == "Own"
    assert config.manual_dir == "my_data"
    assert not config.download_mode.overwrite_dataset


def test_build_runs_in_any_folder_and_prints_few_lines(own, tmp_path):
    for words, code in ((["custom", "--manual_dir=my_data"], 0), (["nope"], 2)):
        done = subprocess.run(
            [sys.executable, "-m", "avsdn_tf.main", "build", *words, "--data_dir=d"],
            cwd=tmp_path,
            env={"PYTHONPATH": str(ROOT), "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        assert len((done.stdout + done.stderr).splitlines()) <= 15


def test_training_on_a_manifest_builds_the_requested_windows(own, capsys):
    def window_s():
        return open_dataset("tfds_ave/custom", "d").builder.info.metadata["window_s"]

    build.build_own("my_data", "d", 2, None)
    build.build_own("my_data", "d", 2, 2)
    assert "was built already" in capsys.readouterr().out
    with pytest.raises(UserError, match="window_s=2, hop_s=3"):
        build.build_own("my_data", "d", 2, 3)
    assert window_s() == 2
    build.build_own("my_data", "d", None, None)
    assert "is built again" in capsys.readouterr().out
    assert window_s() == 10


def test_the_printed_next_command_trains_on_clips_without_times(own, capsys):
    rows = make_custom(own.parent / "my weak data")
    rows[0][3:5] = ["", ""]
    write_manifest(own.parent / "my weak data", rows)
    avsdn("build", "my weak data", "--data_dir=my sets")
    printed = capsys.readouterr().out
    how = "--mode=weak --weak_label=mil --data_dir='my sets'"
    assert f"avsdn train --dataset=tfds_ave/custom {how}" in printed
