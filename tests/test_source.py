"""source.json records a data set's source files; changed files are detected."""

import json
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds

from avsdn_tf.data.dataset import open_dataset
from avsdn_tf.errors import UserError
from avsdn_tf.training.config import Config
from tests import commands
from tests.small_datasets import (
    build,
    examples,
    make_ave,
    make_custom,
    set_value,
    write,
    write_manifest,
)
from tfds_ave import DatasetError
from tfds_ave.fingerprint import find_changes, read_fingerprint, take_fingerprint
from tfds_ave.tfds_ave_dataset_builder import Builder


@pytest.fixture
def own(tmp_path):
    """Return a folder of own data, built as a data set in the sibling folder `data`."""
    make_custom(tmp_path / "own")
    build(tmp_path / "own", tmp_path / "data", "custom")
    return tmp_path / "own"


def opened(own):
    return open_dataset("tfds_ave/custom", str(own.parent / "data"))


def refusal(own, folder=None):
    """Return the error message of a build without `--overwrite`."""
    with pytest.raises(DatasetError) as error:
        build(folder or own, own.parent / "data", "custom")
    message = str(error.value)
    assert "--overwrite" in message
    assert str(own) in message
    return message


def change_feature(own):
    """Change a feature without changing the size of its file."""
    path = own / "clip 4.v.npy"
    values = np.load(path)
    values[0, 0] += 1
    np.save(path, values)
    return path.name


def change_manifest(own):
    path = own / "manifest.csv"
    path.write_text(path.read_text().replace("0.5", "0.75", 1))
    return path.name


def change_categories(own):
    (own / "categories.txt").write_text("Kettle\nDoor, slamming\n")
    return "categories.txt"


def test_files_sizes_and_checksums_are_recorded(own):
    source = read_fingerprint(opened(own).builder.data_path)
    assert source.folder == str(own)
    files = {entry.name: entry for entry in source.files}
    assert list(files)[:3] == ["manifest.csv", "categories.txt", "clip 0.a.npy"]
    assert len(files) == 2 + 2 * 9
    for name, entry in files.items():
        assert entry.num_bytes == (own / name).stat().st_size
        is_small = name in ("manifest.csv", "categories.txt")
        assert (entry.sha256 is not None, entry.crc32 is None) == (is_small, is_small)


def test_unchanged_files_are_not_rebuilt(own, tmp_path):
    info = opened(own).builder.data_path / "dataset_info.json"
    before = info.stat().mtime
    build(own, tmp_path / "data", "custom")
    shutil.copytree(own, tmp_path / "copy")
    build(tmp_path / "copy", tmp_path / "data", "custom")
    # Without a manual folder, TFDS reads the existing data set.
    tfds.load("tfds_ave/custom", data_dir=tmp_path / "data")
    assert info.stat().mtime == before


@pytest.mark.parametrize("change", [change_feature, change_manifest, change_categories])
def test_a_build_names_changed_files(own, change):
    assert f"{change(own)} has changed" in refusal(own)


def test_a_build_names_unexpected_or_missing_files(own, tmp_path):
    make_custom(tmp_path / "other", num_segments=5)
    message = refusal(own, tmp_path / "other")
    assert "clip 0.a.npy has changed" in message
    assert "and 13 more" in message
    (own / "clip 1.a.npy").unlink()
    assert "clip 1.a.npy is missing" in refusal(own)
    assert f"{tmp_path / 'gone'} is missing" in refusal(own, tmp_path / "gone")


def test_a_data_set_without_a_record_has_an_unknown_source(own):
    (opened(own).builder.data_path / "source.json").unlink()
    assert opened(own).source is None
    assert "unknown" in opened(own).describe_source()
    refusal(own)
    commands.train(settings(own), own.parent / "run")


def settings(own):
    data_dir = str(own.parent / "data")
    return Config(dataset="tfds_ave/custom", data_dir=data_dir, epochs=1, units=4)


@pytest.mark.parametrize("change", [change_manifest, change_categories])
def test_training_refuses_a_changed_source(own, change):
    name = change(own)
    with pytest.raises(UserError) as error:
        commands.train(settings(own), own.parent / "run")
    assert error.value.field == "dataset"
    for part in (name, str(own), "avsdn build", "--overwrite", "allow_stale_data"):
        assert part in str(error.value)
    assert not (own.parent / "run").exists()
    flags = [*settings(own).to_flags(), f"--run={own.parent / 'run'}"]
    commands.avsdn(*flags, "--allow_stale_data")
    assert (own.parent / "run" / "report.json").is_file()


def test_training_works_after_its_source_is_deleted(own):
    shutil.rmtree(own)
    commands.train(settings(own), own.parent / "run")


def test_training_prints_its_data_set(own, capsys):
    commands.train(settings(own), own.parent / "run")
    first = capsys.readouterr().out.splitlines()[0]
    for part in ("tfds_ave/custom", str(own), "9 clips", "2 categories", "Kettle"):
        assert part in first


def test_changed_features_change_the_content_hash(own):
    before = opened(own).content_hash()
    build_again(own)
    assert opened(own).content_hash() == before
    change_feature(own)
    build_again(own)
    assert opened(own).content_hash() != before


def build_again(own, **options):
    mode = tfds.GenerateMode.REUSE_CACHE_IF_EXISTS
    return build(own, own.parent / "data", "custom", download_mode=mode, **options)


def test_a_new_data_set_keeps_nothing_of_the_old_data_set(own):
    rows = make_custom(own.parent / "other", num_segments=5)
    (own.parent / "other" / "categories.txt").write_text("Kettle\nDoor, slamming\n")
    rows[0][3:5] = ["", ""]
    write_manifest(own.parent / "other", rows)
    builder = build_again(own.parent / "other")
    assert builder.info.features["clip_label"].names[0] == "Kettle"
    assert examples(builder, "test")[6]["audio"].shape == (5, 5)
    found = opened(own)
    assert found.categories == ("Kettle", "Door, slamming")
    assert (found.num_segments, found.has_times) == (5, False)
    assert found.source.folder == str(own.parent / "other")


def test_a_failed_build_keeps_the_existing_data_set(own):
    before = opened(own).content_hash()
    np.save(own / "clip 8.a.npy", np.full((4, 5), np.nan))
    with pytest.raises(DatasetError, match=r"clip 8\.a\.npy: NaN"):
        build_again(own)
    found = opened(own)
    assert found.content_hash() == before
    assert [path.name for path in find_visible(found.builder)] == ["1.3.0"]


def find_visible(builder):
    folder = pathlib.Path(builder.data_path).parent
    return [path for path in folder.iterdir() if not path.name.startswith(".")]


def test_files_of_ave_are_recorded(tmp_path):
    folder = make_ave(tmp_path / "ave", noisy=False)
    builder = build(folder, tmp_path / "data")
    source = read_fingerprint(builder.data_path)
    assert {"visual_feature_vec.h5", "Annotations.txt"} <= {
        entry.name for entry in source.files
    }
    build(folder, tmp_path / "data")
    # With features of background clips, the data set would have one more split.
    write(folder / "visual_feature_vec_noisy.h5", np.zeros((4, 10, 2048), np.float32))
    with pytest.raises(DatasetError, match=r"visual_feature_vec_noisy\.h5 is new"):
        build(folder, tmp_path / "data")
    (folder / "visual_feature_vec_noisy.h5").unlink()
    set_value(folder / "audio_feature.h5", (2, 3, 4), 0.5)
    with pytest.raises(DatasetError, match=r"audio_feature\.h5 has changed"):
        build(folder, tmp_path / "data")


def test_a_fingerprint_of_a_foreign_data_set_reads_no_device(tmp_path):
    (tmp_path / "a.npy").write_bytes(b"1234")
    source = take_fingerprint(tmp_path, ["m.csv"], [tmp_path / "a.npy"])
    assert source.absent == ["m.csv"]
    entry = source.files[0].model_copy(update={"name": "/dev/zero"})
    foreign = source.model_copy(update={"files": [entry]})
    assert find_changes(foreign, read_data=False) == []


@pytest.mark.parametrize(
    "content",
    ["", "[]", '{"folder": 1}', '{"folder": "a", "files": [{}]}', "[" * 20_000],
)
def test_a_damaged_record_fails_with_one_message(own, content):
    path = pathlib.Path(opened(own).builder.data_path) / "source.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"source\.json: expected a record"):
        opened(own).check_source()


def test_a_builder_reads_a_data_set_whose_folder_starts_with_a_tilde(
    own, tmp_path, monkeypatch
):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Builder(data_dir="~/data", config="custom").is_prepared()
    build("~/own", "~/data", "custom")
    content = json.loads((tmp_path / "data/tfds_ave/.config/metadata.json").read_text())
    assert content == {"default_config_name": "synthetic"}
    build("~/own", "~/data2", "custom")
    assert (tmp_path / "data2" / "tfds_ave" / "custom").is_dir()
