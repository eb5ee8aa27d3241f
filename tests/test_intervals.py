"""Tests of avsdn_tf.intervals."""

import numpy as np
import pytest

from avsdn_tf.intervals import bootstrap_interval, paired_interval


def test_bootstrap_resamples_clips():
    # One of four clips is right: a resample has Binomial(4, 1/4) right clips.
    # P(0) = 0.316, P(>= 3) = 0.051 and P(4) = 0.004, so the interval is 0 to 3 of 4.
    assert bootstrap_interval(np.array([1.0, 0, 0, 0])) == (0.0, 0.75)
    # Every resample of one clip is that clip.
    assert bootstrap_interval(np.array([0.3])) == (0.3, 0.3)


def test_bootstrap_agrees_with_the_normal_interval():
    values = np.random.default_rng(1).random(402)
    low, high = bootstrap_interval(values)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert low == pytest.approx(values.mean() - half, abs=half / 20)
    assert high == pytest.approx(values.mean() + half, abs=half / 20)


def test_bootstrap_is_deterministic_and_uses_its_arguments():
    values = np.random.default_rng(1).random(50)
    interval = bootstrap_interval(values)
    assert interval == bootstrap_interval(values, seed=0)
    assert interval != bootstrap_interval(values, seed=1)
    narrow = bootstrap_interval(values, level=0.5)
    assert interval[0] < narrow[0] < narrow[1] < interval[1]
    assert interval != bootstrap_interval(values, num_resamples=100)


@pytest.mark.parametrize(
    ("values", "level"), [([], 0.95), ([[1.0]], 0.95), ([1.0], 0.0), ([1.0], 95)]
)
def test_bootstrap_refuses_invalid_arguments(values, level):
    with pytest.raises(ValueError, match="Received"):
        bootstrap_interval(np.array(values), level=level)


def test_paired_interval_finds_differences_hidden_by_separate_intervals():
    # Clips differ greatly in difficulty; A beats B by one segment in every clip.
    generator = np.random.default_rng(5)
    num_right = generator.integers(1, 11, size=200)
    correct_a = np.arange(10) < num_right[:, np.newaxis]
    correct_b = np.arange(10) < num_right[:, np.newaxis] - 1
    difference = paired_interval(correct_a, correct_b)
    assert difference == pytest.approx((0.1, 0.1))
    alone_a = bootstrap_interval(correct_a.mean(axis=1))
    alone_b = bootstrap_interval(correct_b.mean(axis=1))
    # The separate intervals are wide, and hide the difference.
    assert alone_a[1] - alone_a[0] > 0.05
    assert alone_b[1] - alone_b[0] > 0.05


def test_paired_interval_of_a_system_with_itself_is_zero():
    correct = np.random.default_rng(5).random((30, 10)) < 0.5
    assert paired_interval(correct, correct) == (0.0, 0.0)


def test_paired_interval_refuses_unequal_numbers_of_clips():
    with pytest.raises(ValueError, match="same shape"):
        paired_interval(np.ones((3, 10)), np.ones((4, 10)))
