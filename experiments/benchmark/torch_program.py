"""The baseline: the networks as a plain PyTorch program has them, and its training.

It is written as such programs are: `torch.nn.LSTM`, Adam, the whole feature file in
memory. It imports nothing of this package; `turns.py` runs it.
"""

import os
from collections.abc import Callable, Iterator
from typing import Any

import h5py
import numpy as np
import torch
from torch import nn

# As many as TensorFlow takes.
torch.set_num_threads(
    len(os.sched_getaffinity(0))
    if hasattr(os, "sched_getaffinity")
    else os.cpu_count() or 1
)
_NUM_CLASSES = 29
_UNITS_ATTENTION = 512


def mlp(units: int) -> nn.Sequential:
    """Returns the papers' multilayer perceptron: dense, tanh, dense."""
    return nn.Sequential(nn.Linear(units, units), nn.Tanh(), nn.Linear(units, units))


class AVSDN(nn.Module):
    """AVSDN of Lin et al. (ICASSP 2019) in one direction, with one MLP a fusion.

    Args:
        audio_width: Width of an audio feature.
        visual_width: Width of a visual feature.
        units: Width of every LSTM.
    """

    def __init__(
        self, audio_width: int = 128, visual_width: int = 2048, units: int = 128
    ) -> None:
        super().__init__()
        self.audio_encoder = nn.LSTM(audio_width, units, batch_first=True)
        self.visual_encoder = nn.LSTM(visual_width, units, batch_first=True)
        self.hidden_mlp = mlp(units)
        self.cell_mlp = mlp(units)
        self.decoder = nn.LSTM(audio_width + visual_width, units, batch_first=True)
        self.head = nn.Linear(units, _NUM_CLASSES)

    def forward(self, audio: torch.Tensor, visual: torch.Tensor) -> torch.Tensor:
        """Returns segment logits, `(batch, num_segments, 29)`."""
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
    """AVEL with audio-guided attention of Tian et al. (ECCV 2018).

    Args:
        audio_width: Width of an audio feature.
        visual_shape: Rows, columns and width of a feature map.
        units: Width of every LSTM in each direction.
    """

    def __init__(
        self,
        audio_width: int = 128,
        visual_shape: tuple[int, int, int] = (7, 7, 512),
        units: int = 128,
    ) -> None:
        super().__init__()
        rows, columns, width = visual_shape
        cells = rows * columns
        self.audio_projection = nn.Linear(audio_width, _UNITS_ATTENTION)
        self.visual_projection = nn.Linear(width, _UNITS_ATTENTION)
        self.audio_scores = nn.Linear(_UNITS_ATTENTION, cells, bias=False)
        self.visual_scores = nn.Linear(_UNITS_ATTENTION, cells, bias=False)
        self.cell_score = nn.Linear(cells, 1, bias=False)
        self.audio_encoder = nn.LSTM(
            audio_width, units, batch_first=True, bidirectional=True
        )
        self.visual_encoder = nn.LSTM(
            width, units, batch_first=True, bidirectional=True
        )
        self.hidden = nn.Linear(4 * units, 64)
        self.head = nn.Linear(64, _NUM_CLASSES)

    def forward(self, audio: torch.Tensor, visual: torch.Tensor) -> torch.Tensor:
        """Returns segment logits, `(batch, num_segments, 29)`."""
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


NETWORKS = {"avsdn": AVSDN, "avel_att": AVEL}


def segment_loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Returns the binary cross-entropy of the softmax (Lin et al.)."""
    return nn.functional.binary_cross_entropy(torch.softmax(logits, dim=-1), target)


def training(
    network: str,
    batch_size: int,
    num_segments: int,
    visual_shape: list[int],
    units: int,
    compiled: bool,
    bfloat16: bool = False,
    fused: bool = False,
) -> Callable[[], None]:
    """Returns a function that takes a training step on a batch in memory."""
    model = _build(network, visual_shape, units)
    step = _make_step(model, compiled, bfloat16, fused)
    audio, visual = _random_inputs(batch_size, num_segments, visual_shape)
    labels = torch.randint(_NUM_CLASSES, (batch_size, num_segments))
    target = nn.functional.one_hot(labels, _NUM_CLASSES).float()
    return lambda: step(audio, visual, target)


def inference(
    network: str,
    batch_size: int,
    num_segments: int,
    visual_shape: list[int],
    units: int,
    compiled: bool,
) -> Callable[[], None]:
    """Returns a function that predicts a batch in memory."""
    model = _build(network, visual_shape, units).eval()
    predict = torch.compile(model) if compiled else model
    audio, visual = _random_inputs(batch_size, num_segments, visual_shape)

    @torch.inference_mode()
    def work() -> None:
        predict(audio, visual)

    return work


def epoch(
    network: str,
    visual_shape: list[int],
    units: int,
    batch_size: int,
    files: str,
    bfloat16: bool = False,
) -> Callable[[], None]:
    """Returns a function that trains an epoch, and scores the validation split.

    Args:
        network: A name of `NETWORKS`.
        visual_shape: Shape of a segment's visual feature.
        units: Width of the LSTMs.
        batch_size: Clips in a batch.
        files: A file that `feature_file.write_feature_file` wrote. It is read whole.
        bfloat16: Whether PyTorch may compute in bfloat16 where it deems it safe.
    """
    model, step, held, splits = _prepare(network, visual_shape, units, files, bfloat16)
    rng = np.random.default_rng(0)

    def work() -> None:
        for batch in _batches(held, rng.permutation(splits["train"]), batch_size):
            step(*batch)
        right = 0
        with torch.inference_mode(), _precision(bfloat16):
            for audio, visual, target in _batches(
                held, splits["validation"], batch_size
            ):
                found = model(audio, visual).argmax(-1)
                right += int((found == target.argmax(-1)).sum())

    return work


def first_step(
    network: str, visual_shape: list[int], units: int, batch_size: int, files: str
) -> Callable[[], None]:
    """Returns a function that takes the first step of what `epoch` does."""
    _, step, held, splits = _prepare(network, visual_shape, units, files)
    return lambda: step(*next(_batches(held, splits["train"], batch_size)))


def _prepare(
    network: str,
    visual_shape: list[int],
    units: int,
    files: str,
    bfloat16: bool = False,
) -> tuple[nn.Module, Callable[..., None], dict[str, Any], dict[str, Any]]:
    with h5py.File(files) as file:
        held = {name: file[name][...] for name in ("audio", "visual", "labels")}
        splits = {name: file[f"rows_{name}"][...] for name in ("train", "validation")}
    model = _build(network, visual_shape, units)
    return model, _make_step(model, False, bfloat16), held, splits


def _batches(
    held: dict[str, np.ndarray], rows: np.ndarray, batch_size: int
) -> Iterator[list[torch.Tensor]]:
    for start in range(0, len(rows), batch_size):
        taken = rows[start : start + batch_size]
        audio, visual, labels = (torch.from_numpy(held[name][taken]) for name in held)
        yield [audio, visual, nn.functional.one_hot(labels, _NUM_CLASSES).float()]


def _build(network: str, visual_shape: list[int], units: int) -> nn.Module:
    shape = visual_shape[0] if network == "avsdn" else tuple(visual_shape)
    return NETWORKS[network](128, shape, units)


def _precision(bfloat16: bool) -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16, enabled=bfloat16)


def _make_step(
    model: nn.Module, compiled: bool, bfloat16: bool, fused: bool = False
) -> Callable[..., None]:
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=fused)
    predict = torch.compile(model) if compiled else model

    def step(audio: torch.Tensor, visual: torch.Tensor, target: torch.Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        with _precision(bfloat16):
            logits = predict(audio, visual)
        segment_loss(logits.float(), target).backward()
        optimizer.step()

    return step


def _random_inputs(
    batch_size: int, num_segments: int, visual_shape: list[int]
) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.rand((batch_size, num_segments, *shape), generator=generator)
        for shape in ((128,), visual_shape)
    ]
