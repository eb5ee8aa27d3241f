"""Keras metrics return the scores of the reports."""

import keras
import numpy as np
import pytest

import avsdn_tf
from avsdn_tf import evaluation
from avsdn_tf.metrics import (
    BackgroundRecall,
    EventF1,
    SegmentAccuracy,
    SegmentF1,
    count_events,
)


def segment_f1(labels, predicted, average="micro"):
    """Compute the F1 of segments of classes 0 to 2 in a loop over classes."""
    parts = [2 * ((labels == k) & (predicted == k)).sum() for k in range(3)]
    wholes = [(labels == k).sum() + (predicted == k).sum() for k in range(3)]
    if average == "micro":
        return sum(parts) / sum(wholes)
    return np.mean([p / w for p, w in zip(parts, wholes, strict=True) if w])


METRICS = {
    SegmentAccuracy: evaluation.accuracy,
    BackgroundRecall: lambda *args: evaluation.background_recall(*args, 3),
    EventF1: lambda *args: evaluation.event_f1(*args, 3),
    SegmentF1: segment_f1,
}
every_metric = pytest.mark.parametrize("kind", METRICS)


@pytest.fixture
def split(rng):
    """Return labels with one event a clip, and logits that are often right."""
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
def test_metrics_over_unequal_batches_equal_the_report(kind, form, scale, split):
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
    # At 0 or 1, averaging the batches' scores would also pass.
    assert 0 < expected < 1
    metric.reset_state()
    assert float(metric.result()) == 0


@every_metric
def test_integer_weights_equal_repeated_clips(kind, split):
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
    # Clip 1: bark [0, 2) matches bark [0, 4) with IoU 1/2. Clip 2: violin is predicted
    # as bark, and background as violin.
    labels = np.array([[0, 0, 0, 0, 2], [2, 1, 1, 2, 2]])
    predicted = np.array([[0, 0, 2, 2, 2], [2, 0, 0, 2, 1]])
    right, events = count_events(labels, predicted, background=2)
    np.testing.assert_array_equal(right, [2, 0])
    np.testing.assert_array_equal(events, [2, 3])
    right, _ = count_events(labels, predicted, background=2, iou=0.6)
    np.testing.assert_array_equal(right, [0, 0])


@every_metric
def test_a_metric_is_restored_from_its_config_and_name(kind):
    metric = EventF1(iou=0.75) if kind is EventF1 else kind(name="own")
    config = keras.saving.serialize_keras_object(metric)
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is kind
    assert again.get_config() == metric.get_config()
    name = f"avsdn_tf>{kind.__name__}"
    assert keras.metrics.deserialize(name) is kind
    assert isinstance(keras.metrics.get({"class_name": name, "config": {}}), kind)


def test_mismatched_shapes_and_arguments_are_refused(split):
    labels, logits = split
    with pytest.raises(ValueError, match="iou"):
        EventF1(iou=0.4)
    with pytest.raises(ValueError, match="class indices"):
        SegmentAccuracy().update_state(labels[:, :9], logits)
    with pytest.raises(ValueError, match="class indices"):
        SegmentAccuracy().update_state(labels[:, 0], logits)
    with pytest.raises(ValueError, match="num_segments"):
        SegmentAccuracy().update_state(labels, logits[:, 0])


def padded(labels, logits, padding):
    """Return labels, logits and weights with three padded segments at the end."""
    weights = np.pad(np.ones(labels.shape[:2]), [(0, 0), (0, 3)])
    widths = [(0, 0), (0, 3)]
    logits = np.pad(logits, [*widths, (0, 0)], constant_values=7)
    widths += [(0, 0)] * (labels.ndim - 2)
    return np.pad(labels, widths, constant_values=padding), logits, weights


@every_metric
@pytest.mark.parametrize("form", ["index -1", "zero rows", "weight 0", "clip weights"])
def test_padding_does_not_change_metrics(kind, form, split):
    labels, logits = split
    one_hot = np.eye(4)[labels]
    # If padding counted, events at the end of a clip would extend into it.
    y_true, y_pred, weights = padded(
        one_hot if form == "zero rows" else labels,
        logits,
        {"index -1": -1, "zero rows": 0}.get(form, 2),
    )
    if form == "clip weights":
        weights *= 2.5
    metric = kind()
    is_weighted = form in ("weight 0", "clip weights")
    metric.update_state(y_true, y_pred, weights if is_weighted else None)
    expected = METRICS[kind](labels, logits.argmax(-1))
    assert float(metric.result()) == pytest.approx(expected)


def test_events_of_short_and_long_clips_count_equally():
    # The first clip has one real segment, whose event is found. The second clip's event
    # is missed.
    labels = np.array([[0, 0, 0, 0], [0, 2, 2, 2]])
    logits = 5 * np.eye(3)[[[0, 0, 0, 0], [2, 2, 2, 2]]]
    metric = EventF1()
    metric.update_state(labels, logits, [[1, 0, 0, 0], [1, 1, 1, 1]])
    assert float(metric.result()) == pytest.approx(2 / 3)


def test_segment_f1_averages_by_hand():
    # Category 0: one of two segments is found. Category 1: one false positive. Category
    # 2: absent.
    labels = np.array([[0, 0, 3, 3]])
    logits = np.eye(4)[[[0, 3, 1, 3]]]
    for average, expected in (("micro", 2 / 4), ("macro", (2 / 3 + 0) / 2)):
        metric = SegmentF1(average)
        assert float(metric.result()) == 0
        metric.update_state(labels, logits)
        assert float(metric.result()) == pytest.approx(expected)
    with pytest.raises(ValueError, match="micro or macro"):
        SegmentF1("weighted")


@pytest.mark.parametrize("average", ["micro", "macro"])
@pytest.mark.parametrize("padding", ["none", "-1", "weights"])
def test_multi_label_scores_equal_the_scores_of_single_categories(
    average, padding, rng
):
    shape = (20, 10, 3)
    y_true = rng.integers(0, 2, shape)
    logits = 2 * (y_true - 0.5) + rng.normal(size=shape)
    thresholds = [0.3, 0.5, 0.8]
    found = 1 / (1 + np.exp(-logits)) >= thresholds
    # Each category becomes class 0 of separate clips; class 1 is background.
    true_lanes, found_lanes = (
        1 - np.moveaxis(x, 2, 1).reshape(60, 10) for x in (y_true, found)
    )
    events = evaluation.event_f1(true_lanes, found_lanes, 1)
    part, whole = 2 * (y_true * found).sum((0, 1)), (y_true + found).sum((0, 1))
    segments = part.sum() / whole.sum() if average == "micro" else (part / whole).mean()
    weights = None
    if padding != "none":
        value = -1 if padding == "-1" else 1
        y_true, logits, weights = padded(y_true, logits, value)
        weights = weights if padding == "weights" else None
    for metric, expected in (
        (EventF1(multi_label=True, thresholds=thresholds), events),
        (SegmentF1(average, multi_label=True, thresholds=thresholds), segments),
    ):
        for clips in (slice(0, 7), slice(7, 20)):
            part = None if weights is None else weights[clips]
            metric.update_state(y_true[clips], logits[clips], part)
        assert float(metric.result()) == pytest.approx(expected)
        again = type(metric).from_config(metric.get_config())
        assert again.get_config() == metric.get_config()
    probabilities = SegmentF1(average, multi_label=True, from_logits=False)
    probabilities.update_state(y_true, softmax(logits))
    assert 0 < float(probabilities.result()) < 1


def test_multi_label_metrics_refuse_mismatched_shapes():
    metric = SegmentF1(multi_label=True)
    with pytest.raises(ValueError, match="multi-hot"):
        metric.update_state(np.zeros((2, 4), int), np.zeros((2, 4, 3)))
    with pytest.raises(ValueError, match="thresholds in"):
        EventF1(multi_label=True, thresholds=[0.0, 0.5])


def test_fit_updates_metrics_of_every_category():
    model = keras.Sequential([keras.Input((4, 5)), keras.layers.Dense(3)])
    metrics = [SegmentF1("macro", multi_label=True), EventF1(multi_label=True)]
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile("sgd", loss, weighted_metrics=metrics)
    y = np.zeros((6, 4, 3))
    y[:, :2] = 1
    history = model.fit(
        np.ones((6, 4, 5)), y, sample_weight=np.ones((6, 4)), epochs=2, verbose=0
    ).history
    assert set(history) == {"loss", "segment_f1", "event_f1"}


@pytest.mark.parametrize("multi_label", [False, True])
def test_fit_excludes_masked_padding_from_metrics(multi_label, rng):
    keras.utils.set_random_seed(0)
    model = avsdn_tf.AVSDN(["a", "b", "c"], 4, (3,), units=2, multi_label=multi_label)
    mask = np.arange(6) < rng.integers(2, 7, 8)[:, None]
    x = {
        "audio": rng.normal(size=(8, 6, 4)).astype("f"),
        "visual": rng.normal(size=(8, 6, 3)).astype("f"),
        "mask": mask,
    }
    shape = (8, 6, model.num_classes)
    y = (
        rng.integers(0, 2, shape)
        if multi_label
        else np.eye(4)[rng.integers(4, size=(8, 6))]
    )
    y = y.astype("f") * mask[..., None]
    metrics = [kind(multi_label=multi_label) for kind in (SegmentF1, EventF1)]
    binary = keras.losses.BinaryCrossentropy(from_logits=True)
    many = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile("sgd", binary if multi_label else many, metrics=metrics)
    found = model.evaluate(x, y, verbose=0, return_dict=True)
    logits = model.predict(x, verbose=0)
    labels = np.where(mask[..., None], y, -1)
    labels = labels if multi_label else np.where(mask, y.argmax(-1), -1)
    predictions = evaluation.Predictions(range(8), logits, labels, np.zeros(8))
    report = evaluation.evaluate(predictions, model.categories)
    for name in ("segment_f1", "event_f1"):
        assert found[name] == pytest.approx(report[name])
