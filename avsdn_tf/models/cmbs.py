"""CMBS: each modality suppresses the background of the other."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from avsdn_tf.losses import mean_over_segments
from avsdn_tf.models.channel_spatial import SelfGuidedAttention
from avsdn_tf.models.lstm import SequenceLSTM
from avsdn_tf.models.transformer import (
    CrossModalDecoder,
    CrossModalInteraction,
    SegmentEncoder,
)
from avsdn_tf.models.two_heads import (
    TwoHeadedClassifier,
    category_losses,
    event_losses,
    max_over_segments,
    segment_logits,
    top_mean_over_segments,
)

# Number of largest segment scores whose mean is a clip's category score.
_NUM_TOP = 4


class GatedNetwork(TwoHeadedClassifier):
    """Base of CMBS and CACE-Net: transformer layers with a gate for each modality.

    Args:
        categories: As in `TwoHeadedClassifier`.
        audio_width: As in `TwoHeadedClassifier`.
        visual_shape: As in `TwoHeadedClassifier`.
        weak: As in `TwoHeadedClassifier`.
        units: Width of the transformer blocks; other layers scale with it.
        sigmoid_twice: As in `CMBS`.
        **kwargs: As in `TwoHeadedClassifier`.
    """

    def __init__(
        self,
        categories: Sequence[str],
        audio_width: int = 128,
        visual_shape: Sequence[int] = (7, 7, 512),
        *,
        weak: bool = False,
        units: int = 256,
        sigmoid_twice: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(categories, audio_width, visual_shape, weak=weak, **kwargs)
        self.units = units
        self.sigmoid_twice = bool(sigmoid_twice)

    def _create_layers(
        self,
        spatial_attention: keras.layers.Layer,
        *,
        visual_dropout: float,
        encoder_width: int,
        decoder_width: int,
        num_heads: int,
    ) -> None:
        """Create the layers that every subclass needs: all but LSTMs and heads.

        Args:
            spatial_attention: Attention to the feature map.
            visual_dropout: Dropout rate of the projected visual features.
            encoder_width: Width of the encoders' feed-forward networks.
            decoder_width: Width of the decoders' feed-forward networks.
            num_heads: Attention heads of the interactions.
        """
        units, dtype = self.units, self.dtype_policy
        self._create_visual_projection(2 * units, visual_dropout)
        self.spatial_attention = spatial_attention
        for name in ("audio", "visual"):
            encoder = SegmentEncoder(units, feed_forward=encoder_width, dtype=dtype)
            decoder = CrossModalDecoder(units, feed_forward=decoder_width, dtype=dtype)
            interaction = CrossModalInteraction(num_heads, 0.2, dtype=dtype)
            setattr(self, f"{name}_encoder", encoder)
            setattr(self, f"{name}_decoder", decoder)
            setattr(self, f"{name}_interaction", interaction)
            gate = keras.layers.Dense(1, dtype=self.variable_dtype)
            scores = keras.layers.Dense(
                len(self.categories) + self.weak, dtype=self.variable_dtype
            )
            for layer in (gate, scores):
                layer.build((None, None, units))
            setattr(self, f"{name}_gate", gate)
            setattr(self, f"{name}_categories", scores)

    def _create_lstms(self) -> None:
        units, dtype = self.units, self.dtype_policy
        self.audio_lstm = SequenceLSTM(units // 2, bidirectional=True, dtype=dtype)
        self.visual_lstm = SequenceLSTM(units, bidirectional=True, dtype=dtype)

    def category_layers(self) -> list[keras.layers.Layer]:
        """Return the category head, and the layers of the clip scores."""
        return [self.category_head, self.audio_categories, self.visual_categories]

    def attend(
        self, inputs: dict[str, Any], training: bool = False
    ) -> tuple[Any, Any, Any]:
        """Return the audio and visual features, and the attention weights."""
        visual, weights = self.spatial_attention(
            inputs["audio"], self.project_visual(inputs, training), training=training
        )
        return inputs["audio"], visual, weights

    def attention_maps(self, inputs: Any) -> Any:
        """Return the audio-guided attention weights."""
        return self.attend(self.as_features(inputs))[2]

    def decode(
        self, audio: Any, visual: Any, mask: Any, training: bool
    ) -> tuple[Any, Any, Any, Any]:
        """Return the outputs of both decoders and the logits of both gates."""
        options = {"mask": mask, "training": training}
        audio_encoding = self.audio_encoder(audio, **options)
        visual_encoding = self.visual_encoder(visual, **options)
        audio = self.audio_decoder(audio, visual_encoding, **options)
        visual = self.visual_decoder(visual, audio_encoding, **options)
        gates = self.audio_gate(audio_encoding), self.visual_gate(visual_encoding)
        return audio, visual, *gates

    def interact(self, audio: Any, visual: Any, mask: Any, training: bool) -> Any:
        """Fuse the decoders' outputs: the mean of two interactions in sequence."""
        options = {"mask": mask, "training": training}
        visual = self.visual_interaction(visual, audio, **options)
        audio = self.audio_interaction(audio, visual, **options)
        return (visual + audio) / 2

    def supervised_features(
        self, inputs: dict[str, Any], training: bool
    ) -> tuple[Any, dict[str, Any]]:
        """Return the fused features of a supervised network, and outputs for losses."""
        mask = inputs.get("mask")
        audio, visual, _ = self.attend(inputs, training=training)
        audio, *_ = self.audio_lstm(audio, mask=mask, training=training)
        visual, *_ = self.visual_lstm(visual, mask=mask, training=training)
        audio, visual, audio_gate, visual_gate = self.decode(
            audio, visual, mask, training
        )
        audio = _scale(audio, 1 + 0.1 * ops.sigmoid(visual_gate))
        visual = _scale(visual, 1 + 0.1 * ops.sigmoid(audio_gate))
        scores = [
            top_mean_over_segments(layer(x), _NUM_TOP, mask)
            for layer, x in (
                (self.audio_categories, audio),
                (self.visual_categories, visual),
            )
        ]
        return self.interact(audio, visual, mask, training), {
            "audio_gate_logits": ops.squeeze(audio_gate, -1),
            "visual_gate_logits": ops.squeeze(visual_gate, -1),
            "clip_scores": sum(scores) / 2,
        }

    def extra_losses(
        self, loss: Any, target: Any, outputs: Any, mask: Any = None
    ) -> Any:
        """Return the losses of gates and clip scores, `(batch,)`; None if weak."""
        if self.weak:
            return None
        gates = outputs["audio_gate_logits"], outputs["visual_gate_logits"]
        if self.sigmoid_twice:
            product = ops.sigmoid(gates[0]) * ops.sigmoid(gates[1])
            losses = event_losses(target, product, mask)
        else:
            losses = gate_losses(target, *gates, mask)
        return losses + category_losses(target, outputs["clip_scores"], mask)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "units": self.units,
            "sigmoid_twice": self.sigmoid_twice,
        }


@keras.saving.register_keras_serializable(package="avsdn_tf")
class CMBS(GatedNetwork):
    """Cross-modal background suppression.

        v = SelfGuidedAttention(a, dropout(relu(dense_512(visual))))
        a, v = BiLSTM(a), BiLSTM(v)
        g_a = sigmoid(dense_1(encoder(a))),  g_v = sigmoid(dense_1(encoder(v)))
        a' = decoder(a, encoder(v)) (1 + 0.1 g_v)
        v' = decoder(v, encoder(a)) (1 + 0.1 g_a)
        s = top_4(dense(a')) / 2 + top_4(dense(v')) / 2
        v' <- interaction(v', a'),  a' <- interaction(a', v'),  f = (a' + v') / 2
        e = dense_1(f) per segment
        k = dense(maximum of f over time) + 0.3 s per clip

    top_4 is the mean of the 4 largest values over time. `two_heads.segment_logits`
    combines e and k into segment logits. The loss is the sum of the two heads' losses,
    the binary cross-entropy of g_a g_v in every segment, and the cross-entropy of s.

    The weakly supervised network has no LSTMs:

        a' = decoder(a, encoder(v)) (0.8 + 0.2 g_a)
        v' = decoder(v, encoder(a)) (0.8 + 0.2 g_v)
        h = sigmoid(dense(a')) / 2 + sigmoid(dense(v')) / 2
        k = top_4(h dense(f)), where dense(f) has no bias
        g = (g_a + g_v) / 2

    A segment is an event if g exceeds 0.5. The loss is AVEL's soft margin on
    softmax(max over time of g k).

    Args:
        categories: Names of the event categories; background is added as last class.
        audio_width: Width of an audio feature.
        visual_shape: `(rows, columns, D)`.
        weak: Boolean. True: the weakly supervised network.
        units: Width of the transformer blocks; other layers scale with it.
        sigmoid_twice: Boolean, for the supervised network. True: the loss of the gates
            applies another sigmoid to g_a g_v, as in the authors' code, and so compares
            the target with probabilities from 0.5 to 0.73 only.
        always_event: Boolean, for the weakly supervised network. True: all segments get
            the clip's class, as in the authors' code, whose test sigmoid(g) > 0.5 is
            always true. That limits accuracy on AVE's test split to 82.2 %.
        **kwargs: As in `SegmentClassifier`, without `multi_label`.

    Call arguments:
        inputs: As in `SegmentClassifier`.

    Returns:
        Segment logits, `(batch, num_segments, len(categories) + 1)`.

    Raises:
        ValueError: If visual features are not maps, or `multi_label` is set.

    Example:
        >>> model = avsdn_tf.CMBS(categories)
        >>> model({"audio": audio, "visual": maps}).shape
        TensorShape([4, 10, 3])

    Reference:
        Xia and Zhao, "Cross-modal background suppression for audio-visual event
        localization", CVPR 2022, and its code.
    """

    def __init__(
        self,
        categories: Sequence[str],
        audio_width: int = 128,
        visual_shape: Sequence[int] = (7, 7, 512),
        *,
        always_event: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(categories, audio_width, visual_shape, **kwargs)
        self.always_event = bool(always_event)
        units, dtype = self.units, self.dtype_policy
        if self.weak:
            self._create_layers(
                SelfGuidedAttention(units, strength=0.5, dtype=dtype),
                visual_dropout=0.1,
                encoder_width=8 * units,
                decoder_width=4 * units,
                num_heads=2,
            )
            self.category_head = keras.layers.Dense(
                self.num_classes, use_bias=False, dtype=self.variable_dtype
            )
            self.category_head.build((None, None, units))
        else:
            self._create_layers(
                SelfGuidedAttention(units, strength=0.4, dtype=dtype),
                visual_dropout=0.2,
                encoder_width=4 * units,
                decoder_width=4 * units,
                num_heads=4,
            )
            self._create_lstms()
            self._create_heads(units)
        self.build()

    def compute_outputs(
        self, inputs: dict[str, Any], training: bool = False
    ) -> dict[str, Any]:
        """Return the segment `"logits"`, and further outputs for the losses."""
        if self.weak:
            return self._weak_outputs(inputs, training)
        fused, outputs = self.supervised_features(inputs, training)
        clip_features = max_over_segments(fused, inputs.get("mask"))
        heads = self.apply_heads(fused, clip_features, 0.3 * outputs["clip_scores"])
        return {**heads, **outputs}

    def _weak_outputs(self, inputs: dict[str, Any], training: bool) -> dict[str, Any]:
        mask = inputs.get("mask")
        audio, visual, _ = self.attend(inputs, training=training)
        audio, visual, audio_gate, visual_gate = self.decode(
            audio, visual, mask, training
        )
        audio = _scale(audio, 0.8 + 0.2 * ops.sigmoid(audio_gate))
        visual = _scale(visual, 0.8 + 0.2 * ops.sigmoid(visual_gate))
        scores = ops.sigmoid(self.audio_categories(audio))
        scores = (scores + ops.sigmoid(self.visual_categories(visual))) / 2
        fused = self.interact(audio, visual, mask, training)
        scores = scores * self.category_head(fused)
        category_logits = top_mean_over_segments(scores, _NUM_TOP, mask)
        # The logit log(g / (1 - g)) of the gates' mean g, accurate for 1 - g near 0.
        gates = ops.concatenate([audio_gate, visual_gate], axis=-1)
        log_g = ops.logsumexp(_log_sigmoid(gates), axis=-1)
        event_logits = log_g - ops.logsumexp(_log_sigmoid(-gates), axis=-1)
        outputs = self.join_heads(event_logits, category_logits)
        if self.always_event:
            ones = ops.ones_like(event_logits)
            outputs["logits"] = segment_logits(ones, category_logits, True)
        return outputs

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "always_event": self.always_event}


def gate_losses(
    target: Any, first_logits: Any, second_logits: Any, mask: Any = None
) -> Any:
    """Return the binary cross-entropy of the product of two gates, `(batch,)`.

    Args:
        target: Segment target, `(batch, num_segments, num_classes)`.
        first_logits: Logits of the first gate, `(batch, num_segments)`.
        second_logits: Logits of the second gate, of the same shape.
        mask: As in `SegmentClassifier.clip_losses`.
    """
    is_event = 1 - target[..., -1]
    log_p = _log_sigmoid(first_logits) + _log_sigmoid(second_logits)
    # 1 - s(a) s(b) = s(a) s(b) (exp(-a) + exp(-b) + exp(-a - b)).
    log_sum = ops.logaddexp(-first_logits, -second_logits)
    log_sum = ops.logaddexp(log_sum, -first_logits - second_logits)
    losses = -is_event * log_p - (1 - is_event) * (log_p + log_sum)
    return mean_over_segments(losses, mask)


def _scale(x: Any, factor: Any) -> Any:
    """Return the product in the dtype of `x`."""
    return x * ops.cast(factor, x.dtype)


def _log_sigmoid(x: Any) -> Any:
    return -ops.softplus(-x)
