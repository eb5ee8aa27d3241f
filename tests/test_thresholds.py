"""Thresholds of multi-label networks, chosen on validation."""

import numpy as np
import pytest

from avsdn_tf.training.tasks import thresholds


def logit(p):
    return np.log(p / (1 - p))


def f1_of(probabilities, active, threshold):
    predicted = probabilities >= threshold
    return 2 * (predicted & active).sum() / (predicted.sum() + active.sum())


def random_clips(num_clips=7, num_segments=5, num_categories=3):
    rng = np.random.default_rng(0)
    shape = (num_clips, num_segments, num_categories)
    labels = (rng.random(shape) < 0.3).astype(np.int8)
    labels[0, 3:] = -1
    return rng.normal(labels - 0.5, 1.0), labels


def test_each_category_gets_the_threshold_of_its_best_f1():
    logits, labels = random_clips()
    chosen, score = thresholds.choose(thresholds.count(logits, labels))
    is_real = labels[..., 0] >= 0
    probabilities, active = 1 / (1 + np.exp(-logits[is_real])), labels[is_real] == 1
    for category, threshold in enumerate(chosen):
        best = max(
            f1_of(probabilities[:, category], active[:, category], other)
            for other in thresholds.GRID
        )
        found = f1_of(probabilities[:, category], active[:, category], threshold)
        assert found == best
    assert score == pytest.approx(f1_of(probabilities, active, np.array(chosen)))


def test_counts_of_workers_add_up_to_the_counts_of_all_clips():
    logits, labels = random_clips()
    parts = [
        thresholds.count(logits[part], labels[part]) for part in (..., [0], [1, 2])
    ]
    rest = thresholds.count(logits[3:], labels[3:])
    np.testing.assert_array_equal(parts[0], parts[1] + parts[2] + rest)


def test_ties_and_categories_without_events_get_threshold_one_half():
    logits = logit(np.array([[[0.9, 0.9], [0.2, 0.1]]]))
    labels = np.array([[[1, 0], [0, 0]]], np.int8)
    chosen, score = thresholds.choose(thresholds.count(logits, labels))
    assert chosen == [0.5, 0.5]
    # The second category has a false positive.
    assert score == pytest.approx(2 / 3)


def test_clips_without_events_have_no_score():
    labels = np.zeros((1, 2, 3), np.int8)
    counts = thresholds.count(np.zeros((1, 2, 3)), labels)
    assert thresholds.choose(counts) == ([0.5] * 3, None)


def test_a_probability_equal_to_the_threshold_is_active():
    counts = thresholds.count(np.zeros((1, 1, 1)), np.ones((1, 1, 1), np.int8))
    passed = np.searchsorted(thresholds.GRID, 0.5, side="right")
    assert counts[0, 1].nonzero()[0].tolist() == [passed]
