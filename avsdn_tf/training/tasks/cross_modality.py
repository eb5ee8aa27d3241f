"""The task of cross-modality localization."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from avsdn_tf import cross_modality, losses
from avsdn_tf.cross_modality import Distances
from avsdn_tf.data import cross_modality as pairs
from avsdn_tf.data.batches import ALL, InputShard
from avsdn_tf.data.dataset import Dataset
from avsdn_tf.models import AVDLN
from avsdn_tf.models.avdln import embedding_distance
from avsdn_tf.training.config import Config
from avsdn_tf.training.tasks.base import Batch, Task, collect


class CrossModalityTask(Task):
    """Task that trains the distance between audio and visual segments.

    A training pair is the audio and the visual feature of one segment, and matches if
    the segment is an event. The network predicts a match if the distance is below half
    the margin of the loss. `cross_modality.evaluate` computes the scores of a split.
    """

    def __init__(self, model: AVDLN, config: Config, dataset: Dataset) -> None:
        super().__init__(model, config, dataset)
        self._loss = losses.ContrastiveLoss()
        self._measure = make_measure(model)

    @functools.cached_property
    def num_clips(self) -> dict[str, int]:
        """Number of clips in each split of this task."""
        return pairs.count_clips(self._dataset)

    @property
    def num_batches(self) -> int:
        """Number of batches in an epoch."""
        num_pairs = self.num_clips["train"] * self._dataset.num_segments
        return -(-num_pairs // self._config.batch_size)

    def training_batches(
        self, epochs: Sequence[int] = (1,), shard: InputShard = ALL
    ) -> tf.data.Dataset:
        """Return a worker's shard of the batches of one or more epochs."""
        return pairs.segment_pairs(
            self._dataset,
            "train",
            batch_size=self._config.batch_size,
            seed=self._config.seed,
            epochs=epochs,
            shard=shard,
        )

    def score_batch(self, batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
        """Return each pair's loss, and 1 if its prediction is correct, else 0."""
        target = batch["target"]
        inputs = {"audio": batch["audio"], "visual": batch["visual"]}
        distances = self.model(inputs, training=True)
        correct = (distances < self._loss.margin / 2) == (target > 0)
        return self._loss.call(target, distances), tf.cast(correct, tf.float32)

    def count_validation(self, shard: InputShard = ALL) -> np.ndarray:
        """Count the correct and the total localizations, A2V plus V2A, `(2,)`."""
        distances = self._measure(self._validation(shard))
        if (
            shard.num_workers > 1
            and not cross_modality.is_scored(distances.labels).any()
        ):
            return np.zeros(2)
        with self._named("validation"):
            correct = np.concatenate(cross_modality.right_starts(distances))
        return np.array([correct.sum(), correct.size])

    @functools.lru_cache(maxsize=1)  # noqa: B019 A task lives as long as its process.
    def _validation(self, shard: InputShard) -> tf.data.Dataset:
        return pairs.scoring_clips(self._dataset, "validation", shard=shard)

    def evaluate(self, split: str) -> tuple[dict[str, Any], Distances]:
        """Return a split's JSON-ready scores, and the distances."""
        distances = self._measure(pairs.scoring_clips(self._dataset, split))
        with self._named(split):
            return cross_modality.evaluate(distances), distances


def make_measure(model: AVDLN) -> Callable[[tf.data.Dataset], Distances]:
    """Return a function that computes distances from batches of `scoring_clips`.

    Each clip has a distance between every audio and every visual segment.
    """

    @tf.function(reduce_retracing=True, autograph=False)
    def distances_of(audio: tf.Tensor, visual: tf.Tensor) -> tf.Tensor:
        audio = model.embed_audio(audio)[:, :, tf.newaxis]
        # The mean over a half-precision map would lose precision.
        visual = model.embed_visual(tf.cast(visual, tf.float32))[:, tf.newaxis]
        return embedding_distance(audio, visual)

    def measure(clips: tf.data.Dataset) -> Distances:
        def outputs_of(batch: Batch) -> dict[str, tf.Tensor]:
            distances = distances_of(batch["audio"], batch["visual"])
            labels = batch["is_event"]
            return {"row": batch["row"], "distances": distances, "labels": labels}

        return Distances(**collect(clips, outputs_of, padding={}))

    return measure
