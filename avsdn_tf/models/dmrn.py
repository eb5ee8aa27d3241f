"""DMRN: AVEL's encoders with residual fusion."""

from collections.abc import Sequence
from typing import Any

import keras

from avsdn_tf.models.avel import AVEL
from avsdn_tf.models.fusion import DMRNFusion


@keras.saving.register_keras_serializable(package="avsdn_tf")
class DMRN(AVEL):
    """AVEL's encoders, and a dual multimodal residual network that fuses them.

        fused = (tanh(audio + update) + tanh(visual + update)) / 2,
        update = (U_a(audio) + U_v(visual)) / 2, where U_a and U_v are MLPs
        logits = dense(fused)

    The authors initialize attention and encoders from a trained AVEL; see
    `load_encoders`.

    Args:
        categories: As in AVEL.
        audio_width: As in AVEL.
        visual_shape: As in AVEL.
        attention: As in AVEL. The authors use attention.
        audio_axis: As in AVEL.
        units: As in AVEL.
        dropout: Dropout rate of the audio and visual features, and of the fused ones.
        **kwargs: As in AVEL.

    Call arguments:
        inputs: As in AVEL.

    Returns:
        Segment logits, `(batch, num_segments, len(categories) + 1)`.

    Raises:
        ValueError: If `attention` is True and the visual features are not maps.

    Example:
        >>> model = avsdn_tf.DMRN(categories)
        >>> model({"audio": audio, "visual": maps}).shape
        TensorShape([4, 10, 3])

    Reference:
        Tian et al., ECCV 2018, https://arxiv.org/abs/1803.08842, section 4.4.
    """

    def __init__(
        self,
        categories: Sequence[str],
        audio_width: int = 128,
        visual_shape: Sequence[int] = (7, 7, 512),
        *,
        attention: bool = True,
        audio_axis: str = "hidden",
        units: int = 128,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            categories,
            audio_width,
            visual_shape,
            attention=attention,
            audio_axis=audio_axis,
            units=units,
            dropout=dropout,
            **kwargs,
        )

    def _create_head(self) -> int:
        """Create the layers after the encoders; return the fused features' width."""
        self.fusion = DMRNFusion(
            shared_mlp=False, merge="mean", dtype=self.dtype_policy
        )
        self.head = keras.layers.Dense(self.num_classes, dtype=self.variable_dtype)
        return 2 * self.units

    def classify(self, encoded: list[Any], training: bool = False) -> Any:
        """Return segment logits from the encoders' outputs."""
        fused = self.output_dropout(self.fusion(*encoded), training=training)
        return self.head(fused)

    def load_encoders(self, source: AVEL) -> None:
        """Copy the weights of attention and encoders from a trained AVEL.

        Args:
            source: An AVEL for both modalities, with the same feature shapes, units and
                attention.

        Raises:
            ValueError: If `source` is not an AVEL, or one of these options differs.
        """
        if not isinstance(source, AVEL):
            raise ValueError(f"Expected an AVEL. Received: {type(source).__name__}")
        names = ("modalities", "attention", "audio_axis", "units")
        names += ("audio_width", "visual_shape")
        own, other = (
            {name: getattr(model, name) for name in names} for model in (self, source)
        )
        if own != other:
            raise ValueError(f"Expected an AVEL of {own}. Received: {other}")
        for name in ("visual_pooling", "audio_encoder", "visual_encoder"):
            getattr(self, name).set_weights(getattr(source, name).get_weights())

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        config = super().get_config()
        del config["modalities"]
        return config
