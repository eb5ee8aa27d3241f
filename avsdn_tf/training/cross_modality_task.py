"""What cross-modality localization asks of the trainer: its batches, loss and score."""

import functools
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from avsdn_tf import cross_modality, data, losses
from avsdn_tf.cross_modality import Distances
from avsdn_tf.errors import UserError
from avsdn_tf.models import AVDLN
from avsdn_tf.models.avdln import embedding_distance
from avsdn_tf.training.config import Config


class MatchingTask:
    """Learns which segments' sound and picture belong to one event.

    A training pair is the sound and the picture of one segment; they belong together if
    the segment is an event. As accuracy of pairs counts how many are nearer to 0 than
    to the margin where they belong together, and not where they don't.

    Args:
        model: The network that is trained.
        config: The settings.
        dataset: The data.
    """

    def __init__(self, model: AVDLN, config: Config, dataset: data.Dataset) -> None:
        self.model = model
        self._config = config
        self._dataset = dataset
        self._loss = losses.ContrastiveLoss()
        self._measure = make_measure(model)
        # Made once, and read anew in each epoch.
        self._validation: dict[data.Part, tf.data.Dataset] = {}

    @functools.cached_property
    def num_clips(self) -> dict[str, int]:
        """How many clips each split has."""
        return data.count_matching_clips(self._dataset)

    @property
    def num_batches(self) -> int:
        """How many batches an epoch has."""
        pairs = self.num_clips["train"] * self._dataset.num_segments
        return -(-pairs // self._config.batch_size)

    def training_batches(
        self, epochs: Sequence[int] = (1,), part: data.Part = data.WHOLE
    ) -> tf.data.Dataset:
        """Returns the batches of epochs, or a worker's part of each."""
        return data.matching_segments(
            self._dataset,
            "train",
            batch_size=self._config.batch_size,
            seed=self._config.seed,
            epochs=epochs,
            part=part,
        )

    def score_batch(self, batch: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the loss of each pair of a batch, and 1 where it is right, else 0."""
        target = batch["target"]
        distances = self.model(
            {"audio": batch["audio"], "visual": batch["visual"]}, training=True
        )
        correct = (distances < self._loss.margin / 2) == (target > 0)
        return self._loss.call(target, distances), tf.cast(correct, tf.float32)

    def score_validation(self, part: data.Part = data.WHOLE) -> tuple[float, float]:
        """Returns how often A2V and V2A are right on the validation split, of how many.

        Args:
            part: Whose share of the split to score.

        Raises:
            UserError: If no clip of that split can be scored.
        """
        if part not in self._validation:
            self._validation[part] = data.matching_clips(
                self._dataset, "validation", part=part
            )
        distances = self._measure(self._validation[part])
        scored = cross_modality.is_scored(distances.labels)
        if part.num_workers > 1 and not scored.any():
            # Those of other workers may be scored.
            return 0, 0
        try:
            right = np.concatenate(cross_modality.right_starts(distances))
        except ValueError as error:
            raise UserError(f"{self._config.dataset}, validation: {error}") from error
        return right.sum(), right.size


def make_measure(model: keras.Model) -> Callable[[tf.data.Dataset], Distances]:
    """Returns a function that measures the distances in `data.matching_clips`.

    It compares every audio segment of a clip with every visual one; made once, it is
    traced once.
    """

    @tf.function(reduce_retracing=True, autograph=False)
    def distances_of(audio: tf.Tensor, visual: tf.Tensor) -> tf.Tensor:
        heard = model.embed_audio(audio)[:, :, tf.newaxis]
        # A mean of half-precision maps is to be more precise than they are.
        seen = model.embed_visual(tf.cast(visual, tf.float32))[:, tf.newaxis]
        return embedding_distance(heard, seen)

    def measure(batches: tf.data.Dataset) -> Distances:
        parts: dict[str, list[np.ndarray]] = {"row": [], "distances": [], "labels": []}
        for batch in batches:
            distances = distances_of(batch["audio"], batch["visual"])
            parts["row"].append(batch["row"].numpy())
            parts["distances"].append(distances.numpy())
            parts["labels"].append(batch["is_event"].numpy())
        return Distances(
            **{name: np.concatenate(values) for name, values in parts.items()}
        )

    return measure
