import dataclasses

import numpy as np
import pytest

from avsdn_tf import data
from avsdn_tf.config import Config
from avsdn_tf.errors import UserError


@pytest.fixture(scope="module")
def dataset(data_dir):
    return data.open_dataset("tfds_ave/synthetic", data_dir)


def rows_of(batches):
    return np.concatenate([batch["row"].numpy() for batch in batches])


def test_opening_tells_widths_categories_and_that_it_is_simulated(dataset):
    assert len(dataset.categories) == 28
    assert dataset.categories[0] == "Church bell"
    assert dataset.categories[-1] == "Mandolin"
    assert (dataset.audio_width, dataset.visual_shape) == (128, (2048,))
    assert dataset.num_segments == 10
    assert "not AVE" in dataset.notice


def test_training_batches_hold_every_clip_once_in_an_order_of_seed_and_epoch(dataset):
    def order(seed, epoch):
        return rows_of(data.training_batches(dataset, Config(seed=seed), epoch))

    first = order(0, 1)
    assert len(first) == dataset.num_clips("train") == len(set(first))
    np.testing.assert_array_equal(first, order(0, 1))
    assert (first != order(0, 2)).any()
    assert (first != order(1, 1)).any()


def test_supervised_targets_are_the_segment_labels(dataset):
    batch = next(iter(data.training_batches(dataset, Config(batch_size=480), 1)))
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
    batches = data.training_batches(dataset, config, 1)
    ((split, names),) = asked
    assert "segment_labels" not in names
    assert set(batches.element_spec) == {"audio", "visual", "row", "target"}
    # One target a clip: no axis of segments.
    assert batches.element_spec["target"].shape[1:] == (29,)
    assert split == ("train+background" if weak_label == "mil_background" else "train")
    targets = np.concatenate([batch["target"].numpy() for batch in batches])
    np.testing.assert_allclose(targets.sum(-1), 1, atol=1e-6)
    if weak_label == "average":
        assert ((targets > 0) & (targets < 1)).any()
    else:
        assert set(np.unique(targets)) == {0, 1}
        assert targets[:, 28].any() == (weak_label == "mil_background")


def test_average_is_the_mean_of_the_segment_labels(dataset):
    config = Config(mode="weak")
    means = {
        int(row): target
        for batch in data.training_batches(dataset, config, 1)
        for row, target in zip(
            batch["row"].numpy(), batch["target"].numpy(), strict=True
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
        data.training_batches(
            bare, Config(mode="weak", weak_label="mil_background"), epoch=1
        )


def test_unknown_config_and_unbuilt_data_are_one_message(tmp_path):
    with pytest.raises(UserError, match="synthetic") as error:
        data.open_dataset("tfds_ave/nope", str(tmp_path))
    assert "nope" in str(error.value)
    with pytest.raises(UserError, match=r"not built yet.*\n.*tfds build tfds_ave"):
        data.open_dataset("tfds_ave/resnet152", str(tmp_path))
    with pytest.raises(UserError, match="no_such_dataset"):
        data.open_dataset("no_such_dataset", str(tmp_path))
