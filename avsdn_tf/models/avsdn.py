"""AVSDN: audio-visual sequence-to-sequence dual network."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from avsdn_tf.models.attention import SpatialMean
from avsdn_tf.models.base import (
    SegmentClassifier,
    feature_dropout,
    guide_losses,
)
from avsdn_tf.models.decoder import Decoder
from avsdn_tf.models.fusion import DMRNFusion, mlp
from avsdn_tf.models.lstm import SequenceLSTM


@keras.saving.register_keras_serializable(package="avsdn_tf")
class AVSDN(SegmentClassifier):
    """Audio-visual sequence-to-sequence dual network.

    One LSTM per modality encodes the clip, and a dual multimodal residual network
    (DMRN) fuses the final states of both LSTMs. A decoder LSTM starts from the fused
    states, and classifies every segment:

        h_a, c_a = encoder(audio);  h_v, c_v = encoder(visual)
        h = fuse(h_a, h_v);  c = fuse(c_a, c_v)
        logits = decoder([audio; visual], initial state = (h, c))

    Feature maps are first averaged over space. Details that the paper leaves open are
    arguments. The defaults follow the paper's text and equations.

    Args:
        categories: Names of the event categories; background is added as last class.
        audio_width: Width of an audio feature.
        visual_shape: `(D,)` for pooled visual features, `(rows, columns, D)` for maps.
        units: Width of each LSTM, in each direction.
        bidirectional: Boolean. Whether encoders and decoder read in both directions.
        shared_mlp: Boolean. True: one fusion MLP for both modalities. False: one per
            modality.
        merge: `"sum"` or `"mean"` of the updated audio and visual states.
        shared_fusion: Boolean. Whether hidden and cell state share a fusion network.
        append_state: Boolean. Whether the initial hidden state is also appended to the
            decoder's input in every segment.
        initial_state: Initial state of the decoder (table 3 of the paper). `"fusion"`:
            the fused states. `"visual"` or `"audio"`: the states of that encoder alone.
            The decoder's input always has both modalities.
        label_guided: Boolean. True: an MLP on each modality's hidden state predicts the
            clip's label. `compute_outputs` also returns these `"audio_clip_logits"` and
            `"visual_clip_logits"`, and `fit` adds their losses.
        dropout: Dropout rate of features (all segments of a clip drop the same
            features) and of decoder outputs.
        **kwargs: `num_segments`, `segment_s` and `backbones`, as in
            `SegmentClassifier`, and the arguments of `keras.Model`.

    Call arguments:
        inputs: `{"audio": (batch, num_segments, audio_width), "visual": (batch,
            num_segments, *visual_shape)}`, or a pair `(audio, visual)`. Any number of
            segments.

    Returns:
        Segment logits, `(batch, num_segments, len(categories) + 1)`.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> model = avsdn_tf.AVSDN(categories, audio_width=128, visual_shape=(2048,))
        >>> loss = avsdn_tf.SoftmaxBinaryCrossentropy()
        >>> model.compile("adam", loss, metrics=[avsdn_tf.EventF1()])
        >>> clips = {"audio": audio, "visual": visual}
        >>> history = model.fit(clips, labels, verbose=0)
        >>> model.predict(clips, verbose=0).shape
        (4, 10, 3)

    Reference:
        Lin et al., "Dual-modality seq2seq network for audio-visual event localization",
        ICASSP 2019, https://arxiv.org/abs/1902.07473.
    """

    def __init__(
        self,
        categories: Sequence[str],
        audio_width: int = 128,
        visual_shape: Sequence[int] = (2048,),
        *,
        units: int = 128,
        bidirectional: bool = False,
        shared_mlp: bool = True,
        merge: str = "sum",
        shared_fusion: bool = False,
        append_state: bool = False,
        initial_state: str = "fusion",
        label_guided: bool = False,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(categories, audio_width, visual_shape, **kwargs)
        if initial_state not in ("fusion", "visual", "audio"):
            raise ValueError(
                "Expected one of {'fusion', 'visual', 'audio'}. "
                f"Received: initial_state={initial_state!r}"
            )
        if label_guided and initial_state != "fusion":
            raise ValueError(
                "Expected initial_state='fusion' with label_guided=True, which guides "
                f"both states. Received: initial_state={initial_state!r}"
            )
        self.units = units
        self.bidirectional = bidirectional
        self.shared_mlp = shared_mlp
        self.merge = merge
        self.shared_fusion = shared_fusion
        self.append_state = append_state
        self.initial_state = initial_state
        self.label_guided = label_guided
        self.dropout = dropout
        dtype = self.dtype_policy

        self.spatial_mean = SpatialMean(dtype=dtype)
        self.audio_dropout = feature_dropout(dropout, self.audio_width, dtype)
        self.visual_dropout = feature_dropout(dropout, self.visual_shape[-1], dtype)
        if initial_state != "visual":
            self.audio_encoder = SequenceLSTM(units, bidirectional, dtype=dtype)
        if initial_state != "audio":
            self.visual_encoder = SequenceLSTM(units, bidirectional, dtype=dtype)
        if initial_state == "fusion":
            self.hidden_fusion = DMRNFusion(shared_mlp, merge, dtype=dtype)
            self.cell_fusion = (
                self.hidden_fusion
                if shared_fusion
                else DMRNFusion(shared_mlp, merge, dtype=dtype)
            )
        if label_guided:
            self.audio_guide = mlp(units, self.num_classes, dtype=dtype)
            self.visual_guide = mlp(units, self.num_classes, dtype=dtype)
        self.decoder = Decoder(
            self.num_classes, units, bidirectional, append_state, dropout, dtype=dtype
        )
        self.build()

    def compute_outputs(
        self, inputs: dict[str, Any], training: bool = False
    ) -> dict[str, Any]:
        """Return the segment `"logits"`, and the clip logits if `label_guided`."""
        mask = inputs.get("mask")
        audio = self.audio_dropout(inputs["audio"], training=training)
        visual = self.visual_dropout(
            self.spatial_mean(inputs["visual"]), training=training
        )
        outputs = {}
        if self.initial_state != "visual":
            _, audio_hidden, audio_cell = self.audio_encoder(
                audio, mask=mask, training=training
            )
            hidden_state, cell_state = audio_hidden, audio_cell
        if self.initial_state != "audio":
            _, visual_hidden, visual_cell = self.visual_encoder(
                visual, mask=mask, training=training
            )
            hidden_state, cell_state = visual_hidden, visual_cell
        if self.initial_state == "fusion":
            hidden_state = self.hidden_fusion(audio_hidden, visual_hidden)
            cell_state = self.cell_fusion(audio_cell, visual_cell)
        if self.label_guided:
            outputs["audio_clip_logits"] = self.audio_guide(audio_hidden)
            outputs["visual_clip_logits"] = self.visual_guide(visual_hidden)
        outputs["logits"] = self.decoder(
            audio, visual, hidden_state, cell_state, mask=mask, training=training
        )
        return outputs

    def extra_losses(
        self,
        loss: keras.losses.Loss,
        target: Any,
        outputs: Mapping[str, Any],
        mask: Any = None,
    ) -> Any:
        """Return the guides' losses, `(batch,)`, or None without guides."""
        if not self.label_guided:
            return None
        names = ["audio_clip_logits", "visual_clip_logits"]
        return guide_losses(loss, target, outputs, names, mask)

    def category_layers(self) -> list[keras.layers.Layer]:
        """Return the head, and the guides if there are any."""
        guides = [self.audio_guide, self.visual_guide] if self.label_guided else []
        return [self.decoder.head, *guides]

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "units": self.units,
            "bidirectional": self.bidirectional,
            "shared_mlp": self.shared_mlp,
            "merge": self.merge,
            "shared_fusion": self.shared_fusion,
            "append_state": self.append_state,
            "initial_state": self.initial_state,
            "label_guided": self.label_guided,
            "dropout": self.dropout,
        }
