"""PSP and CPSP against their equations in NumPy."""

import keras
import numpy as np
import pytest

import avsdn_tf
from avsdn_tf.losses import ClipLoss, SoftmaxBinaryCrossentropy
from avsdn_tf.models.cpsp import clip_contrast_losses, segment_contrast_losses
from avsdn_tf.models.propagation import PositiveSamplePropagation, similarity_losses
from tests import numpy_networks as expected
from tests.test_models import CATEGORIES, encode_both_ways, make_inputs, randomize

SHAPE = (2, 3, 4)
LENGTHS = (6, 4, 1)
CROSSENTROPY = keras.losses.CategoricalCrossentropy(from_logits=True)
every_variant = pytest.mark.parametrize(
    ("kind", "weak"),
    [(kind, weak) for kind in (avsdn_tf.PSP, avsdn_tf.CPSP) for weak in (False, True)],
)


def make_model(kind, rng, weak=False, **options):
    model = kind(CATEGORIES, 5, SHAPE, weak=weak, units=4, **options)
    randomize(model, rng)
    return model


def make_target(rng, weak=False, shape=(3, 6)):
    target = np.eye(4, dtype="float32")[rng.integers(0, 4, shape)]
    return target.mean(axis=1) if weak else target


def loss_of(weak):
    return ClipLoss(SoftmaxBinaryCrossentropy()) if weak else CROSSENTROPY


def relu(x):
    return np.maximum(x, 0)


def shares(rows, threshold, reduced):
    rows = rows / (rows.sum(-1, keepdims=True) + 1e-8)
    rows = rows * (rows > threshold)
    return rows if reduced else rows / (rows.sum(-1, keepdims=True) + 1e-8)


def layer_norm(x, scale, shift):
    center = x - x.mean(-1, keepdims=True)
    return center / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * scale + shift


def propagate(layer, audio, visual):
    """Compute steps 2 and 3 of PSP, clip by clip."""
    (v1,), (v2,) = layer.visual_value.get_weights(), layer.visual_key.get_weights()
    (a1,), (a2,) = layer.audio_key.get_weights(), layer.audio_value.get_weights()
    results = []
    for a, v in zip(audio, visual, strict=True):
        affinity = relu(relu(v @ v2) @ relu(a @ a1).T / layer.units**0.5)
        args = (layer.threshold, layer.reduced)
        new_v = v + shares(affinity, *args) @ relu(a @ a2)
        new_a = a + shares(affinity.T, *args) @ relu(v @ v1)
        if not layer.reduced:
            new_v = relu(new_v @ layer.visual_output.get_weights()[0])
            new_a = relu(new_a @ layer.audio_output.get_weights()[0])
        norm = layer.norm.get_weights()
        new_v, new_a = layer_norm(new_v, *norm), layer_norm(new_a, *norm)
        results.append(((new_v + new_a) / 2, new_v, new_a))
    return [np.stack(each) for each in zip(*results, strict=True)]


def encode(encoder, audio, visual):
    """Compute all three steps of PSP."""
    if not encoder.reduced:
        for layer in (encoder.audio_hidden, encoder.audio_projection):
            (kernel,) = layer.get_weights()
            audio = audio @ kernel
    # Another test checks AudioGuidedAttention.
    visual = np.asarray(encoder.visual_pooling(audio.astype("float32"), visual)[0])
    if encoder.reduced:
        kernel, bias = encoder.visual_projection.get_weights()
        visual = visual @ kernel + bias
    else:
        for layer in (encoder.visual_hidden, encoder.visual_projection):
            (kernel,) = layer.get_weights()
            visual = visual @ kernel
    return propagate(
        encoder.propagation,
        encode_both_ways(audio, encoder.audio_encoder),
        encode_both_ways(visual, encoder.visual_encoder),
    )


def cosine(one, other):
    norms = np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
    return (one * other).sum(-1) / norms


@pytest.mark.parametrize("reduced", [False, True])
def test_propagation_follows_its_equations(rng, reduced):
    # Ten segments have normalized affinities on both sides of the threshold.
    layer = PositiveSamplePropagation(4, 0.15, reduced)
    audio, visual = rng.normal(size=(2, 2, 10, 4)).astype("float32")
    layer(audio, visual)
    randomize(layer, rng)
    for found, wanted in zip(
        layer(audio, visual), propagate(layer, audio, visual), strict=True
    ):
        np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_similar_segments_are_propagated():
    # The first visual segment equals the second audio segment. The second visual
    # segment is zero.
    layer = PositiveSamplePropagation(2, 0.3, reduced=True)
    audio = np.array([[[0.0, 1.0], [1.0, 0.0]]], "float32")
    visual = np.array([[[1.0, 0.0], [0.0, 0.0]]], "float32")
    layer(audio, visual)
    identity = np.eye(2)
    layer.set_weights([identity] * 4 + [np.ones(2), np.zeros(2)])
    _, seen, heard = layer(audio, visual)
    # Before normalization, visual is [[2, 0], [0, 0]], and audio [[0, 1], [2, 0]].
    np.testing.assert_allclose(seen, [[[1, -1], [0, 0]]], atol=1e-5)
    np.testing.assert_allclose(heard, [[[-1, 1], [1, -1]]], atol=1e-5)


@pytest.mark.parametrize("weak", [False, True])
def test_psp_follows_its_equations(rng, weak):
    model = make_model(avsdn_tf.PSP, rng, weak)
    assert model.threshold == (0.095 if weak else 0.099)
    inputs = make_inputs(rng, num_segments=10, visual_shape=SHAPE)
    fused, visual, audio = encode(model.encoder, **inputs)
    (hidden,), (head,) = model.hidden.get_weights(), model.head.get_weights()
    logits = relu(fused @ hidden) @ head
    outputs = model.compute_outputs(inputs)
    if weak:
        (weight,) = model.segment_weight.get_weights()
        logits = logits * expected.sigmoid(relu(logits @ weight))
    else:
        wanted = cosine(visual, audio)
        np.testing.assert_allclose(outputs["similarity"], wanted, atol=1e-5)
    np.testing.assert_allclose(model(inputs), logits, atol=1e-4)


@pytest.mark.parametrize("weak", [False, True])
def test_cpsp_follows_its_equations(rng, weak):
    model = make_model(avsdn_tf.CPSP, rng, weak)
    inputs = make_inputs(rng, visual_shape=SHAPE)
    fused, _, _ = encode(model.encoder, **inputs)
    event, event_bias = model.event_head.get_weights()
    category, category_bias = model.category_head.get_weights()
    event_logits = (fused @ event + event_bias)[..., 0]
    category_logits = fused.mean(axis=1) @ category + category_bias
    outputs = model.compute_outputs(inputs)
    np.testing.assert_allclose(outputs["event_logits"], event_logits, atol=1e-4)
    np.testing.assert_allclose(outputs["category_logits"], category_logits, atol=1e-4)
    classes = np.where(event_logits > 0, category_logits.argmax(-1)[:, None], 3)
    np.testing.assert_array_equal(np.argmax(model(inputs), -1), classes)


def test_networks_have_as_many_weights_as_the_authors_networks():
    categories = [str(k) for k in range(28)]
    attention = 129 * 512 + 513 * 512 + 2 * 512 * 49 + 49
    dense = 128 * 256 + 512 * 256 + 2 * 256 * 128
    lstms = 2 * 2 * 4 * 128 * (128 + 128 + 1)
    propagation = 6 * 256 * 256 + 2 * 256
    trunk = attention + dense + lstms + propagation
    psp = avsdn_tf.PSP(categories)
    assert psp.count_params() == trunk + 256 * 64 + 64 * 29
    weak = avsdn_tf.PSP(categories, weak=True)
    reduced = trunk - dense - 2 * 256 * 256 + 513 * 128
    assert weak.count_params() == reduced + 256 * 64 + 64 * 29 + 29
    assert avsdn_tf.CPSP(categories).count_params() == trunk + 257 * 29


def test_similarity_loss_by_hand():
    # Similarities are normalized to 1/4, 3/4, 0, the target to 1/2, 1/2, 0.
    similarity = np.array([[0.1, 0.3, -0.5]], "float32")
    is_event = np.array([[1, 1, 0]], "float32")
    found = similarity_losses(similarity, is_event)
    np.testing.assert_allclose(found, [2 * 0.25**2 / 3], rtol=1e-5)
    padded = [np.pad(x, [(0, 0), (0, 2)], constant_values=1) for x in (similarity,) * 2]
    padded[1][:, :3] = is_event
    found = similarity_losses(*padded, np.array([[1, 1, 1, 0, 0]]))
    np.testing.assert_allclose(found, [2 * 0.25**2 / 3], rtol=1e-5)
    # Without events, the target is 0.
    found = similarity_losses(similarity, 0 * is_event)
    np.testing.assert_allclose(found, [(0.25**2 + 0.75**2) / 3], rtol=1e-5)


def test_psp_adds_the_similarity_loss(rng):
    model = make_model(avsdn_tf.PSP, rng, similarity_weight=7.0)
    inputs, target = make_inputs(rng, visual_shape=SHAPE, batch=3), make_target(rng)
    outputs = model.compute_outputs(inputs)
    p = relu(np.asarray(outputs["similarity"]))
    p /= p.sum(-1, keepdims=True)
    event = 1 - target[..., -1]
    y = event / event.sum(-1, keepdims=True)
    log_p = np.log(expected.softmax(np.asarray(outputs["logits"])))
    wanted = -(target * log_p).sum(-1).mean(-1) + 7 * ((p - y) ** 2).mean(-1)
    found = model.clip_losses(CROSSENTROPY, target, outputs)
    np.testing.assert_allclose(found, wanted, rtol=1e-4)
    sparse = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    found = model.clip_losses(sparse, target.argmax(-1), outputs)
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_contrast_of_segments_follows_its_equation(rng):
    features = rng.normal(size=(2, 5, 4)).astype("float32")
    is_event = np.array([[1, 1, 0, 0, 0], [0, 0, 0, 0, 0]], bool)
    x = features[0] / np.linalg.norm(features[0], axis=-1, keepdims=True)
    similar = np.exp(x @ x.T / 0.6)
    losses = [
        -np.log(similar[i, :2].sum() / (similar[i, :2].sum() + similar[i, 2:].mean()))
        for i in range(2)
    ]
    found = segment_contrast_losses(features, is_event)
    np.testing.assert_allclose(found, [np.mean(losses), 0], rtol=1e-5)
    longer = np.pad(features, [(0, 0), (0, 2), (0, 0)], constant_values=1)
    mask = np.arange(7) < np.array([[5], [5]])
    found = segment_contrast_losses(longer, np.pad(is_event, [(0, 0), (0, 2)]), mask)
    np.testing.assert_allclose(found, [np.mean(losses), 0], rtol=1e-5)


def test_contrast_of_clips_follows_its_equation(rng):
    features = rng.normal(size=(7, 5, 4)).astype("float32")
    classes = np.array([0, 0, 1, 1, 1, 2, 3])
    x = features / np.linalg.norm(features, axis=-1, keepdims=True)
    x = x.mean(axis=1)
    distance = np.linalg.norm(x[:, None] - x, axis=-1)
    wanted = []
    for i, own in enumerate(classes):
        nearest = np.sort(distance[i, classes != own])[:3].mean()
        farthest = distance[i, classes == own].max()
        wanted.append(max(0, farthest - nearest + 0.5))
    found = clip_contrast_losses(features, classes, 0.5, 3)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    # `is_clip` or the mask excludes clips that pad the batch.
    padded = np.concatenate([features, np.zeros((3, 5, 4), "float32")])
    classes = np.pad(classes, (0, 3))
    is_clip = np.arange(10) < 7
    mask = is_clip[:, None] * np.ones((10, 5))
    for given in ({"is_clip": is_clip}, {"mask": mask}):
        found = clip_contrast_losses(padded, classes, 0.5, 3, **given)
        np.testing.assert_allclose(found, [*wanted, 0, 0, 0], atol=1e-5)
    # Clips of one category have no negatives.
    found = clip_contrast_losses(features, np.zeros(7, int))
    np.testing.assert_array_equal(found, np.zeros(7))


def test_cpsp_adds_its_losses(rng):
    inputs, target = make_inputs(rng, visual_shape=SHAPE, batch=3), make_target(rng)

    def losses_of(**weights):
        model = make_model(avsdn_tf.CPSP, np.random.default_rng(1), **weights)
        outputs = model.compute_outputs(inputs)
        return model, outputs, np.asarray(model.clip_losses(None, target, outputs))

    nothing = {"similarity_weight": 0, "clip_weight": 0}
    model, outputs, heads = losses_of(**nothing)
    event = 1 - target[..., -1]
    p = expected.sigmoid(np.asarray(outputs["event_logits"]))
    wanted = -(event * np.log(p) + (1 - event) * np.log(1 - p)).mean(-1)
    counts = target[..., :-1].sum(axis=1)
    log_k = np.log(expected.softmax(np.asarray(outputs["category_logits"])))
    wanted -= (counts / counts.sum(-1, keepdims=True) * log_k).sum(-1)
    np.testing.assert_allclose(heads, wanted, rtol=1e-4)
    is_event = event > 0
    added = {
        "similarity_weight": similarity_losses(outputs["similarity"], event),
        "segment_weight": segment_contrast_losses(outputs["features"], is_event),
        "clip_weight": clip_contrast_losses(outputs["features"], counts.argmax(-1)),
    }
    for name, more in added.items():
        _, _, found = losses_of(**{**nothing, name: 2.0})
        np.testing.assert_allclose(found - heads, 2 * np.asarray(more), atol=1e-4)
    assert model.segment_weight == 0


def test_weak_cpsp_adds_the_contrast_of_clips(rng):
    inputs = make_inputs(rng, visual_shape=SHAPE, batch=3)
    target = np.eye(4, dtype="float32")[[0, 0, 3]]
    found = []
    for weight in (0.0, 1.0):
        model = make_model(
            avsdn_tf.CPSP, np.random.default_rng(1), weak=True, clip_weight=weight
        )
        outputs = model.compute_outputs(inputs)
        found.append(np.asarray(model.clip_losses(None, target, outputs)))
    assert (model.margin, model.num_negatives) == (0.6, 4)
    wanted = clip_contrast_losses(outputs["features"], np.array([0, 0, 3]), 0.6, 4)
    np.testing.assert_allclose(found[1] - found[0], wanted, atol=1e-5)


@every_variant
def test_padding_changes_no_logits_or_losses(kind, weak, rng):
    # The contrast of clips depends on all clips of the batch: disable it.
    options = (
        {"clip_weight": 0.0, "segment_weight": 1.0} if kind != avsdn_tf.PSP else {}
    )
    model = make_model(kind, rng, weak, **options)
    inputs = make_inputs(rng, visual_shape=SHAPE, batch=3)
    mask = (np.arange(6) < np.array(LENGTHS)[:, None]).astype("float32")
    target, loss = make_target(rng, weak), loss_of(weak)
    outputs = model.compute_outputs({**inputs, "mask": mask})
    losses = model.clip_losses(loss, target, outputs, mask)
    assert np.isfinite(outputs["logits"]).all()
    for index, length in enumerate(LENGTHS):
        alone = {n: x[index : index + 1, :length] for n, x in inputs.items()}
        of_clip = model.compute_outputs(alone)
        np.testing.assert_allclose(
            outputs["logits"][index : index + 1, :length], of_clip["logits"], atol=1e-5
        )
        labels = target[index : index + 1]
        labels = labels if weak else labels[:, :length]
        wanted = model.clip_losses(loss, labels, of_clip)
        np.testing.assert_allclose(losses[index : index + 1], wanted, rtol=1e-4)


@every_variant
def test_a_clip_without_segments_has_a_finite_loss(kind, weak, rng):
    model = make_model(kind, rng, weak)
    inputs = make_inputs(rng, visual_shape=SHAPE, batch=3)
    mask = np.arange(6) < np.array([[6], [4], [0]])
    outputs = model.compute_outputs({**inputs, "mask": mask})
    losses = model.clip_losses(loss_of(weak), 0 * make_target(rng, weak), outputs, mask)
    assert np.isfinite(losses).all()


@every_variant
def test_fit_and_train_minimize_the_same_loss(kind, weak, rng):
    model = make_model(kind, rng, weak)
    inputs = make_inputs(rng, visual_shape=SHAPE, batch=3)
    target, loss = make_target(rng, weak), loss_of(weak)
    mask = np.arange(6) < np.array(LENGTHS)[:, None]
    for given in (inputs, {**inputs, "mask": mask}):
        outputs = model.compute_outputs(given)
        wanted = model.clip_losses(loss, target, outputs, given.get("mask"))
        model.compile("sgd", loss)
        found = model.evaluate(given, target, verbose=0)
        assert found == pytest.approx(np.mean(wanted), rel=1e-4)


def test_the_loss_without_outputs_of_a_call_is_finite(rng):
    # The call stores its outputs. The first `compute_loss` removes them, so the second
    # has none, as when Keras on PyTorch traces `fit`.
    for kind in (avsdn_tf.PSP, avsdn_tf.CPSP):
        model = make_model(kind, rng)
        model.compile("sgd", CROSSENTROPY)
        target = make_target(rng)
        logits = model(make_inputs(rng, visual_shape=SHAPE, batch=3))
        for _ in range(2):
            assert np.isfinite(model.compute_loss(y=target, y_pred=logits))


@every_variant
def test_fit_lowers_the_loss(kind, weak, rng):
    keras.utils.set_random_seed(0)
    model = kind(CATEGORIES, 5, SHAPE, weak=weak, units=4)
    inputs = make_inputs(rng, visual_shape=SHAPE, batch=3)
    target = make_target(rng, weak)
    model.compile(keras.optimizers.Adam(1e-3), loss_of(weak))
    before = model.evaluate(inputs, target, verbose=0)
    model.fit(inputs, target, epochs=3, verbose=0)
    assert model.evaluate(inputs, target, verbose=0) < before


@every_variant
def test_options_are_saved_and_loaded(kind, weak, rng, tmp_path):
    options = {"threshold": 0.05, "similarity_weight": 3.0, "audio_axis": "cell"}
    if kind == avsdn_tf.CPSP:
        options |= {"segment_weight": 0.01, "clip_weight": 0.5}
        options |= {"margin": 0.4, "num_negatives": 2}
    shape = (2, 2, 4)
    model = kind(CATEGORIES, 5, shape, weak=weak, units=4, **options)
    randomize(model, rng)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    inputs = make_inputs(rng, visual_shape=shape)
    np.testing.assert_array_equal(loaded(inputs), model(inputs))
    config = loaded.get_config()
    assert {name: config[name] for name in options} == options
    assert config["weak"] == weak
    maps = loaded.attention_maps(inputs)
    assert maps.shape == (2, 6, 2, 2)
    np.testing.assert_allclose(np.sum(maps, axis=(2, 3)), 1, atol=1e-5)


def test_wrong_arguments_are_refused():
    for kind in (avsdn_tf.PSP, avsdn_tf.CPSP):
        with pytest.raises(ValueError, match=r"feature maps.*visual_shape=\(7,\)"):
            kind(CATEGORIES, 5, (7,))
        with pytest.raises(ValueError, match="threshold=1"):
            kind(CATEGORIES, 5, SHAPE, threshold=1)
    with pytest.raises(ValueError, match="num_negatives=0"):
        avsdn_tf.CPSP(CATEGORIES, 5, SHAPE, num_negatives=0)
    with pytest.raises(ValueError, match="can't be multi-label"):
        avsdn_tf.CPSP(CATEGORIES, 5, SHAPE, multi_label=True)


def test_psp_learns_overlapping_categories(rng):
    model = make_model(avsdn_tf.PSP, rng, multi_label=True)
    inputs = make_inputs(rng, visual_shape=SHAPE, batch=3)
    target = (rng.random((3, 6, 3)) < 0.4).astype("float32")
    outputs = model.compute_outputs(inputs)
    binary = keras.losses.BinaryCrossentropy(from_logits=True)
    found = model.clip_losses(binary, target, outputs)
    extra = similarity_losses(outputs["similarity"], target.max(-1))
    wanted = np.mean(binary.call(target, outputs["logits"]), axis=1) + 100 * extra
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
