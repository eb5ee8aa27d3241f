"""Paths that users pass: `~` is expanded, and runs record absolute paths."""

import os
import pathlib
import re

import numpy as np
import pytest

import avsdn_tf
from avsdn_tf import export
from avsdn_tf.backbones import checksum
from avsdn_tf.cli import flags
from avsdn_tf.data.dataset import open_dataset
from avsdn_tf.errors import UserError
from avsdn_tf.features import extractor
from avsdn_tf.features.video import find_videos
from avsdn_tf.files import expand_user
from avsdn_tf.run_folder import RunFolder
from avsdn_tf.training.config import Config
from tests import commands
from tests.small_datasets import build, make_custom
from tests.small_videos import Brightness, Loudness, write_clip
from tfds_ave.settings import read_settings
from tfds_ave.tfds_ave_dataset_builder import Builder

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_addresses_and_unknown_users_are_not_expanded(home):
    assert expand_user("~/x") == str(home / "x")
    assert expand_user(pathlib.Path("~/x")) == str(home / "x")
    for path in ("https://example.org/~x", "gs://bucket/~", "~nobody here/x", "a/~/b"):
        assert expand_user(path) == path


def test_a_tilde_of_an_unknown_user_raises_a_user_error(home):
    with pytest.raises(UserError, match="~nobody here"):
        avsdn_tf.load("~nobody here/run")


def test_tildes_in_paths_of_models_and_runs_are_expanded(home, run_folder):
    for path in ("~/run", "~/run/model.keras"):
        assert list(avsdn_tf.load(path).categories) == ["Bark", "Flute"]
    assert RunFolder("~/run").path == home / "run"
    model = avsdn_tf.load("~/run")
    clips = [{name: np.ones((1, 4, 3), np.float32) for name in ("audio", "visual")}]
    path, _ = export.export_model(model, "keras", "~/out", {"classes": []}, clips)
    assert path == home / "out" / "model.keras"


def test_tildes_in_paths_of_videos_and_features_are_expanded(home, monkeypatch):
    write_clip(home / "a.mp4", 2)
    assert find_videos(["~/a.mp4"]) == [home / "a.mp4"]
    (home / "weights.h5").write_bytes(b"1")
    assert checksum("~/weights.h5") == checksum(home / "weights.h5")
    monkeypatch.setattr(extractor, "AudioNetwork", lambda *_: Loudness())
    monkeypatch.setattr(extractor, "VisualNetwork", lambda *_: Brightness())
    made = extractor.build_extractor("resnet152", "~/weights.h5", "~/weights.h5")
    assert made.backbones.audio_weights == str(home / "weights.h5")
    assert made.backbones.visual_weights == str(home / "weights.h5")


def test_tildes_in_features_json_are_expanded(home):
    (home / "vggish").mkdir()
    (home / "own").mkdir()
    (home / "own" / "features.json").write_text('{"vggish": "~/vggish"}')
    config = Builder.builder_configs["custom"]
    assert read_settings(home / "own", config)[0].audio_weights == str(home / "vggish")


def test_tildes_in_paths_of_data_sets_are_expanded(home):
    make_custom(home / "own")
    build("~/own", "~/data", "custom")
    assert open_dataset("tfds_ave/custom", "~/data").num_clips("train") == 3


def test_tildes_in_path_flags_are_expanded(home):
    flag = flags.Flag("out", "", flags.PATH)
    assert flag("~/x") == str(home / "x")
    names = {f.name for f in flags.SETTINGS if f.kind is flags.PATH}
    assert names == {"data_dir", "encoders"}


def test_only_one_function_calls_pathlib_expanduser():
    # Other code calls `expand_user`: `Path.expanduser` fails for unknown users, and
    # `Path` damages URLs.
    for path in (ROOT / "avsdn_tf").rglob("*.py"):
        found = re.findall(r"\.expanduser\(", path.read_text())
        assert len(found) == (path == ROOT / "avsdn_tf" / "files.py"), path


def test_a_config_records_absolute_paths(home):
    assert Config(data_dir="data").data_dir == str(home / "data")
    assert Config(data_dir="~/data").data_dir == str(home / "data")
    assert Config(data_dir="gs://bucket/data").data_dir == "gs://bucket/data"
    assert Config(data_dir=pathlib.Path("data")).data_dir == str(home / "data")


def test_a_run_is_evaluated_from_any_folder(home, monkeypatch):
    make_custom(home / "own")
    build("own", "data", "custom")
    config = Config(dataset="tfds_ave/custom", data_dir="data", epochs=1, units=4)
    commands.train(config, "run")
    (home / "elsewhere").mkdir()
    monkeypatch.chdir(home / "elsewhere")
    commands.evaluate(os.path.join("..", "run"))
