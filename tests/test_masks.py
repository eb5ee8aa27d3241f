"""Padding at the end of shorter clips doesn't change results."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import avsdn_tf
from avsdn_tf.losses import ClipLoss, SoftmaxBinaryCrossentropy
from avsdn_tf.models.lstm import SequenceLSTM
from avsdn_tf.models.registry import MODELS
from tests.test_models import CATEGORIES, make_inputs, randomize

SHAPE = (2, 2, 3)
# LSTMs unroll loops over up to 32 segments, but not longer loops.
SHORT, LONG = (6, 4, 1), (40, 34, 3)
OURS = (avsdn_tf.AVSDN, avsdn_tf.AVEL, avsdn_tf.DMRN)
NAMES = [name for name, entry in MODELS.items() if entry.network in OURS]
BOTH_WAYS = [name for name in NAMES if "bidirectional" in MODELS[name].options]
EVERY = [(name, {}) for name in NAMES]
EVERY += [(name, {"bidirectional": True}) for name in BOTH_WAYS]

every_network = pytest.mark.parametrize(("name", "options"), EVERY)


def make_model(name, **options):
    entry = MODELS[name]
    return entry.network(
        CATEGORIES, 5, SHAPE, units=4, dropout=0.0, **options, **entry.fixed
    )


def make_padded(rng, lengths):
    """Return clips with random padding, which changes results if it is read."""
    inputs = make_inputs(rng, max(lengths), SHAPE, len(lengths))
    mask = np.arange(max(lengths)) < np.array(lengths)[:, None]
    return {**inputs, "mask": mask.astype("float32")}


def clip_alone(values, index, lengths):
    return values[index : index + 1, : lengths[index]]


def make_losses(multi_label):
    """Return supervised and weak losses."""
    if multi_label:
        binary = keras.losses.BinaryCrossentropy
        return [
            binary(from_logits=True),
            ClipLoss(binary(), activation="sigmoid"),
            ClipLoss(binary(), "max", activation="sigmoid"),
        ]
    loss = SoftmaxBinaryCrossentropy()
    return [loss, ClipLoss(loss), ClipLoss(loss, "max")]


def make_target(rng, loss, lengths, num_classes):
    shape = (len(lengths), max(lengths), num_classes)
    target = (rng.random(shape) < 0.4).astype("float32")
    return target[:, 0] if isinstance(loss, ClipLoss) else target


def losses_and_gradients(model, losses, inputs, targets):
    mask = inputs.get("mask")
    with tf.GradientTape(persistent=True) as tape:
        outputs = model.compute_outputs(inputs, training=True)
        totals = [
            tf.reduce_sum(model.clip_losses(loss, target, outputs, mask))
            for loss, target in zip(losses, targets, strict=True)
        ]
    gradients = [tape.gradient(total, model.trainable_variables) for total in totals]
    return outputs["logits"], totals, gradients


@pytest.mark.parametrize(
    ("lengths", "multi_label"),
    [(SHORT, False), (SHORT, True), (LONG, False)],
    ids=["short", "short multi-label", "long"],
)
@every_network
def test_padded_and_single_clips_have_equal_outputs(
    name, options, lengths, multi_label, rng
):
    model = make_model(name, multi_label=multi_label, **options)
    randomize(model, rng)
    inputs, losses = make_padded(rng, lengths), make_losses(multi_label)
    targets = [make_target(rng, loss, lengths, model.num_classes) for loss in losses]
    logits, totals, gradients = losses_and_gradients(model, losses, inputs, targets)
    assert np.isfinite(logits).all()
    sums = [[0.0] * len(model.trainable_variables) for _ in losses]
    expected = [0.0] * len(losses)
    for index, length in enumerate(lengths):
        alone = {n: clip_alone(inputs[n], index, lengths) for n in ("audio", "visual")}
        of_clip = [
            target[index : index + 1, ..., :length, :]
            if target.ndim == 3
            else target[index : index + 1]
            for target in targets
        ]
        found = losses_and_gradients(model, losses, alone, of_clip)
        np.testing.assert_allclose(
            clip_alone(logits, index, lengths), found[0], atol=1e-5
        )
        for number in range(len(losses)):
            expected[number] += found[1][number]
            sums[number] = [
                total if more is None else total + more
                for total, more in zip(sums[number], found[2][number], strict=True)
            ]
    np.testing.assert_allclose(totals, expected, rtol=1e-5)
    for one, other in zip(gradients, sums, strict=True):
        for gradient, wanted in zip(one, other, strict=True):
            found = 0.0 if gradient is None else gradient
            np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@every_network
def test_evaluate_and_clip_losses_ignore_padding(name, options, rng):
    lengths = SHORT
    inputs = make_padded(rng, lengths)
    for multi_label in (False, True):
        model = make_model(name, multi_label=multi_label, **options)
        randomize(model, rng)
        for loss in make_losses(multi_label):
            target = make_target(rng, loss, lengths, model.num_classes)
            outputs = model.compute_outputs(inputs)
            wanted = model.clip_losses(loss, target, outputs, inputs["mask"])
            weight = np.array([1.0, 0.5, 2.0], "float32")
            model.compile("sgd", loss, run_eagerly=True)
            found = model.evaluate(inputs, target, verbose=0)
            assert found == pytest.approx(np.mean(wanted), rel=1e-5)
            found = model.evaluate(inputs, target, sample_weight=weight, verbose=0)
            assert found == pytest.approx(np.mean(weight * wanted), rel=1e-5)


def test_a_graph_for_any_length_ignores_padding(rng):
    model = make_model("avsdn", bidirectional=True)
    randomize(model, rng)
    model.compile("sgd", SoftmaxBinaryCrossentropy())
    lengths = SHORT
    inputs = make_padded(rng, lengths)
    signature = {
        name: tf.TensorSpec((None, None, *values.shape[2:]))
        for name, values in inputs.items()
    }
    free = tf.function(lambda inputs: model(inputs), input_signature=[signature])
    found = free({name: tf.constant(values) for name, values in inputs.items()})
    mask = inputs["mask"] > 0
    np.testing.assert_allclose(
        np.array(found)[mask], np.array(model(inputs))[mask], atol=1e-5
    )
    # `fit` runs its steps in a graph.
    assert np.isfinite(
        model.fit(inputs, np.zeros((3, 6), int), verbose=0).history["loss"]
    )


@pytest.mark.parametrize("lengths", [SHORT, LONG])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_an_lstm_carries_its_state_over_padding(bidirectional, lengths, rng):
    layer = SequenceLSTM(4, bidirectional)
    inputs = make_padded(rng, lengths)
    sequence, mask = inputs["audio"], inputs["mask"]
    width = layer.output_width
    hidden, cell = rng.normal(size=(2, len(lengths), width)).astype("float32")
    found = layer(sequence, hidden, cell, mask=mask)
    for index in range(len(lengths)):
        one = slice(index, index + 1)
        wanted = layer(clip_alone(sequence, index, lengths), hidden[one], cell[one])
        np.testing.assert_allclose(
            clip_alone(found[0], index, lengths), wanted[0], atol=1e-6
        )
        for state, expected in zip(found[1:], wanted[1:], strict=True):
            np.testing.assert_allclose(state[one], expected, atol=1e-6)


@pytest.mark.parametrize("lengths", [(6, 0), (40, 0)])
def test_a_clip_without_segments_has_a_finite_loss(lengths, rng):
    for multi_label in (False, True):
        model = make_model("avsdn_label_guided", multi_label=multi_label)
        inputs, losses = make_padded(rng, lengths), make_losses(multi_label)
        outputs = model.compute_outputs(inputs)
        for loss in losses:
            target = 0 * make_target(rng, loss, lengths, model.num_classes)
            found = model.clip_losses(loss, target, outputs, inputs["mask"])
            assert np.isfinite(found).all()


def test_any_nonzero_value_marks_a_segment(rng):
    model = make_model("avsdn")
    randomize(model, rng)
    inputs = make_padded(rng, SHORT)
    expected = model(inputs)
    for dtype in ("bool", "int64", "float16"):
        mask = (0.5 * inputs["mask"]).astype("float16").astype(dtype)
        mask = inputs["mask"].astype(dtype) if dtype == "int64" else mask
        np.testing.assert_array_equal(model({**inputs, "mask": mask}), expected)
    np.testing.assert_array_equal(model(**inputs), expected)
    with pytest.raises(ValueError, match=r"mask of shape.*\(3, 6, 1\)"):
        model({**inputs, "mask": inputs["mask"][..., None]})


def test_a_mask_of_ones_does_not_change_outputs(rng):
    model = make_model("avel", multi_label=True)
    inputs = make_inputs(rng, visual_shape=SHAPE)
    expected = np.asarray(model(inputs))
    assert expected.shape == (2, 6, 3)
    mask = np.ones((2, 6), "float32")
    np.testing.assert_allclose(model({**inputs, "mask": mask}), expected, atol=1e-6)


def test_pooling_by_hand():
    logits = np.array([[[1.0, -2.0], [3.0, 0.0], [9.0, 9.0]]])
    mask = np.array([[1, 1, 0]])
    loss = keras.losses.BinaryCrossentropy()
    np.testing.assert_allclose(ClipLoss(loss).pool(logits, mask), [[2, -1]])
    np.testing.assert_allclose(ClipLoss(loss, "max").pool(logits, mask), [[3, 0]])
    by_sigmoid = ClipLoss(loss, "max", activation="sigmoid")
    np.testing.assert_allclose(
        by_sigmoid.pool(logits, mask), [[1 / (1 + np.exp(-3.0)), 0.5]], rtol=1e-6
    )
    again = ClipLoss.from_config(by_sigmoid.get_config())
    assert (again.pooling, again.activation) == ("max", "sigmoid")
    with pytest.raises(ValueError, match="activation='relu'"):
        ClipLoss(loss, activation="relu")


def test_thresholds_are_checked_and_saved(tmp_path, rng):
    model = make_model("avsdn", multi_label=True)
    assert (model.num_classes, model.thresholds) == (3, None)
    model.thresholds = np.array([0.25, 0.5, 0.75])
    model.save(tmp_path / "model.keras")
    loaded = avsdn_tf.load(tmp_path / "model.keras")
    assert loaded.multi_label
    assert loaded.thresholds == model.thresholds == [0.25, 0.5, 0.75]
    inputs = make_padded(rng, SHORT)
    np.testing.assert_array_equal(loaded(inputs), model(inputs))
    # Thresholds belong to the old head.
    assert model.with_categories(["Saw", "Drill"]).thresholds is None
    for wrong in ([0.5], [0.5, 0.5, 1.0], [0.5, 0.5, float("nan")]):
        with pytest.raises(ValueError, match="3 thresholds"):
            model.thresholds = wrong
    assert model.thresholds == [0.25, 0.5, 0.75]
    with pytest.raises(ValueError, match="not multi-label"):
        make_model("avsdn", thresholds=[0.5] * 3)
