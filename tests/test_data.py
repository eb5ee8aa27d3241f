import dataclasses
import itertools
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import tfds_ave
from avsdn_tf.backbones import Backbones
from avsdn_tf.data import batches, cross_modality
from avsdn_tf.data.batches import InputShard
from avsdn_tf.data.dataset import NotBuiltError, open_dataset
from avsdn_tf.errors import UserError
from tests import small_datasets
from tests.small_datasets import ORDERS, build, make_ave

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def dataset(data_dir):
    return open_dataset("tfds_ave/synthetic", data_dir)


def kept(batch):
    """Return the arrays of a training batch without padding."""
    weighs = batch["weight"].numpy() > 0
    return {name: values.numpy()[weighs] for name, values in batch.items()}


def training(dataset, splits=("train",), label="segment_labels", **options):
    options = {"batch_size": 64, "seed": 0, **options}
    return batches.training_batches(dataset, splits, label, **options)


def rows(*args, **options):
    return [kept(batch)["row"].tolist() for batch in training(*args, **options)]


def test_a_data_set_has_categories_shapes_and_disclaimer(dataset):
    assert len(dataset.categories) == 28
    assert (dataset.categories[0], dataset.categories[-1]) == (
        "Church bell",
        "Mandolin",
    )
    assert (dataset.audio_width, dataset.visual_shape) == (128, (2048,))
    assert (dataset.num_segments, dataset.segment_s) == (10, 1.0)
    assert "not AVE" in dataset.disclaimer
    assert dataset.backbones == Backbones()
    assert dataset.clip_bytes == 10 * (128 + 2048) * 4


def test_the_hash_depends_on_the_content_and_not_on_the_folder(dataset):
    again = open_dataset(
        dataset.name, str(dataset.builder.data_dir).split("/tfds_ave")[0]
    )
    assert again.content_hash() == dataset.content_hash()
    for change in ({"categories": ("x",)}, {"backbones": Backbones("vgg19")}):
        other = dataclasses.replace(dataset, **change)
        assert other.content_hash() != dataset.content_hash()


def test_each_seed_and_epoch_reads_every_clip_once_in_another_order(dataset):
    def order(seed, epoch):
        return list(itertools.chain(*rows(dataset, seed=seed, epochs=[epoch])))

    first = order(0, 1)
    assert len(first) == dataset.num_clips("train") == len(set(first))
    assert first == order(0, 1)
    assert first != order(0, 2)
    assert first != order(1, 1)


def test_epochs_differ_with_small_shuffle_buffers(dataset, monkeypatch):
    # The buffer holds 8 of 480 clips, as for large feature maps.
    monkeypatch.setattr(batches, "_SHUFFLE_BYTES", 8 * dataset.clip_bytes)
    first, second = (
        list(itertools.chain(*rows(dataset, epochs=[epoch]))) for epoch in (1, 2)
    )
    assert sorted(first) == sorted(second) == sorted(set(first))
    places = [np.argsort(order) for order in (first, second)]
    assert abs(np.corrcoef(places)[0, 1]) < 0.4
    both = rows(dataset, epochs=[1, 2])
    assert both == rows(dataset, epochs=[1]) + rows(dataset, epochs=[2])


@pytest.mark.parametrize(("num_workers", "few"), [(2, False), (3, True), (8, False)])
def test_workers_split_the_batches_of_one_worker(
    dataset, num_workers, few, monkeypatch
):
    if few:
        monkeypatch.setattr(batches, "_SHUFFLE_BYTES", 8 * dataset.clip_bytes)
    options = {"splits": ("train", "background"), "label": "clip_label"}
    whole = rows(dataset, **options)
    shards = [InputShard(worker, num_workers, 2) for worker in range(num_workers)]
    read = [list(training(dataset, **options, shard=shard)) for shard in shards]
    # A worker's batches alternate between its two replicas.
    assert {len(part) for part in read} == {2 * len(whole)}
    assert len({batch["weight"].shape for part in read for batch in part}) == 1
    for number, batch in enumerate(whole):
        found = [
            row
            for part in read
            for piece in part[2 * number : 2 * number + 2]
            for row in kept(piece)["row"].tolist()
        ]
        assert sorted(found) == sorted(batch)


def test_a_worker_reads_only_its_own_shards(dataset, monkeypatch):
    used = []
    shuffled = batches.Shard.shuffled

    def spy(shard, *args):
        used.append(shard.index)
        return shuffled(shard, *args)

    monkeypatch.setattr(batches.Shard, "shuffled", spy)
    for _ in training(dataset, shard=InputShard(1, 3)):
        pass
    assert set(used) == {1, 4, 7}


def test_padding_is_zero_and_has_weight_zero(dataset):
    found = list(training(dataset, batch_size=100))
    weights = np.stack([batch["weight"].numpy() for batch in found])
    assert weights.shape == (5, 100)
    assert weights[:4].all()
    assert weights[4, :80].all()
    for name in ("audio", "visual", "weight"):
        assert not found[4][name][80:].numpy().any()


def test_targets_are_the_requested_label(dataset):
    scored = {
        int(row): (labels, clip_label)
        for batch in batches.scoring_batches(dataset, "train")
        for row, labels, clip_label in zip(
            *(batch[n].numpy() for n in ("row", "segment_labels", "clip_label")),
            strict=True,
        )
    }
    one_hot = np.eye(29)
    expected = {
        "segment_labels": lambda labels, _: one_hot[labels],
        "segment_label_mean": lambda labels, _: one_hot[labels].mean(0),
        "clip_label": lambda _, clip_label: one_hot[clip_label],
    }
    for label, target_of in expected.items():
        batch = kept(next(iter(training(dataset, label=label, batch_size=480))))
        for row, target in zip(batch["row"], batch["target"], strict=True):
            np.testing.assert_allclose(target, target_of(*scored[int(row)]), atol=1e-6)


def test_single_label_data_are_read_as_multi_label(dataset):
    one = scored(dataset)
    many = scored(dataset, multi_label=True)
    assert many.dtype == np.int8
    np.testing.assert_array_equal(many, np.eye(29)[one][..., :28])
    for label in ("segment_labels", "segment_label_mean", "clip_label"):
        single, multi = (
            next(iter(training(dataset, label=label, multi_label=is_multi)))
            for is_multi in (False, True)
        )
        assert set(single) == set(multi)
        np.testing.assert_array_equal(single["target"][..., :28], multi["target"])


def scored(dataset, **options):
    found = batches.scoring_batches(dataset, "test", **options)
    return np.concatenate([batch["segment_labels"] for batch in found])


@pytest.mark.parametrize("label", ["segment_label_mean", "clip_label"])
def test_weak_batches_never_decode_segment_labels(dataset, label, monkeypatch):
    asked = []
    read = batches.read

    def spy(dataset, split, names):
        asked.extend(names)
        return read(dataset, split, names)

    monkeypatch.setattr(batches, "read", spy)
    found = training(dataset, label=label)
    assert "segment_labels" not in asked
    assert set(found.element_spec) == {"audio", "visual", "row", "target", "weight"}
    assert found.element_spec["target"].shape[1:] == (29,)


def test_background_clips_are_spread_evenly_over_an_epoch(dataset):
    splits = ("train", "background")
    num_background, num_all = (
        dataset.num_clips("background"),
        sum(map(dataset.num_clips, splits)),
    )
    for batch in training(dataset, splits, "clip_label"):
        target = kept(batch)["target"]
        expected = len(target) * num_background / num_all
        assert abs(target[:, 28].sum() - expected) <= 3


def test_scoring_keeps_the_stored_order_with_any_number_of_workers(dataset):
    whole = [b["row"].numpy() for b in batches.scoring_batches(dataset, "test")]
    parts = [
        batch["row"].numpy()
        for worker in range(3)
        for batch in batches.scoring_batches(dataset, "test", 7, InputShard(worker, 3))
    ]
    np.testing.assert_array_equal(np.concatenate(whole), np.concatenate(parts))


def test_pairs_are_simultaneous_segments_with_event_targets(dataset):
    found = list(cross_modality.segment_pairs(dataset, "train", seed=1))
    assert len(found) == 4800 / 8
    assert found[0]["audio"].shape == (8, 128)
    assert found[0]["visual"].shape == (8, 2048)
    pairs = {
        name: np.concatenate([batch[name].numpy() for batch in found])
        for name in ("audio", "visual", "target")
    }
    # Audio features are unique, so they identify segments.
    expected = {}
    for batch in batches.scoring_batches(dataset, "train"):
        labels = batch["segment_labels"].numpy()
        for clip, segment in np.ndindex(labels.shape):
            key = batch["audio"][clip, segment].numpy().tobytes()
            visual = batch["visual"][clip, segment, :5].numpy()
            expected[key] = (visual, labels[clip, segment] != 28)
    assert len(expected) == len(pairs["audio"])
    for audio, visual, target in zip(*pairs.values(), strict=True):
        seen, is_event = expected.pop(audio.tobytes())
        np.testing.assert_array_equal(visual[:5], seen)
        assert target == is_event
    assert not expected


def test_each_seed_and_epoch_orders_pairs_differently(dataset):
    def order(seed, epoch):
        found = cross_modality.segment_pairs(
            dataset, "validation", seed=seed, epochs=[epoch]
        )
        return np.concatenate([batch["audio"][:, :3].numpy() for batch in found])

    first = order(0, 1)
    np.testing.assert_array_equal(first, order(0, 1))
    assert (first != order(0, 2)).any()
    assert (first != order(1, 1)).any()


def test_cross_modality_splits_gather_clips_of_all_stored_splits(tmp_path):
    folder = make_ave(tmp_path / "ave")
    build(folder, tmp_path / "data")
    dataset = open_dataset("tfds_ave/resnet152", str(tmp_path / "data"))
    # The splits omit background clips. A background clip's row number refers to AVE's
    # noisy feature files, so another clip can have the same number.
    assert cross_modality.count_clips(dataset) == {
        "train": 20,
        "validation": 5,
        "test": 5,
    }
    visual = small_datasets.read(folder / "visual_feature_vec.h5")
    for split, expected in small_datasets.MATCH_ORDERS.items():
        clips = list(cross_modality.scoring_clips(dataset, split, batch_size=3))
        assert sorted(np.concatenate([batch["row"] for batch in clips])) == expected
        for batch in clips:
            for clip, row in enumerate(batch["row"].numpy()):
                start, end = small_datasets.row_times(row)
                np.testing.assert_array_equal(batch["visual"][clip], visual[row])
                is_event = [start <= t < end for t in range(10)]
                assert batch["is_event"][clip].numpy().tolist() == is_event
    pairs = cross_modality.segment_pairs(dataset, "test")
    assert sum(batch["weight"].numpy().sum() for batch in pairs) == 50


def test_errors_of_unknown_and_unbuilt_data_sets_name_the_data_set(tmp_path):
    for name in ("tfds_ave/nope", "no_such_dataset", "tfds_ave/synthetic:9.9.9"):
        with pytest.raises((UserError, tfds_ave.DatasetError), match="synthetic") as e:
            open_dataset(name, str(tmp_path))
        assert name.split("/")[-1] in str(e.value)
    with pytest.raises(NotBuiltError, match="avsdn build resnet152") as error:
        open_dataset("tfds_ave/resnet152", str(tmp_path))
    assert error.value.field == "dataset"


def test_two_simultaneous_processes_build_the_data_set_once(tmp_path):
    program = (
        "import sys; from avsdn_tf.data.dataset import open_dataset; "
        "print(open_dataset('tfds_ave/synthetic', sys.argv[1]).num_clips('test'))"
    )
    together = [
        subprocess.Popen(
            [sys.executable, "-c", program, tmp_path / "new"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]
    output = [process.communicate(timeout=300)[0] for process in together]
    assert [process.returncode for process in together] == [0, 0], output
    assert len({text.splitlines()[-1] for text in output}) == 1
    assert sum("Building tfds_ave/synthetic" in text for text in output) == 1


def test_a_split_with_fewer_clips_than_shards_is_read(tmp_path, monkeypatch):
    monkeypatch.setitem(ORDERS, "train", list(range(5)))
    monkeypatch.setitem(ORDERS, "validation", [*range(5, 20), *range(20, 30, 2)])
    build(make_ave(tmp_path / "ave"), tmp_path / "data")
    dataset = open_dataset("tfds_ave/resnet152", str(tmp_path / "data"))
    assert dataset.disclaimer is None
    assert dataset.backbones.visual_network == "resnet152"
    assert sorted(itertools.chain(*rows(dataset, batch_size=2))) == list(range(5))


def test_a_name_with_a_version_opens_the_same_data_set(dataset, data_dir):
    version = tfds_ave.Builder.VERSION
    named = open_dataset(f"tfds_ave/synthetic:{version}", data_dir)
    assert named.content_hash() == dataset.content_hash()
    assert named.disclaimer == dataset.disclaimer
