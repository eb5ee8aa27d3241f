"""What all networks of the package have in common."""

from collections.abc import Sequence
from typing import Any

import keras


def check_features(audio_width: int, visual_shape: Sequence[int]) -> None:
    """Checks that features can have these shapes.

    Raises:
        ValueError: If a width is not positive, or `visual_shape` is neither that of a
            vector nor that of a feature map.
    """
    if audio_width < 1 or len(visual_shape) not in (1, 3) or min(visual_shape) < 1:
        raise ValueError(
            "Expected positive feature widths, and `visual_shape` to be (D,) or "
            f"(rows, columns, D). Received: audio_width={audio_width}, "
            f"visual_shape={tuple(visual_shape)}"
        )


class SegmentClassifier(keras.Model):
    """Base of the networks that give every segment of a clip its class.

    It keeps what an application needs besides weights: the category names and the
    feature widths. They are part of the saved model.

    Subclasses create their layers in `__init__`, implement `compute_outputs`, and end
    `__init__` with `self._build_weights()`, so that a model has its weights as soon as
    it exists.

    Args:
        categories: Names of the event categories. The class after the last one is
            background: a network has `len(categories) + 1` classes.
        audio_width: Width of an audio feature.
        visual_shape: Shape of a segment's visual feature: `(D,)` for a pooled vector,
            `(rows, columns, D)` for a feature map.

    Call arguments:
        inputs: Dictionary with `"audio"`, `(batch, num_segments, audio_width)`, and
            `"visual"`, `(batch, num_segments, *visual_shape)`. Dimensionless.
        training: Boolean. Whether dropout is active.

    Returns:
        Segment logits, `(batch, num_segments, num_classes)`, the background class last.

    Attributes:
        num_segments: Segments of the clips that it was trained on, if known:
            `avsdn_tf.load` reads it from a run folder. It is no limit.
        networks: What made the features that it was trained on, if known, as
            `avsdn_tf.features.extractor.build_extractor` takes it; from a run folder too.

    Raises:
        ValueError: If there are no categories, or a width is not positive.
    """

    num_segments: int | None = None
    networks: dict[str, str] | None = None

    def __init__(
        self,
        categories: Sequence[str],
        audio_width: int = 128,
        visual_shape: Sequence[int] = (2048,),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not categories or isinstance(categories, str):
            raise ValueError(
                "Expected `categories` to be a list of at least one name. "
                f"Received: categories={categories!r}"
            )
        check_features(audio_width, visual_shape)
        self.categories = list(categories)
        self.audio_width = int(audio_width)
        self.visual_shape = tuple(int(size) for size in visual_shape)

    @property
    def num_classes(self) -> int:
        """Number of classes: the categories and background."""
        return len(self.categories) + 1

    def _build_weights(self) -> None:
        """Creates every weight: the shapes are known before any data is."""
        # Weights don't depend on the number of segments; one is the quickest to trace.
        self(
            {
                "audio": keras.Input((1, self.audio_width)),
                "visual": keras.Input((1, *self.visual_shape)),
            }
        )

    def compute_outputs(
        self, inputs: dict[str, Any], training: bool = False
    ) -> dict[str, Any]:
        """Returns `"logits"`, and what else a network's training needs, by name."""
        raise NotImplementedError

    def call(self, inputs: dict[str, Any], training: bool = False) -> Any:
        """Returns the segment logits, in the precision of the weights."""
        logits = self.compute_outputs(inputs, training=training)["logits"]
        return keras.ops.cast(logits, self.variable_dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns what `__init__` was given."""
        return {
            **super().get_config(),
            "categories": self.categories,
            "audio_width": self.audio_width,
            "visual_shape": list(self.visual_shape),
        }
