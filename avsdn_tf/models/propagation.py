"""Positive-sample propagation between the segments of both modalities."""

from typing import Any

import keras
from keras import ops

from avsdn_tf.losses import float32_or_wider, mean_over_segments
from avsdn_tf.models.attention import AudioGuidedAttention
from avsdn_tf.models.lstm import SequenceLSTM
from avsdn_tf.models.masking import MaskedLayer

# Thresholds of the authors' code, just below 0.1, the weight of each of ten segments
# that match equally.
THRESHOLD = 0.099
WEAK_THRESHOLD = 0.095
_EPSILON = 1e-8


@keras.saving.register_keras_serializable(package="avsdn_tf")
class PositiveSamplePropagation(MaskedLayer):
    """Add to each segment the matching segments of the other modality.

        v1, v2, a1, a2 = dropout(relu(dense(v))), ..., without bias
        b = relu(v2 a1^T / sqrt(units))
        G_va = b with each row divided by its sum, entries up to `threshold` set to 0,
            and each row divided by its new sum
        G_av = the same, computed from b^T
        v <- v + G_va a2,  a <- a + G_av v1
        v <- norm(dropout(relu(dense(v)))),  a likewise;  fused = (v + a) / 2

    Args:
        units: Width of the inputs, of all projections and of the outputs.
        threshold: Weights in G_va and G_av up to this value are set to zero.
        reduced: Boolean. Whether to build the weakly supervised variant, which lacks
            the second division and the last dense layers.
        dropout: Dropout rate after each dense layer.

    Call arguments:
        audio: `(batch, num_segments, units)`.
        visual: `(batch, num_segments, units)`.
        mask: `(batch, num_segments)`, nonzero where a segment is real, or None. Padded
            segments are not propagated.
        training: Boolean. Whether dropout is active.

    Returns:
        The fused, visual and audio features, `(batch, num_segments, units)` each.

    Example:
        >>> from avsdn_tf.models.propagation import PositiveSamplePropagation
        >>> pair = rng.random((2, 4, 10, 256), "float32")
        >>> fused, visual_segments, audio_segments = PositiveSamplePropagation()(*pair)
        >>> fused.shape
        TensorShape([4, 10, 256])

    Reference:
        Zhou et al., "Positive sample propagation along the audio-visual event line",
        CVPR 2021, https://arxiv.org/abs/2104.00239, section 3.2, and its code.
    """

    def __init__(
        self,
        units: int = 256,
        threshold: float = THRESHOLD,
        reduced: bool = False,
        dropout: float = 0.1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not 0 <= threshold < 1:
            raise ValueError(
                f"Expected threshold to be in [0, 1). Received: threshold={threshold}"
            )
        self.units = units
        self.threshold = threshold
        self.reduced = reduced
        self.dropout = dropout
        dtype = self.dtype_policy

        def dense() -> keras.layers.Dense:
            return keras.layers.Dense(
                units, activation="relu", use_bias=False, dtype=dtype
            )

        # v1, v2, a1, a2 of the equations.
        self.visual_value, self.visual_key = dense(), dense()
        self.audio_key, self.audio_value = dense(), dense()
        if not reduced:
            self.visual_output, self.audio_output = dense(), dense()
        self.norm = keras.layers.LayerNormalization(epsilon=1e-6, dtype=dtype)
        self.dropped = keras.layers.Dropout(dropout, dtype=dtype)

    def build(
        self,
        audio_shape: tuple[int | None, ...],
        visual_shape: tuple[int | None, ...],
    ) -> None:
        """Create the weights."""
        roles = ("key", "value") if self.reduced else ("key", "value", "output")
        for modality, shape in (("audio", audio_shape), ("visual", visual_shape)):
            for role in roles:
                getattr(self, f"{modality}_{role}").build(shape)
        output_shape = (*audio_shape[:2], self.units)
        self.norm.build(output_shape)
        self.dropped.build(output_shape)
        self.built = True

    def call(
        self, audio: Any, visual: Any, mask: Any = None, training: bool = False
    ) -> tuple[Any, Any, Any]:
        """Propagate and fuse."""

        def project(layer: keras.layers.Dense, x: Any) -> Any:
            return self.dropped(layer(x), training=training)

        visual_key = project(self.visual_key, visual)
        audio_key = project(self.audio_key, audio)
        affinity = ops.matmul(visual_key, ops.transpose(audio_key, (0, 2, 1)))
        affinity = ops.relu(float32_or_wider(affinity)) / self.units**0.5
        if mask is not None:
            real = ops.cast(ops.cast(mask, "bool"), affinity.dtype)
            affinity = affinity * real[:, :, None] * real[:, None, :]

        def receive(affinity: Any, layer: keras.layers.Dense, other: Any) -> Any:
            values = project(layer, other)
            return ops.matmul(ops.cast(self._weights(affinity), values.dtype), values)

        from_audio = receive(affinity, self.audio_value, audio)
        to_audio = ops.transpose(affinity, (0, 2, 1))
        from_visual = receive(to_audio, self.visual_value, visual)
        visual, audio = visual + from_audio, audio + from_visual
        if not self.reduced:
            visual = project(self.visual_output, visual)
            audio = project(self.audio_output, audio)
        visual, audio = self.norm(visual), self.norm(audio)
        return (visual + audio) / 2, visual, audio

    def _weights(self, affinity: Any) -> Any:
        """Normalize the rows of affinities, and set small weights to zero."""
        weights = _normalize_rows(affinity)
        weights = ops.where(weights > self.threshold, weights, ops.zeros_like(weights))
        return weights if self.reduced else _normalize_rows(weights)

    def compute_output_shape(
        self,
        audio_shape: tuple[int | None, ...],
        visual_shape: tuple[int | None, ...],
    ) -> tuple[tuple[int | None, ...], ...]:
        """Return the shapes of the three outputs."""
        del visual_shape
        return ((*audio_shape[:2], self.units),) * 3

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "units": self.units,
            "threshold": self.threshold,
            "reduced": self.reduced,
            "dropout": self.dropout,
        }


@keras.saving.register_keras_serializable(package="avsdn_tf")
class PSPEncoder(MaskedLayer):
    """Encode both modalities, and propagate features between them.

        a = dense(dense(audio)),  v = dense(dense(attention(a, visual))), without bias
        fused, v, a = propagation(BiLSTM(a), BiLSTM(v))

    Args:
        units: Width of a and v, and of each LSTM in each direction; the first dense
            layers are twice as wide.
        threshold: As in `PositiveSamplePropagation`.
        reduced: Boolean. Whether to build the weakly supervised variant of PSP, which
            has no dense layers for audio, one dense layer with bias for visual
            features, and `PositiveSamplePropagation(reduced=True)`.
        audio_axis: As in `AudioGuidedAttention`.
        dropout: As in `PositiveSamplePropagation`.

    Call arguments:
        audio: `(batch, num_segments, audio_width)`.
        visual: `(batch, num_segments, rows, columns, visual_width)`.
        mask: `(batch, num_segments)`, nonzero where a segment is real, or None.
        training: Boolean. Whether dropout is active.

    Returns:
        The fused, visual and audio features, `(batch, num_segments, 2 * units)` each.

    Example:
        >>> from avsdn_tf.models.propagation import PSPEncoder
        >>> fused, visual_segments, audio_segments = PSPEncoder()(audio, maps)
        >>> fused.shape
        TensorShape([4, 10, 256])

    Reference:
        Zhou et al., CVPR 2021, https://arxiv.org/abs/2104.00239, and its code.
    """

    def __init__(
        self,
        units: int = 128,
        threshold: float = THRESHOLD,
        reduced: bool = False,
        audio_axis: str = "hidden",
        dropout: float = 0.1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.threshold = threshold
        self.reduced = reduced
        self.audio_axis = audio_axis
        self.dropout = dropout
        dtype = self.dtype_policy

        def dense(width: int, use_bias: bool = False) -> keras.layers.Dense:
            return keras.layers.Dense(width, use_bias=use_bias, dtype=dtype)

        if not reduced:
            self.audio_hidden, self.audio_projection = dense(2 * units), dense(units)
            self.visual_hidden = dense(2 * units)
        self.visual_projection = dense(units, use_bias=reduced)
        self.visual_pooling = AudioGuidedAttention(audio_axis=audio_axis, dtype=dtype)
        self.audio_encoder = SequenceLSTM(units, bidirectional=True, dtype=dtype)
        self.visual_encoder = SequenceLSTM(units, bidirectional=True, dtype=dtype)
        self.propagation = PositiveSamplePropagation(
            2 * units, threshold, reduced, dropout, dtype=dtype
        )

    def build(
        self,
        audio_shape: tuple[int | None, ...],
        visual_shape: tuple[int | None, ...],
    ) -> None:
        """Create the weights."""

        def widened(width: int) -> tuple[int | None, ...]:
            return (*audio_shape[:2], width)

        attended_shape = widened(visual_shape[-1])
        if not self.reduced:
            self.audio_hidden.build(audio_shape)
            self.audio_projection.build(widened(2 * self.units))
            audio_shape = widened(self.units)
            self.visual_hidden.build(attended_shape)
            attended_shape = widened(2 * self.units)
        self.visual_pooling.build(audio_shape, visual_shape)
        self.visual_projection.build(attended_shape)
        self.audio_encoder.build(audio_shape)
        self.visual_encoder.build(widened(self.units))
        self.propagation.build(widened(2 * self.units), widened(2 * self.units))
        self.built = True

    def call(
        self, audio: Any, visual: Any, mask: Any = None, training: bool = False
    ) -> tuple[Any, Any, Any]:
        """Encode and propagate."""
        audio, visual, _ = self.attend(audio, visual)
        if not self.reduced:
            visual = self.visual_hidden(visual)
        visual = self.visual_projection(visual)
        audio, *_ = self.audio_encoder(audio, mask=mask, training=training)
        visual, *_ = self.visual_encoder(visual, mask=mask, training=training)
        return self.propagation(audio, visual, mask=mask, training=training)

    def attend(self, audio: Any, visual: Any) -> tuple[Any, Any, Any]:
        """Return projected audio, attended visual features and attention weights.

        Args:
            audio: As in the call.
            visual: As in the call.

        Returns:
            Audio and visual features, `(batch, num_segments, width)` each, and
            attention weights, `(batch, num_segments, rows, columns)`. The weights of
            each segment sum to 1.
        """
        if not self.reduced:
            audio = self.audio_projection(self.audio_hidden(audio))
        return audio, *self.visual_pooling(audio, visual)

    def compute_output_shape(
        self,
        audio_shape: tuple[int | None, ...],
        visual_shape: tuple[int | None, ...],
    ) -> tuple[tuple[int | None, ...], ...]:
        """Return the shapes of the three outputs."""
        del visual_shape
        return ((*audio_shape[:2], 2 * self.units),) * 3

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "units": self.units,
            "threshold": self.threshold,
            "reduced": self.reduced,
            "audio_axis": self.audio_axis,
            "dropout": self.dropout,
        }


def default_threshold(weak: bool) -> float:
    """Return the authors' threshold for weakly or fully supervised training."""
    return WEAK_THRESHOLD if weak else THRESHOLD


def similarity_losses(similarity: Any, is_event: Any, mask: Any = None) -> Any:
    """Return PSP's similarity loss of each clip, `(batch,)`.

        mean_t (p_t - y_t)^2,  p = relu(similarity) divided by its sum over the clip,
        y_t = 1 / (number of event segments) in event segments, else 0

    Args:
        similarity: Cosine similarity of the modalities, `(batch, num_segments)`.
        is_event: `(batch, num_segments)`, 1 in event segments, else 0.
        mask: As in `SegmentClassifier.clip_losses`.
    """
    similarity, is_event = ops.relu(similarity), ops.cast(is_event, similarity.dtype)
    if mask is not None:
        real = ops.cast(ops.cast(mask, "bool"), similarity.dtype)
        similarity, is_event = similarity * real, is_event * real
    difference = _normalize_rows(similarity) - _normalize_rows(is_event)
    return mean_over_segments(ops.square(difference), mask)


def _normalize_rows(x: Any) -> Any:
    """Divide rows by their sum; rows of zeros stay zero."""
    return x / (ops.sum(x, axis=-1, keepdims=True) + _EPSILON)


def normalized(x: Any) -> Any:
    """Scale vectors to length 1, in float32 or wider; zero vectors stay zero."""
    x = float32_or_wider(x)
    # Clamp: the gradient of the square root is infinite at 0.
    squares = ops.maximum(ops.sum(ops.square(x), axis=-1, keepdims=True), 1e-24)
    return x * ops.rsqrt(squares)


def cosine(one: Any, other: Any) -> Any:
    """Return the cosine similarity of vectors on the last axis."""
    return ops.sum(normalized(one) * normalized(other), axis=-1)
