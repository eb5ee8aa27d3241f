"""Define export formats, and the network that they store."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from avsdn_tf.models import SegmentClassifier
from avsdn_tf.models.lstm import disable_cudnn

# Name of the file, zip member or key that stores the metadata; the format decides.
METADATA = "avsdn_tf.json"

Clips = Mapping[str, np.ndarray]


class Exportable(keras.Model):
    """A float32 copy of a network that returns logits and probabilities by name.

    Args:
        model: The network.
        mask: Boolean. Whether to add an input `"mask"`, `(batch, num_segments)`
            float32, nonzero for real segments.

    Attributes:
        network: The copy, without cuDNN, which other runtimes lack.
        mask: The argument `mask`.
    """

    def __init__(self, model: SegmentClassifier, mask: bool = False) -> None:
        super().__init__(dtype="float32")
        self.mask = mask
        config = {**model.get_config(), "dtype": "float32"}
        self.network = type(model).from_config(config)
        self.network.set_weights(model.get_weights())
        disable_cudnn(self.network)
        self(self.signature(None))

    def call(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Return `"logits"` and `"probabilities"`."""
        logits = self.network(inputs, training=False)
        return {"logits": logits, "probabilities": self.probabilities(logits)}

    def probabilities(self, logits: Any) -> Any:
        """Apply softmax to logits `(..., num_classes)`, or sigmoid if multi-label."""
        return (ops.sigmoid if self.network.multi_label else ops.softmax)(logits)

    @property
    def thresholds(self) -> list[float] | None:
        """Thresholds of a multi-label network's categories, else None."""
        if not self.network.multi_label:
            return None
        return self.network.thresholds or [0.5] * len(self.network.categories)

    def signature(self, num_segments: int | None) -> dict[str, keras.KerasTensor]:
        """Return the inputs for clips of `num_segments`; None allows any number."""
        widths = {
            "audio": (self.network.audio_width,),
            "visual": self.network.visual_shape,
        }
        if self.mask:
            widths["mask"] = ()
        return {
            name: keras.KerasTensor((None, num_segments, *width), name=name)
            for name, width in widths.items()
        }

    def input_spec_for(self, num_segments: int | None) -> list[dict[str, Any]]:
        """Return the signature in the form that Keras's exporters accept."""
        return [
            {
                name: keras.InputSpec(shape=tensor.shape, dtype="float32", name=name)
                for name, tensor in self.signature(num_segments).items()
            }
        ]


@dataclasses.dataclass(frozen=True)
class Format:
    """An export format.

    Attributes:
        name: Name of the file or folder.
        write: Writes an `Exportable` and metadata to a path.
        run: Runs the file on clips with the format's own runtime, and returns logits.
        summary: Line in `--help`.
        packages: Modules that exporting needs besides this package's requirements.
        oldest_keras: Oldest version of Keras that can write the format.
    """

    name: str
    write: Callable[[Exportable, pathlib.Path, Mapping[str, Any]], None]
    run: Callable[[pathlib.Path, Clips], np.ndarray]
    summary: str
    packages: tuple[str, ...] = ()
    oldest_keras: tuple[int, int] = (3, 12)
