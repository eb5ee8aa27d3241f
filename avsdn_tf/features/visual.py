"""Extract visual features: one vector or map per second of frames.

The networks are ResNet-152 and VGG-19 with the preprocessing of AVSDN's and AVE's
features, any network of keras.applications, and any image module of TensorFlow Hub.
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

# Frames per call of a network.
_BATCH = 16
# Dtype policies of a network. Features are always float32.
PRECISIONS = ("float32", "mixed_bfloat16")
# Output widths of ImageNet classifiers, without and with background as class 0.
_IMAGENET_WIDTHS = (1000, 1001)
# Suffixes of names of keras.applications; see `recipe_of`.
_KINDS = ("_maps", "_classes")


@dataclasses.dataclass(frozen=True)
class VisualRecipe:
    """How a network of keras.applications extracts features.

    Attributes:
        network: Function of keras.applications that builds the network.
        preprocess: Preprocessing of RGB frames in [0, 255].
        pooling: `"avg"` for a vector, None for the map.
        shape: Shape of the features; None if it is only known after building.
        frames_per_second: Number of frames per second, whose features are averaged.
        size: Height and width of the network's input, in pixels.
        include_top: Whether the features are the probabilities of 1,000 classes.
    """

    network: Callable[..., keras.Model]
    preprocess: Callable[[Any], Any]
    pooling: str | None
    shape: tuple[int, ...] | None
    frames_per_second: int
    size: int = 224
    include_top: bool = False


RECIPES = {
    "resnet152": VisualRecipe(
        keras.applications.ResNet152,
        keras.applications.resnet.preprocess_input,
        "avg",
        (2048,),
        1,
    ),
    "resnet152_maps": VisualRecipe(
        keras.applications.ResNet152,
        keras.applications.resnet.preprocess_input,
        None,
        (7, 7, 2048),
        1,
    ),
    # AVE's released maps: block5_pool, the mean of 16 frames a second.
    "vgg19": VisualRecipe(
        keras.applications.VGG19,
        keras.applications.vgg19.preprocess_input,
        None,
        (7, 7, 512),
        16,
    ),
}


def recipe_of(name: str) -> VisualRecipe:
    """Return the recipe of a network.

    A name is a key of `RECIPES`, or a network of keras.applications, which uses the
    middle frame of each second: `EfficientNetV2B0` returns pooled features,
    `EfficientNetV2B0_maps` the map before pooling, and `EfficientNetV2B0_classes` the
    probabilities of ImageNet's classes.

    Raises:
        UserError: If the name is unknown.
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
        _default_size(network),
        include_top=kind == "_classes",
    )


@functools.cache
def _default_size(network: Callable[..., keras.Model]) -> int:
    """Return the height and width of a network's default input, in pixels."""
    # Keras sets a default size for networks with a top, except MobileNetV3: use 224.
    return network(weights=None).input_shape[1] or 224


class VisualNetwork:
    """An image network that extracts one feature per second of frames.

    Frames are resized bilinearly, without cropping, as in AVE's feature extraction.
    Keras's global settings (floatx, dtype policy, image data format) have no effect.

    Args:
        name: A name that `recipe_of` accepts, or the address or folder of an image
            module that maps `(batch, height, width, 3)` RGB in [0, 1] to a vector or
            map. A vector of 1,000 or 1,001 values is treated as logits or probabilities
            of ImageNet's classes, and becomes 1,000 probabilities.
        weights: `"imagenet"` to download the weights of keras.applications, or a local
            weights file. The file must include the top if the name ends in `_classes`,
            and must not otherwise.
        precision: One of `PRECISIONS`, for networks of keras.applications.
            `"mixed_bfloat16"` is faster on processors with bfloat16, and rounds weights
            and activations to 8 significant bits.

    Attributes:
        shape: Shape of a segment's feature.
        frames_per_second: Number of frames per second, whose features are averaged.
        resource: The network or module, whose variables an export must track.

    Raises:
        UserError: If the name is unknown, or the weights can't be loaded or belong to
            another network.

    Example:
        >>> from avsdn_tf.features.visual import VisualNetwork
        >>> network = VisualNetwork("MobileNetV2")
        >>> frame = np.zeros((1, 480, 640, 3), "uint8")  # the middle frame
        >>> network([frame, frame]).shape
        (2, 1280)

    Reference:
        He et al., CVPR 2016 (ResNet-152); Simonyan and Zisserman, ICLR 2015 (VGG-19).
    """

    def __init__(
        self,
        name: str,
        weights: str | os.PathLike[str] | None = None,
        precision: str = PRECISIONS[0],
    ) -> None:
        backbones = Backbones().override(visual_network=name, visual_weights=weights)
        backbones = backbones.complete()
        if backbones.visual_network == HUB:
            function, self.resource, self._size = _load_hub(backbones.visual_weights)
            self.frames_per_second = 1
        else:
            recipe = recipe_of(backbones.visual_network)
            self.frames_per_second, self._size = recipe.frames_per_second, recipe.size
            function, self.resource = _load_keras(
                recipe, backbones.visual_weights, precision
            )
        with _default_keras_settings():
            self._features_of = tf.function(
                function,
                input_signature=[
                    tf.TensorSpec((None, self._size, self._size, 3), tf.float32)
                ],
            )
            # Trace here: preprocessing reads Keras's global settings.
            traced = self._features_of.get_concrete_function()
        self.shape = tuple(traced.structured_outputs.shape[1:])

    def features_of_second(self, frames: tf.Tensor) -> tf.Tensor:
        """Return the features of one second, as a graph operation.

        Args:
            frames: `(frames_per_second, height, width, 3)` uint8, RGB.

        Returns:
            `shape` float32.
        """
        return tf.reduce_mean(self._features_of(self._resize(frames)), axis=0)

    def __call__(self, frames: list[np.ndarray]) -> np.ndarray:
        """Return the features of several seconds.

        Args:
            frames: One array per second, `(frames_per_second, height, width, 3)` uint8,
                RGB.

        Returns:
            `(num_seconds, *shape)` float32.
        """
        step = max(1, _BATCH // self.frames_per_second)
        features = []
        for start in range(0, len(frames), step):
            images = [self._resize(second) for second in frames[start : start + step]]
            features.append(self._features_of(tf.concat(images, 0)).numpy())
        grouped = (len(frames), self.frames_per_second, *self.shape)
        return np.concatenate(features).reshape(grouped).mean(axis=1)

    def _resize(self, frames: Any) -> tf.Tensor:
        return tf.image.resize(frames, (self._size, self._size))


def _load_keras(
    recipe: VisualRecipe, weights: str, precision: str
) -> tuple[Callable[[tf.Tensor], tf.Tensor], keras.Model]:
    """Return a function from images in [0, 255] to features, and the network."""
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
    """Return a module's function of [0, 255] images, the module, and the image size."""
    try:
        module = load_module(source)
        # Use the signature: not every image module is callable.
        signature = module.signatures["serving_default"]
        ((name, spec),) = signature.structured_input_signature[1].items()
        ((output, features),) = signature.structured_outputs.items()
        size = spec.shape[1] or 224
        if len(spec.shape) != 4 or spec.shape[2] not in (None, size):
            raise ValueError(f"images of shape {spec.shape}")
        width = features.shape[-1]
    # The error's type depends on the loader: no connection, no file, not a model.
    except Exception as error:
        raise UserError(
            f"can't be loaded ({type(error).__name__}: {first_line(error)}). Expected "
            "an image module of TensorFlow Hub, or a SavedModel, with one input "
            "(batch, height, width, 3) and one output.",
            field="visual_weights",
            value=source,
        ) from error

    def features_of(images: tf.Tensor) -> tf.Tensor:
        features = signature(**{name: images / 255})[output]
        if width in _IMAGENET_WIDTHS and len(features.shape) == 2:
            # Of 1,001 outputs, the first is background.
            return _as_probabilities(features)[:, width - 1000 :]
        return tf.cast(features, tf.float32)

    return features_of, module, size


def _as_probabilities(outputs: tf.Tensor) -> tf.Tensor:
    """Apply softmax, unless the outputs are probabilities."""
    sums = tf.reduce_sum(outputs, axis=-1)
    is_distribution = tf.reduce_all(outputs >= 0) & tf.reduce_all(
        tf.abs(sums - 1) < 1e-2
    )
    return tf.cond(is_distribution, lambda: outputs, lambda: tf.nn.softmax(outputs))


@contextlib.contextmanager
def _default_keras_settings(policy: str = "float32") -> Iterator[None]:
    """Set Keras's global settings to their defaults, and restore them afterwards."""
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
    """Build a network of keras.applications and load its weights."""
    try:
        with warnings.catch_warnings():
            # With another network's file, Keras warns for each layer before it fails.
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
        # Keras puts "None -- " before the reason if the connection failed.
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
    """Fold batch normalization into the convolutions, which saves a third of the time.

    At inference, a normalization scales and shifts each channel. The weights of the
    preceding convolution can do the same.

    Args:
        network: A network whose normalizations each follow a convolution directly.
        precision: Dtype policy of the returned network.

    Returns:
        A network with the same predictions.
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
        # Don't round the pooled features.
        is_mean = isinstance(layer, keras.layers.GlobalAveragePooling2D)
        config["dtype"] = "float32" if is_mean else precision
        return layer.__class__.from_config(config)

    def call(layer: keras.layers.Layer, *args: Any, **_: Any) -> Any:
        # Identity accepts no mask, unlike the normalization it replaces.
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
