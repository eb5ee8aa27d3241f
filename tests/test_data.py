import dataclasses
import itertools
import subprocess
import sys

import numpy as np
import pytest

import tfds_ave
from avsdn_tf import data
from avsdn_tf.training.config import Config
from avsdn_tf.errors import UserError
from tests import test_tfds_ave
from tests.test_tfds_ave import ORDERS, ROOT, build, make_ave


@pytest.fixture(scope="module")
def dataset(data_dir):
    return data.open_dataset("tfds_ave/synthetic", data_dir)


def rows_of(batches):
    return np.concatenate([batch["row"].numpy() for batch in batches])


def weighing(batch):
    """Returns what a training batch holds, without what fills it up."""
    kept = batch["weight"].numpy() > 0
    return {name: values.numpy()[kept] for name, values in batch.items()}


def test_opening_tells_widths_categories_and_that_it_is_simulated(dataset):
    assert len(dataset.categories) == 28
    assert dataset.categories[0] == "Church bell"
    assert dataset.categories[-1] == "Mandolin"
    assert (dataset.audio_width, dataset.visual_shape) == (128, (2048,))
    assert dataset.num_segments == 10
    assert "not AVE" in dataset.notice


def test_training_batches_hold_every_clip_once_in_an_order_of_seed_and_epoch(dataset):
    def order(seed, epoch):
        batches = data.training_batches(dataset, Config(seed=seed), [epoch])
        return np.concatenate([weighing(batch)["row"] for batch in batches])

    first = order(0, 1)
    assert len(first) == dataset.num_clips("train") == len(set(first))
    np.testing.assert_array_equal(first, order(0, 1))
    assert (first != order(0, 2)).any()
    assert (first != order(1, 1)).any()


def test_where_few_clips_can_wait_the_order_still_differs_between_epochs(
    dataset, monkeypatch
):
    # As few as of large feature maps: 8 of 480, one a share.
    monkeypatch.setattr(data, "_SHUFFLE_BYTES", 8 * 10 * (128 + 2048) * 4)

    def order(seed, epochs, worker=0, num_workers=1):
        part = data.Part(worker, num_workers)
        config = Config(seed=seed)
        batches = data.training_batches(dataset, config, epochs, part)
        return [weighing(batch)["row"].tolist() for batch in batches]

    first, second = (list(itertools.chain(*order(0, [epoch]))) for epoch in (1, 2))
    assert sorted(first) == sorted(second) == sorted(set(first))
    assert len(first) == dataset.num_clips("train")
    places = [np.argsort(rows) for rows in (first, second)]
    assert abs(np.corrcoef(places)[0, 1]) < 0.4
    assert order(0, [1, 2]) == order(0, [1]) + order(0, [2])
    assert order(1, [1]) != order(0, [1])
    # Batches hold the same clips whatever the number of workers.
    parts = [order(0, [1], worker, 2) for worker in range(2)]
    for whole, *of_workers in zip(order(0, [1]), *parts, strict=True):
        assert sorted(whole) == sorted(itertools.chain(*of_workers))


def test_every_batch_is_full_and_what_fills_the_last_one_weighs_nothing(dataset):
    batches = list(data.training_batches(dataset, Config(batch_size=100)))
    weights = np.stack([batch["weight"].numpy() for batch in batches])
    assert weights.shape == (5, 100)
    assert weights[:4].all()
    assert weights[4, :80].all()
    for name in ("audio", "visual", "weight"):
        assert not batches[4][name][80:].numpy().any()


def test_supervised_targets_are_the_segment_labels(dataset):
    batch = next(iter(data.training_batches(dataset, Config(batch_size=480))))
    scored = {
        int(row): labels
        for part in data.scoring_batches(dataset, "train")
        for row, labels in zip(
            part["row"].numpy(), part["segment_labels"].numpy(), strict=True
        )
    }
    assert batch["target"].shape[1:] == (10, 29)
    for row, target in zip(batch["row"].numpy(), batch["target"].numpy(), strict=True):
        np.testing.assert_array_equal(target.argmax(-1), scored[int(row)])
        np.testing.assert_array_equal(target.sum(-1), 1)


@pytest.mark.parametrize("weak_label", ["average", "mil", "mil_background"])
def test_weak_batches_never_read_segment_labels(dataset, weak_label, monkeypatch):
    asked = []
    read = data._read

    def spy(dataset, split, names, **kwargs):
        asked.append((split, names))
        return read(dataset, split, names, **kwargs)

    monkeypatch.setattr(data, "_read", spy)
    config = Config(mode="weak", weak_label=weak_label)
    batches = data.training_batches(dataset, config)
    splits, (names, *_) = zip(*asked, strict=True)
    assert all("segment_labels" not in names for _, names in asked)
    names = {"audio", "visual", "row", "target", "weight"}
    assert set(batches.element_spec) == names
    # One target a clip: no axis of segments.
    assert batches.element_spec["target"].shape[1:] == (29,)
    assert any("background" in split for split in splits) == (
        weak_label == "mil_background"
    )
    targets = np.concatenate([weighing(batch)["target"] for batch in batches])
    np.testing.assert_allclose(targets.sum(-1), 1, atol=1e-6)
    if weak_label == "average":
        assert ((targets > 0) & (targets < 1)).any()
    else:
        assert set(np.unique(targets)) == {0, 1}
        assert targets[:, 28].any() == (weak_label == "mil_background")


def test_background_clips_are_spread_evenly_over_an_epoch(dataset):
    config = Config(mode="weak", weak_label="mil_background")
    batches = [weighing(b) for b in data.training_batches(dataset, config)]
    share = dataset.num_clips("background") / dataset.num_clips("train+background")
    for batch in batches:
        num_background = batch["target"][:, 28].sum()
        assert abs(num_background - share * len(batch["row"])) <= 1.5


def test_average_is_the_mean_of_the_segment_labels(dataset):
    config = Config(mode="weak")
    means = {
        int(row): target
        for batch in data.training_batches(dataset, config)
        for row, target in zip(
            weighing(batch)["row"], weighing(batch)["target"], strict=True
        )
    }
    for batch in data.scoring_batches(dataset, "train"):
        for row, labels in zip(
            batch["row"].numpy(), batch["segment_labels"].numpy(), strict=True
        ):
            np.testing.assert_allclose(
                means[int(row)], np.eye(29)[labels].mean(0), atol=1e-6
            )


def test_missing_background_split_is_one_message(dataset):
    class WithoutBackground:
        info = dataclasses.make_dataclass("Info", ["splits"])({"train": None})

    bare = dataclasses.replace(dataset, builder=WithoutBackground())
    with pytest.raises(UserError, match=r"has no background clips.*--weak_label=mil"):
        data.training_batches(bare, Config(mode="weak", weak_label="mil_background"))


MATCHING_NAMES = {"audio", "visual", "row", "target", "weight"}


def test_matching_pairs_are_simultaneous_and_know_whether_they_are_events(dataset):
    batches = list(data.matching_segments(dataset, "train", seed=1))
    assert len(batches) == 4800 / 8
    assert set(batches[0]) == MATCHING_NAMES
    assert batches[0]["audio"].shape == (8, 128)
    assert batches[0]["visual"].shape == (8, 2048)
    pairs = {
        name: np.concatenate([batch[name].numpy() for batch in batches])
        for name in MATCHING_NAMES
    }
    # A segment is found again by its sound, which is of one segment alone.
    expected = {}
    for batch in data.scoring_batches(dataset, "train"):
        labels = batch["segment_labels"].numpy()
        for clip, segment in np.ndindex(labels.shape):
            key = batch["audio"][clip, segment].numpy().tobytes()
            seen = batch["visual"][clip, segment, :5].numpy()
            expected[key] = (seen, labels[clip, segment] != 28)
    assert len(expected) == len(pairs["audio"])
    for audio, visual, target in zip(
        pairs["audio"], pairs["visual"], pairs["target"], strict=True
    ):
        seen, is_event = expected.pop(audio.tobytes())
        np.testing.assert_array_equal(visual[:5], seen)
        assert target == is_event
    assert not expected


def test_matching_pairs_come_in_an_order_of_seed_and_epoch(dataset):
    def order(seed, epoch):
        batches = data.matching_segments(
            dataset, "validation", seed=seed, epochs=[epoch]
        )
        return np.concatenate([batch["audio"][:, :3].numpy() for batch in batches])

    first = order(0, 1)
    np.testing.assert_array_equal(first, order(0, 1))
    assert (first != order(0, 2)).any()
    assert (first != order(1, 1)).any()


def test_matching_splits_gather_clips_of_all_stored_splits(tmp_path):
    folder = test_tfds_ave.make_ave(tmp_path / "ave")
    test_tfds_ave.build(folder, tmp_path / "data")
    dataset = data.open_dataset("tfds_ave/resnet152", str(tmp_path / "data"))
    # Background clips are in none of them, though their rows have the same numbers.
    assert data.count_matching_clips(dataset) == {
        "train": 20,
        "validation": 5,
        "test": 5,
    }
    visual = test_tfds_ave.read(folder / "visual_feature_vec.h5")
    for split, rows in test_tfds_ave.MATCH_ORDERS.items():
        clips = data.matching_clips(dataset, split, batch_size=3)
        found = rows_of(clips)
        assert sorted(found) == rows
        for batch in clips:
            for clip, row in enumerate(batch["row"].numpy()):
                start, end = test_tfds_ave.row_times(row)
                np.testing.assert_array_equal(batch["visual"][clip], visual[row])
                is_event = [start <= t < end for t in range(10)]
                assert batch["is_event"][clip].numpy().tolist() == is_event
    pairs = sum(
        batch["weight"].numpy().sum()
        for batch in data.matching_segments(dataset, "test")
    )
    assert pairs == 50


def test_unknown_config_and_unbuilt_data_are_one_message(tmp_path):
    with pytest.raises(UserError, match="synthetic") as error:
        data.open_dataset("tfds_ave/nope", str(tmp_path))
    assert "nope" in str(error.value)
    with pytest.raises(UserError, match=r"not built yet.*\n.*tfds build tfds_ave"):
        data.open_dataset("tfds_ave/resnet152", str(tmp_path))
    with pytest.raises(UserError, match=r"--dataset=tfds_ave/synthetic:9.9.9: "):
        data.open_dataset("tfds_ave/synthetic:9.9.9", str(tmp_path))
    with pytest.raises(UserError, match="no_such_dataset"):
        data.open_dataset("no_such_dataset", str(tmp_path))


def test_two_at_once_build_the_data_set_once(tmp_path):
    program = (
        "import sys; from avsdn_tf import data; "
        "print(data.open_dataset('tfds_ave/synthetic', sys.argv[1]).num_clips('test'))"
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
    said = [process.communicate(timeout=300)[0] for process in together]
    assert [process.returncode for process in together] == [0, 0], said
    assert len({text.splitlines()[-1] for text in said}) == 1
    assert sum("Building tfds_ave/synthetic" in text for text in said) == 1


def test_a_small_data_set_is_opened_too(tmp_path, monkeypatch):
    # Fewer training clips than are looked at to tell a stand-in.
    monkeypatch.setitem(ORDERS, "train", list(range(10)))
    monkeypatch.setitem(ORDERS, "validation", [*range(10, 20), *range(20, 30, 2)])
    build(make_ave(tmp_path / "ave"), tmp_path / "data")
    dataset = data.open_dataset("tfds_ave/resnet152", str(tmp_path / "data"))
    assert (dataset.num_clips("train"), dataset.notice) == (10, None)


def test_a_name_with_a_version_opens_the_same_data(data_dir):
    version = tfds_ave.Builder.VERSION
    named = data.open_dataset(f"tfds_ave/synthetic:{version}", data_dir)
    plain = data.open_dataset("tfds_ave/synthetic", data_dir)
    assert named.notice == plain.notice
    assert "not AVE" in named.notice
    assert named.categories == plain.categories
    assert named.num_clips("train") == plain.num_clips("train")
