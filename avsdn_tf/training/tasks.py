"""What is learnt: batches, loss and score of each task.

`SegmentTask` learns the class of every segment, supervised or weak;
`CrossModalityTask` learns which segments' sound and picture belong together.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from avsdn_tf import cross_modality, evaluation, losses
from avsdn_tf.cross_modality import Distances
from avsdn_tf.data import batches
from avsdn_tf.data import cross_modality as pairs
from avsdn_tf.data.batches import ALL, InputShard
from avsdn_tf.data.dataset import Dataset
from avsdn_tf.errors import UserError
from avsdn_tf.evaluation import Predictions
from avsdn_tf.models import AVDLN, SegmentClassifier
from avsdn_tf.models.avdln import embedding_distance
from avsdn_tf.training.build import build_model
from avsdn_tf.training.config import CROSS_MODAL, Config

_SPLITS = ("train", "validation", "test")
Batch = dict[str, tf.Tensor]


class Task:
    """What the training loop needs of a task.

    Args:
        model: The network that is trained.
        config: The settings.
        dataset: The data.

    Attributes:
        model: The network.
        num_clips: Clips of each split.
        num_batches: Batches of an epoch.
    """

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

    def score_validation(self, shard: InputShard = ALL) -> tuple[float, float]:
        """Return how much of a worker's part of the validation split is right.

        Returns:
            How much is right, and how much there is. Their ratio selects the epoch.
        """
        raise NotImplementedError

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


def build_task(config: Config, dataset: Dataset) -> Task:
    """Build the task that the mode names, with a new network.

    Raises:
        UserError: If the settings don't fit each other, or the data.
    """
    _training_label(config, dataset)  # Raises if clips lack the times of their events.
    make = CrossModalityTask if config.mode == CROSS_MODAL else SegmentTask
    return make(build_model(config, dataset), config, dataset)


def restore_task(model: keras.Model, config: Config, dataset: Dataset) -> Task:
    """Build the task around a trained network.

    Raises:
        UserError: If the data set is not of the network's categories and shapes.
    """
    names = ["audio_width", "visual_shape"]
    # AVDLN doesn't know categories.
    if config.mode != CROSS_MODAL:
        names.append("categories")
    for name in names:
        learnt, found = (
            np.array(getattr(one, name)).tolist() for one in (model, dataset)
        )
        if learnt != found:
            raise UserError(
                f"The run has learnt {name} {learnt}, and the data set has {found}: it "
                "was built from other files. Build it from those of the run, or choose "
                "another data_dir.",
                field="dataset",
                value=config.dataset,
            )
    make = CrossModalityTask if config.mode == CROSS_MODAL else SegmentTask
    return make(model, config, dataset)


class SegmentTask(Task):
    """Learns the class of every segment, from segment labels or from clip labels.

    Scores are those of `evaluation.evaluate`.

    Raises:
        UserError: If the data set lacks times or background clips that the settings
            ask for.
    """

    def __init__(
        self, model: SegmentClassifier, config: Config, dataset: Dataset
    ) -> None:
        super().__init__(model, config, dataset)
        self._label = _training_label(config, dataset)
        self._splits = _training_splits(config, dataset)
        self._loss = build_loss(config)
        self._predict = make_predict(model)

    @property
    def num_clips(self) -> dict[str, int]:
        """Clips of each split."""
        return {split: self._dataset.num_clips(split) for split in _SPLITS}

    @property
    def num_batches(self) -> int:
        """Batches of an epoch."""
        num_clips = sum(map(self._dataset.num_clips, self._splits))
        return -(-num_clips // self._config.batch_size)

    def training_batches(
        self, epochs: Sequence[int] = (1,), shard: InputShard = ALL
    ) -> tf.data.Dataset:
        """Return a worker's part of the batches of epochs."""
        return batches.training_batches(
            self._dataset,
            self._splits,
            self._label,
            batch_size=self._config.batch_size,
            seed=self._config.seed,
            epochs=epochs,
            shard=shard,
        )

    def score_batch(self, batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
        """Return each clip's loss, and the share of its labels that is right."""
        inputs = {"audio": batch["audio"], "visual": batch["visual"]}
        outputs = self.model.compute_outputs(inputs, training=True)
        target = batch["target"]
        smoothing = self._config.label_smoothing
        smooth = (1 - smoothing) * target + smoothing / self.model.num_classes
        loss_values = self.model.clip_losses(self._loss, smooth, outputs)
        scored = outputs["logits"]
        if isinstance(self._loss, losses.ClipLoss):
            scored = self._loss.pool(scored)
        right = tf.cast(tf.argmax(scored, -1) == tf.argmax(target, -1), tf.float32)
        if right.shape.rank == 2:
            right = tf.reduce_mean(right, axis=1)
        return loss_values, right

    def score_validation(self, shard: InputShard = ALL) -> tuple[float, float]:
        """Return how many of the validation split's segments are right, of how many."""
        predictions = self._predict(self._validation(shard))
        right = predictions.labels == predictions.logits.argmax(axis=-1)
        return right.sum(), right.size

    @functools.lru_cache(maxsize=1)  # noqa: B019 A task lives as long as its process.
    def _validation(self, shard: InputShard) -> tf.data.Dataset:
        return batches.scoring_batches(
            self._dataset, "validation", self._config.batch_size, shard
        )

    def evaluate(self, split: str) -> tuple[dict[str, Any], Predictions]:
        """Return a split's scores, ready for JSON, and the predictions."""
        predictions = self._predict(batches.scoring_batches(self._dataset, split))
        with self._named(split):
            scores = evaluation.evaluate(predictions, self._dataset.categories)
        return scores, predictions


class CrossModalityTask(Task):
    """Learns which segments' sound and picture belong to one event.

    A training pair is the sound and the picture of one segment, which belong together
    where the segment is an event. A pair is right if its distance is nearer to 0 than
    to the margin where it belongs together, and farther where it doesn't. Scores are
    those of `cross_modality.evaluate`.
    """

    def __init__(self, model: AVDLN, config: Config, dataset: Dataset) -> None:
        super().__init__(model, config, dataset)
        self._loss = losses.ContrastiveLoss()
        self._measure = make_measure(model)

    @functools.cached_property
    def num_clips(self) -> dict[str, int]:
        """Clips of each split of this task."""
        return pairs.count_clips(self._dataset)

    @property
    def num_batches(self) -> int:
        """Batches of an epoch."""
        num_pairs = self.num_clips["train"] * self._dataset.num_segments
        return -(-num_pairs // self._config.batch_size)

    def training_batches(
        self, epochs: Sequence[int] = (1,), shard: InputShard = ALL
    ) -> tf.data.Dataset:
        """Return a worker's part of the batches of epochs."""
        return pairs.segment_pairs(
            self._dataset,
            "train",
            batch_size=self._config.batch_size,
            seed=self._config.seed,
            epochs=epochs,
            shard=shard,
        )

    def score_batch(self, batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
        """Return each pair's loss, and 1 where it is right, else 0."""
        target = batch["target"]
        inputs = {"audio": batch["audio"], "visual": batch["visual"]}
        distances = self.model(inputs, training=True)
        right = (distances < self._loss.margin / 2) == (target > 0)
        return self._loss.call(target, distances), tf.cast(right, tf.float32)

    def score_validation(self, shard: InputShard = ALL) -> tuple[float, float]:
        """Return how often A2V and V2A are right on validation, and of how many."""
        distances = self._measure(self._validation(shard))
        if (
            shard.num_workers > 1
            and not cross_modality.is_scored(distances.labels).any()
        ):
            return 0, 0
        with self._named("validation"):
            right = np.concatenate(cross_modality.right_starts(distances))
        return right.sum(), right.size

    @functools.lru_cache(maxsize=1)  # noqa: B019 A task lives as long as its process.
    def _validation(self, shard: InputShard) -> tf.data.Dataset:
        return pairs.scoring_clips(self._dataset, "validation", shard=shard)

    def evaluate(self, split: str) -> tuple[dict[str, Any], Distances]:
        """Return a split's scores, ready for JSON, and the distances."""
        distances = self._measure(pairs.scoring_clips(self._dataset, split))
        with self._named(split):
            return cross_modality.evaluate(distances), distances


def build_loss(config: Config) -> keras.losses.Loss:
    """Return the loss: on segments if supervised, on pooled clips if weak."""
    loss = losses.LOSSES[config.loss]()
    return (
        loss if config.mode == "supervised" else losses.ClipLoss(loss, config.pooling)
    )


def _training_label(config: Config, dataset: Dataset) -> str:
    """Return the feature that becomes the target."""
    if config.mode == "weak" and config.weak_label != "average":
        return "clip_label"
    if not dataset.has_times:
        raise UserError(
            "This data set has clips without start and end. Expected mode weak with "
            "weak_label mil, which learns from their category alone. Received mode "
            f"{config.mode}, weak_label {config.weak_label}.",
            field="dataset",
            value=config.dataset,
        )
    return "segment_labels" if config.mode == "supervised" else "segment_label_mean"


def _training_splits(config: Config, dataset: Dataset) -> tuple[str, ...]:
    if config.mode != "weak" or config.weak_label != "mil_background":
        return ("train",)
    if "background" not in dataset.splits:
        raise UserError(
            f"{config.dataset} has no background clips. Take mil, or build AVE's "
            "feature files with the noisy ones in the manual folder.",
            field="weak_label",
            value=config.weak_label,
        )
    return ("train", "background")


def make_logits(model: SegmentClassifier) -> Callable[[Batch], tf.Tensor]:
    """Return a graph of segment logits, traced once for all batch sizes."""

    # Layers hold no data-dependent Python; skip AutoGraph.
    @tf.function(reduce_retracing=True, autograph=False)
    def logits_of(inputs: Batch) -> tf.Tensor:
        return model(inputs, training=False)

    return logits_of


def make_predict(
    model: SegmentClassifier,
) -> Callable[[tf.data.Dataset], Predictions]:
    """Return a function from `batches.scoring_batches` to predictions."""
    logits_of = make_logits(model)

    def predict(scored: tf.data.Dataset) -> Predictions:
        names, spec = ("audio", "visual"), scored.element_spec
        # Traced by the spec, whose batch size is free: the last batch is smaller.
        graph = logits_of.get_concrete_function({name: spec[name] for name in names})

        def outputs_of(batch: Batch) -> dict[str, tf.Tensor]:
            logits = graph({name: batch[name] for name in names})
            return {
                "row": batch["row"],
                "logits": logits,
                "labels": batch["segment_labels"],
                "clip_labels": batch["clip_label"],
            }

        return Predictions(**_collect(scored, outputs_of))

    return predict


def make_measure(model: AVDLN) -> Callable[[tf.data.Dataset], Distances]:
    """Return a function from `cross_modality.scoring_clips` to distances.

    It compares every audio segment of a clip with every visual one.
    """

    @tf.function(reduce_retracing=True, autograph=False)
    def distances_of(audio: tf.Tensor, visual: tf.Tensor) -> tf.Tensor:
        heard = model.embed_audio(audio)[:, :, tf.newaxis]
        # The mean of half-precision maps needs more digits than they have.
        seen = model.embed_visual(tf.cast(visual, tf.float32))[:, tf.newaxis]
        return embedding_distance(heard, seen)

    def measure(clips: tf.data.Dataset) -> Distances:
        def outputs_of(batch: Batch) -> dict[str, tf.Tensor]:
            distances = distances_of(batch["audio"], batch["visual"])
            labels = batch["is_event"]
            return {"row": batch["row"], "distances": distances, "labels": labels}

        return Distances(**_collect(clips, outputs_of))

    return measure


def _collect(
    scored: tf.data.Dataset, outputs_of: Callable[[Batch], dict[str, tf.Tensor]]
) -> dict[str, np.ndarray]:
    """Return the outputs of all batches, joined by name."""
    parts = [outputs_of(batch) for batch in scored]
    return {
        name: np.concatenate([part[name].numpy() for part in parts])
        for name in parts[0]
    }
