import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from avsdn_tf.errors import UserError
from avsdn_tf.features import visual
from avsdn_tf.features.extractor import build_extractor
from avsdn_tf.features.store import extract_all, feature_paths
from avsdn_tf.features.video import read_seconds
from avsdn_tf.features.visual import RECIPES, VisualNetwork
from tests import vggish
from tests.small_videos import find_clip
from tests.test_video import grey_image, levels, write


def make_weights(name, folder):
    """Return a network with random weights, and the path of its weights file."""
    keras.utils.set_random_seed(0)
    recipe = RECIPES[name]
    network = recipe.network(
        include_top=False,
        weights=None,
        pooling=recipe.pooling,
        input_shape=(224, 224, 3),
    )
    path = folder / f"{name}.weights.h5"
    network.save_weights(path)
    return network, path


def check(name, folder, rng):
    reference, path = make_weights(name, folder)
    network = VisualNetwork(name, path)
    count = network.frames_per_second
    frames = [
        rng.integers(0, 256, (count, 224, 224, 3), np.uint8),
        rng.integers(0, 256, (count, 90, 160, 3), np.uint8),
    ]
    features = network(frames)
    assert features.shape == (2, *RECIPES[name].shape)
    # Frames of 224 x 224 are not resized. Caffe's preprocessing subtracts ImageNet's
    # means from BGR values.
    images = frames[0][..., ::-1].astype(np.float32) - [103.939, 116.779, 123.68]
    wanted = np.mean([reference(image[None])[0] for image in images], axis=0)
    np.testing.assert_allclose(features[0], wanted, rtol=1e-3, atol=1e-3)


def test_vgg19_follows_the_recipe_of_ave(tmp_path, rng):
    # AVE picks 16 of the 25 frames of a second. Grey levels repeat every 28 frames.
    num_frames, num_seconds = 75, 3
    interval = int(num_frames / num_seconds)
    wanted = [
        [int(s * interval + i / 16 * interval) % 28 for i in range(16)]
        for s in range(num_seconds)
    ]
    file = write(
        str(tmp_path / "video.mkv"),
        times_s=np.arange(num_frames) / 25,
        images=[grey_image(index) for index in range(num_frames)],
        fps=25,
    )
    assert levels(read_seconds(file, RECIPES["vgg19"].frames_per_second)) == wanted
    check("vgg19", tmp_path, rng)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet152", "resnet152_maps"])
def test_resnet152_reads_one_frame_per_second(tmp_path, rng, name):
    assert RECIPES[name].frames_per_second == 1
    check(name, tmp_path, rng)


@pytest.mark.slow
def test_a_real_clip_through_networks_of_the_true_architecture(tmp_path):
    clip = find_clip("dog_02754.mp4")
    vggish.save(tmp_path / "vggish")
    _, weights = make_weights("resnet152", tmp_path)
    extractor = build_extractor("resnet152", str(tmp_path / "vggish"), str(weights))
    out = tmp_path / "out"
    assert not extract_all(extractor, [clip], out, 1, lambda *_: None)
    audio, visual = (np.load(path) for path in feature_paths(out, clip.stem))
    assert audio.shape == (10, 128)
    assert visual.shape == (10, 2048)
    for features in (audio, visual):
        assert np.isfinite(features).all()
        assert (features >= 0).all()
        # All seconds differ, so that the loop below would find swapped rows.
        assert len(np.unique(features, axis=0)) == 10
    # Features of a second don't depend on the rest of its batch.
    for second in read_seconds(clip):
        heard, seen = audio[second.index], visual[second.index]
        found = extractor.audio(second.waveform[None])[0]
        np.testing.assert_allclose(found, heard, rtol=1e-3, atol=1e-4)
        found = extractor.visual([second.frames])[0]
        np.testing.assert_allclose(found, seen, rtol=1e-3, atol=1e-4)


def test_folded_and_unfolded_networks_give_equal_features(rng):
    # Randomize the normalization: a new layer is almost the identity.
    network = keras.applications.ResNet50(
        include_top=False, weights=None, pooling="avg", input_shape=(64, 64, 3)
    )
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            shape = layer.gamma.shape
            scales = rng.uniform(0.5, 1.5, (2, *shape))
            shifts = rng.normal(0, 0.1, (2, *shape))
            layer.set_weights([scales[0], *shifts, scales[1]])
    folded = visual.fold_normalization(network)
    images = rng.normal(0, 1, (2, 64, 64, 3)).astype("f")
    wanted = network(images, training=False)
    np.testing.assert_allclose(folded(images), wanted, rtol=1e-3, atol=1e-3)
    kinds = {type(layer) for layer in folded.layers}
    assert keras.layers.BatchNormalization not in kinds


@pytest.fixture
def small_recipe(monkeypatch):
    """Register a recipe "small" of 64 x 64 pixels; return its network function."""

    def network(include_top, weights, pooling, input_shape=(64, 64, 3)):
        keras.utils.set_random_seed(0)
        model = keras.applications.ResNet50(
            include_top=include_top,
            weights=None,
            pooling=pooling,
            input_shape=input_shape,
        )
        if weights not in (None, "none"):
            model.load_weights(weights)
        return model

    preprocess = keras.applications.resnet.preprocess_input
    recipe = visual.VisualRecipe(network, preprocess, "avg", (2048,), 1, 64)
    monkeypatch.setitem(visual.RECIPES, "small", recipe)
    return network


def test_bfloat16_rounds_only_between_layers(small_recipe, rng):
    frames = [rng.integers(0, 256, (1, 64, 64, 3), np.uint8) for _ in range(3)]
    exact = VisualNetwork("small", "none")(frames)
    half = VisualNetwork("small", "none", "mixed_bfloat16")
    rounded = half(frames)
    assert rounded.dtype == np.float32
    assert 1e-5 < np.abs(rounded - exact).mean() / np.abs(exact).mean() < 0.02
    # Pooling averages rounded values, and does not round the mean.
    _, *layers, pooling = half.resource.layers
    assert (rounded != rounded.astype(layers[0].compute_dtype)).any()
    assert pooling.compute_dtype == "float32"
    assert {layer.compute_dtype for layer in layers} == {"bfloat16"}
    assert {layer.variable_dtype for layer in layers} == {"float32"}


@pytest.mark.slow
def test_resnet152_in_bfloat16_has_a_small_error(tmp_path):
    _, weights = make_weights("resnet152", tmp_path)
    frames = [second.frames for second in read_seconds(find_clip("dog_02754.mp4"))]
    exact, rounded = (
        VisualNetwork("resnet152", weights, precision)(frames)
        for precision in visual.PRECISIONS
    )
    moved = np.linalg.norm(rounded - exact, axis=1)
    assert 0 < moved.max() < 0.01 * np.linalg.norm(exact, axis=1).min()
    # The error is far smaller than the difference between adjacent seconds.
    assert moved.max() < 0.3 * np.linalg.norm(np.diff(exact, axis=0), axis=1).min()


def test_unavailable_weights_fail_with_one_message(tmp_path, monkeypatch):
    # Stands in for ResNet152, whose weights can't be downloaded.
    def network(weights, **_):
        raise Exception(f"URL fetch failure on {weights}: no network")

    network.__name__ = "ResNet152"
    recipe = RECIPES["resnet152"]
    monkeypatch.setitem(
        visual.RECIPES, "resnet152", visual.dataclasses.replace(recipe, network=network)
    )
    with pytest.raises(UserError, match=r"storage.googleapis.*ResNet152.*notop") as e:
        VisualNetwork("resnet152")
    assert (e.value.field, e.value.value) == ("visual_weights", "imagenet")


def test_weights_of_another_network_fail_with_one_message(tmp_path, monkeypatch):
    def build(**_):
        inputs = keras.Input((8,))
        hidden = keras.layers.Dense(4)(inputs)
        return keras.Model(inputs, keras.layers.Dense(2)(hidden))

    weights = tmp_path / "other.weights.h5"
    other = keras.Sequential([keras.Input((8,)), keras.layers.LayerNormalization()])
    other.save_weights(weights)

    def network(weights, **_):
        model = build()
        model.load_weights(weights)
        return model

    network.__name__ = "ResNet152"
    recipe = RECIPES["resnet152"]
    monkeypatch.setitem(
        visual.RECIPES, "resnet152", visual.dataclasses.replace(recipe, network=network)
    )
    # A command would print warnings, but pytest raises them as errors: record them.
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        with pytest.raises(UserError, match=r"other.weights.h5: can't be loaded"):
            VisualNetwork("resnet152", weights)
    assert not shown


@pytest.mark.parametrize(
    "settings",
    [
        {"image_data_format": "channels_first"},
        {"floatx": "float64"},
        {"floatx": "float16"},
        {"dtype_policy": "mixed_bfloat16"},
    ],
)
def test_global_settings_of_keras_do_not_change_features(
    small_recipe, tmp_path, rng, keras_settings, settings
):
    network = small_recipe(include_top=False, weights=None, pooling="avg")
    network.save_weights(tmp_path / "w.weights.h5")
    frames = [rng.integers(0, 256, (1, 64, 64, 3), np.uint8)]
    expected = VisualNetwork("small", tmp_path / "w.weights.h5")(frames)
    keras_settings(**settings)
    network = VisualNetwork("small", tmp_path / "w.weights.h5")
    np.testing.assert_allclose(network(frames), expected, rtol=1e-5, atol=1e-5)
    for name, value in settings.items():
        found = getattr(keras.config, name)()
        assert getattr(found, "name", found) == value


@pytest.fixture
def keras_settings():
    """Yield a function that changes Keras's global settings until the test ends."""
    names = ("floatx", "dtype_policy", "image_data_format")

    def change(**settings):
        for name, value in settings.items():
            getattr(keras.config, f"set_{name}")(value)

    before = {name: getattr(keras.config, name)() for name in names}
    yield change
    change(**before)


class Classifier(tf.Module):
    """Map images of 8 x 8 pixels and brightness i to class 1 + i of 1,001 classes."""

    @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 3), tf.float32, "images")])
    def __call__(self, images):
        brightness = tf.reduce_mean(images, axis=(1, 2, 3)) * 255
        return {"logits": 20 * tf.one_hot(1 + tf.cast(brightness, tf.int32), 1001)}


def test_an_image_module_gets_its_input_size_and_returns_probabilities(tmp_path):
    module = Classifier()
    tf.saved_model.save(module, str(tmp_path), signatures=module.__call__)
    network = VisualNetwork(f"{tmp_path}/")
    assert (network.shape, network.frames_per_second) == ((1000,), 1)
    frames = [np.full((1, 30, 40, 3), level, np.uint8) for level in (3, 200)]
    found = network(frames)
    assert found.argmax(axis=1).tolist() == [3, 200]
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-4)


def test_a_network_of_keras_applications_is_loaded_by_name(tmp_path, rng):
    frames = [rng.integers(0, 256, (1, 50, 60, 3), np.uint8)]
    reference = keras.applications.MobileNetV2(weights=None)
    reference.save_weights(tmp_path / "top.weights.h5")
    classes = VisualNetwork("MobileNetV2_classes", tmp_path / "top.weights.h5")
    assert classes.shape == (1000,)
    images = tf.image.resize(frames[0], (224, 224)) / 127.5 - 1
    np.testing.assert_allclose(classes(frames)[0], reference(images)[0], atol=1e-5)
    headless = keras.applications.MobileNetV2(weights=None, include_top=False)
    headless.save_weights(tmp_path / "headless.weights.h5")
    for name, shape in (("MobileNetV2", (1280,)), ("MobileNetV2_maps", (7, 7, 1280))):
        network = VisualNetwork(name, tmp_path / "headless.weights.h5")
        assert network.shape == network(frames)[0].shape == shape


def test_a_network_without_a_fixed_size_gets_224_pixels(tmp_path):
    network = keras.applications.MobileNetV3Small(weights=None, include_top=False)
    network.save_weights(tmp_path / "small.weights.h5")
    found = VisualNetwork("MobileNetV3Small", tmp_path / "small.weights.h5")
    frames = [np.zeros((1, 30, 40, 3), np.uint8)]
    assert found.shape == found(frames)[0].shape == (576,)


def test_the_error_of_an_unknown_network_names_the_nearest():
    with pytest.raises(UserError, match="EfficientNetV2B0") as caught:
        visual.recipe_of("EfficientNetV2B")
    assert caught.value.field == "visual_network"


def test_a_folder_without_an_image_module_fails_with_one_message(tmp_path):
    for folder in (tmp_path / "nowhere", tmp_path / "wrong"):
        if folder.name == "wrong":
            tf.saved_model.save(tf.Module(), str(folder))
        with pytest.raises(UserError, match="can't be loaded") as caught:
            VisualNetwork(str(folder))
        assert caught.value.field == "visual_weights"
