"""AVDLN: learn a distance between the audio and visual features of a segment."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from avsdn_tf.losses import float32_or_wider
from avsdn_tf.models.audio_visual import AudioVisualModel


@keras.saving.register_keras_serializable(package="avsdn_tf")
class AVDLN(AudioVisualModel):
    """Audio-visual distance learning network, for cross-modality localization.

    Each modality has its own embedding MLP. Training reduces the distance where both
    modalities belong to one event:

        embed(x) = dense_64(leaky_relu(dense_128(x), 0.3))
        distance = sqrt(max(sum((embed_a(audio) - embed_v(visual))^2), epsilon))

    Feature maps are averaged over space first. The network compares single segments.

    Args:
        categories: Names of the data's event categories. They are recorded, but don't
            change the network.
        audio_width: Width of an audio feature.
        visual_shape: `(D,)` for pooled visual features, `(rows, columns, D)` for maps.
        **kwargs: `num_segments`, `segment_s` and `backbones`, as in
            `SegmentClassifier`, and the arguments of `keras.Model`.

    Call arguments:
        inputs: `{"audio": (..., audio_width), "visual": (..., *visual_shape)}`, or the
            pair of audio and visual. Leading axes must broadcast against each other.
            Values have no unit.

    Returns:
        The distances, `(...)`, at least `sqrt(keras.config.epsilon())`.

    Raises:
        ValueError: If a width is not positive.

    Example:
        >>> model = avsdn_tf.AVDLN(categories, audio_width=128, visual_shape=(2048,))
        >>> model.compile("adam", avsdn_tf.ContrastiveLoss())
        >>> is_event = (labels < 2).astype("float32")
        >>> history = model.fit(
        ...     {"audio": audio, "visual": visual}, is_event, verbose=0
        ... )

    Reference:
        Tian et al., "Audio-visual event localization in unconstrained videos", ECCV
        2018, https://arxiv.org/abs/1803.08842.
    """

    def __init__(
        self,
        categories: Sequence[str] = (),
        audio_width: int = 128,
        visual_shape: Sequence[int] = (2048,),
        **kwargs: Any,
    ) -> None:
        super().__init__(categories, audio_width, visual_shape, **kwargs)
        self.audio_hidden = keras.layers.Dense(128, dtype=self.dtype_policy)
        self.audio_head = keras.layers.Dense(64, dtype=self.dtype_policy)
        self.visual_hidden = keras.layers.Dense(128, dtype=self.dtype_policy)
        self.visual_head = keras.layers.Dense(64, dtype=self.dtype_policy)
        self.build()

    def embed_audio(self, audio: Any) -> Any:
        """Return the embeddings `(..., 64)` of audio features."""
        return self.audio_head(_leaky_relu(self.audio_hidden(audio)))

    def embed_visual(self, visual: Any) -> Any:
        """Return the embeddings `(..., 64)` of visual features or maps."""
        if len(self.visual_shape) == 3:
            visual = ops.mean(visual, axis=(-3, -2))
        return self.visual_head(_leaky_relu(self.visual_hidden(visual)))

    def call(self, inputs: Any) -> Any:
        """Return the distances between the two modalities."""
        inputs = self.as_features(inputs)
        return embedding_distance(
            self.embed_audio(inputs["audio"]), self.embed_visual(inputs["visual"])
        )


def embedding_distance(one: Any, other: Any) -> Any:
    """Return the Euclidean distances `(...)` of embeddings `(..., width)`.

    Distances are at least `sqrt(keras.config.epsilon())`, because the gradient of the
    root is infinite at 0. Their dtype is float32 or wider, because gradients of small
    distances overflow in half precision.
    """
    difference = float32_or_wider(one) - float32_or_wider(other)
    squares = ops.sum(ops.square(difference), axis=-1)
    return ops.sqrt(ops.maximum(squares, keras.config.epsilon()))


def _leaky_relu(x: Any) -> Any:
    return ops.leaky_relu(x, negative_slope=0.3)
