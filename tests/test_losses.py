import keras
import numpy as np
import pytest
import tensorflow as tf

from avsdn_tf.losses import (
    ClipLoss,
    ContrastiveLoss,
    SoftMarginLoss,
    SoftmaxBinaryCrossentropy,
)
from tests.numpy_networks import softmax


def test_binary_crossentropy_equals_its_definition():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (5, 6, 7))
    target = rng.dirichlet(np.ones(7), (5, 6))
    p = softmax(logits)
    per_sample = -np.mean(target * np.log(p) + (1 - target) * np.log(1 - p), axis=-1)
    loss = SoftmaxBinaryCrossentropy(reduction=None)
    np.testing.assert_allclose(loss(target, logits), per_sample, rtol=1e-5)
    np.testing.assert_allclose(
        SoftmaxBinaryCrossentropy()(target, logits), per_sample.mean(), rtol=1e-5
    )


def test_binary_crossentropy_by_hand():
    # Uniform over 2 classes: each class costs log 2, whatever the target.
    loss = SoftmaxBinaryCrossentropy()([[1.0, 0.0]], [[0.0, 0.0]])
    np.testing.assert_allclose(loss, np.log(2), rtol=1e-6)


@pytest.mark.parametrize("size", [20.0, 200.0, 2000.0])
def test_binary_crossentropy_of_a_sure_mistake_is_finite_and_has_a_gradient(size):
    # The true class is `size` logits below the predicted class. log p of the true class
    # and log(1 - p) of the predicted class are both -size; the third class costs 0. The
    # loss is the mean over three classes.
    logits = tf.constant([[size, 0.0, -size]])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = SoftmaxBinaryCrossentropy()([[0.0, 1.0, 0.0]], logits)
    np.testing.assert_allclose(loss, 2 * size / 3, rtol=1e-5)
    np.testing.assert_allclose(
        tape.gradient(loss, logits), [[2 / 3, -2 / 3, 0]], atol=1e-5
    )


def test_clip_loss_pools_logits_before_the_loss():
    logits = np.array([[[2.0, 0.0], [0.0, 4.0]]])
    target = np.array([[0.0, 1.0]])
    inner = keras.losses.CategoricalCrossentropy(from_logits=True)
    for pooling, pooled in (("average", [1.0, 2.0]), ("max", [2.0, 4.0])):
        loss = ClipLoss(inner, pooling)
        np.testing.assert_allclose(loss.pool(logits), [pooled])
        np.testing.assert_allclose(
            loss(target, logits), -np.log(softmax(np.array(pooled))[1]), rtol=1e-6
        )
    with pytest.raises(ValueError, match=r"'average', 'max'.*pooling='sum'"):
        ClipLoss(inner, "sum")


def test_clip_loss_is_restored_from_its_config():
    loss = ClipLoss(SoftmaxBinaryCrossentropy(), "max")
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(loss)
    )
    logits = np.random.default_rng(0).normal(size=(2, 3, 4))
    target = np.eye(4)[:2]
    assert again.pooling == "max"
    np.testing.assert_allclose(again(target, logits), loss(target, logits))


def test_contrastive_loss_by_hand():
    # Positive pairs: d^2. Negative pairs: (margin - d)^2, or 0 beyond the margin.
    target = np.array([1.0, 1.0, 0.0, 0.0])
    distances = np.array([0.5, 3.0, 0.5, 3.0])
    each = ContrastiveLoss(reduction=None)(target, distances)
    np.testing.assert_allclose(each, [0.25, 9.0, 2.25, 0.0])
    np.testing.assert_allclose(ContrastiveLoss()(target, distances), 11.5 / 4)
    np.testing.assert_allclose(
        ContrastiveLoss(margin=1.0)(target, distances), (0.25 + 9 + 0.25) / 4
    )
    with pytest.raises(ValueError, match="margin=0"):
        ContrastiveLoss(margin=0)


def test_contrastive_loss_is_restored_from_its_config():
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(ContrastiveLoss(0.5))
    )
    assert isinstance(again, ContrastiveLoss)
    assert again.margin == 0.5


def test_soft_margin_equals_its_definition():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (5, 6, 7))
    target = np.eye(7)[rng.integers(0, 7, (5, 6))]
    sigmoid = 1 / (1 + np.exp(-softmax(logits)))
    wanted = -np.mean(
        target * np.log(sigmoid) + (1 - target) * np.log(1 - sigmoid), axis=-1
    )
    np.testing.assert_allclose(
        SoftMarginLoss(reduction=None)(target, logits), wanted, rtol=1e-5
    )
    # A certain and correct p = (1, 0) costs log(1 + e^-1) and log 2.
    by_hand = (np.log(1 + np.exp(-1)) + np.log(2)) / 2
    np.testing.assert_allclose(
        SoftMarginLoss()([[1.0, 0.0]], [[50.0, 0.0]]), by_hand, rtol=1e-6
    )
