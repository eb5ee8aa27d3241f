"""The package's VGGish equals a reference module with random weights."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from avsdn_tf.features import vggish
from tests import vggish as reference


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vggish")
    return reference.save(folder), folder


def embeddings(network, seconds):
    return network(vggish.log_mel(tf.constant(seconds))).numpy()


@pytest.fixture
def seconds(rng):
    return (0.3 * rng.standard_normal((3, 16_000))).astype(np.float32)


def test_the_front_end_equals_plain_numpy(seconds):
    ours = vggish.log_mel(tf.constant(seconds))[..., 0]
    for second, found in zip(seconds, ours, strict=True):
        expected = reference.numpy_log_mel(second)
        np.testing.assert_allclose(found, expected[0], atol=2e-5)


def test_weights_of_a_module_reproduce_its_embeddings(saved, seconds):
    module, folder = saved
    network = vggish.build_network()
    vggish.load_weights(network, folder)
    ours = embeddings(network, seconds)
    for second, found in zip(seconds, ours, strict=True):
        expected = module(tf.constant(second))[0].numpy()
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("style", ["slim", "tracked"])
def test_googles_checkpoint_loads_by_name(saved, tmp_path, style):
    module, _ = saved
    layers = ["conv1", "conv2", "conv3/conv3_1", "conv3/conv3_2", "conv4/conv4_1"]
    layers += ["conv4/conv4_2", "fc1/fc1_1", "fc1/fc1_2", "fc2"]
    names = [
        f"vggish/{name}/{part}" for name in layers for part in ("weights", "biases")
    ]
    if style == "tracked":
        names = [f"variables/{index}" for index in range(len(names))]
    arrays = [weight.numpy() for weight in module.model.weights]
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variables = [
            tf.compat.v1.get_variable(name, array.shape)
            for name, array in zip(names, arrays, strict=True)
        ]
        for variable, array in zip(variables, arrays, strict=True):
            variable.load(array, session)
        path = str(tmp_path / "vggish_model.ckpt")
        tf.compat.v1.train.Saver(variables).save(session, path, write_meta_graph=False)
    network = vggish.build_network()
    vggish.load_weights(network, path)
    for ours, array in zip(network.weights, arrays, strict=True):
        np.testing.assert_array_equal(ours.numpy(), array)


def test_invalid_weights_are_refused(tmp_path):
    with pytest.raises(ValueError, match="checkpoint"):
        vggish.load_weights(vggish.build_network(), tmp_path / "none")
    (tmp_path / "text.ckpt").write_text("no weights")
    with pytest.raises(ValueError, match="checkpoint"):
        vggish.load_weights(vggish.build_network(), tmp_path / "text.ckpt")
    tf.saved_model.save(tf.Module(), str(tmp_path / "empty"))
    with pytest.raises(ValueError, match="Expected"):
        vggish.load_weights(vggish.build_network(), tmp_path / "empty")


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("image_data_format", "channels_first"),
        ("floatx", "float64"),
        ("dtype_policy", "mixed_bfloat16"),
    ],
)
def test_settings_of_keras_do_not_change_embeddings(saved, seconds, setting, value):
    _, folder = saved
    found = []
    before = getattr(keras.config, setting)()
    try:
        for each in (before, value):
            getattr(keras.config, f"set_{setting}")(each)
            network = vggish.build_network()
            vggish.load_weights(network, folder)
            found.append(embeddings(network, seconds))
    finally:
        getattr(keras.config, f"set_{setting}")(before)
    np.testing.assert_allclose(found[1], found[0], atol=1e-6)
