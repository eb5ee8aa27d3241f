"""Extract one feature vector per second of sound.

The network is VGGish, YAMNet or another module. Each second goes through the network
alone, so the features don't depend on how a video is cut into windows or chunks.
"""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from avsdn_tf.backbones import HUB, Backbones
from avsdn_tf.errors import UserError, first_line
from avsdn_tf.features import vggish
from avsdn_tf.features.sources import resolve, tensorflow_hub
from avsdn_tf.files import expand_user, without_patterns

_RATE_HZ = 16_000
# YAMNet returns a row per hop of 0.48 s. Three hops cover a second.
_YAMNET_HOPS = 3
_YAMNET_HOP_SAMPLES = 7680
_SECONDS = tf.TensorSpec((None, _RATE_HZ), tf.float32)


# Accepts an address or a path. Returns a graph function from waveforms `(num_seconds,
# 16000)` to features, and the object that owns the variables.
AudioLoader = Callable[[str], tuple[Callable[[tf.Tensor], tf.Tensor], Any]]


def _load_vggish(source: str) -> tuple[Callable[[tf.Tensor], tf.Tensor], Any]:
    path = resolve(source)
    network = vggish.build_network()
    with without_patterns(path) as name:
        try:
            vggish.load_weights(network, name)
        except ValueError:
            # Accept another network with VGGish's signature, such as a smaller one.
            if not tf.saved_model.contains_saved_model(name):
                raise
            embed, module = _load_hub(path)
            return lambda seconds: tf.nn.relu(embed(seconds)), module
    return lambda seconds: tf.nn.relu(network(vggish.log_mel(seconds))), network


def _load_yamnet(
    source: str, output: int
) -> tuple[Callable[[tf.Tensor], tf.Tensor], Any]:
    module = load_module(source)

    def features_of(seconds: tf.Tensor) -> tf.Tensor:
        # Run all seconds in one call: pad each second to three hops, and keep the first
        # of its three rows, which covers 0.975 s. The other rows include padding.
        padding = _YAMNET_HOPS * _YAMNET_HOP_SAMPLES - _RATE_HZ
        padded = tf.pad(seconds, [(0, 0), (0, padding)])
        rows = module(tf.reshape(padded, [-1]))[output][::_YAMNET_HOPS]
        return rows[: tf.shape(seconds)[0]]

    return features_of, module


def _load_hub(source: str) -> tuple[Callable[[tf.Tensor], tf.Tensor], Any]:
    module = load_module(source)

    def features_of_second(second: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(module(second), axis=0)

    def features_of(seconds: tf.Tensor) -> tf.Tensor:
        return tf.map_fn(features_of_second, seconds)

    return features_of, module


AUDIO_NETWORKS: dict[str, AudioLoader] = {
    # 128 values with a final ReLU, like AVE's released features.
    "vggish": _load_vggish,
    # Embeddings of 1,024 values.
    "yamnet": lambda source: _load_yamnet(source, 1),
    # Scores of 521 AudioSet classes.
    "yamnet_scores": lambda source: _load_yamnet(source, 0),
    # Any module that maps a waveform at 16 kHz to `(patches, width)`: the mean over the
    # patches of a second.
    HUB: _load_hub,
}


class AudioNetwork:
    """An audio network that extracts one feature vector per second of sound.

    Args:
        weights: Address or folder of the network's module, or the path of a VGGish
            checkpoint. Default: the publisher's address.
        network: A name in `AUDIO_NETWORKS`.

    Attributes:
        width: Width of the features.
        features_of: `__call__` as a `tf.function` on tensors.
        resource: The module or network, whose variables an export must track.

    Raises:
        UserError: If the network can't be loaded or has another signature.

    Example:
        >>> from avsdn_tf.features.audio import AudioNetwork
        >>> network = AudioNetwork(network="yamnet")
        >>> network(np.zeros((2, 16_000), "float32")).shape
        (2, 1024)

    Reference:
        VGGish: Hershey et al., ICASSP 2017, https://arxiv.org/abs/1609.09430. YAMNet:
        https://github.com/tensorflow/models/tree/master/research/audioset/yamnet.
    """

    def __init__(
        self, weights: str | os.PathLike[str] | None = None, network: str = "vggish"
    ) -> None:
        backbones = Backbones(audio_network=network)
        publisher = backbones.known_source("audio")
        source = expand_user(weights or publisher)
        argument = {"field": backbones.weights_field("audio"), "value": source}
        try:
            function, self.resource = AUDIO_NETWORKS[network](source)
        # Loaders raise exceptions of many types: no connection, no file, no model.
        except Exception as error:
            expected = "Expected the address or folder of a sound module."
            if publisher:
                expected = (
                    f"Expected a network connection to {publisher}, or the folder of "
                    "that module, downloaded and unpacked."
                )
            raise UserError(
                f"can't be loaded ({type(error).__name__}: {first_line(error)}). "
                + expected,
                **argument,
            ) from error
        self.features_of = tf.function(function, input_signature=[_SECONDS])
        try:
            features = self.features_of(np.zeros((2, _RATE_HZ), np.float32))
            num_rows, self.width = features.shape
            if num_rows != 2 or features.dtype != tf.float32:
                raise ValueError(
                    f"{num_rows} rows of {features.dtype.name} for two seconds"
                )
        # A user's graph may raise any exception.
        except Exception as error:
            raise UserError(
                "Expected a module that maps a waveform (samples,) at 16 kHz to "
                "(patches, width) float32. Received a module that fails: "
                f"{first_line(error)}",
                **argument,
            ) from error

    def __call__(self, seconds: np.ndarray) -> np.ndarray:
        """Return the features of seconds of sound.

        Args:
            seconds: `(num_seconds, 16000)` float32, mono, in [-1, 1].

        Returns:
            `(num_seconds, width)` float32.
        """
        return self.features_of(seconds).numpy()


def load_module(source: str) -> Any:
    """Load a module of TensorFlow Hub, or a SavedModel from a folder."""
    with without_patterns(resolve(source)) as name:
        return tensorflow_hub().load(name)
