"""Make audio features of seconds of sound: VGGish, YAMNet, and any other module.

A feature depends on its own second alone, so that it is the same in every window and
chunk of a video.
"""

import dataclasses
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
# YAMNet returns a row every 0.48 s. Three such hops hold a second.
_YAMNET_HOPS = 3
_YAMNET_HOP_SAMPLES = 7680
_SECONDS = tf.TensorSpec((None, _RATE_HZ), tf.float32)


@dataclasses.dataclass(frozen=True)
class AudioRecipe:
    """How a network makes features, with a line for `--help`.

    `load` takes an address or a path, and returns what to call on seconds of sound
    `(num_seconds, 16000)` in a graph, and what holds its variables.
    """

    load: Callable[[str], tuple[Callable[[tf.Tensor], tf.Tensor], Any]]
    summary: str


def _load_vggish(source: str) -> tuple[Callable[[tf.Tensor], tf.Tensor], Any]:
    path = resolve(source)
    network = vggish.build_network()
    with without_patterns(path) as name:
        try:
            vggish.load_weights(network, name)
        except ValueError:
            # Another network of VGGish's signature, such as a smaller one.
            if not tf.saved_model.contains_saved_model(name):
                raise
            embeddings_of, module = _load_hub(path)
            return lambda seconds: tf.nn.relu(embeddings_of(seconds)), module
    return lambda seconds: tf.nn.relu(network(vggish.log_mel(seconds))), network


def _load_yamnet(
    source: str, output: int
) -> tuple[Callable[[tf.Tensor], tf.Tensor], Any]:
    module = load_module(source)

    def features_of(seconds: tf.Tensor) -> tf.Tensor:
        # One call for all seconds: each starts a slot of three hops, whose first row is
        # of the second's first 0.975 s. The other rows hold the padding.
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


AUDIO_NETWORKS = {
    "vggish": AudioRecipe(_load_vggish, "VGGish with a final ReLU, as AVE's: 128"),
    "yamnet": AudioRecipe(
        lambda source: _load_yamnet(source, 1), "YAMNet's embeddings: 1024"
    ),
    "yamnet_scores": AudioRecipe(
        lambda source: _load_yamnet(source, 0),
        "YAMNet's scores of 521 classes of AudioSet",
    ),
    HUB: AudioRecipe(
        _load_hub,
        "any module of TensorFlow Hub or SavedModel from a waveform at 16 kHz to "
        "(patches, width): the mean over a second's patches",
    ),
}


class AudioNetwork:
    """An audio network on seconds of sound.

    Args:
        weights: Address or folder of the network's module; of VGGish also its
            checkpoint. Default: where the network's publisher keeps it.
        network: A name of `AUDIO_NETWORKS`.

    Attributes:
        width: Width of the features.
        features_of: `__call__` as a `tf.function`, from a tensor to a tensor.
        resource: The module or network, for exports to track.

    Raises:
        UserError: If there is no such network, or it can't be loaded, or has another
            signature.

    Reference:
        VGGish: Hershey et al., ICASSP 2017, https://arxiv.org/abs/1609.09430. YAMNet:
        https://github.com/tensorflow/models/tree/master/research/audioset/yamnet.
    """

    def __init__(
        self, weights: str | os.PathLike[str] | None = None, network: str = "vggish"
    ) -> None:
        made = Backbones(audio_network=network)
        source = expand_user(weights or made.known_source("audio"))
        where = {"field": made.weights_field("audio"), "value": source}
        try:
            function, self.resource = AUDIO_NETWORKS[network].load(source)
        # Errors of many types: no network, no such file, no model.
        except Exception as error:
            raise UserError(
                f"can't be loaded ({type(error).__name__}: {first_line(error)}). "
                f"Expected a network connection to {made.known_source('audio')}, or "
                "the folder of that module, downloaded and unpacked.",
                **where,
            ) from error
        self.features_of = tf.function(function, input_signature=[_SECONDS])
        try:
            found = self.features_of(np.zeros((2, _RATE_HZ), np.float32))
            num_rows, self.width = found.shape
            if num_rows != 2 or found.dtype != tf.float32:
                raise ValueError(
                    f"{num_rows} rows of {found.dtype.name} for two seconds"
                )
        # Errors of many types: a module may hold any graph.
        except Exception as error:
            raise UserError(
                "Expected a module that makes (patches, width) float32 of a waveform "
                "(samples,) at 16 kHz. Received a module that fails: "
                f"{first_line(error)}",
                **where,
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
    """Load a module of TensorFlow Hub, or the SavedModel in a folder."""
    with without_patterns(resolve(source)) as name:
        return tensorflow_hub().load(name)
