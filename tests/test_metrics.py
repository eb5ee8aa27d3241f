"""Tests of avsdn_tf.metrics: streaming gives the scores of the reports."""

import keras
import numpy as np
import pytest

from avsdn_tf import evaluation
from avsdn_tf.metrics import (
    BackgroundRecall,
    EventF1,
    SegmentAccuracy,
    count_events,
)

METRICS = {
    SegmentAccuracy: evaluation.accuracy,
    BackgroundRecall: lambda *args: evaluation.background_recall(*args, 3),
    EventF1: lambda *args: evaluation.event_f1(*args, 3),
}
every_metric = pytest.mark.parametrize("kind", METRICS)


@pytest.fixture
def split(rng):
    """Labels with one event a clip, and logits that are often right."""
    labels = np.full((30, 10), 3)
    for clip in labels:
        start, end = sorted(rng.integers(0, 11, 2))
        clip[start:end] = rng.integers(3)
    logits = 2 * np.eye(4)[labels] + rng.normal(size=(30, 10, 4))
    return labels, logits.astype("f")


def softmax(logits):
    e = np.exp(logits)
    return e / e.sum(-1, keepdims=True)


@every_metric
@pytest.mark.parametrize("form", ["indices", "one-hot", "distribution", "last axis 1"])
@pytest.mark.parametrize("scale", [lambda x: x, softmax], ids=["logits", "softmax"])
def test_unequal_batches_give_the_score_of_the_report(kind, form, scale, split):
    labels, logits = split
    expected = METRICS[kind](labels, logits.argmax(-1))
    y_true = {
        "indices": labels,
        "one-hot": np.eye(4, dtype="f")[labels],
        "distribution": 0.9 * np.eye(4)[labels] + 0.025,
        "last axis 1": labels[..., None],
    }[form]
    metric = kind()
    for clips in (slice(0, 7), slice(7, 28), slice(28, 30)):
        metric.update_state(y_true[clips], scale(logits[clips]))
    assert float(metric.result()) == pytest.approx(expected)
    # The mean of the batches' scores is another number.
    assert 0 < expected < 1
    metric.reset_state()
    assert float(metric.result()) == 0


@every_metric
def test_weights_count_clips_several_times(kind, split):
    labels, logits = split
    times = np.arange(30) % 3
    repeated = kind()
    repeated.update_state(np.repeat(labels, times, 0), np.repeat(logits, times, 0))
    for weights in (times, np.repeat(times[:, None], 10, axis=1)):
        weighted = kind()
        weighted.update_state(labels, logits, sample_weight=weights)
        assert float(weighted.result()) == pytest.approx(float(repeated.result()))


def test_weights_of_segments_by_hand():
    labels, logits = np.array([[0, 1]]), np.eye(2)[[[0, 0]]]
    accuracy, recall = SegmentAccuracy(), BackgroundRecall()
    for metric in (accuracy, recall):
        metric.update_state(labels, logits, sample_weight=[[3.0, 1.0]])
    assert float(accuracy.result()) == 0.75
    assert float(recall.result()) == 0.0


@every_metric
def test_lengths_may_change_between_batches(kind, split):
    labels, logits = split
    metric = kind()
    metric.update_state(labels[:, :4], logits[:, :4])
    metric.update_state(labels[:, 4:9], logits[:, 4:9])
    assert 0 < float(metric.result()) < 1


def test_counts_of_events_by_hand():
    # Bark [0, 2) of [0, 4) is just half; the second clip's violin misses its category.
    labels = np.array([[0, 0, 0, 0, 2], [2, 1, 1, 2, 2]])
    predicted = np.array([[0, 0, 2, 2, 2], [2, 0, 0, 2, 1]])
    right, events = count_events(labels, predicted, background=2)
    np.testing.assert_array_equal(right, [2, 0])
    np.testing.assert_array_equal(events, [2, 3])
    right, _ = count_events(labels, predicted, background=2, iou=0.6)
    np.testing.assert_array_equal(right, [0, 0])


@every_metric
def test_a_metric_survives_its_config_and_its_name(kind):
    metric = EventF1(iou=0.75) if kind is EventF1 else kind(name="own")
    config = keras.saving.serialize_keras_object(metric)
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is kind
    assert again.get_config() == metric.get_config()
    name = f"avsdn_tf>{kind.__name__}"
    assert keras.metrics.deserialize(name) is kind
    assert isinstance(keras.metrics.get({"class_name": name, "config": {}}), kind)


def test_what_does_not_fit_is_refused(split):
    labels, logits = split
    with pytest.raises(ValueError, match="iou"):
        EventF1(iou=0.4)
    with pytest.raises(ValueError, match="class indices"):
        SegmentAccuracy().update_state(labels[:, :9], logits)
    with pytest.raises(ValueError, match="class indices"):
        SegmentAccuracy().update_state(labels[:, 0], logits)
    with pytest.raises(ValueError, match="num_segments"):
        SegmentAccuracy().update_state(labels, logits[:, 0])
