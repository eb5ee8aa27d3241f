"""The interface of training tasks, and the collection of a split's outputs."""

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
    """Interface between the training loop and a task.

    Args:
        model: The network to train.
        config: The settings.
        dataset: The data.

    Attributes:
        model: The network.
        selection: Name of the validation score that selects the epoch.
        num_clips: Number of clips in each split.
        num_batches: Number of batches in an epoch.
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
        """Return a worker's shard of the batches of one or more epochs."""
        raise NotImplementedError

    def score_batch(self, batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
        """Return loss and accuracy of each sample of a batch, `(batch,)` each."""
        raise NotImplementedError

    def count_validation(self, shard: InputShard = ALL) -> np.ndarray:
        """Return the counts of a worker's shard of the validation split.

        `score_validation` receives the sums of the counts over all workers.
        """
        raise NotImplementedError

    def score_validation(self, counts: np.ndarray) -> float | None:
        """Return the score that selects the epoch, or None if it is undefined.

        By default, `counts` are the numbers of correct and of all samples.
        """
        correct, total = counts
        return float(correct / total) if total else None

    def evaluate(self, split: str) -> tuple[dict[str, Any], Predictions | Distances]:
        """Return a split's JSON-ready scores, and the network's outputs.

        Raises:
            UserError: If an output is not finite, or there is nothing to score.
        """
        raise NotImplementedError

    @contextlib.contextmanager
    def _named(self, split: str) -> Iterator[None]:
        """Convert a ValueError to a UserError that names the data set and the split."""
        try:
            yield
        except ValueError as error:
            raise UserError(f"{self._dataset.name}, {split}: {error}") from error


def collect(
    scored: tf.data.Dataset,
    outputs_of: Callable[[Batch], Mapping[str, Any]],
    padding: Mapping[str, int],
) -> dict[str, np.ndarray]:
    """Return the concatenated outputs of all batches, by name.

    Args:
        scored: The batches.
        outputs_of: Function that returns a batch's outputs, with one row per clip.
        padding: Padding value of outputs whose number of segments varies, by name.
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
