"""CMRAN: attention across modalities, and two heads."""

from collections.abc import Sequence
from typing import Any

import keras

from avsdn_tf.models.channel_spatial import ChannelSpatialAttention
from avsdn_tf.models.transformer import (
    CrossModalDecoder,
    CrossModalInteraction,
    SegmentEncoder,
)
from avsdn_tf.models.two_heads import TwoHeadedClassifier, max_over_segments


@keras.saving.register_keras_serializable(package="avsdn_tf")
class CMRAN(TwoHeadedClassifier):
    """Cross-modal relation-aware network.

        v = ChannelSpatialAttention(a, dropout(relu(dense_512(visual))))
        a' = decoder(a, encoder(v)),  v' = decoder(v, encoder(a))
        f = interaction(v', a')
        e = dense_1(f) per segment,  k = dense(maximum of f over time) per clip

    where a is the audio input. `two_heads.segment_logits` combines e and k into segment
    logits.

    Args:
        categories: Names of the event categories; background is added as last class.
        audio_width: Width of an audio feature.
        visual_shape: `(rows, columns, D)`.
        weak: Boolean. True: the weakly supervised network, whose category head has a
            class for background and whose interaction has 2 attention heads instead of
            4.
        units: Width of the transformer blocks. The widths of other layers are
            proportional to `units`.
        **kwargs: As in `SegmentClassifier`, without `multi_label`.

    Call arguments:
        inputs: As in `SegmentClassifier`.

    Returns:
        Segment logits, `(batch, num_segments, len(categories) + 1)`.

    Raises:
        ValueError: If visual features are not maps, or `multi_label` is set.

    Example:
        >>> model = avsdn_tf.CMRAN(categories)
        >>> model({"audio": audio, "visual": maps}).shape
        TensorShape([4, 10, 3])

    Reference:
        Xu et al., "Cross-modal relation-aware networks for audio-visual event
        localization", ACM MM 2020, https://dl.acm.org/doi/10.1145/3394171.3413581, and
        the authors' code.
    """

    def __init__(
        self,
        categories: Sequence[str],
        audio_width: int = 128,
        visual_shape: Sequence[int] = (7, 7, 512),
        *,
        weak: bool = False,
        units: int = 256,
        **kwargs: Any,
    ) -> None:
        super().__init__(categories, audio_width, visual_shape, weak=weak, **kwargs)
        self.units = units
        dtype = self.dtype_policy
        self._create_visual_projection(2 * units, dropout=0.2)
        self.spatial_attention = ChannelSpatialAttention(units, dtype=dtype)
        block = {"units": units, "feed_forward": 8 * units, "dtype": dtype}
        self.audio_encoder = SegmentEncoder(**block)
        self.visual_encoder = SegmentEncoder(**block)
        self.audio_decoder = CrossModalDecoder(**block)
        self.visual_decoder = CrossModalDecoder(**block)
        self.interaction = CrossModalInteraction(2 if weak else 4, dtype=dtype)
        self._create_heads(units)
        self.build()

    def attend(self, inputs: dict[str, Any], training: bool = False) -> tuple[Any, Any]:
        """Return the attended visual features and the attention weights."""
        visual = self.project_visual(inputs, training)
        return self.spatial_attention(inputs["audio"], visual)

    def compute_outputs(
        self, inputs: dict[str, Any], training: bool = False
    ) -> dict[str, Any]:
        """Return the segment `"logits"`, and the logits of the two heads."""
        audio, mask = inputs["audio"], inputs.get("mask")
        options = {"mask": mask, "training": training}
        visual, _ = self.attend(inputs, training=training)
        visual_encoding = self.visual_encoder(visual, **options)
        heard = self.audio_decoder(audio, visual_encoding, **options)
        audio_encoding = self.audio_encoder(audio, **options)
        seen = self.visual_decoder(visual, audio_encoding, **options)
        fused = self.interaction(seen, heard, **options)
        return self.apply_heads(fused, max_over_segments(fused, mask))

    def attention_maps(self, inputs: Any) -> Any:
        """Return the audio-guided attention weights."""
        return self.attend(self.as_features(inputs))[1]

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "units": self.units}
