"""The baseline for the newer networks: the same networks in plain eager PyTorch.

As in typical PyTorch programs, the networks are modules of `torch.nn`, trained by Adam
with clipped gradients. This module doesn't import avsdn_tf.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from experiments.benchmark.batch import (
    AUDIO_WIDTH,
    NUM_CLASSES,
    Batch,
    load_features,
    one_hot,
)
from experiments.benchmark.torch_layers import (
    UNITS,
    ChannelSpatial,
    Decoder,
    Encoder,
    Interaction,
    SelfGuided,
    Tensor,
    Unscaled,
    dense,
)
from experiments.benchmark.torch_program import AVEL

Outputs = dict[str, Tensor]
_CATEGORIES = NUM_CLASSES - 1


class TwoHeads(nn.Module):
    """Base of networks with an event head and a category head."""

    def create_heads(self) -> None:
        """Create the event head and the category head."""
        self.event = nn.Linear(UNITS, 1)
        self.category = nn.Linear(UNITS, _CATEGORIES)

    def loss(self, outputs: Outputs, target: Tensor) -> Tensor:
        """Return the sum of the losses of both heads."""
        event = functional.binary_cross_entropy_with_logits(
            outputs["event"], 1 - target[..., -1]
        )
        return event + category_loss(outputs["category"], target)


def category_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Return the cross-entropy of the categories of a clip's events."""
    shares = target[..., :-1].mean(dim=1)
    shares = shares / shares.sum(dim=-1, keepdim=True).clamp(min=1e-7)
    return functional.cross_entropy(logits, shares)


class CMRAN(TwoHeads):
    """CMRAN of Xu et al. (ACM MM 2020)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.projection = nn.Sequential(*dense(width, 2 * UNITS), nn.Dropout(0.2))
        self.attention = ChannelSpatial()
        self.audio_encoder = Encoder(AUDIO_WIDTH, 2048)
        self.visual_encoder = Encoder(2 * UNITS, 2048)
        self.audio_decoder = Decoder(AUDIO_WIDTH, 2048)
        self.visual_decoder = Decoder(2 * UNITS, 2048)
        self.interaction = Interaction(0.1)
        self.create_heads()

    def forward(self, audio: Tensor, visual: Tensor) -> Outputs:
        """Return the logits of both heads."""
        cells = self.projection(visual.flatten(2, 3))
        visual = self.attention(audio, cells, cells)
        heard = self.audio_decoder(audio, self.visual_encoder(visual))
        seen = self.visual_decoder(visual, self.audio_encoder(audio))
        fused = self.interaction(seen, heard)
        clip = fused.max(dim=1).values
        return {
            "event": self.event(fused).squeeze(-1),
            "category": self.category(clip),
        }


class CMBS(TwoHeads):
    """CMBS of Xia and Zhao (CVPR 2022)."""

    decoder_width = 1024

    def __init__(self, width: int) -> None:
        super().__init__()
        self.projection = nn.Sequential(*dense(width, 2 * UNITS), nn.Dropout(0.2))
        self.attention = SelfGuided()
        both = {"batch_first": True, "bidirectional": True}
        self.audio_lstm = nn.LSTM(AUDIO_WIDTH, UNITS // 2, **both)
        self.visual_lstm = nn.LSTM(2 * UNITS, UNITS, **both)
        self.audio_encoder = Encoder(UNITS, 1024)
        self.visual_encoder = Encoder(2 * UNITS, 1024)
        self.audio_decoder = Decoder(UNITS, self.decoder_width)
        self.visual_decoder = Decoder(2 * UNITS, self.decoder_width)
        self.audio_gate = nn.Linear(UNITS, 1)
        self.visual_gate = nn.Linear(UNITS, 1)
        self.audio_scores = nn.Linear(UNITS, _CATEGORIES)
        self.visual_scores = nn.Linear(UNITS, _CATEGORIES)
        self.audio_interaction = Interaction(0.2)
        self.visual_interaction = Interaction(0.2)
        self.create_heads()

    def attend(self, audio: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Return audio and attended visual features."""
        return audio, self.attention(audio, cells)

    def heads(self, fused: Tensor) -> Outputs:
        """Return the logits of both heads."""
        clip = fused.max(dim=1).values
        return {
            "event": self.event(fused).squeeze(-1),
            "category": self.category(clip),
        }

    def forward(self, audio: Tensor, visual: Tensor) -> Outputs:
        """Return the logits of both heads, the clip scores and the gates."""
        audio, visual = self.attend(audio, self.projection(visual.flatten(2, 3)))
        audio, _ = self.audio_lstm(audio)
        visual, _ = self.visual_lstm(visual)
        heard_memory = self.audio_encoder(audio)
        seen_memory = self.visual_encoder(visual)
        heard = self.audio_decoder(audio, seen_memory)
        seen = self.visual_decoder(visual, heard_memory)
        audio_gate = torch.sigmoid(self.audio_gate(heard_memory))
        visual_gate = torch.sigmoid(self.visual_gate(seen_memory))
        seen = seen + 0.1 * audio_gate * seen
        heard = heard + 0.1 * visual_gate * heard
        scores = [
            layer(x).topk(4, dim=1).values.mean(dim=1)
            for layer, x in ((self.audio_scores, heard), (self.visual_scores, seen))
        ]
        seen = self.visual_interaction(seen, heard)
        heard = self.audio_interaction(heard, seen)
        outputs = self.heads((seen + heard) / 2)
        outputs["scores"] = sum(scores) / 2
        outputs["category"] = outputs["category"] + 0.3 * outputs["scores"]
        outputs["gate"] = (audio_gate * visual_gate).squeeze(-1)
        return outputs

    def loss(self, outputs: Outputs, target: Tensor) -> Tensor:
        """Return the sum of the losses of heads, gates and clip scores."""
        gate = functional.binary_cross_entropy(outputs["gate"], 1 - target[..., -1])
        scores = category_loss(outputs["scores"], target)
        return super().loss(outputs, target) + gate + scores


class CACENet(CMBS):
    """CACE-Net of He et al. (ACM MM 2024), with its contrastive loss."""

    decoder_width = 512

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.cell_attention = Unscaled(2 * UNITS, 2 * UNITS, UNITS // 2)
        self.audio_attention = Unscaled(AUDIO_WIDTH, AUDIO_WIDTH, AUDIO_WIDTH)
        self.guide = Unscaled(2 * UNITS, AUDIO_WIDTH, AUDIO_WIDTH)
        self.audio_norm = nn.LayerNorm(AUDIO_WIDTH)
        self.dropout = nn.Dropout(0.2)
        self.query = dense(UNITS, UNITS)

    def attend(self, audio: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Return attended audio and visual features."""
        related = self.dropout(self.cell_attention(cells, cells))
        seen = self.attention.norm(cells + related).mean(dim=2)
        related = self.dropout(self.audio_attention(audio, audio))
        heard = self.audio_norm(audio + related)
        gate = torch.sigmoid(self.guide(seen, heard))
        return audio + 0.3 * gate * audio, self.attention(audio, cells)

    def heads(self, fused: Tensor) -> Outputs:
        """Return the logits of both heads, and the contrasted features."""
        query = self.query(fused)
        copy = self.query(fused + 0.1 * torch.randn_like(fused))
        event = self.event(fused + 0.6 * query).squeeze(-1)
        contrasted = torch.cat([query, copy], dim=1)
        category = self.category(fused.max(dim=1).values)
        return {"event": event, "category": category, "contrasted": contrasted}

    def loss(self, outputs: Outputs, target: Tensor) -> Tensor:
        """Return the sum of CMBS's losses and the contrastive loss of segments."""
        x = functional.normalize(outputs["contrasted"], dim=-1)
        scores = x @ x.transpose(1, 2) / 0.01
        size = scores.shape[1]
        event = (1 - target[..., -1]).repeat(1, 2) > 0.5
        place = torch.arange(size)
        other = place[:, None] != place
        copy = place[:, None] % (size // 2) == place % (size // 2)
        positive = (event[:, :, None] & event[:, None] | copy) & other
        everything = scores.masked_fill(~other, -1e9).logsumexp(dim=-1)
        positives = scores.masked_fill(~positive, -1e9).logsumexp(dim=-1)
        count = positive.sum(dim=-1).clamp(min=1).log()
        contrast = (everything - positives + count).mean()
        return super().loss(outputs, target) + contrast


class Propagation(nn.Module):
    """PSP's encoders and the propagation between them."""

    def __init__(self, visual_shape: Sequence[int]) -> None:
        super().__init__()
        width, half = visual_shape[-1], UNITS // 2

        def projection(inputs: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Linear(inputs, UNITS, bias=False),
                nn.Linear(UNITS, half, bias=False),
            )

        self.audio_projection, self.visual_projection = map(
            projection, (AUDIO_WIDTH, width)
        )
        # PSP uses AVEL's attention.
        avel = AVEL(visual_shape, half)
        self.attention = nn.ModuleList(
            [
                *(avel.audio_projection, avel.visual_projection),
                *(avel.audio_scores, avel.visual_scores, avel.cell_score),
            ]
        )
        both = {"batch_first": True, "bidirectional": True}
        self.audio_encoder = nn.LSTM(half, half, **both)
        self.visual_encoder = nn.LSTM(half, half, **both)
        layers = [dense(UNITS, UNITS, bias=False) for _ in range(6)]
        self.layers = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(UNITS, eps=1e-6)
        self.dropout = nn.Dropout(0.1)

    def forward(self, audio: Tensor, visual: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the fused, the visual and the audio segments."""
        audio = self.audio_projection(audio)
        cells = visual.flatten(2, 3)
        heard, seen, heard_scores, seen_scores, score = self.attention
        scores = seen_scores(torch.relu(seen(cells)))
        scores = scores + heard_scores(torch.relu(heard(audio))).unsqueeze(2)
        weights = torch.softmax(score(torch.tanh(scores)), dim=2)
        visual = self.visual_projection((weights * cells).sum(dim=2))
        a, _ = self.audio_encoder(audio)
        v, _ = self.visual_encoder(visual)
        v1, v2 = (self.dropout(layer(v)) for layer in self.layers[:2])
        a1, a2 = (self.dropout(layer(a)) for layer in self.layers[2:4])
        affinity = torch.relu(v2 @ a1.transpose(1, 2) / UNITS**0.5)
        v = v + self.shares(affinity) @ a2
        a = a + self.shares(affinity.transpose(1, 2)) @ v1
        v = self.norm(self.dropout(self.layers[4](v)))
        a = self.norm(self.dropout(self.layers[5](a)))
        return (v + a) / 2, v, a

    @staticmethod
    def shares(rows: Tensor) -> Tensor:
        """Return rows of sum 1, with small entries set to 0."""
        rows = rows / (rows.sum(dim=-1, keepdim=True) + 1e-8)
        rows = rows * (rows > 0.099)
        return rows / (rows.sum(dim=-1, keepdim=True) + 1e-8)


def similarity_loss(outputs: Outputs, target: Tensor) -> Tensor:
    """Return PSP's loss of the similarity between audio and visual segments."""
    found = torch.relu(outputs["similarity"])
    event = 1 - target[..., -1]
    found = found / (found.sum(dim=-1, keepdim=True) + 1e-8)
    wanted = event / (event.sum(dim=-1, keepdim=True) + 1e-8)
    return 100 * functional.mse_loss(found, wanted)


class PSP(nn.Module):
    """PSP of Zhou et al. (CVPR 2021)."""

    def __init__(self, visual_shape: Sequence[int]) -> None:
        super().__init__()
        self.encoder = Propagation(visual_shape)
        self.hidden = dense(UNITS, 64, bias=False)
        self.head = nn.Linear(64, NUM_CLASSES, bias=False)

    def forward(self, audio: Tensor, visual: Tensor) -> Outputs:
        """Return segment logits, and the similarity between the modalities."""
        fused, v, a = self.encoder(audio, visual)
        similarity = functional.cosine_similarity(v, a, dim=-1)
        return {"logits": self.head(self.hidden(fused)), "similarity": similarity}

    def loss(self, outputs: Outputs, target: Tensor) -> Tensor:
        """Return the sum of the cross-entropy and the similarity loss."""
        logits = outputs["logits"].transpose(1, 2)
        cross_entropy = functional.cross_entropy(logits, target.transpose(1, 2))
        return cross_entropy + similarity_loss(outputs, target)


class CPSP(TwoHeads):
    """CPSP of Zhou et al. (TPAMI 2022)."""

    def __init__(self, visual_shape: Sequence[int]) -> None:
        super().__init__()
        self.encoder = Propagation(visual_shape)
        self.create_heads()

    def forward(self, audio: Tensor, visual: Tensor) -> Outputs:
        """Return the logits of both heads, the similarity and the fused segments."""
        fused, v, a = self.encoder(audio, visual)
        return {
            "event": self.event(fused).squeeze(-1),
            "category": self.category(fused.mean(dim=1)),
            "similarity": functional.cosine_similarity(v, a, dim=-1),
            "features": fused,
        }

    def loss(self, outputs: Outputs, target: Tensor) -> Tensor:
        """Return the sum of the losses of heads, similarity and clip contrast."""
        center = functional.normalize(outputs["features"], dim=-1).mean(dim=1)
        distance = torch.cdist(center, center)
        category = target[..., :-1].mean(dim=1).argmax(dim=-1)
        same = category[:, None] == category
        farthest = distance.masked_fill(~same, 0).max(dim=-1).values
        nearest = (
            distance.masked_fill(same, 10).topk(min(3, len(same)), largest=False).values
        )
        contrast = torch.relu(farthest - nearest.mean(dim=-1) + 0.2).mean()
        heads = super().loss(outputs, target)
        return heads + similarity_loss(outputs, target) + contrast


def build(batch: Batch) -> nn.Module:
    """Return the network of a batch."""
    networks = {"psp": PSP, "cpsp": CPSP}
    if batch.network in networks:
        return networks[batch.network](batch.visual_shape)
    networks = {"cmran": CMRAN, "cmbs": CMBS, "cace": CACENet}
    return networks[batch.network](batch.visual_shape[-1])


def training(
    batch: Batch, clip_norm: float = 0.0, dtype: str = "float32"
) -> Callable[[], None]:
    """Return a function that runs a training step on a batch in memory.

    Args:
        batch: The network and its shapes.
        clip_norm: Largest norm of the gradient; 0 disables clipping.
        dtype: The dtype of features and weights.
    """
    clips = [array.astype(dtype) for array in batch.random()]
    return _steps(batch, clips, clip_norm, dtype)


def first_step(
    batch: Batch,
    files: str,
    clip_norm: float = 0.0,
    dtype: str = "float32",
    held_dtype: str | None = None,
) -> Callable[[], None]:
    """Return a function that runs a training step on clips of a file.

    Args:
        batch: The network and its shapes.
        files: A feature file.
        clip_norm: Largest norm of the gradient; 0 disables clipping.
        dtype: The dtype of features and weights in the step.
        held_dtype: The dtype in which the features of all clips are kept in memory.
            None: only the clips of the batch are read, as stored.
    """
    clips, _ = load_features(files, held_dtype, None if held_dtype else batch.size)
    audio, visual, labels = (array[: batch.size] for array in clips.values())
    # Slices are views, which keep all clips alive.
    return _steps(batch, (audio, visual, one_hot(labels)), clip_norm, dtype)


def _steps(
    batch: Batch, clips: Sequence[np.ndarray], clip_norm: float, dtype: str
) -> Callable[[], None]:
    """Return a function that runs a training step on clips."""
    model = build(batch).to(getattr(torch, dtype))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    return lambda: _step(model, optimizer, clips, clip_norm)


def _step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    clips: Sequence[np.ndarray],
    clip_norm: float,
) -> None:
    dtype = next(model.parameters()).dtype
    audio, visual, target = (torch.from_numpy(array).to(dtype) for array in clips)
    optimizer.zero_grad(set_to_none=True)
    model.loss(model(audio, visual), target).backward()
    if clip_norm:
        nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    optimizer.step()
