"""Prediction rule, losses and options of CMRAN, CMBS and CACE-Net.

test_official_heads.py tests the equations of these networks.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

import avsdn_tf
from avsdn_tf.data.dataset import open_dataset
from avsdn_tf.losses import SoftMarginLoss, SoftmaxBinaryCrossentropy
from avsdn_tf.models import two_heads
from avsdn_tf.models.cace import CACENet, contrast_losses
from avsdn_tf.models.cmbs import CMBS, gate_losses
from avsdn_tf.models.cmran import CMRAN
from avsdn_tf.run_folder import RunFolder
from avsdn_tf.training.config import Config
from avsdn_tf.training.loop import train
from tests.numpy_networks import sigmoid, softmax
from tests.test_models import CATEGORIES, make_inputs, randomize

SHAPE = (2, 3, 4)
LENGTHS = (6, 4, 1)
MASK = np.arange(6) < np.array(LENGTHS)[:, None]
VARIANTS = [
    (CMRAN, {}),
    (CMRAN, {"weak": True}),
    (CMBS, {}),
    (CMBS, {"weak": True}),
    (CACENet, {}),
]
NAMES = ["cmran", "weak cmran", "cmbs", "weak cmbs", "cace"]
every_variant = pytest.mark.parametrize(("kind", "options"), VARIANTS, ids=NAMES)


def make_model(kind, rng, **options):
    model = kind(CATEGORIES, 5, SHAPE, units=8, **options)
    randomize(model, rng)
    if kind is CACENet:
        model.contrast.assign(1.0)
    return model


def make_target(rng, weak=False):
    labels = rng.integers(0, 4, 3 if weak else (3, 6))
    return np.eye(4, dtype=np.float32)[labels]


def make_batch(rng):
    return make_inputs(rng, visual_shape=SHAPE, batch=3)


def log_softmax(x):
    return np.log(softmax(x))


def binary_crossentropy(y, p):
    return -np.where(y, np.log(p), np.log(1 - p))


@pytest.mark.parametrize("has_background", [False, True])
def test_argmax_of_segment_logits_equals_the_published_rule(rng, has_background):
    event = rng.normal(size=(50, 6)).astype("float32")
    event[0] = 0, -0.0, 1e-30, -1e-30, 80, -80
    category = rng.normal(size=(50, 3 + has_background)).astype("float32")
    logits = np.asarray(two_heads.segment_logits(event, category, has_background))
    wanted = np.where(event > 0, category.argmax(-1)[:, None], 3)
    np.testing.assert_array_equal(logits.argmax(-1), wanted)
    assert np.isfinite(logits).all()
    if not has_background:
        best = logits[..., :3].max(-1)
        np.testing.assert_allclose(best - logits[..., 3], event, atol=1e-6)


def test_pooling_excludes_padding(rng):
    x = rng.normal(size=(3, 6, 2)).astype("float32")
    padded = np.where(MASK[..., None], x, 100)
    for index, length in enumerate(LENGTHS):
        real = x[index, :length]
        largest = two_heads.max_over_segments(padded, MASK)[index]
        np.testing.assert_allclose(largest, real.max(0))
        mean = np.sort(real, axis=0)[::-1][:4].mean(0)
        top = two_heads.top_mean_over_segments(padded, 4, MASK)[index]
        np.testing.assert_allclose(top, mean, rtol=1e-5)
        alone = two_heads.top_mean_over_segments(real[None], 4)[0]
        np.testing.assert_allclose(alone, mean, rtol=1e-5)


def test_losses_of_the_heads_by_hand(rng):
    # Clips with two categories, with one category and padding, with background only.
    labels = np.array([[0, 1, 1, 3], [2, 3, 0, 0], [3, 3, 3, 3]])
    mask = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 1]])
    target = np.eye(4, dtype=np.float32)[labels]
    event = rng.normal(size=(3, 4)).astype("float32")
    category = rng.normal(size=(3, 3)).astype("float32")
    log_p = log_softmax(category)
    wanted = [-(log_p[0, 0] + 2 * log_p[0, 1]) / 3, -log_p[1, 2], 0]
    found = two_heads.category_losses(target, category, mask)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    losses = binary_crossentropy(labels < 3, sigmoid(event))
    wanted = [losses[0].mean(), losses[1, :2].mean(), losses[2].mean()]
    found = two_heads.event_losses(target, event, mask)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_supervised_losses_follow_their_equations(rng):
    inputs, target = make_batch(rng), make_target(rng)
    labels = np.argmax(target, axis=-1)
    is_event = labels < 3
    for kind, options in ((CMRAN, {}), (CMBS, {}), (CMBS, {"sigmoid_twice": True})):
        model = make_model(kind, rng, **options)
        outputs = model.compute_outputs(inputs)
        by_name = {name: np.asarray(output) for name, output in outputs.items()}
        shares = target[..., :3].sum(1)
        shares /= np.maximum(shares.sum(-1, keepdims=True), 1)
        p = sigmoid(by_name["event_logits"])
        wanted = binary_crossentropy(is_event, p).mean(-1)
        wanted -= (shares * log_softmax(by_name["category_logits"])).sum(-1)
        if kind is CMBS:
            product = sigmoid(by_name["audio_gate_logits"])
            product = product * sigmoid(by_name["visual_gate_logits"])
            product = sigmoid(product) if options else product
            wanted += binary_crossentropy(is_event, product).mean(-1)
            wanted -= (shares * log_softmax(by_name["clip_scores"])).sum(-1)
        for given in (target, labels):
            found = model.clip_losses(None, given, outputs)
            np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_gate_losses_are_finite_for_certain_gates():
    target = np.eye(2, dtype=np.float32)[[[0, 1]]]
    for logit in (200.0, -200.0):
        logits = tf.fill((1, 2), logit)
        with tf.GradientTape() as tape:
            tape.watch(logits)
            losses = gate_losses(target, logits, logits)
        assert np.isfinite(losses).all()
        assert np.isfinite(tape.gradient(losses, logits)).all()


@pytest.mark.parametrize("kind", [CMRAN, CMBS])
def test_weak_losses_are_soft_margins_of_gated_categories(kind, rng):
    model = make_model(kind, rng, weak=True)
    target = make_target(rng, weak=True)
    outputs = model.compute_outputs(make_batch(rng))
    event, category = (
        np.asarray(outputs[name]) for name in ("event_logits", "category_logits")
    )
    assert category.shape == (3, 4)
    gated = sigmoid(event)[..., None] * category[:, None]
    wanted = SoftMarginLoss(reduction=None)(target, gated.max(1))
    for given in (target, target.argmax(-1)):
        found = model.clip_losses(None, given, outputs)
        np.testing.assert_allclose(found, wanted, rtol=1e-5)


@pytest.mark.parametrize("is_open", [True, False])
def test_weak_cmbs_predicts_background_except_as_published(rng, is_open):
    inputs = make_batch(rng)
    model = make_model(CMBS, rng, weak=True)
    # The mean of both gates decides; the bias opens or closes the audio gate.
    model.audio_gate.bias.assign([100.0 if is_open else -100.0])
    published = CMBS.from_config({**model.get_config(), "always_event": True})
    published.set_weights(model.get_weights())
    outputs, always = (m.compute_outputs(inputs) for m in (model, published))
    categories = np.argmax(outputs["category_logits"], -1)[:, None]
    wanted = np.full((3, 6), categories if is_open else 3)
    np.testing.assert_array_equal(np.argmax(outputs["logits"], -1), wanted)
    np.testing.assert_array_equal(
        np.argmax(always["logits"], -1), np.full((3, 6), categories)
    )
    target = make_target(rng, weak=True)
    np.testing.assert_array_equal(
        published.clip_losses(None, target, always),
        model.clip_losses(None, target, outputs),
    )


def test_contrast_follows_its_equation(rng):
    features = rng.normal(size=(3, 2, 6, 5)).astype("float32")
    # A ReLU can output a vector of zeros.
    features[0, :, 1] = 0
    labels = rng.integers(0, 4, (3, 6))
    labels[2] = 3
    found = contrast_losses(np.eye(4, dtype=np.float32)[labels], features, MASK)
    for index, length in enumerate(LENGTHS):
        x = features[index, :, :length].reshape(2 * length, 5).astype(float)
        x /= np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
        scores = np.exp(x @ x.T / 0.01 - 100)
        is_event = np.tile(labels[index, :length] < 3, 2)
        losses = []
        for i in range(2 * length):
            others = [j for j in range(2 * length) if j != i]
            positives = [
                j
                for j in others
                if j % length == i % length or (is_event[i] and is_event[j])
            ]
            ratio = scores[i, positives].sum() / scores[i, others].sum()
            losses.append(np.log(len(positives)) - np.log(ratio))
        np.testing.assert_allclose(found[index], np.mean(losses), rtol=1e-4, atol=1e-4)


def test_contrast_of_zeros_has_a_gradient():
    features = tf.zeros((1, 2, 3, 4))
    target = np.eye(2, dtype=np.float32)[[[0, 0, 1]]]
    with tf.GradientTape() as tape:
        tape.watch(features)
        losses = contrast_losses(target, features)
    assert np.isfinite(tape.gradient(losses, features)).all()


def test_contrast_changes_event_logits_and_loss(rng):
    model = make_model(CACENet, rng)
    inputs, target = make_batch(rng), make_target(rng)
    outputs, losses = [], []
    for contrast in (0.0, 1.0):
        model.contrast.assign(contrast)
        outputs.append(model.compute_outputs(inputs))
        losses.append(np.asarray(model.clip_losses(None, target, outputs[-1])))
    before, after = outputs
    query = np.asarray(after["contrasted"])[:, 0]
    added = 0.6 * query @ np.asarray(model.event_head.kernel)[:, 0]
    difference = after["event_logits"] - before["event_logits"]
    np.testing.assert_allclose(difference, added, atol=1e-4)
    np.testing.assert_array_equal(after["category_logits"], before["category_logits"])
    heads = [two_heads.event_losses(target, o["event_logits"]) for o in outputs]
    contrast = contrast_losses(target, after["contrasted"])
    wanted = np.asarray(heads[1] - heads[0] + contrast)
    np.testing.assert_allclose(losses[1] - losses[0], wanted, rtol=1e-3, atol=1e-4)


def test_contrast_starts_at_the_configured_epoch(rng):
    model = CACENet(CATEGORIES, 5, SHAPE, units=8, contrast_epoch=2)
    assert model.warmup_epochs == 2
    inputs, target = make_batch(rng), make_target(rng)
    seen = []
    callback = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append(float(model.contrast.numpy()))
    )
    model.compile("sgd", run_eagerly=True)
    model.fit(inputs, target, epochs=4, verbose=0, callbacks=callback)
    assert seen == [0, 0, 1, 1]
    model.fit(inputs, target, verbose=0)
    assert float(model.contrast.numpy()) == 0
    model.contrast_epoch = None
    model.begin_epoch(1000)
    assert float(model.contrast.numpy()) == 0


def test_train_calls_begin_epoch_for_each_epoch(data_dir, tmp_path, monkeypatch):
    epochs = []
    monkeypatch.setattr(
        avsdn_tf.AVSDN, "begin_epoch", lambda self, epoch: epochs.append(epoch)
    )
    folder = RunFolder(tmp_path / "run")
    folder.write_config(Config().to_dict(), "hash")
    dataset = open_dataset("tfds_ave/synthetic", data_dir)
    train(Config(epochs=2, units=4), dataset, folder)
    assert epochs == [0, 1]


@every_variant
def test_padded_and_single_clips_have_equal_outputs(kind, options, rng):
    model = make_model(kind, rng, **options)
    inputs, target = make_batch(rng), make_target(rng, model.weak)
    outputs = model.compute_outputs({**inputs, "mask": MASK.astype("float32")})
    losses = model.clip_losses(None, target, outputs, MASK)
    assert np.isfinite(outputs["logits"]).all()
    for index, length in enumerate(LENGTHS):
        alone = {n: x[index : index + 1, :length] for n, x in inputs.items()}
        of_clip = model.compute_outputs(alone)
        np.testing.assert_allclose(
            outputs["logits"][index : index + 1, :length], of_clip["logits"], atol=1e-5
        )
        labels = target[index : index + 1]
        labels = labels if model.weak else labels[:, :length]
        wanted = model.clip_losses(None, labels, of_clip)
        np.testing.assert_allclose(losses[index : index + 1], wanted, rtol=1e-4)


@every_variant
def test_a_clip_without_segments_has_finite_losses_and_gradients(kind, options, rng):
    model = make_model(kind, rng, **options)
    inputs, target = make_batch(rng), 0 * make_target(rng, model.weak)
    mask = np.arange(6) < np.array([[6], [4], [0]])
    with tf.GradientTape() as tape:
        outputs = model.compute_outputs({**inputs, "mask": mask}, training=True)
        losses = model.clip_losses(None, target, outputs, mask)
    assert np.isfinite(losses).all()
    for gradient in tape.gradient(losses, model.trainable_variables):
        assert np.isfinite(gradient).all()


@every_variant
def test_fit_minimizes_the_loss_of_train_with_any_compiled_loss(kind, options, rng):
    model = make_model(kind, rng, **options)
    inputs, target = make_batch(rng), make_target(rng, model.weak)
    weight = np.array([1, 2, 0], np.float32)
    for loss, given in (
        (None, inputs),
        (SoftmaxBinaryCrossentropy(), {**inputs, "mask": MASK}),
    ):
        outputs = model.compute_outputs(given)
        wanted = np.asarray(model.clip_losses(loss, target, outputs, given.get("mask")))
        model.compile("sgd", loss, run_eagerly=True)
        found = model.evaluate(given, target, verbose=0)
        assert found == pytest.approx(wanted.mean(), rel=1e-4)
        found = model.evaluate(given, target, sample_weight=weight, verbose=0)
        assert found == pytest.approx((weight * wanted).mean(), rel=1e-4)


@every_variant
def test_training_lowers_the_loss(kind, options, rng):
    keras.utils.set_random_seed(0)
    model = kind(CATEGORIES, 5, SHAPE, units=8, **options)
    inputs, target = make_batch(rng), make_target(rng, model.weak)
    model.compile(keras.optimizers.Adam(1e-3), run_eagerly=True)
    before = model.evaluate(inputs, target, verbose=0)
    model.fit(inputs, target, epochs=5, verbose=0)
    assert model.evaluate(inputs, target, verbose=0) < before


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (CMRAN, {"weak": True}),
        (CMBS, {"sigmoid_twice": True}),
        (CMBS, {"weak": True, "always_event": True}),
        (CACENet, {"contrast_epoch": 3, "sigmoid_twice": True}),
    ],
)
def test_options_and_contrast_are_saved(kind, options, rng, tmp_path):
    model = make_model(kind, rng, **options)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    inputs = make_batch(rng)
    np.testing.assert_array_equal(loaded(inputs), model(inputs))
    config = loaded.get_config()
    assert {name: config[name] for name in options} == options


@every_variant
def test_attention_maps_sum_to_one(kind, options, rng):
    model = make_model(kind, rng, **options)
    maps = model.attention_maps(make_batch(rng))
    assert maps.shape == (3, 6, 2, 3)
    np.testing.assert_allclose(np.sum(maps, axis=(2, 3)), 1, atol=1e-5)


@pytest.mark.parametrize("kind", [avsdn_tf.AVEL, avsdn_tf.DMRN])
def test_attention_maps_of_avel_equal_its_attention(kind, rng):
    model = kind(CATEGORIES, 5, SHAPE, attention=True, units=4)
    inputs = make_batch(rng)
    _, wanted = model.visual_pooling(inputs["audio"], inputs["visual"])
    np.testing.assert_array_equal(model.attention_maps(inputs), wanted)
    assert avsdn_tf.AVEL(CATEGORIES, 5, SHAPE).attention_maps(inputs) is None


@every_variant
def test_networks_run_in_mixed_precision(kind, options, rng):
    model = kind(CATEGORIES, 5, SHAPE, units=8, dtype="mixed_float16", **options)
    inputs, target = make_batch(rng), make_target(rng, model.weak)
    outputs = model.compute_outputs({**inputs, "mask": MASK}, training=True)
    assert outputs["logits"].dtype == "float32"
    losses = model.clip_losses(None, target, outputs, MASK)
    assert losses.dtype == "float32"
    assert np.isfinite(losses).all()


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (CMRAN, {"multi_label": True}, "multi-label"),
        (CMBS, {"visual_shape": (7,)}, "feature maps"),
        (CACENet, {"weak": True}, "weakly supervised"),
        (CMRAN, {"units": 6}, "heads"),
    ],
)
def test_wrong_arguments_are_refused(kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind(CATEGORIES, **{"audio_width": 5, "visual_shape": SHAPE, **options})


def test_weak_and_supervised_targets_are_not_interchangeable(rng):
    inputs = make_batch(rng)
    for weak in (False, True):
        model = make_model(CMRAN, rng, weak=weak)
        outputs = model.compute_outputs(inputs)
        with pytest.raises(ValueError, match="target"):
            model.clip_losses(None, make_target(rng, not weak), outputs)
