"""Modified or damaged data sets raise one UserError."""

import json
import shutil

import pytest
import tensorflow_datasets as tfds

from avsdn_tf.data.dataset import open_dataset
from avsdn_tf.errors import UserError
from tests.small_datasets import build, make_custom


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("built")
    make_custom(folder / "own")
    build(folder / "own", folder / "data", "custom")
    return folder / "data"


@pytest.fixture
def changed(built, tmp_path):
    """Copy the data set and return the folder of its files."""
    shutil.copytree(built, tmp_path / "data")
    return tmp_path / "data" / "tfds_ave" / "custom" / "1.3.0"


def refusal(folder):
    with pytest.raises(UserError) as error:
        open_dataset("tfds_ave/custom", str(folder.parents[2]))
    assert "build" in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("visual_shape", []),
        ("visual_shape", [6, -1]),
        ("visual_shape", "6"),
        ("num_segments", 10**18),
        ("num_segments", 0),
        ("audio_width", True),
        ("segment_s", float("nan")),
        ("has_times", None),
        ("backbones", ["resnet152"]),
        ("backbones", {"vggish": 1}),
        ("disclaimer", 1),
    ],
)
def test_wrong_metadata_is_refused(changed, member, value):
    path = changed / "metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {member: value}))
    message = refusal(changed)
    assert str(changed) in message
    # The schema accepts 10**18 segments, but the shards contradict the number.
    assert ("tfrecord" if value == 10**18 else member) in message


@pytest.mark.parametrize("name", ["metadata.json", "dataset_info.json"])
@pytest.mark.parametrize("content", ["", "[]", "{", "[" * 20_000, "null"])
def test_files_without_a_json_object_are_refused(changed, name, content):
    (changed / name).write_text(content)
    refusal(changed)


@pytest.mark.parametrize(
    ("member", "value"),
    [("splits", None), ("splits", []), ("name", ""), ("version", "9.9.9")],
)
def test_wrong_dataset_info_is_refused(changed, member, value):
    path = changed / "dataset_info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {member: value}))
    refusal(changed)


@pytest.mark.parametrize("length", ["1000000000000000000", "9"])
def test_wrong_shard_lengths_are_refused(changed, length):
    path = changed / "dataset_info.json"
    content = json.loads(path.read_text())
    content["splits"][0]["shardLengths"] = [length]
    path.write_text(json.dumps(content))
    assert "tfrecord" in refusal(changed)


def test_a_missing_or_empty_shard_is_named(changed):
    (shard,) = changed.glob("*test.tfrecord*")
    shard.write_bytes(b"")
    assert str(shard) in refusal(changed)
    shard.unlink()
    assert str(shard) in refusal(changed)


def test_an_unreachable_address_fails_with_one_message(monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("FailedPreconditionError") from OSError("no such host")

    monkeypatch.setattr(tfds, "builder", fail)
    with pytest.raises(UserError, match="no such host") as error:
        open_dataset("tfds_ave/custom", "gs://bucket/data")
    assert error.value.field == "data_dir"
    assert error.value.value == "gs://bucket/data"
