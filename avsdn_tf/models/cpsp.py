"""CPSP: contrastive positive-sample propagation."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from avsdn_tf.losses import mean_over_segments
from avsdn_tf.models.propagation import (
    PSPEncoder,
    cosine,
    default_threshold,
    normalized,
    similarity_losses,
)
from avsdn_tf.models.two_heads import TwoHeadedClassifier

# Larger than any distance between two means of unit vectors.
_FAR = 10.0


@keras.saving.register_keras_serializable(package="avsdn_tf")
class CPSP(TwoHeadedClassifier):
    """PSP's encoder with two heads, and contrastive losses of segments and clips.

        fused, v, a = PSPEncoder(audio, visual)
        event logits = dense_1(fused),  category logits = dense(mean over time of fused)

    Supervised training adds the weighted `similarity_losses` of PSP,
    `segment_contrast_losses` and `clip_contrast_losses` to the losses of both heads.
    Weakly supervised training adds only `clip_contrast_losses`.

    `segment_weight` is 0.01 in the paper. The default of 0 reproduces the authors'
    code, whose segment contrast has no gradient, because it sums along the wrong axis.

    Args:
        categories: Names of the event categories; background is added as last class.
        audio_width: Width of an audio feature.
        visual_shape: `(rows, columns, D)`.
        weak: Boolean. True: the weakly supervised variant.
        units: As in `PSPEncoder`.
        threshold: As in `PSP`.
        similarity_weight: Weight of `similarity_losses`.
        segment_weight: Weight of `segment_contrast_losses`.
        clip_weight: Weight of `clip_contrast_losses`.
        margin: As in `clip_contrast_losses`. Default: 0.2, or 0.6 if weak.
        num_negatives: As in `clip_contrast_losses`. Default: 3, or 4 if weak.
        audio_axis: As in `AudioGuidedAttention`.
        **kwargs: As in `TwoHeadedClassifier`.

    Call arguments:
        inputs: As in `SegmentClassifier`.

    Returns:
        Segment logits, `(batch, num_segments, len(categories) + 1)`.

    Raises:
        ValueError: If the visual features are not maps, or an argument is out of its
            range.

    Example:
        >>> model = avsdn_tf.CPSP(categories)
        >>> model({"audio": audio, "visual": maps}).shape
        TensorShape([4, 10, 3])

    Reference:
        Zhou et al., "Contrastive positive sample propagation along the audio-visual
        event line", TPAMI 2022, https://arxiv.org/abs/2211.09980, and its code.
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
        segment_weight: float = 0.0,
        clip_weight: float = 1.0,
        margin: float | None = None,
        num_negatives: int | None = None,
        audio_axis: str = "hidden",
        **kwargs: Any,
    ) -> None:
        super().__init__(categories, audio_width, visual_shape, weak=weak, **kwargs)
        self.units = units
        self.threshold = default_threshold(weak) if threshold is None else threshold
        self.similarity_weight = similarity_weight
        self.segment_weight = segment_weight
        self.clip_weight = clip_weight
        self.margin = (0.6 if weak else 0.2) if margin is None else margin
        if num_negatives is None:
            num_negatives = 4 if weak else 3
        if num_negatives < 1:
            raise ValueError(
                "Expected num_negatives to be positive. "
                f"Received: num_negatives={num_negatives}"
            )
        self.num_negatives = num_negatives
        self.audio_axis = audio_axis
        self.encoder = PSPEncoder(
            units, self.threshold, audio_axis=audio_axis, dtype=self.dtype_policy
        )
        self._create_heads(2 * units)
        self.build()

    def compute_outputs(
        self, inputs: dict[str, Any], training: bool = False
    ) -> dict[str, Any]:
        """Return the segment `"logits"`, and further outputs for the losses."""
        mask = inputs.get("mask")
        fused, visual, audio = self.encoder(
            inputs["audio"], inputs["visual"], mask=mask, training=training
        )
        outputs = self.apply_heads(fused, mean_over_segments(fused, mask))
        outputs["features"] = fused
        if not self.weak:
            outputs["similarity"] = cosine(visual, audio)
        # `avsdn train` pads the last batch of an epoch with clips of zeros.
        is_clip = ops.any(ops.not_equal(inputs["audio"], 0), axis=(1, 2))
        outputs["is_clip"] = ops.cast(is_clip, fused.dtype)
        return outputs

    def extra_losses(
        self,
        loss: keras.losses.Loss | None,
        target: Any,
        outputs: dict[str, Any],
        mask: Any = None,
    ) -> Any:
        """Return the weighted sum of similarity and contrast losses, `(batch,)`."""
        features, classes = outputs["features"], ops.argmax(target, axis=-1)
        losses = ops.zeros_like(features[:, 0, 0])
        if not self.weak:
            is_event = ops.not_equal(classes, len(self.categories))
            similarity = similarity_losses(
                outputs["similarity"], 1 - target[..., -1], mask
            )
            losses = losses + self.similarity_weight * similarity
            if self.segment_weight:
                contrast = segment_contrast_losses(features, is_event, mask)
                losses = losses + self.segment_weight * contrast
            classes = _clip_classes(classes, self.num_classes, mask)
        contrast = clip_contrast_losses(
            features,
            classes,
            self.margin,
            self.num_negatives,
            mask,
            outputs["is_clip"],
        )
        return losses + self.clip_weight * contrast

    def attention_maps(self, inputs: Any) -> Any:
        """Return the audio-guided attention weights."""
        inputs = self.as_features(inputs)
        return self.encoder.attend(inputs["audio"], inputs["visual"])[2]

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "units": self.units,
            "threshold": self.threshold,
            "similarity_weight": self.similarity_weight,
            "segment_weight": self.segment_weight,
            "clip_weight": self.clip_weight,
            "margin": self.margin,
            "num_negatives": self.num_negatives,
            "audio_axis": self.audio_axis,
        }


def segment_contrast_losses(
    features: Any, is_event: Any, mask: Any = None, temperature: float = 0.6
) -> Any:
    """Return the contrastive loss of event and background segments, `(batch,)`.

        s_ij = exp(cosine of the features of segments i and j / temperature)
        mean over event segments i of -log(P_i / (P_i + N_i)),
        P_i = sum of s_ij over event segments j,
        N_i = mean of s_ij over background segments j

    The loss of a clip without events is 0.

    Args:
        features: `(batch, num_segments, width)`.
        is_event: Boolean, `(batch, num_segments)`.
        mask: As in `SegmentClassifier.clip_losses`.
        temperature: Divisor of the cosines.
    """
    features = normalized(features)
    products = ops.matmul(features, ops.transpose(features, (0, 2, 1)))
    similar = ops.exp(products / temperature)
    real = ops.ones_like(is_event) if mask is None else ops.cast(mask, "bool")
    event = ops.logical_and(is_event, real)
    background = ops.logical_and(ops.logical_not(is_event), real)
    event, background = (ops.cast(x, features.dtype) for x in (event, background))
    num_events, num_background = (
        ops.maximum(ops.sum(x, axis=-1, keepdims=True), 1) for x in (event, background)
    )
    positive = ops.einsum("bij,bj->bi", similar, event)
    negative = ops.einsum("bij,bj->bi", similar, background / num_background)
    # Avoid division by 0 in clips without events.
    ratio = negative / ops.where(positive > 0, positive, 1.0)
    return ops.sum(event / num_events * ops.log1p(ratio), axis=-1)


def clip_contrast_losses(
    features: Any,
    classes: Any,
    margin: float = 0.2,
    num_negatives: int = 3,
    mask: Any = None,
    is_clip: Any = None,
) -> Any:
    """Return each clip's triplet loss against the rest of its batch, `(batch,)`.

        f = mean over time of the features, each normalized to length 1
        max(0, largest distance of f to clips of the same class
               - mean distance of f to the nearest clips of other classes + margin)

    A clip's loss is 0 if all clips of the batch have the same class.

    Args:
        features: `(batch, num_segments, width)`.
        classes: Class of every clip, `(batch,)`.
        margin: Margin between the two distances.
        num_negatives: Number of nearest clips of other classes to average.
        mask: As in `SegmentClassifier.clip_losses`.
        is_clip: `(batch,)`, 0 for clips that pad the batch, else nonzero. None: no
            padding.
    """
    center = mean_over_segments(normalized(features), mask)
    squares = ops.sum(ops.square(center), axis=-1)
    distance = (
        squares[:, None] + squares - 2 * ops.matmul(center, ops.transpose(center))
    )
    # The gradient of the square root is infinite at 0.
    distance = ops.sqrt(ops.maximum(distance, 1e-12))
    is_real = ops.ones_like(squares, dtype="bool")
    if is_clip is not None:
        is_real = ops.cast(is_clip, "bool")
    if mask is not None:
        is_real = ops.logical_and(is_real, ops.any(ops.cast(mask, "bool"), axis=1))
    same = ops.equal(classes[:, None], classes)
    farthest = ops.max(
        ops.where(ops.logical_and(same, is_real), distance, 0.0), axis=-1
    )
    is_other = ops.logical_and(ops.logical_not(same), is_real)
    nearest = ops.sort(ops.where(is_other, distance, _FAR), axis=-1)
    nearest = nearest[:, :num_negatives]
    exists = ops.cast(nearest < _FAR, distance.dtype)
    count = ops.sum(exists, axis=-1)
    nearest = ops.sum(nearest * exists, axis=-1) / ops.maximum(count, 1)
    is_compared = ops.logical_and(is_real, count > 0)
    return ops.where(is_compared, ops.relu(farthest - nearest + margin), 0.0)


def _clip_classes(labels: Any, num_classes: int, mask: Any) -> Any:
    """Return every clip's most frequent category; background if it has no events.

    Args:
        labels: Class of every segment, `(batch, num_segments)`.
        num_classes: Number of classes, background included.
        mask: As in `SegmentClassifier.clip_losses`.
    """
    fractions = mean_over_segments(ops.one_hot(labels, num_classes), mask)[..., :-1]
    background = ops.full_like(labels[:, 0], num_classes - 1)
    category = ops.cast(ops.argmax(fractions, axis=-1), background.dtype)
    return ops.where(ops.max(fractions, axis=-1) > 0, category, background)
