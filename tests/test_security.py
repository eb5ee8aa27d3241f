"""Limits on untrusted files: a test for each line of docs/security.md."""

import contextlib
import csv
import hashlib
import io
import json
import os
import pathlib
import re
import resource
import shutil
import time
import types
import urllib.parse
import zipfile

import h5py
import keras
import numpy as np
import pytest

import avsdn_tf
from avsdn_tf.arrays import open_hdf5, open_npy
from avsdn_tf.backbones import IMAGENET, VGGISH, Backbones, checksum
from avsdn_tf.errors import UserError
from avsdn_tf.evaluation import Predictions
from avsdn_tf.features.video import VideoError
from avsdn_tf.files import atomic_write, remove_temporary_files
from avsdn_tf.labels import Splitting, collect_clips
from avsdn_tf.labels.write import write_manifest
from avsdn_tf.report.run_report import read_history
from avsdn_tf.run_folder import RunFolder
from avsdn_tf.schemas import Schema, Text, read_json
from avsdn_tf.training.checkpoints import Checkpoints, Progress
from avsdn_tf.training.config import Config
from avsdn_tf.videos import extractor_for
from tests import test_video_process as video_tests
from tests.test_labels import write_all, write_features
from tfds_ave import extraction
from tfds_ave.errors import DatasetError
from tfds_ave.manifest import read_manifest
from tfds_ave.videos import Video


@pytest.fixture(scope="module")
def members(tmp_path_factory):
    """Return the members of a small network's model file."""
    path = tmp_path_factory.mktemp("model") / "model.keras"
    avsdn_tf.AVSDN(["Bark"], 3, (4,), units=2).save(path)
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_model(path, members, changes=(), compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in {**members, **dict(changes)}.items():
            archive.writestr(name, content)
    return path


def refused(path, match):
    with pytest.raises(UserError, match=match) as error:
        avsdn_tf.load(path)
    assert str(error.value).startswith(str(path))
    assert str(error.value).isprintable()


def test_a_model_with_only_expected_members_loads(tmp_path, members):
    path = write_model(tmp_path / "model.keras", members)
    model = avsdn_tf.load(path)
    assert (type(model), model.compiled) == (avsdn_tf.AVSDN, False)
    # Other archivers compress members, and `avsdn export` adds avsdn_tf.json.
    write_model(path, members, {"avsdn_tf.json": b"{}"}, zipfile.ZIP_DEFLATED)
    assert avsdn_tf.load(path).categories == ["Bark"]


def foreign_models():
    inputs = keras.Input((3,))
    yield "Lambda", keras.Sequential([inputs, keras.layers.Lambda(lambda x: x)])
    yield "Dense", keras.Sequential([inputs, keras.layers.Dense(2)])
    audio, visual = keras.Input((10, 3)), keras.Input((10, 4))
    ours = avsdn_tf.AVSDN(["Bark"], 3, (4,), units=2)
    around = keras.Model([audio, visual], ours({"audio": audio, "visual": visual}))
    yield "Functional", around


def test_models_of_other_classes_are_refused(tmp_path):
    for name, model in foreign_models():
        path = tmp_path / f"{name}.keras"
        model.save(path)
        refused(path, name)


@pytest.mark.parametrize(
    "value",
    [
        {"class_name": "function", "module": "keras.utils", "config": "get_file"},
        {"class_name": "__lambda__", "config": {"value": ["4wA=", None, None]}},
        {
            "class_name": "TFSMLayer",
            "module": "keras.layers",
            "config": {"filepath": "gs://somewhere/saved_model"},
            "registered_name": None,
        },
        {"class_name": "Popen", "module": "subprocess", "config": {"args": ["true"]}},
        [{"class_name": "Dense", "module": "keras.layers", "config": {"units": 3}}],
    ],
    ids=lambda value: str(value)[:30],
)
@pytest.mark.parametrize("place", ["units", "dtype", "categories", "new", "backbones"])
def test_objects_in_a_model_config_are_refused(tmp_path, members, place, value):
    config = json.loads(members["config.json"])
    config["config"][place] = value
    changes = {"config.json": json.dumps(config)}
    refused(write_model(tmp_path / "m.keras", members, changes), "of avsdn_tf alone")


@pytest.mark.parametrize("name", ["avsdn_tf>Attention", "keras>Dense", "os>system", ""])
def test_unregistered_networks_are_refused(tmp_path, members, name):
    config = json.loads(members["config.json"])
    config.update(registered_name=name, module="os", class_name="system")
    changes = {"config.json": json.dumps(config)}
    refused(write_model(tmp_path / "m.keras", members, changes), "no network of avsdn")


def weights_with(members, change):
    """Return the weights file; `change` replaces its first array."""
    file = io.BytesIO(members["model.weights.h5"])
    with h5py.File(file, "r+") as stored:
        names = []
        stored.visititems(
            lambda name, item: names.append(name) if hasattr(item, "shape") else None
        )
        group, _, name = names[0].rpartition("/")
        array = stored[names[0]][...]
        del stored[names[0]]
        change(stored[group], name, array)
    return file.getvalue()


def external_storage(group, name, array):
    external = [("secret", 0, array.nbytes)]
    group.create_dataset(name, array.shape, array.dtype, external=external)


def external_link(group, name, array):
    group[name] = h5py.ExternalLink("secret.h5", "/array")


def soft_link(group, name, array):
    group["other"] = array
    group[name] = h5py.SoftLink("other")


def virtual(group, name, array):
    layout = h5py.VirtualLayout(array.shape, array.dtype)
    layout[:] = h5py.VirtualSource("secret.h5", "array", array.shape)
    group.create_virtual_dataset(name, layout)


def loop(group, name, array):
    group[name] = group


def compressed(group, name, array):
    group.create_dataset(name, (10_000, 10_000), "f4", compression="gzip")


def never_written(group, name, array):
    group.create_dataset(name, (1_000_000, 1_000_000), "f4")


def text(group, name, array):
    group[name] = "text"


def empty(group, name, array):
    group[name] = h5py.Empty("f4")


# Changes that are refused in weights and in features.
HDF5_CHANGES = (external_storage, external_link, soft_link, virtual, loop, text, empty)


@pytest.mark.parametrize(
    "change",
    [*HDF5_CHANGES, compressed, never_written],
)
def test_weights_outside_the_model_file_are_refused(
    tmp_path, members, monkeypatch, change
):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("secret").write_bytes(bytes(10_000))
    with h5py.File("secret.h5", "w") as file:
        file["array"] = np.zeros(10_000)
    changes = {"model.weights.h5": weights_with(members, change)}
    refused(
        write_model(tmp_path / "m.keras", members, changes),
        "link|another file|two names|not stored|no HDF5|neither",
    )


def test_a_model_unpacks_to_a_limited_size(tmp_path, members):
    bomb = {"model.weights.h5": members["model.weights.h5"] + bytes(2**27)}
    path = write_model(tmp_path / "m.keras", members, bomb, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 2**18
    refused(path, "unpacked from")
    content = path.read_bytes()
    # Claim 4 GB in the central directory: readers allocate the claimed size.
    at = content.rindex(b"PK\x01\x02") + 24
    path.write_bytes(content[:at] + b"\xff\xff\xff\xf0" + content[at + 4 :])
    refused(path, "unpacked from")


def test_unexpected_members_of_a_model_are_refused(tmp_path, members):
    path = tmp_path / "m.keras"
    for name in ("assets/x/vocabulary.txt", "../../x", "/etc/x", "model.weights.npz"):
        refused(write_model(path, members, {name: b"x"}), "other members")
    with (
        pytest.warns(UserWarning, match="Duplicate"),
        zipfile.ZipFile(path, "a") as own,
    ):
        own.writestr("config.json", members["config.json"])
    refused(path, "other members")


@pytest.mark.parametrize(
    "change",
    [
        {"units": 30_000},
        {"units": 10**30},
        {"categories": ["a"] * 10_000},
        {"num_segments": 10**9},
    ],
    ids=["more units", "huge units", "categories", "segments"],
)
def test_a_network_allocates_no_more_memory_than_its_weights(tmp_path, members, change):
    config = json.loads(members["config.json"])
    config["config"].update(change)
    changes = {"config.json": json.dumps(config)}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(write_model(tmp_path / "m.keras", members, changes), "expected a model")
    # 30,000 units would need 60 GB. ru_maxrss is in KiB.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 2**20


def test_only_keras_files_are_loaded_as_models(tmp_path, members):
    for name in ("model.h5", "model.hdf5", "model", "model.npz"):
        refused(write_model(tmp_path / name, members), "expected a model")
    for address in ("gs://bucket/m.keras", "https://x.org/m.keras"):
        with pytest.raises(UserError, match="no such file"):
            avsdn_tf.load(address)
    path = tmp_path / "pipe.keras"
    os.mkfifo(path)
    refused(path, "no regular file")


def npy(header, content=b"", version=b"\x01\x00"):
    text = header.encode().ljust(118 - 1) + b"\n"
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text + content


HEADERS = {
    "claims": "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,)}",
    "overflows": f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({2**62}, 4)}}",
    "negative": "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, -4)}",
    "pickled": "{'descr': '|O', 'fortran_order': False, 'shape': (4,)}",
    "fields": "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (4,)}",
    "nested": "(" * 100,
    "code": "__import__('os').abort()",
    "longer": "{'descr': '<f4', 'fortran_order': False, 'shape': (3,)}",
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_arrays_larger_than_their_file_are_refused(tmp_path, header):
    path = tmp_path / "a.npy"
    path.write_bytes(npy(header, bytes(16)))
    with pytest.raises(ValueError, match=r"header|elements"):
        open_npy(path)
    predictions = tmp_path / "predictions.npz"
    with zipfile.ZipFile(predictions, "w") as archive:
        for name in Predictions.DTYPES:
            archive.writestr(f"{name}.npy", path.read_bytes())
    with pytest.raises(ValueError, match=r"predictions\.npz\. Received: "):
        Predictions.load(predictions)


def test_open_npy_equals_numpy_load(tmp_path, rng):
    path = tmp_path / "a.npy"
    for array in (rng.random((3, 4)), rng.random((3, 4)).T, np.float32(3), np.eye(0)):
        np.save(path, array)
        found = open_npy(path)
        assert (found.shape, found.dtype) == (np.shape(array), array.dtype)
        np.testing.assert_array_equal(found.read(), array)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ValueError, match="no regular file"):
        open_npy(path)


def test_arrays_that_unpack_far_beyond_their_archive_are_refused(tmp_path):
    path = tmp_path / "predictions.npz"
    arrays = {"row": [0], "logits": [[[0.0, 1.0]]], "labels": [[0]], "clip_labels": [0]}
    arrays = {n: np.array(v, Predictions.DTYPES[n]) for n, v in arrays.items()}
    np.savez(path, **arrays)
    assert Predictions.load(path).logits.shape == (1, 1, 2)
    np.savez_compressed(path, **(arrays | {"logits": np.zeros((2**20, 1, 2), "f4")}))
    with pytest.raises(ValueError, match="bytes, where"):
        Predictions.load(path)
    np.savez_compressed(path, **arrays)
    with pytest.raises(ValueError, match="compressed"):
        Predictions.load(path)
    for wrong in (np.array([0.5]), np.array(["a"]), np.array([None])):
        np.savez(path, **(arrays | {"row": wrong}))
        with pytest.raises(ValueError, match=r"predictions\.npz\. Received: "):
            Predictions.load(path)


@pytest.mark.parametrize(
    "progress",
    [
        {"epoch": 0},
        {"epoch": 10**18},
        {"epoch": 2.5},
        {"step": -1},
        {"totals": [1.0]},
        {"totals": [float("nan")] * 3},
        {"history": [[1, 2]]},
        {"history": [{"epoch": 1.0, "validation_accuracy": "high"}]},
        {"history": []},
        {"history": [{"epoch": 1, "loss": 0.5}]},
        {"step": 3},
        {"more": 1},
        None,
    ],
    ids=str,
)
def test_a_checkpoint_with_wrong_progress_is_refused(tmp_path, monkeypatch, progress):
    row = {"epoch": 1, "validation_accuracy": 0.5}
    good = {
        "epoch": 2,
        "step": 0,
        "totals": [0.0] * 3,
        "history": [row],
        "seconds": 1.0,
    }
    saved = Checkpoints(tmp_path)
    variables = [keras.Variable(np.eye(2))]

    def save(content):
        monkeypatch.setattr("dataclasses.asdict", lambda _: content)
        saved.save(Progress(), variables)
        monkeypatch.undo()

    save(good)
    assert saved.restore(variables, "validation_accuracy") == Progress(**good)
    save(None if progress is None else {**good, **progress})
    with pytest.raises(UserError, match="expected a checkpoint of this run, but"):
        saved.restore(variables, "validation_accuracy")


def test_reading_json_allocates_limited_memory(tmp_path):
    class Names(Schema):
        names: list[Text]

    path = tmp_path / "names.json"
    path.write_bytes(b'{"names": [' + b"1," * 2**18 + b"1]}")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=r"names\.0: .* and 262142 more"):
        read_json(path, Names, "names")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 2**20
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match="no regular file"):
        read_json(path, Names, "names")


def never_written_rows(group, name, array):
    group.create_dataset(name, (10**12, 128), "f4")


def large_chunks(group, name, array):
    group.create_dataset(name, (8, 32), "f4", chunks=(8, 32), compression=1)
    group[name][0, 0] = 1


@pytest.mark.parametrize(
    "change",
    [*HDF5_CHANGES, never_written_rows, large_chunks],
)
def test_hdf5_arrays_outside_their_file_are_refused(tmp_path, monkeypatch, change):
    monkeypatch.chdir(tmp_path)
    if change is large_chunks:
        monkeypatch.setattr("avsdn_tf.arrays._MAX_CHUNK_BYTES", 1000)
    with h5py.File("features.h5", "w") as file:
        file["good"] = np.eye(3)
        file["folder/good"] = np.eye(3)
        change(file, "changed", np.eye(3))
        file["away"] = h5py.ExternalLink("other.h5", "/")
    with h5py.File("other.h5", "w") as file:
        file["good"] = np.eye(3)
    with h5py.File("features.h5") as file:
        for name in ("good", "folder/good"):
            np.testing.assert_array_equal(open_hdf5(file, name), np.eye(3))
        with pytest.raises((ValueError, TypeError)):
            open_hdf5(file, "changed")
        with pytest.raises(ValueError, match="a link to elsewhere"):
            open_hdf5(file, "away/good")
        with pytest.raises(KeyError):
            open_hdf5(file, "good/more")


def test_a_video_in_an_archive_unpacks_to_a_limited_size(tmp_path):
    path = tmp_path / "AVE_Dataset.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.mp4", bytes(2**24))
        archive.writestr("small.mp4", bytes(2**19))
    with extraction._as_file(Video("small", path, "small.mp4")) as unpacked:
        assert unpacked.stat().st_size == 2**19
    with (
        pytest.raises(VideoError, match=r"bomb\.mp4 can't be unpacked"),
        extraction._as_file(Video("bomb", path, "bomb.mp4")),
    ):
        pass


# Files that a run writes, and folders that it writes into.
OWN = [
    ".lock",
    "config.json",
    "report.json",
    "model.keras",
    "metrics.csv",
    "predictions.npz",
    "report.html",
    "SHA256SUMS",
    "tensorboard",
    "checkpoints",
    "export",
    "tensorboard/train",
    "checkpoints/epoch-00009-step-000000.ckpt",
]


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory, members):
    """Return the folder of a finished run with all files that commands read."""
    folder = RunFolder(tmp_path_factory.mktemp("runs") / "run")
    folder.write_config(Config().to_dict(), "hash")
    write_model(folder.model, members)
    folder.write_checksums()
    columns = "epoch,loss,accuracy,validation_accuracy,seconds"
    folder.metrics.write_text(f"{columns}\n1,0.7,0.5,0.5,1.5\n2,0.6,0.5,0.75,1.5\n")
    scores = {"accuracy": 0.5, "per_category": [{"category": "Bark", "f1": None}]}
    folder.report.write_text(json.dumps({"disclaimer": "of no worth", **scores}))
    arrays = {"row": [0], "logits": [[[0, 1]]], "labels": [[0]], "clip_labels": [0]}
    Predictions(**arrays).save(folder.predictions)
    row = {"epoch": 1, "loss": 0.7, "accuracy": 0.5, "validation_accuracy": 0.5}
    progress = Progress(2, 0, history=[row])
    Checkpoints(folder.checkpoints).save(progress, [keras.Variable(np.eye(2))])
    return folder.path


@pytest.fixture
def run_folder(whole_run, tmp_path):
    return shutil.copytree(whole_run, tmp_path / "run")


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("exists", [True, False])
def test_links_in_a_run_folder_are_not_followed(run_folder, tmp_path, name, exists):
    victim = tmp_path / "victim"
    if exists:
        victim.write_text("precious")
    link = run_folder / name
    link.parent.mkdir(exist_ok=True)
    if link.is_dir():
        shutil.rmtree(link)
    link.unlink(missing_ok=True)
    link.symlink_to(victim)
    folder = RunFolder(run_folder)
    for action in (
        folder.check_ended,
        folder.read_settings,
        folder.read_report,
        folder.load_model,
        folder.lock().__enter__,
    ):
        with pytest.raises(UserError, match="a symbolic link"):
            action()
    assert victim.exists() == exists
    assert not exists or victim.read_text() == "precious"


def test_oversized_sparse_files_are_not_read(run_folder):
    folder = RunFolder(run_folder)
    os.truncate(folder.model, 2**40)
    with pytest.raises(UserError, match="more than"):
        folder.load_model()
    checkpoints = Checkpoints(folder.checkpoints)
    os.truncate(checkpoints.paths()[-1], 2**40)
    with pytest.raises(UserError, match="larger than the network"):
        checkpoints.restore([keras.Variable(np.eye(2))])
    os.truncate(folder.predictions, 2**40)
    with pytest.raises(ValueError, match="Expected predictions"):
        Predictions.load(folder.predictions)


def test_a_run_folder_itself_may_be_a_link(run_folder, tmp_path):
    link = tmp_path / "latest"
    link.symlink_to(run_folder)
    with RunFolder(link).lock():
        assert avsdn_tf.load(link).categories == ["Bark"]
    # A model file that the user passes may be a link, too.
    link = tmp_path / "model.keras"
    link.symlink_to(run_folder / "model.keras")
    assert avsdn_tf.load(link).categories == ["Bark"]


def test_temporary_names_are_unpredictable(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    folder = tmp_path / "run"
    folder.mkdir()
    names = [f".tmp-{name}" for name in ("report.json", "", "report", "x/report.json")]
    for name in (*names, "report.json.tmp"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).symlink_to(victim)
    (folder / "report.json").symlink_to(victim)
    with atomic_write(folder / "report.json") as tmp_path:
        assert tmp_path.parent.stat().st_mode & 0o077 == 0
        tmp_path.write_text("ours")
    assert (folder / "report.json").read_text() == "ours"
    assert not (folder / "report.json").is_symlink()
    remove_temporary_files(folder, "*.json")
    assert victim.read_text() == "precious"


def test_only_our_temporary_files_are_removed(tmp_path):
    kept = [".tmp-notes/notes.txt", ".tmp-mixed/a.json", ".tmp-deep/a.json/b.json"]
    for name in (".tmp-ours/a.json", ".tmp-mixed/notes.txt", *kept):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / ".tmp-file").write_text("x")
    remove_temporary_files(tmp_path, "*.json")
    assert not (tmp_path / ".tmp-ours").exists()
    assert all((tmp_path / name).exists() for name in (*kept, ".tmp-file"))


def test_a_discarded_run_keeps_other_files(tmp_path):
    def start(name):
        folder = RunFolder(tmp_path / name)
        folder.write_config({}, "hash")
        logs = folder.tensorboard / "train"
        logs.mkdir(parents=True)
        (logs / "events.out.tfevents.1.host.2.0.v2").touch()
        folder.checkpoints.mkdir()
        return folder

    folder = start("empty")
    with folder.lock():
        folder.discard()
    assert not folder.path.exists()
    folder = start("shared")
    own = ("notes.txt", "tensorboard/mine.txt", "checkpoints/a/b.txt", ".tmp-1/c.txt")
    for name in own:
        (folder.path / name).parent.mkdir(exist_ok=True)
        (folder.path / name).write_text("mine")
    with folder.lock():
        folder.discard()
    left = [p for p in folder.path.rglob("*") if p.is_file() and p.name != ".lock"]
    assert {str(path.relative_to(folder.path)) for path in left} == set(own)


def test_a_moved_run_writes_nothing_into_another_folder(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.write_config({}, "hash")
    with folder.lock():
        folder.check_in_place()
        folder.path.rename(tmp_path / "moved")
        with pytest.raises(UserError, match="moved"):
            folder.check_in_place()
        other = RunFolder(tmp_path / "run")
        other.write_config({}, "other")
        before = sorted(other.path.iterdir())
        with pytest.raises(UserError, match="moved"):
            folder.check_in_place()
        with pytest.raises(UserError, match="moved"):
            folder.write_checksums()
        folder.discard()
        assert sorted(other.path.iterdir()) == before
        assert other.matches_dataset("other")
    folder.check_in_place()


@pytest.fixture
def loaded(monkeypatch):
    """Record the arguments of `build_extractor`, and build nothing."""
    found = []

    def build(**given):
        found.append(given)
        raise UserError("built")

    monkeypatch.setattr("avsdn_tf.videos.build_extractor", build)
    return found


def network(**backbones):
    fields = {"audio_network": "vggish", "audio_weights": VGGISH}
    fields |= {"visual_network": "resnet152", "visual_weights": IMAGENET, **backbones}
    shapes = {"audio_width": 128, "visual_shape": (2048,)}
    return types.SimpleNamespace(backbones=fields, **shapes)


@pytest.mark.parametrize(
    ("field", "name"),
    [("audio_weights", "vggish"), ("visual_weights", "visual_weights")],
)
@pytest.mark.parametrize(
    "value",
    [
        "https://example.org/vggish/1",
        "gs://bucket/vggish",
        "hf://somebody/vggish",
        "/home/somebody/module",
        "module",
        f"{VGGISH}/../../evil",
        "",
        "\x1b[2Jx",
    ],
)
def test_backbones_named_in_files_are_not_loaded(loaded, field, name, value):
    with pytest.raises(UserError, match="not loaded without asking") as error:
        extractor_for(network(**{field: value}))
    assert not loaded
    assert error.value.field == name
    assert str(error.value).isprintable()
    # The user's own argument is loaded.
    with pytest.raises(UserError, match="built"):
        extractor_for(network(**{field: value}), **{name: "/home/me/module"})
    assert loaded[0][field] == "/home/me/module"


@pytest.mark.parametrize("modality", ["audio", "visual"])
@pytest.mark.parametrize("value", ["https://example.org/x/1", "/home/me/x", "./x"])
def test_networks_named_by_address_in_files_are_not_loaded(loaded, modality, value):
    recorded = network(**{f"{modality}_network": value, f"{modality}_weights": None})
    with pytest.raises(UserError, match="not loaded without asking"):
        extractor_for(recorded)
    assert not loaded


def test_both_backbones_of_strangers_are_named_at_once(loaded):
    recorded = network(audio_weights="/home/me/a", visual_weights="/home/me/v")
    with pytest.raises(UserError) as error:
        extractor_for(recorded)
    assert not loaded
    for part in ("/home/me/a", "/home/me/v"):
        assert part in str(error.value)


def test_known_backbones_are_loaded_by_name(loaded):
    for recorded in (network(), network(audio_weights=None, visual_weights=None)):
        with pytest.raises(UserError, match="built"):
            extractor_for(recorded)
    for given in loaded:
        assert (given["audio_weights"], given["visual_weights"]) == (VGGISH, IMAGENET)


def test_a_passed_backbone_must_match_the_recorded_checksum(loaded, tmp_path):
    module = tmp_path / "module"
    (module / "variables").mkdir(parents=True)
    (module / "saved_model.pb").write_bytes(b"graph")
    (module / "variables" / "a").write_bytes(b"weights")
    weights = tmp_path / "weights.h5"
    weights.write_bytes(b"weights")
    given = {"vggish": str(module), "visual_weights": str(weights)}
    recorded = Backbones().override(visual_network="resnet152", **given).resolve()
    assert recorded.visual_sha256 == checksum(weights)
    assert Backbones.from_dict(recorded.to_dict()) == recorded
    model = network(**recorded.to_dict())
    copy = tmp_path / "copy"
    module.rename(copy)
    given["vggish"] = str(copy)
    for accepted in (given, {**given, "vggish": VGGISH}):
        with pytest.raises(UserError, match="built"):
            extractor_for(model, **accepted)
    for changed, field in (
        (copy / "variables" / "a", "vggish"),
        (weights, "visual_weights"),
    ):
        content = changed.read_bytes()
        changed.write_bytes(b"other")
        with pytest.raises(UserError, match="Received another checksum") as error:
            extractor_for(model, **given)
        assert error.value.field == field
        changed.write_bytes(content)
    (copy / "variables" / "a").rename(copy / "variables" / "b")
    with pytest.raises(UserError, match="Received another checksum"):
        extractor_for(model, **given)
    # A record without checksums accepts the user's backbone.
    del model, recorded
    with pytest.raises(UserError, match="built"):
        extractor_for(network(audio_weights="elsewhere"), vggish=str(copy))


def test_an_address_in_a_run_is_not_opened(tmp_path):
    from avsdn_tf.data.dataset import NotBuiltError, open_dataset_of_run

    for address in ("gs://bucket/data", "https://example.org", "s3://a", "hf://a/b"):
        with pytest.raises(UserError, match="not opened without asking") as error:
            open_dataset_of_run("tfds_ave/synthetic", address)
        assert error.value.field == "data_dir"
    # No data set is built in the folder that the run names.
    with pytest.raises(NotBuiltError):
        open_dataset_of_run("tfds_ave/synthetic", str(tmp_path / "theirs"))
    assert not list(tmp_path.iterdir())


VALUES = [
    None,
    True,
    -1,
    0.5,
    10**30,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "\x1b[2J\u202e\x00",
    "\ud800",
    "x" * 10_000,
    "/etc/passwd",
    "gs://bucket/x",
    [],
    {},
    [[1]],
    {"class_name": "Lambda", "config": {}},
]


def change_json(content, rng):
    """Return JSON with one member replaced, removed, added, or nested deeply."""
    root = {"": json.loads(content)}
    holder, key = root, ""
    while isinstance(holder[key], (dict, list)) and holder[key] and rng.random() < 0.8:
        holder = holder[key]
        keys = list(holder) if isinstance(holder, dict) else range(len(holder))
        key = keys[rng.integers(len(keys))]
    kind = rng.integers(8)
    value = VALUES[rng.integers(len(VALUES))]
    if kind == 0 and holder is not root:
        del holder[key]
    elif kind == 1 and isinstance(holder[key], dict):
        holder[key]["added"] = value
    else:
        holder[key] = "NESTED" if kind == 2 else value
    text = json.dumps(root[""])
    depth = 10_000
    return text.replace('"NESTED"', "[" * depth + "]" * depth).encode()


def change_bytes(content, rng):
    """Return content that is truncated, or has bytes changed or added."""
    at = int(rng.integers(len(content)))
    kind = rng.integers(5)
    if kind == 0:
        return content[:at]
    if kind == 1:
        return content + rng.bytes(20)
    if kind == 2:
        return content[:at] + b"\xff\xfe\x00\n" + content[at:]
    changed = bytearray(content)
    for position in rng.integers(len(content), size=rng.integers(1, 20)):
        changed[position] = rng.integers(256)
    return bytes(changed)


def change_text(content, rng):
    """Return a table with one cell replaced."""
    cells = re.split(rb"([,\n])", content)
    at = 2 * int(rng.integers(len(cells) // 2))
    cells[at] = str(VALUES[rng.integers(len(VALUES))]).encode("utf-8", "replace")
    return b"".join(cells)


def change_model(content, rng):
    """Return a model file with its configuration or weights changed."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name, change = [
        ("config.json", change_json),
        ("model.weights.h5", change_bytes),
        ("config.json", change_bytes),
    ][rng.integers(3)]
    members[name] = change(members[name], rng)
    file = io.BytesIO()
    write_model(file, members)
    return file.getvalue()


def read_all(folder, load_model):
    """Read all files of a run that commands read."""
    folder.check_ended()
    Config.from_dict(folder.read_settings(), folder.config)
    folder.read_versions()
    folder.matches_dataset("hash")
    folder.read_report()
    read_history(folder)
    variables = [keras.Variable(np.zeros((2, 2)))]
    Checkpoints(folder.checkpoints).restore(variables, "validation_accuracy")
    Predictions.load(folder.predictions)
    if load_model:
        folder.load_model()


@pytest.mark.parametrize(
    ("name", "change", "count"),
    [
        ("config.json", change_json, 60),
        ("config.json", change_bytes, 20),
        ("report.json", change_json, 20),
        ("report.json", change_bytes, 10),
        ("metrics.csv", change_text, 30),
        ("metrics.csv", change_bytes, 10),
        ("SHA256SUMS", change_bytes, 5),
        ("predictions.npz", change_bytes, 30),
        ("checkpoints/epoch-00002-step-000000.ckpt", change_bytes, 10),
        ("model.keras", change_bytes, 15),
        ("model.keras", change_model, 25),
    ],
)
def test_a_changed_run_folder_is_read_or_refused(run_folder, name, change, count):
    folder = RunFolder(run_folder)
    path = run_folder / name
    content = path.read_bytes()
    refusals = 0
    # Loading a model takes a second: load it only if its bytes or checksum change.
    load_model = name in ("model.keras", "SHA256SUMS")
    read_all(folder, load_model)
    for seed in range(count):
        path.write_bytes(change(content, np.random.default_rng(seed)))
        if name == "model.keras":
            # Attackers can also update the checksum of the changed model.
            folder.write_checksums()
        try:
            read_all(folder, load_model)
        # Any other error fails the test.
        except UserError as error:
            message = str(error)
        except ValueError as error:
            message = str(error)
            assert "Expected predictions of a run" in message, seed
        else:
            continue
        assert message.isprintable(), seed
        assert len(message) < 1500, seed
        refusals += 1
    assert refusals > count / 2


LABEL_EVENT = {"start_s": 1, "end_s": 2, "category": "Bark"}
ONE_ANNOTATION = '{"database": {"dog": {"annotations": [%s]}}}'


def collect_labels(folder, files):
    """Collect the labels of the clips dog and cat, which have ten rows of features."""
    write_features(folder, dog=10, cat=10)
    write_all(folder, files)
    splitting = Splitting(allow_missing_categories=True)
    return collect_clips(folder, unlabelled="background", splitting=splitting)


@pytest.mark.parametrize("name", ["../victim", "../victim.mp4", "..\\victim", "/etc/x"])
def test_labels_may_name_only_files_in_their_folder(tmp_path, name):
    write_features(tmp_path, victim=10)
    folder = tmp_path / "own"
    with pytest.raises(UserError, match="no video or features of the name"):
        collect_labels(folder, {"all.csv": f"file,start,end,label\n{name},1,2,Bark\n"})


def test_a_record_of_predictions_may_name_only_files_in_its_folder(
    tmp_path, monkeypatch
):
    (tmp_path / "victim").write_text("precious")
    entry = {"video": "dog.mp4", "sha256": [None]}
    absolute = urllib.parse.quote(str(tmp_path / "victim"))
    record = {"dog.events.json": entry, "../victim": entry, absolute: entry}
    files = {".predictions.json": record, "dog.events.json": {"events": [LABEL_EVENT]}}
    hashed = []
    monkeypatch.setattr(
        "avsdn_tf.report.prediction.hash_file", lambda path: hashed.append(path.name)
    )
    collect_labels(tmp_path / "own", files)
    assert set(hashed) == {"dog.events.json"}


def test_a_label_file_has_limited_size(tmp_path, monkeypatch):
    monkeypatch.setattr("avsdn_tf.labels.files._MAX_BYTES", 1000)
    with pytest.raises(UserError, match="more than 1,000 bytes"):
        collect_labels(tmp_path, {"dog.csv": "onset,offset,label\n" * 100})
    (tmp_path / "dog.csv").unlink()
    os.mkfifo(tmp_path / "dog.csv")
    (tmp_path / "cat.txt").write_text("1\t2\tMeow\n")
    assert len(collect_labels(tmp_path, {}).clips) == 2


def llp_events(kind):
    lines = "".join(f"dog\t{i / 9000}\t10\tBark\n" for i in range(20_000))
    return {f"AVVP_eval_{kind}.csv": f"filename\tonset\toffset\tevent_labels\n{lines}"}


def similar_names():
    """Return 200 names of media and 5,000 other names, of 50 characters each."""
    names = [
        hashlib.sha256(bytes([i % 256, i // 256])).hexdigest() for i in range(5200)
    ]
    return [name[:50] for name in names[:200]], [name[:50] for name in names[200:]]


def similar_categories():
    """Return two names of 40,000 characters from an alphabet of 20,000."""
    return [
        "".join(chr(0x4E00 + i * step % 20_000) for i in range(40_000))
        for step in (7, 11)
    ]


# An algorithm that compares all pairs would take at least a minute.
@pytest.mark.parametrize(
    "files",
    [
        {"dog.vtt": "WEBVTT\n\n00:01.000 --> 00:02.000\n" + "<" * 10**6},
        {**llp_events("audio"), **llp_events("visual")},
        {
            "all.csv": "file,start,end,label\n"
            + "".join(f"{name},1,2,Bark\n" for name in similar_names()[1])
        },
        {
            "dog.csv": "start,end,label\n"
            + "".join(f"{i},{i + 1},{similar_categories()[i > 0]}\n" for i in range(4))
        },
    ],
    ids=["tags", "events", "names", "categories"],
)
def test_reading_labels_takes_limited_time(tmp_path, files):
    if "all.csv" in files:
        write_features(tmp_path, **dict.fromkeys(similar_names()[0], 10))
    begin_s = time.monotonic()
    with contextlib.suppress(UserError):
        collect_labels(tmp_path, files)
    assert time.monotonic() - begin_s < 30


@pytest.mark.parametrize(
    "files",
    [
        {"dog.csv": "start,end,label\n" + "9" * 4000 + ":00:00,5,Bark\n"},
        {"dog.csv": "start,end,label\n1,nan,Bark\n"},
        {"dog.csv": "start,end,label\n-inf,2,Bark\n"},
        {"dog.json": ONE_ANNOTATION % '{"segment": [1e999, 2e999], "label": "Bark"}'},
        {"dog.json": ONE_ANNOTATION % '{"segment": [NaN, 2], "label": "Bark"}'},
        {
            "dog.events.json": {
                "start_s": "0:" + "9" * 400,
                "events": [dict.fromkeys(("start_s", "end_s"), "0:" + "9" * 400)],
            }
        },
    ],
)
def test_times_in_labels_must_be_finite(tmp_path, files):
    with pytest.raises(UserError, match=r"no time|no number of JSON"):
        collect_labels(tmp_path, files)


@pytest.mark.parametrize(
    "files",
    [
        {"dog.json": "[" * 100_000},
        {"dog.json": ONE_ANNOTATION % ("9" * 5000)},
        {
            "dog.json": ONE_ANNOTATION
            % '{"segment": ["%s", 2], "label": 1}'
            % ("x" * 9000)
        },
        {
            "dog.json": ONE_ANNOTATION
            % ('{"segment": [%s, 2], "label": 1}' % ("[" * 900 + "]" * 900))
        },
        {"dog.json": '{"database": {"%s\\ud800": 0}}' % ("\x7f" * 9000)},
        {"dog.csv": ",".join(["\x1b[2J" * 9000] * 8)},
        {"dog.csv": "start,end,label\n1,2," + "\x1b" * 9000},
        {"dog.vtt": "WEBVTT\n\n" + "\x1b" * 9000 + "-->"},
        {"dog.vtt": "WEBVTT\n\n00:01.000 --> 00:02.000\n&#" + "1" * 9000 + ";\x1b"},
    ],
)
def test_an_error_in_labels_is_a_short_line(tmp_path, files):
    with pytest.raises(UserError) as error:
        collect_labels(tmp_path, files)
    for line in str(error.value).splitlines():
        assert line.isprintable()
        assert len(line) <= 1000


@pytest.mark.parametrize("name", ["manifest.csv", "categories.txt"])
def test_a_manifest_has_limited_size(tmp_path, monkeypatch, name):
    write_all(tmp_path, {"categories.txt": "Bark\n", "manifest.csv": "key\n"})
    (tmp_path / name).write_text("Bark\n" * 300)
    monkeypatch.setattr("tfds_ave.manifest._MAX_BYTES", 1000)
    with pytest.raises(DatasetError, match=f"{name}: .* more than 1,000 bytes"):
        read_manifest(tmp_path)


def test_a_manifest_contains_no_formula(tmp_path):
    names = ["=HYPERLINK(0)", "+1+1", "-2+3", "@SUM(A1)", "'=1+1", "''@A", "Bark"]
    rows = [f"{i}\t{i + 1}\t{name}" for i, name in enumerate(names)]
    write_features(tmp_path, **{"=1+1": 10, "-2+3": 10, "'=1+1": 10})
    write_all(tmp_path, {f"{key}.txt": "\n".join(rows) for key in ("=1+1", "-2+3")})
    write_all(tmp_path, {"'=1+1.txt": "\n".join(rows)})
    found = collect_clips(tmp_path)
    write_manifest(tmp_path, found.clips)
    with (tmp_path / "manifest.csv").open(newline="") as file:
        cells = {cell for line in csv.reader(file) for cell in line}
    assert not [cell for cell in cells if cell.startswith(tuple("=+-@"))]
    clips = read_manifest(tmp_path).clips
    assert {clip.key for clip in clips} == {"=1+1", "-2+3", "'=1+1"}
    assert all(set(clip.categories) == set(names) for clip in clips)


def test_the_security_page_names_every_test():
    page = pathlib.Path(__file__).parents[1] / "docs" / "security.md"
    named = re.findall(r"`(test_\w+)`", page.read_text("utf-8"))
    assert len(named) == len(set(named))
    known = {name for name in globals() if name.startswith("test_")}
    known.remove("test_the_security_page_names_every_test")
    assert known <= set(named) <= known | set(vars(video_tests))
