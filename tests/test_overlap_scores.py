"""Scores of padded clips and of overlapping categories."""

import itertools
import json

import numpy as np
import pytest

from avsdn_tf import evaluation
from avsdn_tf.evaluation import F1, Predictions, average_precision, lanes_of

CATEGORIES = ["Bark", "Flute", "Bell"]
# Activity of three categories in two clips. The second clip is one segment shorter.
TRUE = [["1100", "0111", "0000"], ["100-", "000-", "000-"]]
FOUND = [["1000", "0101", "0000"], ["000-", "000-", "010-"]]


def grid(clips):
    """Return activity, `(num_clips, num_segments, num_categories)`; -1 is padding."""
    cells = [[["01-".index(c) for c in row] for row in clip] for clip in clips]
    return np.where(np.array(cells) == 2, -1, cells).transpose(0, 2, 1)


def predictions_of(true, found):
    logits = 2.0 * (found == 1) - 1
    return Predictions(np.arange(len(true)), logits, true, np.zeros(len(true)))


@pytest.fixture
def split(rng):
    """Random clips of 3 to 9 segments and 4 categories, true and predicted."""
    true = rng.random((40, 9, 4)) < 0.3
    flips = rng.random(true.shape) < 0.2
    lengths = rng.integers(3, 10, 40)
    is_real = np.arange(9) < lengths[:, None]
    found = true ^ flips
    return np.where(is_real[..., None], true, -1), found, lengths


def test_scores_by_hand():
    report = evaluation.evaluate(
        predictions_of(grid(TRUE), grid(FOUND)), CATEGORIES, [0.5, 0.5, 0.5]
    )
    # Segments, correct/true/predicted: bark 1/3/1, flute 2/3/2, bell 0/0/1.
    assert report["segment_f1"] == 2 * 3 / (6 + 4)
    assert report["segment_f1_macro"] == pytest.approx((2 / 4 + 4 / 5 + 0) / 3)
    # Events: bark [0, 2) matches [0, 1) with IoU 1/2. Both predictions of flute have
    # IoU 1/3 with the true event, and don't match.
    assert report["event_f1"] == 2 * 1 / (3 + 4)
    # First clip: bark 2/3 and flute 4/5. Second: bark 0 and bell 0.
    assert report["llp_segment_f1"] == pytest.approx(((2 / 3 + 4 / 5) / 2 + 0) / 2)
    assert report["llp_event_f1"] == pytest.approx(((1 + 0) / 2 + 0) / 2)
    # Background is true in segments 1 and 2 of the second clip. It is predicted in
    # segment 2 of the first clip, and in segments 0 and 2 of the second clip.
    assert report["background_recall"] == 1 / 2
    assert report["per_category"][-1] == {
        "category": "Background",
        "segments": 2,
        "predicted": 3,
        "precision": 1 / 3,
        "recall": 1 / 2,
        "f1": 2 / 5,
    }
    assert report["per_category"][1]["precision"] == 1
    assert (report["num_clips"], report["num_segments"]) == (2, 7)
    for name in ("accuracy", "interval", "trivial", "confusion_matrix"):
        assert report[name] is None
    assert report["multi_label"]
    assert report["thresholds"] == [0.5, 0.5, 0.5]
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def plain_llp(true, found, iou=None):
    """Compute LLP's score in loops over videos and categories, like LLP's own code."""
    videos = []
    for truth, guess in zip(true, found, strict=True):
        scores = []
        for k in range(truth.shape[1]):
            real = truth[:, k] >= 0
            t, g = truth[real, k] == 1, guess[real, k] == 1
            if iou is None:
                right, wrong = (t & g).sum(), (t ^ g).sum()
            else:
                pairs = list(itertools.product(runs(t), runs(g)))
                right = sum(len(a & b) >= iou * len(a | b) for a, b in pairs)
                wrong = len(runs(t)) + len(runs(g)) - 2 * right
            if right + wrong:
                scores.append(2 * right / (2 * right + wrong))
        videos.append(np.mean(scores) if scores else 1.0)
    return np.mean(videos)


def runs(active):
    """Return the maximal runs as sets of segments."""
    groups = itertools.groupby(enumerate(active), key=lambda pair: pair[1])
    return [{i for i, _ in group} for is_event, group in groups if is_event]


def test_llp_scores_equal_a_plain_loop(split):
    true, found, _ = split
    lanes = lanes_of(predictions_of(true, found))
    segments = F1.of_segments(lanes).mean_over_clips(len(true))
    assert segments == pytest.approx(plain_llp(true, found))
    events = F1.of_events(lanes).mean_over_clips(len(true))
    assert events == pytest.approx(plain_llp(true, found, 0.5))


def test_each_category_has_its_own_threshold():
    probabilities = np.array([[[0.2, 0.6], [0.3, 0.8]]])
    logits = np.log(probabilities / (1 - probabilities))
    true = np.array([[[0, 0], [1, 1]]])
    predictions = Predictions([0], logits, true, [0])
    names = ["Bark", "Flute"]
    report = evaluation.evaluate(predictions, names, [0.25, 0.7])
    assert report["segment_f1"] == report["event_f1"] == report["map"]["mean"] == 1
    assert evaluation.evaluate(predictions, names)["segment_f1"] == 2 / 4
    with pytest.raises(ValueError, match="thresholds"):
        evaluation.evaluate(predictions, names, [0.5])


def test_single_and_multi_label_scores_of_equal_events_are_equal(rng):
    labels = rng.integers(-1, 4, (30, 8))
    logits = rng.normal(size=(30, 8, 4)).astype("f") + 2 * np.eye(4)[labels]
    one = Predictions(np.arange(30), logits, labels, np.zeros(30))
    classes = np.eye(4, dtype=int)
    found = classes[logits.argmax(-1)][..., :3]
    true = np.where(labels[..., None] < 0, -1, classes[labels][..., :3])
    many = evaluation.evaluate(predictions_of(true, found), CATEGORIES)
    report = evaluation.evaluate(one, CATEGORIES)
    names = ("segment_f1", "segment_f1_macro", "event_f1", "background_recall")
    for name in (*names, "llp_segment_f1", "llp_event_f1", "per_category", "intervals"):
        assert report[name] == many[name]
    expected = evaluation.event_f1(labels, logits.argmax(-1), 3)
    assert report["event_f1"] == expected


def test_padding_changes_no_multi_label_score(split):
    true, found, lengths = split
    report = evaluation.evaluate(predictions_of(true, found), list("abcd"))
    wider = np.pad(true, [(0, 0), (0, 5), (0, 0)], constant_values=-1)
    more = np.pad(found, [(0, 0), (0, 5), (0, 0)], constant_values=True)
    assert evaluation.evaluate(predictions_of(wider, more), list("abcd")) == report
    assert report["num_segments"] == lengths.sum()
    low, high = report["intervals"]["segment_f1"]
    assert low < report["segment_f1"] < high


def test_padding_changes_no_single_label_score(rng):
    labels, guesses = rng.integers(0, 4, (2, 30, 8))
    lengths = rng.integers(1, 9, 30)
    labels = np.where(np.arange(8) < lengths[:, None], labels, -1)
    reports = []
    for extra in (0, 4):
        wider = np.pad(labels, [(0, 0), (0, extra)], constant_values=-1)
        more = np.pad(guesses, [(0, 0), (0, extra)])
        logits = np.eye(4, dtype="f")[more]
        predictions = Predictions(np.arange(30), logits, wider, labels[:, 0])
        reports.append(evaluation.evaluate(predictions, CATEGORIES))
    # Intervals may differ by rounding, because their arrays differ in length.
    for name in ("interval", "intervals"):
        flat = [report.pop(name) for report in reports]
        flat = [list(x.values()) if name == "intervals" else x for x in flat]
        np.testing.assert_allclose(*flat)
    assert reports[0] == reports[1]
    real = labels >= 0
    report = reports[0]
    assert report["accuracy"] == (labels == guesses)[real].mean()
    assert np.sum(report["confusion_matrix"]) == report["num_segments"] == real.sum()
    wrong = sum(row["segments"] for row in report["most_confused"])
    assert wrong == (labels != guesses)[real].sum()


def test_scores_without_any_event_are_none_or_one():
    zeros = np.zeros((2, 3, 3), int)
    report = evaluation.evaluate(predictions_of(zeros, zeros), CATEGORIES)
    assert report["segment_f1"] is report["event_f1"] is report["map"]["mean"] is None
    assert report["segment_f1_macro"] is report["intervals"]["segment_f1"] is None
    assert report["llp_segment_f1"] == report["llp_event_f1"] == 1
    assert report["background_recall"] == 1


def plain_precisions(true, predicted, scores):
    """Compute ActivityNet's average precision in loops over thresholds and events."""
    results = []
    for threshold in (k / 10 for k in range(1, 10)):
        free, right = set(range(len(true))), []
        for event in sorted(range(len(scores)), key=lambda i: -scores[i]):
            first, end = predicted[event]
            best = None
            for index in free:
                shared = min(end, true[index][1]) - max(first, true[index][0])
                union = max(end, true[index][1]) - min(first, true[index][0])
                if shared > 0 and shared / union >= threshold:
                    best = max(best or (0, 0), (shared / union, index))
            right.append(best is not None)
            if best:
                free.remove(best[1])
        hits = np.cumsum(right)
        recall, precision = hits / len(true), hits / np.arange(1, len(right) + 1)
        area, before = 0.0, 0.0
        for rank, at in enumerate(recall):
            area += (at - before) * max(precision[rank:])
            before = at
        results.append(area)
    return results


@pytest.fixture
def category(rng):
    """Return true events, shifted and random predictions, and their scores."""
    edges = np.sort(rng.choice(400, 60, replace=False)).reshape(-1, 2)
    predicted = edges + rng.integers(-3, 4, edges.shape)
    more = np.sort(rng.choice(400, 40, replace=False)).reshape(-1, 2)
    predicted = np.concatenate([predicted[predicted[:, 0] < predicted[:, 1]], more])
    return edges, predicted, rng.random(len(predicted))


def test_average_precision_equals_a_plain_loop(category):
    expected = plain_precisions(*category)
    np.testing.assert_allclose(average_precision(*category), expected)
    assert 0 < expected[-1] < expected[0] < 1


@pytest.mark.filterwarnings("ignore:The behavior of DataFrame:FutureWarning")
def test_average_precision_equals_a_published_evaluator(category):
    published = pytest.importorskip("mean_average_precision")
    true, predicted, scores = category
    # The evaluator's boxes include their last pixel, so the last segment is end - 1.
    zeros, ones = np.zeros(len(predicted)), np.zeros(len(true))
    first, last = predicted.T - [[0], [1]]
    boxes = np.stack([first, zeros, last, zeros, zeros, scores], axis=1)
    first, last = true.T - [[0], [1]]
    truth = np.stack([first, ones, last, ones, ones, ones, ones], axis=1)
    metric = published.MetricBuilder.build_evaluation_metric(
        "map_2d", async_mode=False, num_classes=1
    )
    metric.add(boxes, truth)
    # The evaluator requires an IoU above the threshold.
    ious = [k / 10 - 1e-9 for k in range(1, 10)]
    found = metric.value(iou_thresholds=ious, mpolicy="soft")
    expected = [found[iou][0]["ap"] for iou in ious]
    np.testing.assert_allclose(average_precision(*category), expected, rtol=1e-6)


def test_mean_average_precision_by_hand():
    # Bark in two clips, [0, 4) and [1, 2); flute in the first, [2, 4). Bell is never
    # true, so its average precision is undefined, and the mean leaves it out.
    true = grid([["1111", "0011", "0000"], ["0100", "0000", "0000"]])
    found = grid([["1110", "0000", "0000"], ["0000", "1000", "0001"]])
    report = evaluation.evaluate(predictions_of(true, found), CATEGORIES)
    # Bark: one of two events is found, with IoU 3/4. Flute: none of one.
    assert report["map"]["0.7"] == pytest.approx((1 / 2 + 0) / 2)
    assert report["map"]["0.8"] == 0
    assert report["map"]["mean"] == pytest.approx(7 / 9 / 4)


def test_average_precision_sorts_predictions_by_score():
    # A wrong event with a higher score halves the precision of the correct event.
    true, predicted = np.array([[0, 4]]), np.array([[0, 4], [10, 12]])
    assert set(average_precision(true, predicted, np.array([0.9, 0.8]))) == {1.0}
    assert set(average_precision(true, predicted, np.array([0.8, 0.9]))) == {0.5}
    # A second prediction of the same true event is wrong.
    twice = np.array([[0, 4], [0, 3], [20, 21]])
    both = np.array([[0, 4], [20, 21]])
    found = average_precision(both, twice, np.array([0.9, 0.8, 0.7]))
    assert set(found) == {(1 + 2 / 3) / 2}
