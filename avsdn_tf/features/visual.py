"""Make visual features as AVE's and AVSDN's were made: ResNet-152 and VGG-19."""

import contextlib
import dataclasses
import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from avsdn_tf.backbones import IMAGENET
from avsdn_tf.errors import UserError
from avsdn_tf.files import expand_user

_IMAGE_SIZE = 224
# Frames that go through a network at once.
_BATCH = 16
# Precision of a network, as Keras names dtype policies. Features are float32.
PRECISIONS = ("float32", "mixed_bfloat16")


@dataclasses.dataclass(frozen=True)
class VisualRecipe:
    """How a network of keras.applications makes features, with a line for `--help`.

    `preprocess` takes RGB frames in [0, 255]; `pooling` is `"avg"` for a vector, None
    for the map; the features of `frames_per_second` frames are averaged.
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
    """An image network of keras.applications on the frames of seconds.

    Frames are resized to 224 x 224 bilinearly, without cropping, as AVE's were. Keras's
    global settings (floatx, dtype policy, image data format) have no influence.

    Args:
        name: A name of `RECIPES`.
        weights: `"imagenet"` to download the weights of keras.applications, or a local
            weights file of that network without its top.
        precision: One of `PRECISIONS`. `"mixed_bfloat16"` is faster on processors with
            bfloat16, and rounds weights and activations to 8 significant bits.

    Attributes:
        network: The Keras network.
        shape: Shape of a segment's feature.
        frames_per_second: Number of frames of a second whose features are averaged.

    Raises:
        UserError: If the weights can't be loaded, or belong to another network.

    Reference:
        He et al., CVPR 2016 (ResNet-152); Simonyan and Zisserman, ICLR 2015 (VGG-19).
    """

    def __init__(
        self,
        name: str,
        weights: str | os.PathLike[str] = IMAGENET,
        precision: str = PRECISIONS[0],
    ) -> None:
        self.name = name
        self.weights = expand_user(weights)
        recipe = RECIPES[name]
        self.shape = recipe.shape
        self.frames_per_second = recipe.frames_per_second
        with _default_keras_settings():
            network = fold_normalization(_load(recipe, self.weights), precision)

            @tf.function(
                input_signature=[
                    tf.TensorSpec((None, _IMAGE_SIZE, _IMAGE_SIZE, 3), tf.float32)
                ]
            )
            def features_of(images: tf.Tensor) -> tf.Tensor:
                features = network(recipe.preprocess(images), training=False)
                return tf.cast(features, tf.float32)

            # Trace here: preprocessing depends on the settings too.
            features_of.get_concrete_function()
        self.network, self._features_of = network, features_of

    def features_of_second(self, frames: tf.Tensor) -> tf.Tensor:
        """Return the features of one second; works in a graph.

        Args:
            frames: `(frames_per_second, height, width, 3)` uint8, RGB.

        Returns:
            `shape` float32.
        """
        return tf.reduce_mean(self._features_of(_resize(frames)), axis=0)

    def __call__(self, frames: list[np.ndarray]) -> np.ndarray:
        """Return the features of seconds of picture.

        Args:
            frames: One array a second, `(frames_per_second, height, width, 3)` uint8,
                RGB.

        Returns:
            `(num_seconds, *shape)` float32.
        """
        step = max(1, _BATCH // self.frames_per_second)
        features = []
        for start in range(0, len(frames), step):
            images = [_resize(second) for second in frames[start : start + step]]
            features.append(self._features_of(tf.concat(images, 0)).numpy())
        by_second = (len(frames), self.frames_per_second, *self.shape)
        return np.concatenate(features).reshape(by_second).mean(axis=1)


def _resize(frames: Any) -> tf.Tensor:
    return tf.image.resize(frames, (_IMAGE_SIZE, _IMAGE_SIZE))


@contextlib.contextmanager
def _default_keras_settings() -> Iterator[None]:
    """Set Keras's global settings to their defaults, which the weights expect."""
    config = keras.config
    settings = config.floatx(), config.dtype_policy(), config.image_data_format()

    def apply(floatx: str, policy: Any, data_format: str) -> None:
        config.set_floatx(floatx)
        config.set_dtype_policy(policy)
        config.set_image_data_format(data_format)

    apply("float32", "float32", "channels_last")
    try:
        yield
    finally:
        apply(*settings)


def _load(recipe: VisualRecipe, weights: str) -> keras.Model:
    """Return a network of keras.applications without its top."""
    try:
        with warnings.catch_warnings():
            # For another network's file, Keras warns for each layer before it fails.
            warnings.filterwarnings("error", "Skipping nested container")
            return recipe.network(
                include_top=False,
                weights=weights,
                pooling=recipe.pooling,
                input_shape=(_IMAGE_SIZE, _IMAGE_SIZE, 3),
            )
    # Keras raises a bare Exception where a download fails.
    except Exception as error:
        # "None -- " is Keras's code of a connection that failed.
        reason = " ".join(str(error).split()).replace("None -- ", "")[:200]
        raise UserError(
            f"can't be loaded ({reason}). Expected a "
            "network connection to "
            "https://storage.googleapis.com/tensorflow/keras-applications/, or the "
            f"weights file of {recipe.network.__name__} without its top "
            "(..._notop.h5) from there.",
            field="visual_weights",
            value=weights,
        ) from error


def fold_normalization(network: keras.Model, precision: str = "float32") -> keras.Model:
    """Return a network of the same predictions without batch normalization.

    After training, a normalization multiplies each channel by a factor and adds a
    constant. Both become part of the weights of the convolution before it: ResNet-152
    otherwise spends a third of its time on normalization. Every normalization must
    follow a convolution. `precision` is the dtype policy of the returned network.
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
        # A mean of many rounded values is better not rounded again.
        is_mean = isinstance(layer, keras.layers.GlobalAveragePooling2D)
        config["dtype"] = "float32" if is_mean else precision
        return layer.__class__.from_config(config)

    def call(layer: keras.layers.Layer, *args: Any, **_: Any) -> Any:
        # The keywords, such as a mask, were for the normalization.
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
