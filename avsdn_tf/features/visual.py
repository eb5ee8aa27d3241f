"""Make visual features of the frames of seconds.

ResNet-152 and VGG-19 as AVE's and AVSDN's were made; any network of keras.applications;
any image module of TensorFlow Hub.
"""

import contextlib
import dataclasses
import difflib
import functools
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from avsdn_tf.backbones import HUB, Backbones
from avsdn_tf.errors import UserError, first_line
from avsdn_tf.features.audio import load_module

# Frames that go through a network at once.
_BATCH = 16
# Precision of a network, as Keras names dtype policies. Features are float32.
PRECISIONS = ("float32", "mixed_bfloat16")
# Classes of ImageNet's classifiers; some count background before them.
_IMAGENET_WIDTHS = (1000, 1001)
# What a name of keras.applications may end in.
_KINDS = ("_maps", "_classes")


@dataclasses.dataclass(frozen=True)
class VisualRecipe:
    """How a network of keras.applications makes features, with a line for `--help`.

    `preprocess` takes RGB frames in [0, 255] of `size` by `size`; `pooling` is `"avg"`
    for a vector, None for the map; the features of `frames_per_second` frames are
    averaged. With `include_top`, features are the probabilities of 1,000 classes.
    `shape` is None if only the network tells.
    """

    network: Callable[..., keras.Model]
    preprocess: Callable[[Any], Any]
    pooling: str | None
    shape: tuple[int, ...] | None
    frames_per_second: int
    summary: str
    size: int = 224
    include_top: bool = False


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


def recipe_of(name: str) -> VisualRecipe:
    """Return the recipe of a network.

    Besides the names of `RECIPES`, it knows those of keras.applications, such as
    `EfficientNetV2B0`: pooled, with `_maps` the map before pooling, with `_classes` the
    probabilities of ImageNet's classes. They see the middle frame of each second, in
    their own size and preprocessing.

    Raises:
        UserError: If there is no such network.
    """
    if name in RECIPES:
        return RECIPES[name]
    kind = next((kind for kind in _KINDS if name.endswith(kind)), "")
    networks = {
        n: value for n, value in vars(keras.applications).items() if n[0].isupper()
    }
    network = networks.get(name.removesuffix(kind))
    if network is None:
        close = difflib.get_close_matches(name, [*RECIPES, *networks], n=1, cutoff=0.5)
        raise UserError(
            f"Expected one of {', '.join(RECIPES)}, a network of keras.applications "
            "such as EfficientNetV2B0, or a module's address or folder."
            + (f" Did you mean {close[0]}?" if close else ""),
            field="visual_network",
            value=name,
        )
    return VisualRecipe(
        network,
        sys.modules[network.__module__].preprocess_input,
        None if kind else "avg",
        (1000,) if kind == "_classes" else None,
        1,
        "",
        _default_size(network),
        include_top=kind == "_classes",
    )


@functools.cache
def _default_size(network: Callable[..., keras.Model]) -> int:
    """Return a network's input size, which only a network with its top tells."""
    return network(weights=None).input_shape[1]


class VisualNetwork:
    """An image network on the frames of seconds.

    Frames are resized bilinearly, without cropping, as AVE's were. Keras's global
    settings (floatx, dtype policy, image data format) have no influence.

    Args:
        name: A name that `recipe_of` knows, or the address or folder of an image module
            from `(batch, height, width, 3)` RGB in [0, 1] to a vector or map. Outputs
            of 1,000 or 1,001 values are taken for ImageNet's classes and become
            probabilities of the 1,000.
        weights: `"imagenet"` to download the weights of keras.applications, or a local
            weights file of that network, without its top unless it is `_classes`.
        precision: One of `PRECISIONS`, of networks of keras.applications.
            `"mixed_bfloat16"` is faster on processors with bfloat16, and rounds weights
            and activations to 8 significant bits.

    Attributes:
        shape: Shape of a segment's feature.
        frames_per_second: Number of frames of a second whose features are averaged.
        resource: The network or module, for exports to track.

    Raises:
        UserError: If there is no such network, the weights can't be loaded, or belong
            to another network.

    Reference:
        He et al., CVPR 2016 (ResNet-152); Simonyan and Zisserman, ICLR 2015 (VGG-19).
    """

    def __init__(
        self,
        name: str,
        weights: str | os.PathLike[str] | None = None,
        precision: str = PRECISIONS[0],
    ) -> None:
        made = Backbones().override(visual_network=name, visual_weights=weights)
        made = made.complete()
        if made.visual_network == HUB:
            function, self.resource, self._size = _load_hub(made.visual_weights)
            self.frames_per_second = 1
        else:
            recipe = recipe_of(made.visual_network)
            self.frames_per_second, self._size = recipe.frames_per_second, recipe.size
            function, self.resource = _load_keras(
                recipe, made.visual_weights, precision
            )
        with _default_keras_settings():
            self._features_of = tf.function(
                function,
                input_signature=[
                    tf.TensorSpec((None, self._size, self._size, 3), tf.float32)
                ],
            )
            # Trace here: preprocessing depends on the settings too.
            traced = self._features_of.get_concrete_function()
        self.shape = tuple(traced.structured_outputs.shape[1:])

    def features_of_second(self, frames: tf.Tensor) -> tf.Tensor:
        """Return the features of one second; works in a graph.

        Args:
            frames: `(frames_per_second, height, width, 3)` uint8, RGB.

        Returns:
            `shape` float32.
        """
        return tf.reduce_mean(self._features_of(self._resize(frames)), axis=0)

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
            images = [self._resize(second) for second in frames[start : start + step]]
            features.append(self._features_of(tf.concat(images, 0)).numpy())
        by_second = (len(frames), self.frames_per_second, *self.shape)
        return np.concatenate(features).reshape(by_second).mean(axis=1)

    def _resize(self, frames: Any) -> tf.Tensor:
        return tf.image.resize(frames, (self._size, self._size))


def _load_keras(
    recipe: VisualRecipe, weights: str, precision: str
) -> tuple[Callable[[tf.Tensor], tf.Tensor], keras.Model]:
    """Return what makes features of images in [0, 255], and its network."""
    with _default_keras_settings(precision):
        network = _load(recipe, weights)
        if _normalizes_convolutions(network):
            network = fold_normalization(network, precision)

    def features_of(images: tf.Tensor) -> tf.Tensor:
        features = network(recipe.preprocess(images), training=False)
        return tf.cast(features, tf.float32)

    return features_of, network


def _load_hub(
    source: str,
) -> tuple[Callable[[tf.Tensor], tf.Tensor], Any, int]:
    """Return what makes features of images in [0, 255], its module, its image size."""
    where = {"field": "visual_weights", "value": source}
    try:
        module = load_module(source)
        # Modules of TensorFlow Hub have a signature, a call, or both.
        signature = module.signatures["serving_default"]
        ((name, spec),) = signature.structured_input_signature[1].items()
        ((output, features),) = signature.structured_outputs.items()
        size = spec.shape[1] or 224
        if len(spec.shape) != 4 or spec.shape[2] not in (None, size):
            raise ValueError(f"images of shape {spec.shape}")
        width = features.shape[-1]
    # Errors of many types: no network, no such file, no model, another signature.
    except Exception as error:
        raise UserError(
            f"can't be loaded ({type(error).__name__}: {first_line(error)}). Expected "
            "an image module of TensorFlow Hub, or a SavedModel, with one input "
            "(batch, height, width, 3) and one output.",
            **where,
        ) from error

    def features_of(images: tf.Tensor) -> tf.Tensor:
        found = signature(**{name: images / 255})[output]
        if width in _IMAGENET_WIDTHS and len(found.shape) == 2:
            # Background stands before the classes where there are 1,001.
            return _as_probabilities(found)[:, width - 1000 :]
        return tf.cast(found, tf.float32)

    return features_of, module, size


def _as_probabilities(outputs: tf.Tensor) -> tf.Tensor:
    """Return the softmax of logits; probabilities stay as they are."""
    sums = tf.reduce_sum(outputs, axis=-1)
    is_distribution = tf.reduce_all(outputs >= 0) & tf.reduce_all(
        tf.abs(sums - 1) < 1e-2
    )
    return tf.cond(is_distribution, lambda: outputs, lambda: tf.nn.softmax(outputs))


@contextlib.contextmanager
def _default_keras_settings(policy: str = "float32") -> Iterator[None]:
    """Set Keras's global settings to those that the weights expect."""
    config = keras.config
    settings = config.floatx(), config.dtype_policy(), config.image_data_format()

    def apply(floatx: str, policy: Any, data_format: str) -> None:
        config.set_floatx(floatx)
        config.set_dtype_policy(policy)
        config.set_image_data_format(data_format)

    apply("float32", policy, "channels_last")
    try:
        yield
    finally:
        apply(*settings)


def _load(recipe: VisualRecipe, weights: str) -> keras.Model:
    """Return a network of keras.applications."""
    try:
        with warnings.catch_warnings():
            # For another network's file, Keras warns for each layer before it fails.
            warnings.filterwarnings("error", "Skipping nested container")
            return recipe.network(
                include_top=recipe.include_top,
                weights=weights,
                pooling=recipe.pooling,
                input_shape=(recipe.size, recipe.size, 3),
            )
    # Keras raises a bare Exception where a download fails.
    except Exception as error:
        top = "with its top" if recipe.include_top else "without its top (..._notop.h5)"
        # "None -- " is Keras's code of a connection that failed.
        reason = " ".join(str(error).split()).replace("None -- ", "")[:200]
        raise UserError(
            f"can't be loaded ({reason}). Expected a "
            "network connection to "
            "https://storage.googleapis.com/tensorflow/keras-applications/, or the "
            f"weights file of {recipe.network.__name__} {top} from there.",
            field="visual_weights",
            value=weights,
        ) from error


def _normalizes_convolutions(network: keras.Model) -> bool:
    """Return whether every batch normalization directly follows a convolution."""
    followed = {
        id(layer.output)
        for layer in network.layers
        if type(layer) is keras.layers.Conv2D
        and layer.use_bias
        and layer.activation is keras.activations.linear
    }
    normalizations = [
        layer
        for layer in network.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    return all(id(layer.input) in followed for layer in normalizations)


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
