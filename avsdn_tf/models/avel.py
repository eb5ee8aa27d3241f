"""AVEL, the network of Tian et al. with one LSTM per modality."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from avsdn_tf.models.attention import AudioGuidedAttention, SpatialMean
from avsdn_tf.models.base import SegmentClassifier, feature_dropout
from avsdn_tf.models.lstm import SequenceLSTM


@keras.saving.register_keras_serializable(package="avsdn_tf")
class AVEL(SegmentClassifier):
    """Audio-visual event localization with one bidirectional LSTM per modality.

        encoded = concat(BiLSTM(audio), BiLSTM(visual))
        logits = dense(relu(dense_64(relu(encoded))))

    Args:
        categories: Names of the event categories; background is added as last class.
        audio_width: Width of an audio feature.
        visual_shape: `(D,)` for pooled visual features, `(rows, columns, D)` for maps.
        modalities: `"both"`, or `"audio"` or `"visual"` alone.
        attention: Boolean. True: attention over the cells of the feature map, guided by
            the audio feature. False: the mean of the map.
        audio_axis: As in `AudioGuidedAttention`.
        units: Width of each LSTM, in each direction.
        dropout: Dropout rate of features (all segments of a clip drop the same ones)
            and of encoder outputs; 0 in the paper.
        **kwargs: `num_segments`, `segment_s` and `backbones`, as in
            `SegmentClassifier`, and arguments of `keras.Model`.

    Call arguments:
        inputs: `{"audio": (batch, num_segments, audio_width), "visual": (batch,
            num_segments, *visual_shape)}`, or the pair `(audio, visual)`. An unused
            modality may be missing from the dictionary.

    Returns:
        Segment logits, `(batch, num_segments, len(categories) + 1)`.

    Raises:
        ValueError: If `modalities` is unknown, or attention is used without feature
            maps or with a single modality.

    Example:
        >>> model = avsdn_tf.AVEL(categories, visual_shape=(7, 7, 512), attention=True)
        >>> model({"audio": audio, "visual": maps}).shape
        TensorShape([4, 10, 3])

    Reference:
        Tian et al., "Audio-visual event localization in unconstrained videos", ECCV
        2018, https://arxiv.org/abs/1803.08842.
    """

    def __init__(
        self,
        categories: Sequence[str],
        audio_width: int = 128,
        visual_shape: Sequence[int] = (2048,),
        *,
        modalities: str = "both",
        attention: bool = False,
        audio_axis: str = "hidden",
        units: int = 128,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(categories, audio_width, visual_shape, **kwargs)
        if modalities not in ("both", "audio", "visual"):
            raise ValueError(
                "Expected one of {'both', 'audio', 'visual'}. "
                f"Received: modalities={modalities!r}"
            )
        if attention and modalities != "both":
            raise ValueError(
                "Expected modalities='both' for attention. "
                f"Received: modalities={modalities!r}"
            )
        if attention:
            self._check_maps()
        self.modalities = modalities
        self.attention = attention
        self.audio_axis = audio_axis
        self.units = units
        self.dropout = dropout
        dtype = self.dtype_policy
        if modalities != "visual":
            self.audio_encoder = SequenceLSTM(units, bidirectional=True, dtype=dtype)
        if modalities != "audio":
            self.visual_encoder = SequenceLSTM(units, bidirectional=True, dtype=dtype)
            self.visual_pooling = (
                AudioGuidedAttention(audio_axis=audio_axis, dtype=dtype)
                if attention
                else SpatialMean(dtype=dtype)
            )
        width = self.audio_width if modalities == "audio" else self.visual_shape[-1]
        self.feature_dropout = feature_dropout(dropout, width, dtype)
        self.output_dropout = keras.layers.Dropout(dropout, dtype=dtype)
        self.output_dropout.build((None, None, self._create_head()))
        self.build()

    @property
    def used_inputs(self) -> tuple[str, ...]:
        """Names of the inputs that the network reads."""
        both = super().used_inputs
        return both if self.modalities == "both" else (self.modalities,)

    def _create_head(self) -> int:
        """Create the layers after the encoders; return the width of their input."""
        self.hidden = keras.layers.Dense(64, activation="relu", dtype=self.dtype_policy)
        self.head = keras.layers.Dense(self.num_classes, dtype=self.variable_dtype)
        return 2 * self.units * len(self.used_inputs)

    def category_layers(self) -> list[keras.layers.Layer]:
        """Return the head."""
        return [self.head]

    def encode(self, inputs: dict[str, Any], training: bool = False) -> list[Any]:
        """Return the outputs of each modality's encoder.

        Args:
            inputs: The call's inputs as a dictionary.
            training: Boolean. Whether dropout is active.

        Returns:
            One tensor per modality, `(batch, num_segments, 2 * units)`, audio first.
        """
        encoded, mask = [], inputs.get("mask")
        if self.modalities != "visual":
            audio = self.feature_dropout(inputs["audio"], training=training)
            outputs, _, _ = self.audio_encoder(audio, mask=mask, training=training)
            encoded.append(outputs)
        if self.modalities != "audio":
            if self.attention:
                visual, _ = self.visual_pooling(inputs["audio"], inputs["visual"])
            else:
                visual = self.visual_pooling(inputs["visual"])
            visual = self.feature_dropout(visual, training=training)
            outputs, _, _ = self.visual_encoder(visual, mask=mask, training=training)
            encoded.append(outputs)
        return encoded

    def attention_maps(self, inputs: Any) -> Any:
        """Return the attention weights, or None without attention."""
        if not self.attention:
            return None
        inputs = self.as_features(inputs)
        return self.visual_pooling(inputs["audio"], inputs["visual"])[1]

    def classify(self, encoded: list[Any], training: bool = False) -> Any:
        """Return segment logits from the encoders' outputs."""
        joined = ops.relu(ops.concatenate(encoded, axis=-1))
        joined = self.output_dropout(joined, training=training)
        return self.head(self.hidden(joined))

    def compute_outputs(
        self, inputs: dict[str, Any], training: bool = False
    ) -> dict[str, Any]:
        """Return the segment `"logits"`."""
        encoded = self.encode(inputs, training=training)
        return {"logits": self.classify(encoded, training=training)}

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "modalities": self.modalities,
            "attention": self.attention,
            "audio_axis": self.audio_axis,
            "units": self.units,
            "dropout": self.dropout,
        }
