"""Keras's own functions work with the networks of this package."""

import copy
import io

import keras
import numpy as np
import pytest
import tensorflow as tf

import avsdn_tf
from avsdn_tf.models.registry import MODELS

CATEGORIES = ["Bark", "Violin, fiddle", "Frying (food)"]
KNOWN = {
    "num_segments": 6,
    "segment_s": 0.5,
    "backbones": {"audio_weights": "weights", "visual_network": None},
}
every_network = pytest.mark.parametrize("name", MODELS)
# A network with label guides, one with attention, and one without a time axis.
some_networks = pytest.mark.parametrize(
    "name", ["avsdn_label_guided", "avel_att", "avdln"]
)


def make_model(name="avsdn", visual_shape=(2, 3, 4), **options):
    entry = MODELS[name]
    units = {"units": 4} if "units" in entry.options else {}
    model = entry.network(
        CATEGORIES, 5, visual_shape, **units, **entry.fixed, **options
    )
    rng = np.random.default_rng(1)
    for weight in model.trainable_weights:
        weight.assign(rng.normal(0, 0.5, weight.shape))
    return model


def make_inputs(rng, num_segments=6, visual_shape=(2, 3, 4), batch=4):
    return {
        "audio": rng.normal(size=(batch, num_segments, 5)).astype("f"),
        "visual": rng.normal(size=(batch, num_segments, *visual_shape)).astype("f"),
    }


@pytest.fixture
def inputs(rng):
    return make_inputs(rng)


@pytest.fixture
def classes(rng):
    return rng.integers(0, 4, (4, 6))


def save_and_load(model, tmp_path):
    model.save(tmp_path / "model.keras")
    return keras.models.load_model(tmp_path / "model.keras")


@every_network
def test_summary_shows_every_shape(name):
    text = io.StringIO()
    make_model(name).summary(print_fn=lambda line: text.write(f"{line}\n"))
    assert "(None, None, " in text.getvalue()
    assert "?" not in text.getvalue()


@some_networks
def test_export_has_named_inputs_and_free_axes(name, rng, tmp_path):
    model = make_model(name)
    model.export(tmp_path / "served", verbose=False)
    serve = tf.saved_model.load(tmp_path / "served").signatures["serving_default"]
    for num_segments, batch in [(6, 4), (1, 1), (10, 3), (40, 2)]:
        inputs = make_inputs(rng, num_segments, batch=batch)
        (found,) = serve(**{key: tf.constant(x) for key, x in inputs.items()}).values()
        np.testing.assert_allclose(found, model(inputs), atol=1e-5)


@some_networks
def test_inputs_are_a_dictionary_a_pair_or_keywords(name, inputs):
    model = make_model(name)
    expected = np.asarray(model(inputs))
    pair = [inputs["audio"], inputs["visual"]]
    named = tf.data.Dataset.from_tensor_slices(inputs).batch(3)
    for given in (inputs, pair, tuple(pair), named):
        found = model.predict(given, verbose=0)
        np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_array_equal(model(**inputs), expected)
    np.testing.assert_array_equal(model(pair, training=False), expected)


def test_mismatched_inputs_fail_with_one_message(inputs):
    model = make_model()
    with pytest.raises(ValueError, match=r"audio and visual.*Received: \['audio'\]"):
        model({"audio": inputs["audio"]})
    with pytest.raises(ValueError, match=r"audio of shape.*, 5\).*\(4, 6, 2, 3, 4\)"):
        model([inputs["visual"], inputs["audio"]])
    with pytest.raises(ValueError, match="both"):
        model(inputs, audio=inputs["audio"])


def test_an_unused_input_may_be_missing(inputs):
    model = make_model("avel_audio")
    np.testing.assert_array_equal(model({"audio": inputs["audio"]}), model(inputs))


@every_network
def test_metadata_of_a_model_are_saved(name, inputs, tmp_path):
    model = make_model(name, **KNOWN)
    config = model.get_config()
    assert {key: config[key] for key in KNOWN} == KNOWN
    copies = {
        "loaded": save_and_load(model, tmp_path),
        "deep copy": copy.deepcopy(model),
        "clone": keras.models.clone_model(model),
        "from config": type(model).from_config(config),
    }
    for kind, other in copies.items():
        assert other.get_config() == config, kind
        assert {key: getattr(other, key) for key in KNOWN} == KNOWN
        if kind not in ("loaded", "deep copy"):
            other.set_weights(model.get_weights())
        np.testing.assert_array_equal(other(inputs), model(inputs))


@pytest.mark.parametrize(
    "wrong", [{"num_segments": 0}, {"segment_s": -1.0}, {"audio_width": 0}]
)
def test_metadata_of_a_model_are_validated(wrong):
    (field,) = wrong
    with pytest.raises(ValueError, match=field):
        avsdn_tf.AVSDN(CATEGORIES, **wrong)


@some_networks
def test_a_functional_model_that_contains_a_network_saves_and_loads(
    name, inputs, tmp_path
):
    audio = keras.Input((None, 5), name="audio")
    visual = keras.Input((None, 2, 3, 4), name="visual")
    inner = make_model(name)
    for outputs in (
        inner({"audio": audio, "visual": visual}),
        inner([audio, visual]),
        inner(audio=audio, visual=visual),
    ):
        outer = keras.Model({"audio": audio, "visual": visual}, 2 * outputs)
        expected = 2 * np.asarray(inner(inputs))
        for model in (outer, save_and_load(outer, tmp_path), copy.deepcopy(outer)):
            np.testing.assert_allclose(model(inputs), expected, atol=1e-5)


def test_frozen_layers_stay_frozen(tmp_path):
    model = make_model("avsdn_label_guided")
    model.audio_encoder.trainable = False
    model.visual_guide.layers[0].trainable = False
    for other in (save_and_load(model, tmp_path), keras.models.clone_model(model)):
        assert not other.audio_encoder.trainable
        assert not other.audio_encoder.lstm.trainable
        assert other.visual_encoder.trainable
        assert [layer.trainable for layer in other.visual_guide.layers] == [False, True]
        assert len(other.trainable_variables) == len(model.trainable_variables)
    model.trainable = False
    assert not save_and_load(model, tmp_path).trainable_variables


def test_quantize_is_refused():
    with pytest.raises(NotImplementedError, match="LiteRT"):
        make_model().quantize("int8")


def gradients_of_clip_losses(model, loss, inputs, target):
    with tf.GradientTape() as tape:
        outputs = model.compute_outputs(inputs, training=True)
        losses = model.clip_losses(loss, target, outputs)
        total = tf.reduce_mean(losses)
    assert losses.shape == (4,)
    return float(total), tape.gradient(total, model.trainable_variables)


LOSSES = {
    "segments": avsdn_tf.SoftmaxBinaryCrossentropy,
    "soft margin": avsdn_tf.SoftMarginLoss,
    "Keras's": lambda: keras.losses.CategoricalCrossentropy(from_logits=True),
    "clips": lambda: avsdn_tf.ClipLoss(avsdn_tf.SoftmaxBinaryCrossentropy()),
    "clips max": lambda: avsdn_tf.ClipLoss(avsdn_tf.SoftMarginLoss(), "max"),
}


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("name", ["avsdn_label_guided", "dmrn"])
def test_fit_minimizes_clip_losses(name, kind, inputs, classes):
    model, loss = make_model(name), LOSSES[kind]()
    target = np.eye(4, dtype="f")[classes]
    if kind.startswith("clips"):
        target = target.mean(axis=1)
    expected, gradients = gradients_of_clip_losses(model, loss, inputs, target)
    # One SGD step with learning rate 1 subtracts the gradients.
    model.compile(keras.optimizers.SGD(1.0), loss)
    before = [variable.numpy() for variable in model.trainable_variables]
    history = model.fit(inputs, target, verbose=0).history
    assert history["loss"] == pytest.approx([expected], rel=1e-5)
    for old, new, gradient in zip(
        before, model.trainable_variables, gradients, strict=True
    ):
        np.testing.assert_allclose(old - new.numpy(), gradient, atol=1e-5)
        assert np.abs(gradient).max() > 0


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_losses_of_half_precision_outputs_are_float32(dtype, inputs, classes):
    model = make_model("avsdn_label_guided", dtype=f"mixed_{dtype}")
    outputs = model.compute_outputs(inputs)
    assert outputs["audio_clip_logits"].dtype == dtype
    loss = avsdn_tf.SoftmaxBinaryCrossentropy()
    losses = model.clip_losses(loss, np.eye(4)[classes], outputs)
    assert losses.dtype == "float32"


def test_losses_of_label_guides_match_a_computation_by_hand(inputs, classes):
    model = make_model("avsdn_label_guided")
    target = np.eye(4, dtype="f")[classes]
    outputs = model.compute_outputs(inputs)
    loss = avsdn_tf.SoftmaxBinaryCrossentropy(reduction=None)
    mean = target.mean(axis=1)
    expected = (
        np.mean(loss(target, outputs["logits"]), axis=1)
        + loss(mean, outputs["audio_clip_logits"])
        + loss(mean, outputs["visual_clip_logits"])
    )
    found = model.clip_losses(loss, target, outputs)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    # With a ClipLoss, guides use the clip target and the inner loss.
    clip_loss = avsdn_tf.ClipLoss(loss)
    clip_target = np.eye(4, dtype="f")[classes[:, 0]]
    expected = (
        loss(clip_target, np.mean(outputs["logits"], axis=1))
        + loss(clip_target, outputs["audio_clip_logits"])
        + loss(clip_target, outputs["visual_clip_logits"])
    )
    found = model.clip_losses(clip_loss, clip_target, outputs)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_sample_weights_apply_to_label_guides(inputs, classes):
    model = make_model("avsdn_label_guided")
    loss = avsdn_tf.SoftmaxBinaryCrossentropy()
    target = np.eye(4, dtype="f")[classes]
    losses = model.clip_losses(loss, target, model.compute_outputs(inputs))
    weights = np.array([1.0, 0.0, 2.0, 0.5], "f")
    for given in (weights, np.repeat(weights[:, None], 6, axis=1)):
        model.compile("sgd", loss, run_eagerly=True)
        found = model.evaluate(inputs, target, sample_weight=given, verbose=0)
        assert found == pytest.approx(np.mean(weights * losses), rel=1e-5)


@pytest.mark.parametrize("name", ["avsdn", "avsdn_label_guided"])
def test_class_indices_are_targets(name, inputs, classes):
    model = make_model(name)
    one_hot = np.eye(4, dtype="f")[classes]
    pairs = [
        (avsdn_tf.SoftmaxBinaryCrossentropy(), one_hot, classes),
        (avsdn_tf.SoftMarginLoss(), one_hot, classes[..., None]),
        (
            avsdn_tf.ClipLoss(avsdn_tf.SoftmaxBinaryCrossentropy()),
            one_hot[:, 0],
            classes[:, 0],
        ),
    ]
    for loss, distribution, indices in pairs:
        model.compile("sgd", loss, run_eagerly=True)
        expected = model.evaluate(inputs, distribution, verbose=0)
        assert model.evaluate(inputs, indices, verbose=0) == pytest.approx(expected)
    dense = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile("sgd", dense, run_eagerly=True)
    expected = model.evaluate(inputs, one_hot, verbose=0)
    sparse = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", sparse, run_eagerly=True)
    found = model.evaluate(inputs, classes, verbose=0)
    assert found == pytest.approx(expected, rel=1e-5)


def test_mismatched_targets_fail_with_one_message(inputs, classes):
    model = make_model()
    model.compile("sgd", avsdn_tf.SoftmaxBinaryCrossentropy())
    for target in (classes[:, 0], np.eye(4)[classes[:, 0]], classes[:, :3]):
        with pytest.raises(ValueError, match=r"class indices.*ClipLoss"):
            model.fit(inputs, target, verbose=0)
    model.compile("sgd", avsdn_tf.ClipLoss(avsdn_tf.SoftmaxBinaryCrossentropy()))
    with pytest.raises(ValueError, match=r"class indices.*ClipLoss"):
        model.fit(inputs, classes, verbose=0)
    guided = make_model("avsdn_label_guided")
    guided.compile("sgd", [avsdn_tf.SoftMarginLoss()])
    with pytest.raises(ValueError, match=r"one keras\.losses\.Loss"):
        guided.fit(inputs, np.eye(4)[classes], verbose=0)


def test_losses_and_metrics_resolve_by_name_and_the_model_loads(
    inputs, classes, tmp_path
):
    model = make_model("avsdn_label_guided")
    names = ["SegmentAccuracy", "BackgroundRecall", "EventF1"]
    model.compile(
        "adam",
        "avsdn_tf>SoftmaxBinaryCrossentropy",
        metrics=[f"avsdn_tf>{name}" for name in names],
        run_eagerly=True,
    )
    model.fit(inputs, classes, verbose=0)
    loaded = save_and_load(model, tmp_path)
    assert isinstance(loaded.loss, avsdn_tf.SoftmaxBinaryCrossentropy)
    found = loaded.evaluate(inputs, classes, verbose=0, return_dict=True)
    expected = model.evaluate(inputs, classes, verbose=0, return_dict=True)
    assert set(found) == {"loss", "segment_accuracy", "background_recall", "event_f1"}
    assert found == pytest.approx(expected)
    loaded.fit(inputs, classes, verbose=0)
    # Use a new model: Keras keeps the metrics of an earlier `compile`.
    model = make_model()
    loss = avsdn_tf.ClipLoss(avsdn_tf.SoftMarginLoss(), "max")
    model.compile("adam", loss, run_eagerly=True)
    model.fit(inputs, classes[:, 0], verbose=0)
    loaded = save_and_load(model, tmp_path)
    assert loaded.loss.get_config() == model.loss.get_config()


@pytest.mark.parametrize("name", ["avsdn_label_guided", "dmrn"])
def test_a_model_is_fine_tuned_on_other_categories(name, inputs, rng, tmp_path):
    source = make_model(name, dropout=0.1, **KNOWN)
    source = save_and_load(source, tmp_path)
    model = source.with_categories(["Saw", "Drill"])
    assert model.categories == ["Saw", "Drill"]
    config = {**source.get_config(), "categories": model.categories}
    assert {**model.get_config(), "name": config["name"]} == config
    for encoder in ("audio_encoder", "visual_encoder"):
        old, new = getattr(source, encoder), getattr(model, encoder)
        for one, other in zip(old.get_weights(), new.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)
        new.trainable = False
    loss = avsdn_tf.SoftmaxBinaryCrossentropy()
    model.compile(keras.optimizers.Adam(0.1), loss, run_eagerly=True)
    frozen = model.audio_encoder.get_weights() + model.visual_encoder.get_weights()
    head = model.category_layers()[0].get_weights()
    model.fit(inputs, rng.integers(0, 3, (4, 6)), verbose=0)
    assert (model.category_layers()[0].get_weights()[0] != head[0]).any()
    loaded = save_and_load(model, tmp_path)
    after = loaded.audio_encoder.get_weights() + loaded.visual_encoder.get_weights()
    for one, other in zip(frozen, after, strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(loaded.trainable_variables) == len(model.trainable_variables)
    for clip in avsdn_tf.localize(loaded, inputs):
        assert {event.category for event in clip} <= {"Saw", "Drill"}


def test_with_categories_always_creates_a_new_head():
    source = make_model("avsdn_label_guided")
    source.trainable = False
    model = source.with_categories(["Saw", "Drill", "Hammer"])
    heads = [v for layer in model.category_layers() for v in layer.variables]
    assert {id(v) for v in model.trainable_variables} == {id(v) for v in heads}
    for old, new in zip(source.category_layers(), model.category_layers(), strict=True):
        assert new.trainable
        assert (old.get_weights()[0] != new.get_weights()[0]).any()


@pytest.fixture
def restore_keras():
    floatx, data_format = keras.config.floatx(), keras.config.image_data_format()
    policy = keras.config.dtype_policy()
    yield
    keras.config.set_floatx(floatx)
    keras.config.set_image_data_format(data_format)
    keras.config.set_dtype_policy(policy)


def fit_one_step(model, inputs, classes, **options):
    model.compile(
        keras.optimizers.SGD(0.1),
        avsdn_tf.SoftmaxBinaryCrossentropy(),
        metrics=[avsdn_tf.SegmentAccuracy(), avsdn_tf.EventF1()],
        **options,
    )
    model.fit(inputs, classes, verbose=0)
    return model.predict(inputs, verbose=0)


@pytest.mark.usefixtures("restore_keras")
@pytest.mark.parametrize(
    ("name", "setting", "atol"),
    [
        ("avsdn_label_guided", "mixed_bfloat16", 0.1),
        ("avsdn_label_guided", "mixed_float16", 0.02),
        ("avsdn_label_guided", "float64", 1e-5),
        ("avsdn_label_guided", "float16", 0.1),
        ("avsdn_label_guided", "jit_compile", 1e-5),
        ("avel_att", "channels_first", 1e-6),
        ("dmrn", "mixed_bfloat16", 0.1),
        ("dmrn", "jit_compile", 1e-5),
    ],
)
def test_training_gives_equal_results_with_any_setting_of_keras(
    name, setting, atol, inputs, classes, tmp_path
):
    expected = fit_one_step(make_model(name), inputs, classes)
    options = {}
    if setting.startswith("mixed"):
        keras.config.set_dtype_policy(setting)
    elif setting.startswith("float"):
        keras.config.set_floatx(setting)
    elif setting == "jit_compile":
        options["jit_compile"] = True
    else:
        keras.config.set_image_data_format(setting)
    model = make_model(name)
    found = fit_one_step(model, inputs, classes, **options)
    assert found.dtype == model.variable_dtype
    np.testing.assert_allclose(found, expected, atol=atol)
    loaded = save_and_load(model, tmp_path)
    np.testing.assert_allclose(loaded(inputs), found, atol=atol)
