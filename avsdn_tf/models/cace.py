"""CACE-Net: mutual guidance of both modalities' attention, and a contrastive loss."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from avsdn_tf.losses import mean_over_segments
from avsdn_tf.models.channel_spatial import (
    SelfGuidedAttention,
    UnscaledAttention,
    as_cells,
)
from avsdn_tf.models.cmbs import GatedNetwork
from avsdn_tf.models.masking import MaskedLayer
from avsdn_tf.models.propagation import normalized
from avsdn_tf.models.transformer import built_layer_norm
from avsdn_tf.models.two_heads import max_over_segments

Shape = tuple[int | None, ...]

_TEMPERATURE = 0.01


@keras.saving.register_keras_serializable(package="avsdn_tf")
class CoGuidedAttention(MaskedLayer):
    """Visual attention guided by audio, and audio attention guided by the feature map.

        v' = SelfGuidedAttention(a, v)
        x = mean over cells of norm(v + dropout(attention(v, v)))
        h = norm(a + dropout(attention(a, a)))
        a' = a + strength * sigmoid(attention(x, h)) * a

    Each attention is an `UnscaledAttention`. The layer normalization in `x` is that of
    the `SelfGuidedAttention`.

    Args:
        units: As in `ChannelSpatialAttention`.
        strength: Factor of the gated audio features in `a'`.
        dropout: Dropout rate of the self-attentions' outputs.

    Call arguments:
        audio: `(batch, num_segments, audio_width)`.
        visual: `(batch, num_segments, rows, columns, width)`.
        mask: `(batch, num_segments)`, nonzero where a segment is real, or None.

    Returns:
        The guided audio features, `(batch, num_segments, audio_width)`, the attended
        visual features, `(batch, num_segments, width)`, and the attention weights of
        the cells, `(batch, num_segments, rows, columns)`, which sum to 1.

    Raises:
        ValueError: If `visual` is not a feature map.

    Reference:
        He et al., "CACE-Net: co-guidance attention and contrastive enhancement for
        effective audio-visual event localization", ACM MM 2024,
        https://arxiv.org/abs/2408.01952, and its code.
    """

    def __init__(
        self,
        units: int = 256,
        strength: float = 0.3,
        dropout: float = 0.2,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.strength = strength
        self.dropout = dropout

    def build(self, audio_shape: Shape, visual_shape: Shape) -> None:
        """Create the weights."""
        dtype, audio, width = self.dtype_policy, audio_shape[-1], visual_shape[-1]
        self.visual_attention = SelfGuidedAttention(
            self.units, dropout=self.dropout, dtype=dtype
        )
        self.visual_attention.build(audio_shape, visual_shape)
        cells_shape = (None, None, None, width)
        self.cell_attention = UnscaledAttention(width // 4, dtype=dtype)
        self.cell_attention.build(cells_shape, cells_shape)
        self.cell_dropout = keras.layers.Dropout(self.dropout, dtype=dtype)
        self.audio_attention = UnscaledAttention(audio, dtype=dtype)
        self.audio_attention.build(audio_shape, audio_shape)
        self.audio_dropout = keras.layers.Dropout(self.dropout, dtype=dtype)
        self.audio_norm = built_layer_norm(audio, dtype)
        self.guide = UnscaledAttention(audio, dtype=dtype)
        self.guide.build((None, None, width), audio_shape)
        self.built = True

    def call(
        self, audio: Any, visual: Any, mask: Any = None, training: bool = False
    ) -> tuple[Any, Any, Any]:
        """Attend to the map and to the audio."""
        attended, weights = self.visual_attention(audio, visual, training=training)
        cells = as_cells(visual)
        residual = self.cell_attention(cells, cells)
        residual = self.cell_dropout(residual, training=training)
        query = ops.mean(self.visual_attention.self_norm(cells + residual), axis=2)
        residual = self.audio_attention(audio, audio, mask=mask)
        residual = self.audio_dropout(residual, training=training)
        memory = self.audio_norm(audio + residual)
        gate = ops.sigmoid(self.guide(query, memory, mask=mask))
        return audio + self.strength * gate * audio, attended, weights

    def compute_output_shape(
        self, audio_shape: Shape, visual_shape: Shape
    ) -> tuple[Shape, Shape, Shape]:
        """Return the shapes of the features and of the weights."""
        width = visual_shape[-1]
        return audio_shape, (*visual_shape[:2], width), tuple(visual_shape[:4])

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "units": self.units,
            "strength": self.strength,
            "dropout": self.dropout,
        }


@keras.saving.register_keras_serializable(package="avsdn_tf")
class CACENet(GatedNetwork):
    """Co-guidance attention and contrastive enhancement.

    The network is the supervised CMBS with `CoGuidedAttention`, decoders whose
    feed-forward networks have width 512, and, from epoch `contrast_epoch` on, a
    contrastive loss within each clip. For a segment's fused feature `f`:

        q = relu(dense_256(f)),  q' = relu(dense_256(f + Gaussian noise of 0.1))
        event logit = dense_1(f + 0.6 contrast q)

    The contrastive loss, `contrast_losses` of q and q', is added if `contrast` is 1.
    Its positive pairs are q and q' of each segment, and all pairs of event segments.

    `contrast` is a saved weight, 0 or 1, that no optimizer changes. `begin_epoch` sets
    it. `fit` and `avsdn train` call `begin_epoch`; your own training loop must, too.

    Args:
        categories: Names of the event categories; background is added as last class.
        audio_width: Width of an audio feature.
        visual_shape: `(rows, columns, D)`.
        units: Width of the transformer blocks; other layers scale with it.
        contrast_epoch: Epoch, counted from 0, in which the contrast starts; None:
            never.
        sigmoid_twice: As in `CMBS`; True matches the authors' code of CACE-Net, too.
        **kwargs: As in `SegmentClassifier`, without `multi_label`.

    Attributes:
        contrast: A `keras.Variable`, 1 if the contrast is on, else 0.

    Call arguments:
        inputs: As in `SegmentClassifier`.

    Returns:
        Segment logits, `(batch, num_segments, len(categories) + 1)`.

    Raises:
        ValueError: If visual features are not maps, or `weak` or `multi_label` is set.

    Example:
        >>> model = avsdn_tf.CACENet(categories)
        >>> model({"audio": audio, "visual": maps}).shape
        TensorShape([4, 10, 3])

    Reference:
        He et al., "CACE-Net: co-guidance attention and contrastive enhancement for
        effective audio-visual event localization", ACM MM 2024,
        https://arxiv.org/abs/2408.01952, and its code.
    """

    def __init__(
        self,
        categories: Sequence[str],
        audio_width: int = 128,
        visual_shape: Sequence[int] = (7, 7, 512),
        *,
        contrast_epoch: int | None = 25,
        **kwargs: Any,
    ) -> None:
        if kwargs.pop("weak", False):
            raise ValueError(
                "CACENet has no weakly supervised variant. Received: weak=True"
            )
        super().__init__(categories, audio_width, visual_shape, **kwargs)
        self.contrast_epoch = contrast_epoch
        units, dtype = self.units, self.dtype_policy
        self._create_layers(
            CoGuidedAttention(units, dtype=dtype),
            visual_dropout=0.2,
            encoder_width=4 * units,
            decoder_width=2 * units,
            num_heads=4,
        )
        self._create_lstms()
        self._create_heads(units)
        self.contrast_projection = keras.layers.Dense(
            units, activation="relu", dtype=self.variable_dtype
        )
        self.contrast_projection.build((None, None, units))
        self.contrast_noise = keras.layers.GaussianNoise(0.1, dtype=self.variable_dtype)
        self.contrast_noise.build((None, None, units))
        self.contrast = self.add_weight(
            name="contrast", shape=(), initializer="zeros", trainable=False
        )
        self.begin_epoch(0)
        self.build()

    @property
    def warmup_epochs(self) -> int:
        """Number of epochs before the contrast starts; early stopping skips them."""
        return self.contrast_epoch or 0

    def begin_epoch(self, epoch: int) -> None:
        """Set `contrast` for an epoch.

        Args:
            epoch: The epoch that begins, counted from 0.
        """
        is_on = self.contrast_epoch is not None and epoch >= self.contrast_epoch
        self.contrast.assign(float(is_on))

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: Any = None,
        epochs: int = 1,
        verbose: Any = "auto",
        callbacks: Any = None,
        **kwargs: Any,
    ) -> keras.callbacks.History:
        """Train as `keras.Model.fit`, and start the contrast in `contrast_epoch`.

        To continue training, pass `initial_epoch`, the number of the next epoch.
        """
        contrast = keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda epoch, logs: self.begin_epoch(epoch)
        )
        if isinstance(callbacks, keras.callbacks.CallbackList):
            callbacks.append(contrast)
        else:
            callbacks = [contrast, *keras.tree.flatten(callbacks or [])]
        return super().fit(x, y, batch_size, epochs, verbose, callbacks, **kwargs)

    def attend(
        self, inputs: dict[str, Any], training: bool = False
    ) -> tuple[Any, Any, Any]:
        """Return the audio and visual features, and the attention weights."""
        visual = self.project_visual(inputs, training)
        mask = inputs.get("mask")
        return self.spatial_attention(
            inputs["audio"], visual, mask=mask, training=training
        )

    def compute_outputs(
        self, inputs: dict[str, Any], training: bool = False
    ) -> dict[str, Any]:
        """Return the segment `"logits"`, and further outputs for the losses."""
        fused, outputs = self.supervised_features(inputs, training)
        fused = ops.cast(fused, self.variable_dtype)
        query = self.contrast_projection(fused)
        copy = self.contrast_projection(self.contrast_noise(fused, training=training))
        clip_features = max_over_segments(fused, inputs.get("mask"))
        heads = self.apply_heads(
            fused + 0.6 * ops.cast(self.contrast, query.dtype) * query,
            clip_features,
            0.3 * outputs["clip_scores"],
        )
        contrasted = ops.stack([query, copy], axis=1)
        return {**heads, **outputs, "contrasted": contrasted}

    def extra_losses(
        self, loss: Any, target: Any, outputs: Any, mask: Any = None
    ) -> Any:
        """Return the summed losses of gates, clip scores and contrast, `(batch,)`."""
        contrast = contrast_losses(target, outputs["contrasted"], mask)
        losses = super().extra_losses(loss, target, outputs, mask)
        return losses + ops.cast(self.contrast, contrast.dtype) * contrast

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        config = {**super().get_config(), "contrast_epoch": self.contrast_epoch}
        del config["weak"]
        return config


def contrast_losses(target: Any, contrasted: Any, mask: Any = None) -> Any:
    """Return the contrastive loss of a clip's segments and their copies, `(batch,)`.

        -log sum_p exp(cos(x, p) / 0.01) + log sum_y exp(cos(x, y) / 0.01)
        + log(number of p),

    averaged over all segments and copies x. The p are the positives of x: its copy and,
    if x is an event, all other events and their copies. The y are all segments and
    copies except x.

    Args:
        target: Segment target, `(batch, num_segments, num_classes)`.
        contrasted: Segments and their copies, `(batch, 2, num_segments, width)`.
        mask: As in `SegmentClassifier.clip_losses`.
    """
    shape = ops.shape(contrasted)
    size = 2 * shape[2]
    x = normalized(ops.reshape(contrasted, (shape[0], size, shape[3])))
    scores = ops.matmul(x, ops.swapaxes(x, 1, 2)) / _TEMPERATURE
    is_event = target[..., -1] < 0.5
    is_real = ops.ones_like(is_event) if mask is None else ops.cast(mask, "bool")
    is_event, is_real = (
        ops.concatenate([each, each], axis=1) for each in (is_event, is_real)
    )
    index = ops.arange(size)
    is_other = ops.expand_dims(index[:, None] != index, 0) & is_real[:, None]
    is_copy = index[:, None] % shape[2] == index % shape[2]
    both_events = is_event[:, :, None] & is_event[:, None]
    is_positive = (both_events | is_copy) & is_other

    def log_sum(is_counted: Any) -> Any:
        return ops.logsumexp(ops.where(is_counted, scores, -1e9), axis=-1)

    num_positives = ops.sum(ops.cast(is_positive, scores.dtype), axis=-1)
    log_positives = ops.log(ops.maximum(num_positives, 1))
    losses = log_sum(is_other) - log_sum(is_positive) + log_positives
    return mean_over_segments(losses, is_real)
