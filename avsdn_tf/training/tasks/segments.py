"""The task of labelling segments: supervised or weak, single-label or multi-label."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from avsdn_tf import evaluation, losses
from avsdn_tf.data import batches
from avsdn_tf.data.batches import ALL, InputShard
from avsdn_tf.data.dataset import Dataset
from avsdn_tf.errors import UserError
from avsdn_tf.evaluation import Predictions
from avsdn_tf.models import SegmentClassifier
from avsdn_tf.training.config import Config
from avsdn_tf.training.tasks import thresholds
from avsdn_tf.training.tasks.base import Batch, Task, collect

_SPLITS = ("train", "validation", "test")
_WINDOWS_A_BATCH = 64


class SegmentTask(Task):
    """Trains a network to classify every segment, from segment labels or clip labels.

    Scores are those of `evaluation.evaluate`. The thresholds of a multi-label network
    are chosen on the validation split.

    Raises:
        UserError: If the settings need event times or background clips, and the data
            set has none.
    """

    def __init__(
        self, model: SegmentClassifier, config: Config, dataset: Dataset
    ) -> None:
        super().__init__(model, config, dataset)
        self._label = training_label(config, dataset)
        self._splits = _training_splits(config, dataset)
        self._loss = build_loss(config, model.multi_label)
        self._predict = make_predict(model)
        if model.multi_label:
            self.selection = "validation_f1"

    @property
    def num_clips(self) -> dict[str, int]:
        """Number of clips in each split."""
        return {split: self._dataset.num_clips(split) for split in _SPLITS}

    @property
    def num_batches(self) -> int:
        """Number of batches in an epoch."""
        num_clips = sum(map(self._dataset.num_clips, self._splits))
        return -(-num_clips // self._config.batch_size)

    def training_batches(
        self, epochs: Sequence[int] = (1,), shard: InputShard = ALL
    ) -> tf.data.Dataset:
        """Return a worker's part of the batches of all `epochs`."""
        return batches.training_batches(
            self._dataset,
            self._splits,
            self._label,
            batch_size=self._config.batch_size,
            seed=self._config.seed,
            epochs=epochs,
            shard=shard,
            multi_label=self.model.multi_label,
        )

    def score_batch(self, batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
        """Return each clip's loss, and its fraction of correct labels."""
        inputs, mask = _inputs_of(batch)
        outputs = self.model.compute_outputs(inputs, training=True)
        target = batch["target"]
        smoothing = self._config.label_smoothing
        # Smooth class targets toward 1 / num_classes, multi-label targets toward 0.5.
        spread = 2 if self.model.multi_label else self.model.num_classes
        smooth = (1 - smoothing) * target + smoothing / spread
        loss_values = self.model.clip_losses(self._loss, smooth, outputs, mask)
        return loss_values, self._accuracies(target, outputs["logits"], mask)

    def _accuracies(
        self, target: tf.Tensor, logits: tf.Tensor, mask: tf.Tensor | None
    ) -> tf.Tensor:
        """Return the fraction of correct labels of each clip, `(batch,)`."""
        is_pooled = isinstance(self._loss, losses.ClipLoss)
        scored = self._loss.pool(logits, mask) if is_pooled else logits
        if self.model.multi_label:
            # Multi-label ClipLoss pools probabilities.
            is_active = scored > (0.5 if is_pooled else 0.0)
            correct = tf.cast(is_active == (target > 0.5), tf.float32)
            correct = tf.reduce_mean(correct, axis=-1)
        else:
            is_correct = tf.argmax(scored, -1) == tf.argmax(target, -1)
            correct = tf.cast(is_correct, tf.float32)
        if correct.shape.rank == 1:
            return correct
        return losses.mean_over_segments(correct, mask)

    def count_validation(self, shard: InputShard = ALL) -> np.ndarray:
        """Count the correct segments, and all segments, of the validation split.

        For a multi-label network, return the counts of `thresholds.count`.
        """
        predictions = self._predict(self._validation(shard))
        if self.model.multi_label:
            return thresholds.count(predictions.logits, predictions.labels)
        correct = predictions.labels == predictions.logits.argmax(axis=-1)
        return np.array([correct.sum(), (predictions.labels >= 0).sum()])

    def score_validation(self, counts: np.ndarray) -> float | None:
        """Return the score that selects the epoch; set thresholds if multi-label."""
        if not self.model.multi_label:
            return super().score_validation(counts)
        self.model.thresholds, score = thresholds.choose(counts)
        return score

    @functools.lru_cache(maxsize=1)  # noqa: B019 A task lives as long as its process.
    def _validation(self, shard: InputShard) -> tf.data.Dataset:
        return self._scored("validation", self._config.batch_size, shard)

    def _scored(self, split: str, *args: Any) -> tf.data.Dataset:
        return batches.scoring_batches(
            self._dataset, split, *args, multi_label=self.model.multi_label
        )

    def evaluate(self, split: str) -> tuple[dict[str, Any], Predictions]:
        """Return a split's JSON-ready scores, and the predictions."""
        predictions = self._predict(self._scored(split))
        with self._named(split):
            scores = evaluation.evaluate(
                predictions, self._dataset.categories, self.model.thresholds
            )
        return scores, predictions


def build_loss(config: Config, multi_label: bool = False) -> keras.losses.Loss:
    """Return the loss of segments if supervised, of pooled clips if weak.

    Raises:
        UserError: If the loss doesn't fit a multi-label network.
    """
    is_weak = config.mode == "weak"
    if not multi_label:
        loss = losses.LOSSES[config.loss]()
        return losses.ClipLoss(loss, config.pooling) if is_weak else loss
    if config.loss != "binary_crossentropy":
        raise UserError(
            "Expected binary_crossentropy: a multi-label network has no softmax.",
            field="loss",
            value=config.loss,
        )
    if is_weak:
        loss = keras.losses.BinaryCrossentropy()
        return losses.ClipLoss(loss, config.pooling, activation="sigmoid")
    return keras.losses.BinaryCrossentropy(from_logits=True)


def training_label(config: Config, dataset: Dataset) -> str:
    """Return the name of the label that training uses as target.

    Raises:
        UserError: If the label needs event times, and the data set has none.
    """
    if config.mode == "weak" and config.weak_label.startswith("mil"):
        return "clip_label"
    if not dataset.has_times:
        raise UserError(
            "This data set has events without start and end. Expected mode weak with "
            "weak_label mil, which needs only categories. Received mode "
            f"{config.mode}, weak_label {config.weak_label}.",
            field="dataset",
            value=config.dataset,
        )
    return "segment_labels" if config.mode == "supervised" else "segment_label_mean"


def _training_splits(config: Config, dataset: Dataset) -> tuple[str, ...]:
    if config.mode != "weak" or not config.weak_label.endswith("_background"):
        return ("train",)
    if "background" not in dataset.splits:
        raise UserError(
            f"{config.dataset} has no split of background clips, which is built from "
            f"AVE's noisy feature files. Use {config.weak_label.split('_')[0]}, which "
            "needs no background clips.",
            field="weak_label",
            value=config.weak_label,
        )
    return ("train", "background")


def _inputs_of(batch: Batch) -> tuple[Batch, tf.Tensor | None]:
    """Return a network's inputs, and their mask or None."""
    inputs = {"audio": batch["audio"], "visual": batch["visual"]}
    if "length" not in batch:
        return inputs, None
    mask = tf.sequence_mask(batch["length"], tf.shape(batch["audio"])[1])
    return {**inputs, "mask": mask}, mask


def make_logits(model: SegmentClassifier) -> Callable[[Batch], tf.Tensor]:
    """Return a graph that computes segment logits for any batch size."""

    # The layers have no data-dependent Python; skip AutoGraph.
    @tf.function(reduce_retracing=True, autograph=False)
    def logits_of(inputs: Batch) -> tf.Tensor:
        return model(inputs, training=False)

    return logits_of


def make_predict(
    model: SegmentClassifier,
) -> Callable[[tf.data.Dataset], Predictions]:
    """Return a function from batches of `scoring_batches` to predictions."""
    logits_of = make_logits(model)

    def predict(scored: tf.data.Dataset) -> Predictions:
        names, spec = ["audio", "visual"], dict(scored.element_spec)
        is_padded = "length" in spec
        if is_padded:
            window = model.num_segments
            for name in names:
                shape = (None, window, *spec[name].shape[2:])
                spec[name] = tf.TensorSpec(shape, spec[name].dtype)
            spec["mask"] = tf.TensorSpec((None, window), tf.bool)
            names.append("mask")
        # The spec has a free batch size, since the last batch may be smaller.
        graph = logits_of.get_concrete_function({name: spec[name] for name in names})

        def outputs_of(batch: Batch) -> dict[str, Any]:
            if is_padded:
                logits = _stitch(graph, batch, window)
            else:
                logits = graph({name: batch[name] for name in names})
            return {
                "row": batch["row"],
                "logits": logits,
                "labels": batch["segment_labels"],
                "clip_labels": batch["clip_label"],
            }

        padding = {"logits": 0, "labels": -1}
        return Predictions(**collect(scored, outputs_of, padding))

    return predict


def _stitch(
    graph: Callable[[Mapping[str, Any]], tf.Tensor], batch: Batch, window: int
) -> np.ndarray:
    """Return the logits of clips of any length, as `events.stitch_logits` does.

    The windows of all clips of the batch are computed together.

    Args:
        graph: Function that returns the logits of masked windows.
        batch: Clips, padded to the longest.
        window: Number of segments of a window.

    Returns:
        `(batch, num_segments, num_classes)`, 0 in padding.
    """
    lengths = batch["length"].numpy()
    pairs = [
        (clip, start)
        for clip, length in enumerate(lengths)
        for start in window_starts(length, window)
    ]
    clips, starts = np.array(pairs).T
    segments = starts[:, None] + np.arange(window)
    mask = segments < lengths[clips, None]
    audio, visual = batch["audio"].numpy(), batch["visual"].numpy()
    segments = np.minimum(segments, audio.shape[1] - 1)
    sums, counts = None, np.zeros(audio.shape[:2])
    for first in range(0, len(clips), _WINDOWS_A_BATCH):
        part = slice(first, first + _WINDOWS_A_BATCH)
        where = clips[part, None], segments[part]
        inputs = {"audio": audio[where], "visual": visual[where], "mask": mask[part]}
        logits = graph({n: tf.constant(v) for n, v in inputs.items()}).numpy()
        if sums is None:
            sums = np.zeros((*audio.shape[:2], logits.shape[2]), np.float32)
        is_real = mask[part]
        where = tuple(np.broadcast_to(w, is_real.shape)[is_real] for w in where)
        np.add.at(sums, where, logits[is_real])
        np.add.at(counts, where, 1)
    return sums / np.maximum(counts, 1)[..., None].astype(np.float32)


def window_starts(length: int, window: int) -> list[int]:
    """Return the first segments of windows that cover a clip and overlap by half.

    The last window ends with the clip; a clip shorter than a window has one window.
    """
    last = max(0, length - window)
    return [*range(0, last, max(1, window // 2)), last]
