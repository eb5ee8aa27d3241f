import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from avsdn_tf.errors import UserError
from avsdn_tf.features.audio import AudioNetwork
from tests import vggish


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Save a VGGish with random weights; return its folder and the module."""
    folder = tmp_path_factory.mktemp("vggish") / "module"
    return folder, vggish.save(folder)


def sounds():
    time_s = np.arange(16_000) / 16_000
    rng = np.random.default_rng(0)
    tone = 0.5 * np.sin(2 * np.pi * 440 * time_s)
    return np.stack([tone, rng.normal(0, 0.1, 16_000), np.zeros(16_000)]).astype("f")


def test_the_front_end_of_the_module_equals_numpy(saved):
    for waveform in sounds():
        actual = saved[1].log_mel(waveform)
        np.testing.assert_allclose(actual, vggish.numpy_log_mel(waveform), atol=1e-3)
    # The tone's loudest mel band contains its frequency.
    bands = vggish.numpy_log_mel(sounds()[0])[0].mean(axis=0)
    edges_hz = 700 * np.expm1(
        np.linspace(*1127 * np.log1p(np.array([125, 7500]) / 700), 66) / 1127
    )
    band = bands.argmax()
    assert edges_hz[band] < 440 < edges_hz[band + 2]


def test_features_are_computed_per_second_and_end_with_a_relu(saved):
    folder, module = saved
    network = AudioNetwork(folder)
    assert network.width == 128
    seconds = sounds()
    features = network(seconds)
    assert features.shape == (3, 128)
    assert features.dtype == np.float32
    for waveform, feature in zip(seconds, features, strict=True):
        before = module(waveform).numpy()[0]
        assert (before < 0).any()
        np.testing.assert_allclose(feature, np.maximum(before, 0), atol=1e-5)


def test_loading_an_invalid_vggish_raises_a_user_error(tmp_path):
    with pytest.raises(UserError, match="can't be loaded") as caught:
        AudioNetwork(tmp_path / "nowhere")
    assert caught.value.field == "vggish"
    assert caught.value.value == str(tmp_path / "nowhere")

    class Wrong(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, 3), tf.float32)])
        def __call__(self, x):
            return x

    tf.saved_model.save(Wrong(), str(tmp_path / "wrong"))
    with pytest.raises(UserError, match="Expected a module") as caught:
        AudioNetwork(tmp_path / "wrong")
    assert caught.value.field == "vggish"


def test_a_folder_may_have_any_name(saved, tmp_path):
    folder = tmp_path / "v [1]?*"
    shutil.copytree(saved[0], folder)
    np.testing.assert_array_equal(
        AudioNetwork(folder)(sounds()), AudioNetwork(saved[0])(sounds())
    )


def test_the_feature_width_is_read_from_the_module(tmp_path):
    small = keras.Sequential(
        [
            keras.Input((96, 64, 1)),
            keras.layers.AveragePooling2D(16),
            keras.layers.Flatten(),
            keras.layers.Dense(7),
        ]
    )
    vggish.save(tmp_path / "small", small)
    assert AudioNetwork(tmp_path / "small").width == 7


_WITHOUT_PKG_RESOURCES = """
import sys, warnings
warnings.simplefilter("error", UserWarning)

class Hide:
    def find_spec(self, name, *_):
        if name.partition(".")[0] == "pkg_resources":
            raise ModuleNotFoundError("No module named 'pkg_resources'")

if "hide" in sys.argv:
    sys.meta_path.insert(0, Hide())
from avsdn_tf.features.audio import AudioNetwork
print(AudioNetwork(sys.argv[1], "hub").width)
assert "tensorflow_hub" in sys.modules and "pkg_resources" not in sys.modules
"""


@pytest.mark.parametrize("setuptools", ["hide", "show"])
def test_a_module_loads_with_every_version_of_setuptools(saved, setuptools):
    # setuptools 82 has no pkg_resources; in earlier versions, importing it warns.
    ended = subprocess.run(
        [sys.executable, "-c", _WITHOUT_PKG_RESOURCES, str(saved[0]), setuptools],
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == ["128"]


class YamnetsSignature(tf.Module):
    """YAMNet's signature: each row covers 0.975 s, and rows are 0.48 s apart."""

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.float32)])
    def __call__(self, waveform):
        hops = tf.math.ceil((tf.size(waveform) - 15_600) / 7680)
        missing = 15_600 + 7680 * tf.cast(hops, tf.int32) - tf.size(waveform)
        waveform = tf.pad(waveform, [[0, missing]])
        rows = tf.reduce_mean(tf.signal.frame(waveform, 15_600, 7680), axis=1)
        rows = rows[:, None]
        return tf.tile(rows, (1, 521)), tf.tile(2 * rows, (1, 1024)), rows


def test_yamnet_features_depend_on_a_single_second(tmp_path):
    tf.saved_model.save(YamnetsSignature(), str(tmp_path))
    levels = np.arange(1, 6, dtype=np.float32)
    seconds = np.tile(levels[:, None], (1, 16_000))
    scores = AudioNetwork(tmp_path, "yamnet_scores")
    assert scores.width == 521
    np.testing.assert_allclose(
        scores(seconds), levels[:, None] * np.ones(521), rtol=1e-5
    )
    embeddings = AudioNetwork(tmp_path, "yamnet")
    assert embeddings.width == 1024
    np.testing.assert_allclose(embeddings(seconds)[:, 0], 2 * levels, rtol=1e-5)
    np.testing.assert_allclose(embeddings(seconds[2:3])[0, 0], 6, rtol=1e-5)


def test_features_of_other_modules_are_means_over_patches_of_a_second(tmp_path):
    class Patches(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None,), tf.float32)])
        def __call__(self, waveform):
            return tf.reshape(waveform, (-1, 4000, 2))[:, 0]

    tf.saved_model.save(Patches(), str(tmp_path))
    seconds = np.arange(32_000, dtype=np.float32).reshape(2, 16_000)
    features = AudioNetwork(tmp_path, "hub")(seconds)
    np.testing.assert_allclose(features, [[4000, 4001], [20_000, 20_001]])
