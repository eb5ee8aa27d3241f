"""The fused optimizer is held against Keras's own."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from avsdn_tf.optimizer import FusedAdam


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"beta_1": 0.8, "beta_2": 0.99, "epsilon": 1e-4},
        {"weight_decay": 0.1, "global_clipnorm": 0.5},
        {"use_ema": True, "ema_momentum": 0.9, "loss_scale_factor": 8.0},
    ],
)
def test_it_trains_as_kerass_own_adam(arguments):
    rng = np.random.default_rng(0)
    start = [rng.normal(size=shape).astype("f") for shape in ((300, 7), (7,), ())]
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([3], [0.1, 0.01])
    fused, own = (
        ([keras.Variable(values) for values in start], kind(schedule, **arguments))
        for kind in (FusedAdam, keras.optimizers.Adam)
    )
    for _ in range(6):
        gradients = [
            tf.constant(rng.normal(size=values.shape), tf.float32) for values in start
        ]
        for variables, optimizer in (fused, own):
            optimizer.apply(gradients, variables)
    assert (fused[0][0].numpy() != start[0]).all()
    for found, expected in zip(
        [*fused[0], *fused[1].variables], [*own[0], *own[1].variables], strict=True
    ):
        # A step moves a weight by a tenth.
        np.testing.assert_allclose(
            found.numpy(), expected.numpy(), rtol=1e-5, atol=1e-5
        )


def test_what_the_kernel_does_not_know_is_refused():
    with pytest.raises(ValueError, match="Received: amsgrad=True"):
        FusedAdam(amsgrad=True)
