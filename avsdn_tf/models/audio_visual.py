"""The base of all networks: a Keras model that describes its training data."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras

_MODALITIES = ("audio", "visual")
_INPUTS = (*_MODALITIES, "mask")


class AudioVisualModel(keras.Model):
    """Keras model of sound and picture; its attributes describe its training data.

    A subclass creates its layers in `__init__`, implements `call`, and ends `__init__`
    with `self.build()`, which creates the weights.

    Args:
        categories: Names of the event categories.
        audio_width: Width of an audio feature.
        visual_shape: Shape of a segment's visual feature: `(D,)` for a pooled vector,
            `(rows, columns, D)` for a feature map.
        num_segments: Number of segments of a training clip, or None if unknown. The
            network accepts any number.
        segment_s: Length of a segment in seconds, or None if unknown.
        backbones: The networks that computed the features, in the format of
            `avsdn_tf.Backbones.to_dict`, or None if unknown.

    Raises:
        ValueError: If `categories` is a string, `audio_width`, `num_segments` or
            `segment_s` is not positive, or `visual_shape` has neither of the two forms.

    Example:
        >>> model = avsdn_tf.AVSDN(categories, segment_s=1.0)
        >>> isinstance(model, avsdn_tf.models.AudioVisualModel)
        True
        >>> model.categories, model.used_inputs, model.segment_s
        (['Bark', 'Violin'], ('audio', 'visual'), 1.0)
    """

    def __init__(
        self,
        categories: Sequence[str],
        audio_width: int = 128,
        visual_shape: Sequence[int] = (2048,),
        *,
        num_segments: int | None = None,
        segment_s: float | None = None,
        backbones: Mapping[str, str | None] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if isinstance(categories, str):
            raise ValueError(
                "Expected `categories` to be a list of names. "
                f"Received: categories={categories!r}"
            )
        if audio_width < 1 or len(visual_shape) not in (1, 3) or min(visual_shape) < 1:
            raise ValueError(
                "Expected positive feature widths, and `visual_shape` to be (D,) or "
                f"(rows, columns, D). Received: audio_width={audio_width}, "
                f"visual_shape={tuple(visual_shape)}"
            )
        for name, value in (("num_segments", num_segments), ("segment_s", segment_s)):
            if value is not None and not value > 0:
                raise ValueError(
                    f"Expected {name} to be positive or None. Received: {name}={value}"
                )
        self.categories = list(categories)
        self.audio_width = int(audio_width)
        self.visual_shape = tuple(int(size) for size in visual_shape)
        self.num_segments = None if num_segments is None else int(num_segments)
        self.segment_s = None if segment_s is None else float(segment_s)
        self._backbones = None if backbones is None else tuple(backbones.items())

    @property
    def backbones(self) -> dict[str, str | None] | None:
        """The networks that computed the features of the training data."""
        return None if self._backbones is None else dict(self._backbones)

    @property
    def used_inputs(self) -> tuple[str, ...]:
        """Names of the inputs that the network reads."""
        return _MODALITIES

    def input_shapes(self) -> dict[str, tuple[int | None, ...]]:
        """Return the shapes of the inputs; None marks the batch and the time axis."""
        return {
            "audio": (None, None, self.audio_width),
            "visual": (None, None, *self.visual_shape),
        }

    def build(self, input_shape: Any = None) -> None:
        """Create the weights.

        Args:
            input_shape: Ignored; the constructor's arguments determine all shapes.
        """
        del input_shape
        if self.built:
            return
        # `self(inputs)` would add a Keras node to the network, and Keras couldn't load
        # functional models that contain the network.
        self.compute_output_spec(
            {
                name: keras.KerasTensor(shape, name=name)
                for name, shape in self.input_shapes().items()
            }
        )

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Do nothing: the constructor creates the weights."""

    def __call__(self, inputs: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Call the model on a dictionary, a pair, or `audio=`, `visual=`, `mask=`."""
        named = {name: kwargs.pop(name) for name in _INPUTS if name in kwargs}
        if named and inputs is not None:
            raise ValueError(
                "Expected either `inputs` or audio and visual. Received: both"
            )
        return super().__call__(named or inputs, *args, **kwargs)

    def as_features(self, inputs: Any) -> dict[str, Any]:
        """Check the inputs and return them as a dictionary.

        Args:
            inputs: A dictionary with `"audio"`, `"visual"` and optionally `"mask"`, or
                the pair of audio and visual.

        Raises:
            ValueError: If an input is missing or its last axes don't fit the network.
        """
        if isinstance(inputs, (list, tuple)) and len(inputs) == 2:
            inputs = dict(zip(_MODALITIES, inputs, strict=True))
        if not isinstance(inputs, Mapping) or set(self.used_inputs) - set(inputs):
            received = sorted(inputs) if isinstance(inputs, Mapping) else type(inputs)
            raise ValueError(
                f"Expected {' and '.join(self.used_inputs)}, as a dictionary or as the "
                f"pair of audio and visual. Received: {received}"
            )
        for name in self.used_inputs:
            shape, expected = tuple(inputs[name].shape), self.input_shapes()[name][2:]
            if shape[-len(expected) :] != expected:
                raise ValueError(
                    f"Expected {name} of shape (batch, num_segments, "
                    f"{', '.join(map(str, expected))}). Received: {shape}"
                )
        if "mask" in inputs and len(inputs["mask"].shape) != 2:
            raise ValueError(
                "Expected a mask of shape (batch, num_segments). "
                f"Received: {tuple(inputs['mask'].shape)}"
            )
        return inputs

    def category_layers(self) -> list[keras.layers.Layer]:
        """Return the layers whose weights depend on the categories, such as heads."""
        return []

    def _check_maps(self) -> None:
        """Raise ValueError unless the visual features are maps."""
        if len(self.visual_shape) != 3:
            raise ValueError(
                "Expected visual feature maps (rows, columns, D). "
                f"Received: visual_shape={self.visual_shape}"
            )

    @property
    def warmup_epochs(self) -> int:
        """Number of initial epochs that early stopping ignores.

        In these epochs, the loss lacks a term.
        """
        return 0

    def begin_epoch(self, epoch: int) -> None:
        """Prepare for an epoch of training; do nothing by default.

        Args:
            epoch: The epoch that begins, counted from 0.
        """

    def with_categories(self, categories: Sequence[str]) -> "AudioVisualModel":
        """Return a copy of the network for other categories.

        The copy has the same class and options. Its `category_layers` get new weights;
        all other weights are copied. Frozen layers stay frozen, unless they get new
        weights.

        Args:
            categories: Names of the new categories.

        Returns:
            The new model, not compiled.

        Raises:
            ValueError: If there are no categories.

        Example:
            >>> model = avsdn_tf.load("runs/first").with_categories(["Saw", "Drill"])
            >>> model.audio_encoder.trainable = False
            >>> model.visual_encoder.trainable = False
            >>> model({"audio": audio, "visual": visual}).shape
            TensorShape([4, 10, 3])
        """
        config = {**self.get_config(), "categories": list(categories)}
        del config["name"]
        # Thresholds belong to the old head.
        config.pop("thresholds", None)
        heads = self.category_layers()
        paths = [path for path, layer in _sublayers(self) if layer in heads]
        # Don't freeze heads, parts of heads, or layers that contain a head: freezing a
        # layer freezes its sublayers.
        frozen = [
            name
            for name in config.pop("frozen", ())
            if not any(
                f"{path}.".startswith(f"{name}.") or name.startswith(f"{path}.")
                for path in paths
            )
        ]
        new = type(self).from_config({**config, "frozen": frozen, "trainable": True})
        renewed = {id(v) for layer in new.category_layers() for v in layer.variables}
        for variable, source in zip(new.variables, self.variables, strict=True):
            if id(variable) not in renewed:
                variable.assign(source)
        return new

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        **kwargs: Any,
    ) -> None:
        """Configure training, as in `keras.Model.compile`.

        Losses and metrics may also be registered names, such as
        `"avsdn_tf>SoftmaxBinaryCrossentropy"` or `"avsdn_tf>EventF1"`.
        """
        super().compile(
            optimizer,
            _resolve(loss),
            loss_weights,
            _resolve(metrics),
            _resolve(weighted_metrics),
            **kwargs,
        )

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile a loaded model with the saved configuration."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def quantize(self, mode: Any = None, config: Any = None, **kwargs: Any) -> None:
        """Raise NotImplementedError: Keras has no quantized LSTM."""
        raise NotImplementedError(
            f"{type(self).__name__} can't be quantized in place: Keras has no "
            "quantized LSTM. Export the model to LiteRT instead."
        )

    def export(
        self,
        filepath: Any,
        format: str = "tf_saved_model",
        verbose: Any = None,
        input_signature: Any = None,
        **kwargs: Any,
    ) -> None:
        """Export the model for inference.

        Args:
            filepath: Folder or file to write.
            format: As in `keras.Model.export`.
            verbose: As in `keras.Model.export`.
            input_signature: As in `keras.Model.export`. Default: named inputs `audio`
                and `visual` with any batch size and number of segments.
            **kwargs: As in `keras.Model.export`.
        """
        if input_signature is None:
            dtype = self.input_dtype
            inputs = {
                name: keras.InputSpec(shape=shape, dtype=dtype, name=name)
                for name, shape in self.input_shapes().items()
            }
            input_signature = [inputs]
        super().export(filepath, format, verbose, input_signature, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, and the names of the frozen layers."""
        config = {
            **super().get_config(),
            "categories": list(self.categories),
            "audio_width": self.audio_width,
            "visual_shape": list(self.visual_shape),
            "num_segments": self.num_segments,
            "segment_s": self.segment_s,
            "backbones": self.backbones,
        }
        frozen = [path for path, layer in _sublayers(self) if not layer.trainable]
        return {**config, "frozen": frozen} if frozen else config

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: Any = None
    ) -> "AudioVisualModel":
        """Create a model from its configuration, and freeze the layers in "frozen"."""
        config = dict(config)
        frozen = config.pop("frozen", ())
        model = super().from_config(config, custom_objects)
        if frozen:
            # Parents come first, because setting `trainable` of a layer also sets
            # `trainable` of its sublayers.
            for path, layer in _sublayers(model):
                layer.trainable = path not in frozen
        return model


def _resolve(identifier: Any) -> Any:
    """Replace registered names by their objects, also in lists and dictionaries."""
    if isinstance(identifier, (list, tuple)):
        return [_resolve(entry) for entry in identifier]
    if isinstance(identifier, dict):
        return {name: _resolve(entry) for name, entry in identifier.items()}
    if isinstance(identifier, str):
        registered = keras.saving.get_registered_object(identifier)
        if registered is not None:
            return registered()
    return identifier


def _sublayers(
    layer: keras.layers.Layer, prefix: str = ""
) -> Iterator[tuple[str, keras.layers.Layer]]:
    """Yield each sublayer with its dotted attribute name, parents first."""
    children = {
        name: value
        for name, value in vars(layer).items()
        if isinstance(value, keras.layers.Layer) and not name.startswith("_")
    }
    if isinstance(layer, keras.Sequential):
        children = {str(i): child for i, child in enumerate(layer.layers)}
    for name, child in children.items():
        yield prefix + name, child
        yield from _sublayers(child, f"{prefix}{name}.")
