"""Cross-modality localization: network, released weights, scores, and a whole run."""

import csv
import json

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from avsdn_tf import AVDLN
from avsdn_tf import cross_modality as evaluation
from avsdn_tf.cross_modality import Distances
from avsdn_tf.data import cross_modality as pairs
from avsdn_tf.data.dataset import open_dataset
from avsdn_tf.errors import UserError
from avsdn_tf.models.avdln import embedding_distance
from avsdn_tf.official_weights import load_official_weights
from avsdn_tf.run_folder import RunFolder
from avsdn_tf.training.config import CROSS_MODAL, Config
from avsdn_tf.training.tasks import build_task
from avsdn_tf.training.tasks.cross_modality import make_measure
from tests import commands


def mlp(x, kernel, bias, second_kernel, second_bias):
    hidden = x @ kernel + bias
    hidden = np.where(hidden > 0, hidden, 0.3 * hidden)
    return hidden @ second_kernel + second_bias


def numpy_distances(audio, visual, audio_mlp, visual_mlp):
    difference = mlp(audio, *audio_mlp) - mlp(visual, *visual_mlp)
    return np.sqrt(np.maximum((difference**2).sum(-1), 1e-7))


def layer_weights(model, modality):
    return [
        weight
        for part in ("hidden", "head")
        for weight in getattr(model, f"{modality}_{part}").get_weights()
    ]


def make_inputs(rng, *leading, visual_shape=(7,)):
    return {
        "audio": rng.normal(size=(*leading, 5)).astype("float32"),
        "visual": rng.normal(size=(*leading, *visual_shape)).astype("float32"),
    }


@pytest.mark.parametrize("leading", [(3,), (2, 6)])
@pytest.mark.parametrize("visual_shape", [(7,), (2, 3, 7)])
def test_the_network_follows_its_equations(rng, leading, visual_shape):
    model = AVDLN(audio_width=5, visual_shape=visual_shape)
    model.set_weights([rng.normal(0, 0.5, w.shape) for w in model.get_weights()])
    inputs = make_inputs(rng, *leading, visual_shape=visual_shape)
    visual = inputs["visual"]
    if len(visual_shape) == 3:
        visual = visual.mean(axis=(-3, -2))
    wanted = numpy_distances(
        inputs["audio"],
        visual,
        layer_weights(model, "audio"),
        layer_weights(model, "visual"),
    )
    np.testing.assert_allclose(model(inputs), wanted, rtol=1e-4)


def test_distance_of_equal_embeddings_is_small_and_has_a_gradient(rng):
    model = AVDLN(audio_width=5, visual_shape=(5,))
    model.visual_hidden.set_weights(model.audio_hidden.get_weights())
    model.visual_head.set_weights(model.audio_head.get_weights())
    x = make_inputs(rng, 3)["audio"]
    with tf.GradientTape() as tape:
        distances = model({"audio": x, "visual": x})
        total = tf.reduce_sum(distances)
    np.testing.assert_allclose(distances, np.sqrt(1e-7), rtol=1e-5)
    for gradient in tape.gradient(total, model.trainable_variables):
        assert np.isfinite(gradient).all()


def test_network_saves_and_loads(rng, tmp_path):
    model = AVDLN(["Bark"], audio_width=5, visual_shape=(2, 3, 7))
    inputs = make_inputs(rng, 2, 6, visual_shape=(2, 3, 7))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(inputs), model(inputs))
    assert loaded.get_config() == model.get_config()
    assert loaded.categories == ["Bark"]
    with pytest.raises(ValueError, match=r"visual_shape=\(7, 7\)"):
        AVDLN(visual_shape=(7, 7))


def test_network_runs_in_mixed_precision(rng):
    model = AVDLN(audio_width=5, visual_shape=(7,), dtype="mixed_bfloat16")
    distances = model(make_inputs(rng, 2))
    embedded = model.embed_audio(make_inputs(rng, 2)["audio"])
    assert keras.backend.standardize_dtype(embedded.dtype) == "bfloat16"
    assert keras.backend.standardize_dtype(distances.dtype) == "float32"
    assert all(w.dtype == "float32" for w in model.weights)


def write_weights(path, rng, visual_width=7, audio_width=5):
    """Write random weights in Keras 2's layout, and return them by layer."""
    widths = {
        "dense_1": (visual_width, 128),
        "dense_2": (128, 64),
        "dense_3": (audio_width, 128),
        "dense_4": (128, 64),
    }
    weights = {}
    with h5py.File(path, "w") as file:
        for name, shape in widths.items():
            kernel, bias = rng.normal(size=shape), rng.normal(size=shape[1])
            file[f"{name}/{name}/kernel:0"] = kernel.astype("float32")
            file[f"{name}/{name}/bias:0"] = bias.astype("float32")
            weights[name] = (kernel, bias)
    return weights


def test_released_weights_are_loaded_layer_by_layer(rng, tmp_path):
    weights = write_weights(tmp_path / "w.h5", rng)
    model = AVDLN(audio_width=5, visual_shape=(7,))
    load_official_weights(model, tmp_path / "w.h5")
    inputs = make_inputs(rng, 4)
    wanted = numpy_distances(
        *inputs.values(),
        (*weights["dense_3"], *weights["dense_4"]),
        (*weights["dense_1"], *weights["dense_2"]),
    )
    np.testing.assert_allclose(model(inputs), wanted, rtol=1e-4)


def test_invalid_weights_leave_the_network_unchanged(rng, tmp_path):
    model = AVDLN(audio_width=5, visual_shape=(7,))
    before = model.get_weights()
    with pytest.raises(ValueError, match=r"cmm_model_weights.*nowhere"):
        load_official_weights(model, tmp_path / "nowhere.h5")
    (tmp_path / "text.h5").write_text("no weights")
    with pytest.raises(ValueError, match=r"text\.h5.*can't be read"):
        load_official_weights(model, tmp_path / "text.h5")
    write_weights(tmp_path / "wide.h5", rng, audio_width=6)
    with pytest.raises(ValueError, match=r"\(5, 128\).*audio_hidden.*\(6, 128\)"):
        load_official_weights(model, tmp_path / "wide.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["avadataset"] = [1.0]
    with pytest.raises(ValueError, match=r"dense_1/dense_1/kernel:0.*avadataset"):
        load_official_weights(model, tmp_path / "other.h5")
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_distances_with_the_authors_weights_equal_numpy(official, rng):
    path = official / "cmm_model_weights.h5"
    model = AVDLN(audio_width=128, visual_shape=(512,))
    load_official_weights(model, path)
    with h5py.File(path) as file:
        layers = [
            file[f"dense_{n}/dense_{n}/{kind}:0"][...].astype(np.float64)
            for n in (1, 2, 3, 4)
            for kind in ("kernel", "bias")
        ]
    # AVE's features, on which the weights were trained, are at least 0.
    audio = np.maximum(rng.normal(size=(3, 10, 128)), 0).astype("float32")
    visual = np.maximum(rng.normal(size=(3, 10, 512)), 0).astype("float32")
    wanted = numpy_distances(audio, visual, layers[4:], layers[:4])
    distances = np.asarray(model({"audio": audio, "visual": visual}))
    np.testing.assert_allclose(distances, wanted, rtol=1e-4)
    assert wanted.std() > 0.01
    with pytest.raises(ValueError, match=r"\(2048, 128\).*\(512, 128\)"):
        load_official_weights(AVDLN(), path)


def test_a_window_slides_over_the_other_modality():
    # Audio segments 1 and 2 match visual segments 3 and 4: a diagonal of zeros.
    distances = np.ones((5, 5))
    distances[1, 3] = distances[2, 4] = 0
    a2v, v2a = evaluation.locate(distances, start=1, length=2)
    assert a2v == 3
    # All distances of visual segments 1 and 2 are equal: the first window wins.
    assert v2a == 0
    assert evaluation.locate(distances, start=3, length=2) == (0, 1)
    assert evaluation.locate(distances.T, start=3, length=2) == (1, 0)


def test_scores_by_hand():
    labels = [
        [0, 1, 1, 0],  # 3 windows
        [1, 1, 1, 1],  # not scored: as long as the clip
        [0, 0, 0, 0],  # not scored: no event
        [1, 1, 1, 0],  # 2 windows, starts at 0
        [0, 0, 0, 1],  # 4 windows, ends at the end
    ]
    distances = np.ones((5, 4, 4))
    # Clip 0, event at 1: A2V finds 1, V2A finds 0.
    distances[0, 1, 1] = 0.5
    distances[0, 0, 1] = 0
    # Clip 4, event at 3: A2V finds 0, V2A finds 3.
    distances[4, 3, 0] = 0
    distances[4, 3, 3] = 0.5
    predictions = Distances(np.arange(5), distances, np.array(labels))
    report = evaluation.evaluate(predictions)
    assert report["num_clips"] == 3
    assert report["num_clips_left_out"] == 2
    # All windows of clip 3 have equal distances: the first, which is correct, wins.
    assert report["a2v_accuracy"] == pytest.approx(2 / 3)
    assert report["v2a_accuracy"] == pytest.approx(2 / 3)
    a2v, v2a = evaluation.right_starts(predictions)
    assert a2v.tolist() == [True, True, False]
    assert v2a.tolist() == [False, True, True]
    assert report["baselines"] == {
        "random_window": pytest.approx((1 / 3 + 1 / 2 + 1 / 4) / 3),
        "always_at_start": pytest.approx(1 / 3),
        "always_at_end": pytest.approx(1 / 3),
    }
    assert report["intervals"]["a2v_accuracy"] == [0, 1]
    assert [(row["length"], row["clips"]) for row in report["by_length"]] == [
        (1, 1),
        (2, 1),
        (3, 1),
    ]
    assert report["by_length"][0]["random_window"] == 1 / 4
    json.dumps(report, allow_nan=False)


def test_a_clip_of_several_events_is_not_scored():
    labels = np.array([[1, 0, 1, 0], [0, 1, 1, 0], [1, 0, 0, 1]])
    assert evaluation.is_scored(labels).tolist() == [False, True, False]
    distances = np.random.default_rng(0).random((3, 4, 4))
    report = evaluation.evaluate(Distances(np.arange(3), distances, labels))
    alone = evaluation.evaluate(Distances([1], distances[1:2], labels[1:2]))
    assert (report["num_clips"], report["num_clips_left_out"]) == (1, 2)
    assert {**report, "num_clips_left_out": 0} == alone


def test_invalid_distances_are_refused():
    row, square = np.array([17]), np.ones((1, 4, 4))
    with pytest.raises(ValueError, match="none in 1 clips"):
        evaluation.evaluate(Distances(row, square, np.ones((1, 4))))
    with pytest.raises(ValueError, match="none in 1 clips"):
        evaluation.baselines(np.ones((1, 4)))
    with pytest.raises(ValueError, match="row 17"):
        evaluation.evaluate(Distances(row, square * np.nan, np.eye(4)[:1]))
    with pytest.raises(ValueError, match=r"distances \(1, 4, 3\)"):
        Distances(row, square[..., :3], np.eye(4)[:1])


def test_distances_save_and_load(rng, tmp_path):
    distances = Distances(
        np.arange(3), rng.random((3, 4, 4)), rng.integers(0, 2, (3, 4))
    )
    distances.save(tmp_path / "d.npz")
    again = Distances.load(tmp_path / "d.npz")
    for name in ("row", "distances", "labels"):
        np.testing.assert_array_equal(getattr(again, name), getattr(distances, name))
    (tmp_path / "d.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(ValueError, match=r"row, distances, labels.*d\.npz"):
        Distances.load(tmp_path / "d.npz")


def test_trivial_baselines_of_ave(official):
    with h5py.File(official / "labels_closs.h5") as file:
        labels = file["avadataset"][...]

    def split(name):
        with h5py.File(official / f"{name}_order_match.h5") as file:
            return labels[file["order"][...]]

    # All test clips are scored, but only about half of the validation clips.
    assert evaluation.is_scored(split("test")).sum() == len(split("test")) == 402
    assert evaluation.is_scored(split("val")).sum() == 198
    found = evaluation.baselines(split("test"))
    assert {name: round(value, 3) for name, value in found.items()} == {
        "random_window": 0.208,
        "always_at_start": 0.353,
        "always_at_end": 0.468,
    }


@pytest.fixture(scope="module")
def dataset(data_dir):
    return open_dataset("tfds_ave/synthetic", data_dir)


def test_measured_distances_equal_the_models_outputs(dataset):
    model = AVDLN(dataset.categories, dataset.audio_width, dataset.visual_shape)
    clips = pairs.scoring_clips(dataset, "test", batch_size=40)
    distances = make_measure(model)(clips)
    assert distances.distances.shape == (96, 10, 10)
    batch = next(iter(clips))
    direct = model(
        {"audio": batch["audio"][:, 2], "visual": batch["visual"][:, 5]},
        training=False,
    )
    np.testing.assert_allclose(distances.distances[:40, 2, 5], direct, rtol=1e-4)
    np.testing.assert_array_equal(distances.labels[:40], batch["is_event"])


def test_a_run_learns_and_writes_its_folder(data_dir, dataset, tmp_path):
    config = Config(mode=CROSS_MODAL, epochs=5, data_dir=data_dir)
    run = RunFolder(tmp_path / "run")
    commands.train(config, run.path)

    with run.metrics.open() as file:
        history = list(csv.DictReader(file))
    assert float(history[-1]["loss"]) < 0.5 * float(history[0]["loss"])
    assert float(history[-1]["accuracy"]) > 0.9
    report = json.loads(run.report.read_text())
    best = max(float(row["validation_accuracy"]) for row in history)
    assert report["validation_accuracy"] == best
    assert report["num_clips"] + report["num_clips_left_out"] == 96
    stored = Distances.load(run.predictions)
    scores = evaluation.evaluate(stored)
    assert {name: report[name] for name in scores} == scores

    # The saved model reproduces the stored distances exactly.
    model = keras.models.load_model(run.model)
    assert model.categories == list(dataset.categories)
    again = make_measure(model)(pairs.scoring_clips(dataset, "test"))
    np.testing.assert_array_equal(again.distances, stored.distances)
    run.report.unlink()
    commands.evaluate(run.path)
    assert json.loads(run.report.read_text()) == report


def test_a_task_counts_batches_and_equal_seeds_give_equal_weights(dataset):
    config = Config(mode=CROSS_MODAL, seed=3)
    weights = []
    for _ in range(2):
        keras.utils.set_random_seed(config.seed)
        task = build_task(config, dataset)
        assert task.num_batches == 480 * 10 / 8
        weights.append(task.model.get_weights())
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_split_without_a_clip_to_score_fails_with_one_message(dataset, monkeypatch):
    task = build_task(Config(mode=CROSS_MODAL), dataset)
    clips = pairs.scoring_clips

    def whole_events(*args, **kwargs):
        return clips(*args, **kwargs).map(
            lambda batch: {**batch, "is_event": tf.ones_like(batch["is_event"])}
        )

    monkeypatch.setattr(pairs, "scoring_clips", whole_events)
    with pytest.raises(UserError, match=r"validation: .*none in 96 clips"):
        task.count_validation()


def test_the_gradient_of_a_small_distance_is_finite_in_half_precision():
    one = tf.constant([[0.5, 0.25]], tf.float16)
    other = one + tf.constant([[2.0**-9, 0.0]], tf.float16)
    with tf.GradientTape() as tape:
        tape.watch([one, other])
        distance = embedding_distance(one, other)
        # Scale the loss, as training in mixed_float16 does.
        loss = tf.reduce_sum(1024 * tf.square(1.0 - distance))
    assert distance.dtype == tf.float32
    np.testing.assert_allclose(distance, [2.0**-9], rtol=1e-3)
    for gradient in tape.gradient(loss, [one, other]):
        assert np.isfinite(gradient).all()
        assert abs(float(gradient[0, 0])) == pytest.approx(2048, rel=0.01)
