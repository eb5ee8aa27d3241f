"""What the training loop needs of a task, and how outputs of a split are collected."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from avsdn_tf.cross_modality import Distances
from avsdn_tf.data.batches import ALL, InputShard
from avsdn_tf.data.dataset import Dataset
from avsdn_tf.errors import UserError
from avsdn_tf.evaluation import Predictions
from avsdn_tf.training.config import Config

Batch = dict[str, tf.Tensor]


class Task:
    """What the training loop needs of a task.

    Args:
        model: The network that is trained.
        config: The settings.
        dataset: The data.

    Attributes:
        model: The network.
        selection: Name of the validation score that selects the epoch.
        num_clips: Clips of each split.
        num_batches: Batches of an epoch.
    """

    selection = "validation_accuracy"
    num_clips: dict[str, int]
    num_batches: int

    def __init__(self, model: keras.Model, config: Config, dataset: Dataset) -> None:
        self.model = model
        self._config = config
        self._dataset = dataset

    def training_batches(
        self, epochs: Sequence[int] = (1,), shard: InputShard = ALL
    ) -> tf.data.Dataset:
        """Return a worker's part of the batches of epochs."""
        raise NotImplementedError

    def score_batch(self, batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
        """Return loss and accuracy of each of a batch's samples, `(batch,)` both."""
        raise NotImplementedError

    def count_validation(self, shard: InputShard = ALL) -> np.ndarray:
        """Return counts of a worker's part of the validation split.

        The sum of all workers' counts goes into `score_validation`.
        """
        raise NotImplementedError

    def score_validation(self, counts: np.ndarray) -> float | None:
        """Return the score that selects the epoch; None if there is nothing to score.

        Here, the counts are how much is right, and how much there is.
        """
        right, total = counts
        return float(right / total) if total else None

    def evaluate(self, split: str) -> tuple[dict[str, Any], Predictions | Distances]:
        """Return a split's scores, ready for JSON, and the network's outputs.

        Raises:
            UserError: If an output is not finite, or nothing can be scored.
        """
        raise NotImplementedError

    @contextlib.contextmanager
    def _named(self, split: str) -> Iterator[None]:
        """Name data set and split in the errors of scoring."""
        try:
            yield
        except ValueError as error:
            raise UserError(f"{self._dataset.name}, {split}: {error}") from error


def collect(
    scored: tf.data.Dataset,
    outputs_of: Callable[[Batch], Mapping[str, Any]],
    padding: Mapping[str, int],
) -> dict[str, np.ndarray]:
    """Return the outputs of all batches, joined by name.

    Args:
        scored: The batches.
        outputs_of: Returns a batch's outputs, with one row a clip.
        padding: Value that pads outputs of fewer segments than those of other batches.
    """
    parts = [outputs_of(batch) for batch in scored]
    return {
        name: _concatenate(
            [np.asarray(part[name]) for part in parts], padding.get(name)
        )
        for name in parts[0]
    }


def _concatenate(arrays: list[np.ndarray], padding: int | None) -> np.ndarray:
    if padding is not None:
        longest = max(array.shape[1] for array in arrays)
        for i, array in enumerate(arrays):
            missing = longest - array.shape[1]
            if missing:
                widths = [(0, 0), (0, missing), *[(0, 0)] * (array.ndim - 2)]
                arrays[i] = np.pad(array, widths, constant_values=padding)
    return np.concatenate(arrays)
