"""Visual features as AVE and AVSDN have them: ResNet-152 and VGG-19 on frames."""

import dataclasses
import os
import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from avsdn_tf.errors import UserError

_IMAGE_SIZE = 224
# Frames that go through a network at once.
_BATCH = 16
# What a network may compute in, as Keras names it; features are float32 in any case.
PRECISIONS = ("float32", "mixed_bfloat16")


@dataclasses.dataclass(frozen=True)
class VisualRecipe:
    """How a network's features are made.

    Attributes:
        network: The class of keras.applications.
        preprocess: Its own preprocessing, of RGB frames in [0, 255].
        pooling: `"avg"` for a vector, None for the map.
        shape: Shape of a segment's feature.
        frames_per_second: How many frames of a second are averaged; which ones, tells
            `video.read_seconds`.
        summary: One line for `--help`.
    """

    network: Callable[..., keras.Model]
    preprocess: Callable[[Any], Any]
    pooling: str | None
    shape: tuple[int, ...]
    frames_per_second: int
    summary: str


RECIPES = {
    "resnet152": VisualRecipe(
        keras.applications.ResNet152,
        keras.applications.resnet.preprocess_input,
        "avg",
        (2048,),
        1,
        "ResNet-152, pooled: 2048, of the middle frame of each second",
    ),
    "resnet152_maps": VisualRecipe(
        keras.applications.ResNet152,
        keras.applications.resnet.preprocess_input,
        None,
        (7, 7, 2048),
        1,
        "ResNet-152 maps before pooling: 7x7x2048, of the middle frame",
    ),
    "vgg19": VisualRecipe(
        keras.applications.VGG19,
        keras.applications.vgg19.preprocess_input,
        None,
        (7, 7, 512),
        16,
        "VGG-19 block5_pool: 7x7x512, the mean of 16 frames a second, as AVE's",
    ),
}


class VisualNetwork:
    """An image network of keras.applications, as AVE's features were made with it.

    Frames are resized to 224 x 224 without cropping, bilinearly.

    Args:
        name: One of `RECIPES`.
        weights: `"imagenet"` to download the weights of keras.applications, or a local
            weights file of that network without its top.
        precision: One of `PRECISIONS`. `"mixed_bfloat16"` is faster where the processor
            has bfloat16, and keeps 8 significant bits of weights and of what goes from
            layer to layer.

    Attributes:
        network: The Keras network.
        shape: Shape of a segment's feature.
        frames_per_second: How many frames of a second are averaged.

    Raises:
        UserError: If the weights can't be had or don't fit.

    Reference:
        He et al., CVPR 2016 (ResNet-152); Simonyan and Zisserman, ICLR 2015 (VGG-19).
    """

    def __init__(
        self,
        name: str,
        weights: str | os.PathLike[str] = "imagenet",
        precision: str = "float32",
    ) -> None:
        self.name = name
        self.weights = os.fspath(weights)
        recipe = RECIPES[name]
        self.shape = recipe.shape
        self.frames_per_second = recipe.frames_per_second
        try:
            with warnings.catch_warnings():
                # Of a file of another network Keras warns once a layer before it fails.
                warnings.filterwarnings("error", "Skipping nested container")
                network = recipe.network(
                    include_top=False,
                    weights=self.weights,
                    pooling=recipe.pooling,
                    input_shape=(_IMAGE_SIZE, _IMAGE_SIZE, 3),
                )
        # keras raises a bare Exception where a download fails.
        except Exception as error:
            raise UserError(
                f"--visual_weights={self.weights}: can't be loaded "
                f"({' '.join(str(error).split())[:200]}). Expected a network connection"
                " to https://storage.googleapis.com/tensorflow/keras-applications/, or "
                f"the weights file of {recipe.network.__name__} without its top "
                "(..._notop.h5) from there, by --visual_weights=FILE."
            ) from error

        self.network = network = fold_normalization(network, precision)

        @tf.function(
            input_signature=[
                tf.TensorSpec((None, _IMAGE_SIZE, _IMAGE_SIZE, 3), tf.float32)
            ]
        )
        def features_of(images: tf.Tensor) -> tf.Tensor:
            features = network(recipe.preprocess(images), training=False)
            return tf.cast(features, tf.float32)

        self._features_of = features_of

    def features_of_second(self, frames: tf.Tensor) -> tf.Tensor:
        """Does what a call does, for one second and in a graph.

        Args:
            frames: `(frames_per_second, height, width, 3)` uint8, RGB.

        Returns:
            `shape` float32.
        """
        return tf.reduce_mean(self._features_of(self._resize(frames)), axis=0)

    def __call__(self, frames: list[np.ndarray]) -> np.ndarray:
        """Returns the features of seconds of picture.

        Args:
            frames: One array a second, `(frames_per_second, height, width, 3)` uint8,
                RGB.

        Returns:
            `(num_seconds, *shape)` float32.
        """
        images = np.concatenate([self._resize(second).numpy() for second in frames])
        features = np.concatenate(
            [
                self._features_of(images[start : start + _BATCH]).numpy()
                for start in range(0, len(images), _BATCH)
            ]
        )
        by_second = (len(frames), self.frames_per_second, *self.shape)
        return features.reshape(by_second).mean(axis=1)

    @staticmethod
    def _resize(frames: Any) -> tf.Tensor:
        return tf.image.resize(frames, (_IMAGE_SIZE, _IMAGE_SIZE))


def fold_normalization(network: keras.Model, precision: str = "float32") -> keras.Model:
    """Returns a network of the same predictions without batch normalization.

    After training, the normalization that follows a convolution is a factor and an
    addend for each channel: they become part of the convolution's weights. ResNet-152
    spends a third of its time on them otherwise.

    Args:
        network: A network of keras.applications in which every normalization follows a
            convolution.
        precision: What the returned network computes in; see `VisualNetwork`. Other
            than in float32, it rounds.
    """
    normalizations = {
        id(layer.input): layer
        for layer in network.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    }

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        if isinstance(layer, keras.layers.BatchNormalization):
            return keras.layers.Identity(name=layer.name, dtype=precision)
        config = layer.get_config()
        # A mean of so many rounded values need not be rounded too.
        if not isinstance(layer, keras.layers.GlobalAveragePooling2D):
            config["dtype"] = precision
        return layer.__class__.from_config(config)

    def call(layer: keras.layers.Layer, *args: Any, **_: Any) -> Any:
        # Masks and the like, which only a normalization took.
        return layer(*args)

    folded = keras.models.clone_model(network, clone_function=clone, call_function=call)
    for layer in network.layers:
        weights = layer.get_weights()
        if not weights or isinstance(layer, keras.layers.BatchNormalization):
            continue
        normalization = normalizations.get(id(layer.output))
        if normalization is not None:
            kernel, bias = weights
            gamma, beta, mean, variance = normalization.get_weights()
            factor = gamma / np.sqrt(variance + normalization.epsilon)
            weights = [kernel * factor, (bias - mean) * factor + beta]
        folded.get_layer(layer.name).set_weights(weights)
    return folded
