"""Fuse audio and visual states."""

from typing import Any

import keras
from keras import ops


def mlp(hidden_units: int, units: int, **kwargs: Any) -> keras.Sequential:
    """Return a multilayer perceptron: dense, tanh, dense."""
    return keras.Sequential(
        [
            keras.layers.Dense(hidden_units, activation="tanh", **kwargs),
            keras.layers.Dense(units, **kwargs),
        ]
    )


@keras.saving.register_keras_serializable(package="avsdn_tf")
class DMRNFusion(keras.layers.Layer):
    """Dual multimodal residual network that fuses audio and visual states.

    The residual path of each modality adds the same update:

        update = (g(audio) + g(visual)) / 2
        fused  = tanh(audio + update) + tanh(visual + update)

    where `g` is an MLP (dense, tanh, dense) of the same width as the states.

    Args:
        shared_mlp: Boolean. True: one `g` for both modalities, as in Eq. 2 of Lin et
            al. False: one `g` per modality, as in Tian et al.
        merge: `"sum"` of both residual paths (Lin et al.), or `"mean"` (Tian et al.).

    Call arguments:
        audio: `(batch, units)` or `(batch, num_segments, units)`. The values have no
            physical unit.
        visual: The same shape as `audio`. The values have no physical unit.

    Returns:
        The fused states, with the shape of `audio`; in (-2, 2) for `"sum"`, in (-1, 1)
        for `"mean"`.

    Raises:
        ValueError: If the shapes differ, or `merge` is unknown.

    Example:
        >>> from avsdn_tf.models.fusion import DMRNFusion
        >>> DMRNFusion()(audio, audio).shape
        TensorShape([4, 10, 128])

    Reference:
        Lin et al., ICASSP 2019, https://arxiv.org/abs/1902.07473, Eq. 2.
        Tian et al., ECCV 2018, https://arxiv.org/abs/1803.08842, section 4.4.
    """

    def __init__(
        self, shared_mlp: bool = True, merge: str = "sum", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if merge not in ("sum", "mean"):
            raise ValueError(
                f"Expected one of {{'sum', 'mean'}}. Received: merge={merge!r}"
            )
        self.shared_mlp = shared_mlp
        self.merge = merge

    def build(
        self,
        audio_shape: tuple[int | None, ...],
        visual_shape: tuple[int | None, ...],
    ) -> None:
        """Create the weights."""
        if tuple(audio_shape) != tuple(visual_shape):
            raise ValueError(
                "Expected audio and visual states of the same shape. Received: "
                f"audio {tuple(audio_shape)}, visual {tuple(visual_shape)}"
            )
        units = audio_shape[-1]
        self.audio_mlp = mlp(units, units, dtype=self.dtype_policy)
        self.audio_mlp.build(audio_shape)
        if self.shared_mlp:
            self.visual_mlp = self.audio_mlp
        else:
            self.visual_mlp = mlp(units, units, dtype=self.dtype_policy)
            self.visual_mlp.build(visual_shape)
        self.built = True

    def call(self, audio: Any, visual: Any) -> Any:
        """Fuse the states."""
        update = (self.audio_mlp(audio) + self.visual_mlp(visual)) / 2
        fused = ops.tanh(audio + update) + ops.tanh(visual + update)
        return fused / 2 if self.merge == "mean" else fused

    def compute_output_shape(
        self,
        audio_shape: tuple[int | None, ...],
        visual_shape: tuple[int | None, ...],
    ) -> tuple[int | None, ...]:
        """Return the shape of the fused states."""
        del visual_shape
        return tuple(audio_shape)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "shared_mlp": self.shared_mlp,
            "merge": self.merge,
        }
