"""PSP: positive-sample propagation."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from avsdn_tf.losses import ClipLoss, as_distribution
from avsdn_tf.models.base import SegmentClassifier
from avsdn_tf.models.propagation import (
    PSPEncoder,
    cosine,
    default_threshold,
    similarity_losses,
)


@keras.saving.register_keras_serializable(package="avsdn_tf")
class PSP(SegmentClassifier):
    """Positive-sample propagation between matching segments of the two modalities.

        fused, v, a = PSPEncoder(audio, visual)
        logits = dense(relu(dense_64(fused))), without bias

    Training adds `similarity_losses` of the cosine of v and a to the compiled loss. In
    the paper, the compiled loss is categorical cross-entropy.

    The weakly supervised variant has `PSPEncoder(reduced=True)`, multiplies the logits
    by sigmoid(relu(dense_1(logits))), and adds no loss. The paper trains this variant
    with binary cross-entropy between softmax(mean of the logits over time) and the mean
    of the segment labels, and adds background clips to the training data.

    Args:
        categories: Names of the event categories; background is added as last class.
        audio_width: Width of an audio feature.
        visual_shape: `(rows, columns, D)`.
        weak: Boolean. True: the weakly supervised variant.
        units: As in `PSPEncoder`.
        threshold: As in `PositiveSamplePropagation`. Default: 0.099, or 0.095 if weak:
            just below 0.1, the uniform weight of ten segments. Longer clips need a
            smaller threshold.
        similarity_weight: Weight of `similarity_losses`.
        audio_axis: As in `AudioGuidedAttention`.
        **kwargs: As in `SegmentClassifier`.

    Call arguments:
        inputs: As in `SegmentClassifier`.

    Returns:
        Segment logits, `(batch, num_segments, num_classes)`.

    Raises:
        ValueError: If the visual features are not maps, or an argument is out of its
            range.

    Example:
        >>> model = avsdn_tf.PSP(categories)
        >>> model({"audio": audio, "visual": maps}).shape
        TensorShape([4, 10, 3])

    Reference:
        Zhou et al., "Positive sample propagation along the audio-visual event line",
        CVPR 2021, https://arxiv.org/abs/2104.00239, and its code.
    """

    def __init__(
        self,
        categories: Sequence[str],
        audio_width: int = 128,
        visual_shape: Sequence[int] = (7, 7, 512),
        *,
        weak: bool = False,
        units: int = 128,
        threshold: float | None = None,
        similarity_weight: float = 100.0,
        audio_axis: str = "hidden",
        **kwargs: Any,
    ) -> None:
        super().__init__(categories, audio_width, visual_shape, **kwargs)
        self._check_maps()
        self.weak = bool(weak)
        self.units = units
        self.threshold = default_threshold(weak) if threshold is None else threshold
        self.similarity_weight = similarity_weight
        self.audio_axis = audio_axis
        dtype = self.dtype_policy
        self.encoder = PSPEncoder(
            units, self.threshold, self.weak, audio_axis, dtype=dtype
        )
        self.hidden = keras.layers.Dense(
            64, activation="relu", use_bias=False, dtype=dtype
        )
        options = {"use_bias": False, "dtype": self.variable_dtype}
        self.head = keras.layers.Dense(self.num_classes, **options)
        if self.weak:
            self.segment_weight = keras.layers.Dense(1, activation="relu", **options)
        self.build()

    def category_layers(self) -> list[keras.layers.Layer]:
        """Return the head and, if weak, the layer that scales its logits."""
        return [self.head, *([self.segment_weight] if self.weak else [])]

    def compute_outputs(
        self, inputs: dict[str, Any], training: bool = False
    ) -> dict[str, Any]:
        """Return the segment `"logits"`, and the `"similarity"` unless weak."""
        fused, visual, audio = self.encoder(
            inputs["audio"],
            inputs["visual"],
            mask=inputs.get("mask"),
            training=training,
        )
        logits = self.head(self.hidden(fused))
        if self.weak:
            return {"logits": logits * ops.sigmoid(self.segment_weight(logits))}
        return {"logits": logits, "similarity": cosine(visual, audio)}

    def extra_losses(
        self,
        loss: keras.losses.Loss,
        target: Any,
        outputs: dict[str, Any],
        mask: Any = None,
    ) -> Any:
        """Return the weighted similarity losses, `(batch,)`; None if weak."""
        if self.weak:
            return None
        similarity = outputs["similarity"]
        if isinstance(loss, ClipLoss):
            # Clip labels don't state which segments are events.
            return ops.zeros_like(similarity[:, 0])
        target = as_distribution(target, outputs["logits"])
        is_event = ops.max(target, axis=-1) if self.multi_label else 1 - target[..., -1]
        losses = similarity_losses(similarity, is_event, mask)
        return self.similarity_weight * losses

    def attention_maps(self, inputs: Any) -> Any:
        """Return the audio-guided attention weights."""
        inputs = self.as_features(inputs)
        return self.encoder.attend(inputs["audio"], inputs["visual"])[2]

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "weak": self.weak,
            "units": self.units,
            "threshold": self.threshold,
            "similarity_weight": self.similarity_weight,
            "audio_axis": self.audio_axis,
        }
