"""The baseline: AVSDN and AVEL in a typical PyTorch program.

The program uses `torch.nn.LSTM` and Adam, and loads the whole feature file into memory.
It doesn't import avsdn_tf.
"""

import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import nn

from experiments.benchmark.batch import (
    ATTENTION_UNITS,
    AUDIO_WIDTH,
    NUM_CLASSES,
    Batch,
    load_features,
    one_hot,
)

# Use as many threads as TensorFlow uses by default.
torch.set_num_threads(
    len(os.sched_getaffinity(0))
    if hasattr(os, "sched_getaffinity")
    else os.cpu_count() or 1
)


def mlp(units: int) -> nn.Sequential:
    """Return AVSDN's multilayer perceptron: dense, tanh, dense."""
    return nn.Sequential(nn.Linear(units, units), nn.Tanh(), nn.Linear(units, units))


class AVSDN(nn.Module):
    """Unidirectional AVSDN of Lin et al. (ICASSP 2019).

    One MLP fuses the hidden states of both modalities, another their cell states.
    """

    def __init__(self, visual_shape: Sequence[int], units: int) -> None:
        super().__init__()
        (width,) = visual_shape
        self.audio_encoder = nn.LSTM(AUDIO_WIDTH, units, batch_first=True)
        self.visual_encoder = nn.LSTM(width, units, batch_first=True)
        self.hidden_mlp = mlp(units)
        self.cell_mlp = mlp(units)
        self.decoder = nn.LSTM(AUDIO_WIDTH + width, units, batch_first=True)
        self.head = nn.Linear(units, NUM_CLASSES)

    def forward(self, audio: torch.Tensor, visual: torch.Tensor) -> torch.Tensor:
        """Return segment logits, `(batch, num_segments, 29)`."""
        _, audio_states = self.audio_encoder(audio)
        _, visual_states = self.visual_encoder(visual)
        fused = []
        for network, heard, seen in zip(
            (self.hidden_mlp, self.cell_mlp), audio_states, visual_states, strict=True
        ):
            update = (network(heard) + network(seen)) / 2
            fused.append(torch.tanh(heard + update) + torch.tanh(seen + update))
        local = torch.cat([audio, visual], dim=-1)
        outputs, _ = self.decoder(local, tuple(fused))
        return self.head(outputs)


class AVEL(nn.Module):
    """AVEL with audio-guided attention of Tian et al. (ECCV 2018)."""

    def __init__(self, visual_shape: Sequence[int], units: int) -> None:
        super().__init__()
        rows, columns, width = visual_shape
        cells = rows * columns
        self.audio_projection = nn.Linear(AUDIO_WIDTH, ATTENTION_UNITS)
        self.visual_projection = nn.Linear(width, ATTENTION_UNITS)
        self.audio_scores = nn.Linear(ATTENTION_UNITS, cells, bias=False)
        self.visual_scores = nn.Linear(ATTENTION_UNITS, cells, bias=False)
        self.cell_score = nn.Linear(cells, 1, bias=False)
        both = {"batch_first": True, "bidirectional": True}
        self.audio_encoder = nn.LSTM(AUDIO_WIDTH, units, **both)
        self.visual_encoder = nn.LSTM(width, units, **both)
        self.hidden = nn.Linear(4 * units, 64)
        self.head = nn.Linear(64, NUM_CLASSES)

    def forward(self, audio: torch.Tensor, visual: torch.Tensor) -> torch.Tensor:
        """Return segment logits, `(batch, num_segments, 29)`."""
        batch, num_segments, rows, columns, width = visual.shape
        cells = visual.reshape(batch * num_segments, rows * columns, width)
        heard = self.audio_scores(
            torch.relu(self.audio_projection(audio.flatten(0, 1)))
        )
        seen = self.visual_scores(torch.relu(self.visual_projection(cells)))
        scores = self.cell_score(torch.tanh(seen + heard.unsqueeze(1))).squeeze(2)
        weights = torch.softmax(scores, dim=-1).unsqueeze(1)
        attended = torch.bmm(weights, cells).view(batch, num_segments, width)
        encoded = torch.cat(
            [self.audio_encoder(audio)[0], self.visual_encoder(attended)[0]], dim=-1
        )
        return self.head(torch.relu(self.hidden(torch.relu(encoded))))


def segment_loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the binary cross-entropy of the softmax (Lin et al.)."""
    return nn.functional.binary_cross_entropy(torch.softmax(logits, dim=-1), target)


NETWORKS = {"avsdn": AVSDN, "avel_att": AVEL}


class _Trainer:
    """A network and its training by Adam."""

    def __init__(
        self,
        batch: Batch,
        compiled: bool = False,
        bfloat16: bool = False,
        fused: bool = False,
    ) -> None:
        self.model = NETWORKS[batch.network](batch.visual_shape, batch.units)
        self.predict = torch.compile(self.model) if compiled else self.model
        self.autocast = torch.autocast("cpu", torch.bfloat16, enabled=bfloat16)
        weights = self.model.parameters()
        self._optimizer = torch.optim.Adam(weights, lr=1e-3, fused=fused)

    def step(
        self, audio: torch.Tensor, visual: torch.Tensor, target: torch.Tensor
    ) -> None:
        """Run one training step."""
        self._optimizer.zero_grad(set_to_none=True)
        with self.autocast:
            logits = self.predict(audio, visual)
        segment_loss(logits.float(), target).backward()
        self._optimizer.step()


def training(batch: Batch, **options: bool) -> Callable[[], None]:
    """Return a function that runs a training step on a batch in memory."""
    trainer = _Trainer(batch, **options)
    clips = [torch.from_numpy(array) for array in batch.random()]
    return lambda: trainer.step(*clips)


def inference(batch: Batch, compiled: bool = False) -> Callable[[], None]:
    """Return a function that predicts a batch in memory."""
    trainer = _Trainer(batch, compiled)
    trainer.model.eval()
    audio, visual, _ = (torch.from_numpy(array) for array in batch.random())

    @torch.inference_mode()
    def work() -> None:
        trainer.predict(audio, visual)

    return work


def epoch(batch: Batch, files: str, bfloat16: bool = False) -> Callable[[], None]:
    """Return a function that trains an epoch and evaluates on the validation split."""
    clips, splits = load_features(files)
    trainer = _Trainer(batch, bfloat16=bfloat16)
    rng = np.random.default_rng(0)

    def work() -> None:
        for arrays in _batches(clips, rng.permutation(splits["train"]), batch.size):
            trainer.step(*arrays)
        num_correct = 0
        with torch.inference_mode(), trainer.autocast:
            for *inputs, target in _batches(clips, splits["validation"], batch.size):
                predicted = trainer.model(*inputs).argmax(-1)
                num_correct += int((predicted == target.argmax(-1)).sum())

    return work


def first_step(batch: Batch, files: str) -> Callable[[], None]:
    """Return a function that runs the first step of an epoch."""
    clips, splits = load_features(files)
    trainer = _Trainer(batch)
    return lambda: trainer.step(*next(_batches(clips, splits["train"], batch.size)))


def _batches(
    clips: dict[str, np.ndarray], rows: np.ndarray, size: int
) -> Iterator[list[torch.Tensor]]:
    """Yield batches of audio, visual features and one-hot labels."""
    for start in range(0, len(rows), size):
        audio, visual, labels = (
            array[rows[start : start + size]] for array in clips.values()
        )
        yield [torch.from_numpy(array) for array in (audio, visual, one_hot(labels))]
