"""Layers of the networks in `torch_heads`, in eager PyTorch."""

import torch
from torch import nn

from experiments.benchmark.batch import AUDIO_WIDTH

UNITS = 256
Tensor = torch.Tensor


def dense(inputs: int, outputs: int, bias: bool = True) -> nn.Sequential:
    """Return a dense layer with ReLU."""
    return nn.Sequential(nn.Linear(inputs, outputs, bias=bias), nn.ReLU())


class Block(nn.Module):
    """Transformer block (post-norm): attention to a memory, feed-forward network."""

    def __init__(self, feed_forward: int) -> None:
        super().__init__()
        options = {"dropout": 0.1, "batch_first": True}
        self.attention = nn.MultiheadAttention(UNITS, 4, **options)
        self.hidden = nn.Linear(UNITS, feed_forward)
        self.output = nn.Linear(feed_forward, UNITS)
        self.norms = nn.ModuleList([nn.LayerNorm(UNITS) for _ in range(2)])
        self.dropout = nn.Dropout(0.1)

    def forward(self, query: Tensor, memory: Tensor) -> Tensor:
        """Return the block's output, of the shape of `query`."""
        attended, _ = self.attention(query, memory, memory)
        x = self.norms[0](query + self.dropout(attended))
        hidden = self.dropout(torch.relu(self.hidden(x)))
        return self.norms[1](x + self.dropout(self.output(hidden)))


class Encoder(nn.Module):
    """Dense layer and two self-attention blocks."""

    def __init__(self, width: int, feed_forward: int) -> None:
        super().__init__()
        self.projection = nn.Linear(width, UNITS)
        self.blocks = nn.ModuleList([Block(feed_forward) for _ in range(2)])

    def forward(self, x: Tensor) -> Tensor:
        """Return the encoded segments, `(batch, num_segments, UNITS)`."""
        x = self.projection(x)
        for block in self.blocks:
            x = block(x, x)
        return x


class Decoder(nn.Module):
    """Dense layer, and attention to a memory and the queries."""

    def __init__(self, width: int, feed_forward: int) -> None:
        super().__init__()
        self.projection = nn.Linear(width, UNITS)
        self.block = Block(feed_forward)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """Return the decoded segments, `(batch, num_segments, UNITS)`."""
        query = self.projection(x)
        return self.block(query, torch.cat([memory, query], dim=1))


class Interaction(nn.Module):
    """Attention from the product of two modalities to both."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        options = {"dropout": dropout, "batch_first": True}
        self.attention = nn.MultiheadAttention(UNITS, 4, **options)
        self.norm = nn.LayerNorm(UNITS)
        self.dropout = nn.Dropout(0.1)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the combined modalities, of the shape of `first`."""
        product = first * second
        memory = torch.cat([second, first], dim=1)
        attended, _ = self.attention(product, memory, memory)
        return self.norm(product + self.dropout(attended))


class CellWeights(nn.Module):
    """Attention to cells x, given a guide g for each segment.

    Weights: softmax over cells of tanh(w . [relu(W_x x) * relu(W_g g)] + b).
    """

    def __init__(self, guide: int, width: int) -> None:
        super().__init__()
        self.guide = dense(guide, UNITS)
        self.cell = dense(width, UNITS)
        self.score = nn.Linear(UNITS, 1)

    def forward(self, guide: Tensor, cells: Tensor) -> Tensor:
        """Return the weighted sum of the cells."""
        products = self.cell(cells) * self.guide(guide).unsqueeze(2)
        weights = torch.softmax(torch.tanh(self.score(products)), dim=2)
        return (weights * cells).sum(dim=2)


class ChannelSpatial(nn.Module):
    """Audio-guided attention over channels, then over cells."""

    def __init__(self, width: int = 2 * UNITS) -> None:
        super().__init__()
        self.audio = dense(AUDIO_WIDTH, width)
        self.visual = dense(width, width)
        self.gate = nn.Sequential(
            *dense(width, UNITS), nn.Linear(UNITS, width), nn.Sigmoid()
        )
        self.cells = CellWeights(AUDIO_WIDTH, width)

    def forward(self, audio: Tensor, cells: Tensor, compared: Tensor) -> Tensor:
        """Return the weighted sum of the cells; `audio` and `compared` set the gate."""
        query = (self.visual(compared) * self.audio(audio).unsqueeze(2)).mean(dim=2)
        return self.cells(audio, cells * (1 + self.gate(query)).unsqueeze(2))


class Unscaled(nn.Module):
    """Single-head attention without scaling of the scores."""

    def __init__(self, width: int, memory: int, key: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, key)
        self.key = nn.Linear(memory, key)
        self.value = nn.Linear(memory, memory)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """Return the weighted sums of the memory's values, one per row of `x`."""
        scores = self.query(x) @ self.key(memory).transpose(-1, -2)
        return torch.softmax(scores, dim=-1) @ self.value(memory)


class SelfGuided(nn.Module):
    """Channel and spatial attention, guided by the audio and by the map itself."""

    def __init__(self, width: int = 2 * UNITS) -> None:
        super().__init__()
        self.related = Unscaled(width, width, width // 4)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(0.2)
        self.own = CellWeights(width, width)
        self.audio_guided = ChannelSpatial(width)

    def forward(self, audio: Tensor, cells: Tensor) -> Tensor:
        """Return the weighted sum of the cells, `(batch, num_segments, width)`."""
        related = self.norm(cells + self.dropout(self.related(cells, cells)))
        own = self.own(related.mean(dim=2), related)
        heard = self.audio_guided(audio, cells, related)
        return heard + 0.4 * torch.sigmoid(own) * heard
