"""What every export format has in common: the exported network, and its metadata."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from avsdn_tf.models import SegmentClassifier
from avsdn_tf.models.lstm import disable_cudnn

# Name of the metadata: a file, a member of a zip, or a key, depending on the format.
METADATA = "avsdn_tf.json"

Clips = Mapping[str, np.ndarray]


class Exportable(keras.Model):
    """A network that returns logits and probabilities by name, in float32.

    Args:
        model: The network. Its weights are copied.
        mask: Boolean. Whether `"mask"` is an input, `(batch, num_segments)` float32,
            nonzero where a segment is real.

    Attributes:
        network: The copy, which uses no cuDNN: other runtimes don't know it.
        mask: As given.
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
        """Return the probabilities of logits, by softmax, or by sigmoid if multi-label.

        Args:
            logits: `(..., num_classes)`.
        """
        return (ops.sigmoid if self.network.multi_label else ops.softmax)(logits)

    @property
    def thresholds(self) -> list[float] | None:
        """Threshold of each category of a multi-label network; None for another."""
        if not self.network.multi_label:
            return None
        return self.network.thresholds or [0.5] * len(self.network.categories)

    def signature(self, num_segments: int | None) -> dict[str, keras.KerasTensor]:
        """Return the inputs for clips of so many segments; None: of any number."""
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
        """Return the same, as Keras's exporters take it."""
        return [
            {
                name: keras.InputSpec(shape=tensor.shape, dtype="float32", name=name)
                for name, tensor in self.signature(num_segments).items()
            }
        ]


@dataclasses.dataclass(frozen=True)
class Format:
    """A format that models can be exported to.

    Attributes:
        name: Name of the file or folder.
        write: Writes an `Exportable`, with metadata.
        run: Runs the artefact on clips by the format's own runtime; returns logits.
        summary: One line for `--help`.
        packages: Imports that must be installed besides the core.
        oldest_keras: The first version of Keras that can write it.
    """

    name: str
    write: Callable[[Exportable, pathlib.Path, Mapping[str, Any]], None]
    run: Callable[[pathlib.Path, Clips], np.ndarray]
    summary: str
    packages: tuple[str, ...] = ()
    oldest_keras: tuple[int, int] = (3, 12)
