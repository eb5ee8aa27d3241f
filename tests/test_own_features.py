"""Features of other programs: the documentation page, and the checks."""

import json
import pathlib
import re

import numpy as np
import pytest

import avsdn_tf
from avsdn_tf.data.dataset import open_dataset
from avsdn_tf.errors import UserError
from tests.commands import avsdn
from tests.small_datasets import FEATURE_COLUMNS, build, make_custom, write_manifest
from tests.small_videos import write_clip
from tfds_ave import DatasetError

PAGE = pathlib.Path(__file__).resolve().parents[1] / "docs" / "own_features.md"


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)


def test_the_code_on_the_page_runs_from_own_networks_to_events(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    for folder in ("videos", "own"):
        (tmp_path / folder).mkdir()
    for name in ("bark", "horn", "quiet"):
        write_clip(tmp_path / "videos" / f"{name}.mp4", 4)
    make, write, localize = blocks("python")
    names = {}
    exec(make + write, names)
    (tmp_path / "own" / "features.json").write_text(*blocks("json"))
    (tmp_path / "own" / "manifest.csv").write_text(*blocks("csv"))
    (tmp_path / "own" / "categories.txt").write_text("Bark\nHorn\n")
    (command,) = blocks("console")
    assert avsdn(*command.split()[1:]) == 0
    assert "sound: panns_cnn14; picture: clip_vit_b32" in capsys.readouterr().out
    exec(localize, names)
    model = names["model"]
    assert model.backbones["visual_network"] == "clip_vit_b32"
    assert all(event.category in ("Bark", "Horn") for event in names["events"])
    # `predict` can't compute these features.
    with pytest.raises(UserError, match="unknown network"):
        avsdn("predict", "--run=runs/own", "videos/bark.mp4")
    vggish = names["Backbones"](audio_network="vggish")
    networks = names["OwnAudio"](), names["OwnVisual"]()
    wrong = names["Extractor"](*networks, backbones=vggish)
    with pytest.raises(UserError, match="panns_cnn14"):
        avsdn_tf.localize(model, "videos/bark.mp4", extractor=wrong)


def test_the_description_of_feature_files_is_recorded(tmp_path):
    folder = tmp_path / "own"
    make_custom(folder)
    described = {"audio_network": "vggish", "visual_network": "imagebind_huge"}
    (folder / "features.json").write_text(json.dumps(described))
    build(folder, tmp_path / "data", "custom")
    backbones = open_dataset("tfds_ave/custom", str(tmp_path / "data")).backbones
    assert backbones.audio_network == "vggish"
    assert backbones.visual_network == "imagebind_huge"
    assert backbones.visual_weights is None
    # features.json counts as a source file of the data set.
    (folder / "features.json").write_text(json.dumps({"audio_network": "panns"}))
    with pytest.raises(UserError, match=r"features\.json"):
        open_dataset("tfds_ave/custom", str(tmp_path / "data")).check_source()


@pytest.mark.parametrize(
    "content", ['{"empty": "audio"}', '{"audio_network": 3}', '{"hop": "1"}', "[]"]
)
def test_a_wrong_description_fails_with_one_message(tmp_path, content):
    folder = tmp_path / "own"
    make_custom(folder)
    (folder / "features.json").write_text(content)
    with pytest.raises(DatasetError, match=r"features\.json"):
        build(folder, tmp_path / "data", "custom")


def write_rows(folder, num_audio, num_visual, **columns):
    """Write one clip per split, with the given numbers of feature rows."""
    folder.mkdir()
    (folder / "categories.txt").write_text("Bark\n")
    np.save(folder / "a.npy", np.arange(num_audio * 3.0).reshape(num_audio, 3))
    np.save(folder / "v.npy", np.arange(num_visual * 2.0).reshape(num_visual, 2))
    rows = [
        [split, split, "Bark", 0, 2, "a.npy", "v.npy", *columns.values()]
        for split in ("train", "validation", "test")
    ]
    write_manifest(folder, rows, (*FEATURE_COLUMNS, *columns))


@pytest.mark.parametrize(
    ("shapes", "columns"),
    [
        ((10, 80), {}),  # Eight rows a second, and no hop.
        ((10, 4), {"visual_hop_s": 1}),
        ((10, 80), {"visual_hop_s": 0.25}),
        ((10, 12), {"tolerance_s": 1.5}),
        ((1, 1), {"tolerance_s": 0.5}),  # The event ends after the clip.
    ],
)
def test_hops_that_contradict_the_files_are_refused(tmp_path, shapes, columns):
    write_rows(tmp_path / "own", *shapes, **columns)
    with pytest.raises(DatasetError, match=r"manifest\.csv, line 2"):
        build(tmp_path / "own", tmp_path / "data", "custom")
    assert not (tmp_path / "data" / "tfds_ave" / "custom" / "1.3.0").exists()


def test_swapped_axes_are_refused(tmp_path):
    write_rows(tmp_path / "own", 10, 10)
    np.save(tmp_path / "own" / "a.npy", np.zeros((3, 10)))
    with pytest.raises(DatasetError, match="3 s, and its visual features 10 s"):
        build(tmp_path / "own", tmp_path / "data", "custom")
