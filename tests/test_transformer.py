"""Layers of CMRAN, CMBS and CACE-Net; test_official_heads.py tests the equations."""

import keras
import numpy as np
import pytest

from avsdn_tf.models.cace import CoGuidedAttention
from avsdn_tf.models.channel_spatial import (
    ChannelSpatialAttention,
    SelfGuidedAttention,
    UnscaledAttention,
)
from avsdn_tf.models.transformer import (
    CrossModalDecoder,
    CrossModalInteraction,
    SegmentEncoder,
    TransformerBlock,
)
from tests.test_models import randomize


@pytest.mark.parametrize(
    ("layer", "shapes"),
    [
        (TransformerBlock(2, 6, 0.2), [(3, 6, 8), (3, 9, 8)]),
        (SegmentEncoder(8, 2, 6, 0.2), [(3, 6, 5)]),
        (CrossModalDecoder(8, 2, 6, 0.2), [(3, 6, 5), (3, 6, 8)]),
        (CrossModalInteraction(2, 0.2), [(3, 6, 8), (3, 6, 8)]),
        (ChannelSpatialAttention(7), [(3, 6, 5), (3, 6, 2, 3, 8)]),
        (UnscaledAttention(7), [(3, 6, 5), (3, 9, 8)]),
        (SelfGuidedAttention(7, 0.3, 0.4), [(3, 6, 5), (3, 6, 2, 3, 8)]),
        (CoGuidedAttention(7, 0.2, 0.4), [(3, 6, 5), (3, 6, 2, 3, 8)]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_layers_are_rebuilt_from_their_config(layer, shapes, rng):
    inputs = [rng.normal(size=shape).astype("float32") for shape in shapes]
    wanted = layer(*inputs)
    copy = type(layer).from_config(layer.get_config())
    copy(*inputs)
    copy.set_weights(layer.get_weights())
    assert copy.get_config() == layer.get_config()
    found = keras.tree.flatten(copy(*inputs))
    expected_shapes = keras.tree.flatten(
        keras.tree.map_shape_structure(tuple, layer.compute_output_shape(*shapes))
    )
    for one, other in zip(found, keras.tree.flatten(wanted), strict=True):
        np.testing.assert_array_equal(one, other)
    assert [n for one in found for n in one.shape] == expected_shapes


@pytest.mark.parametrize("layer", [TransformerBlock(2, 6), UnscaledAttention(4)])
def test_attention_ignores_padding_of_the_memory(layer, rng):
    query, memory = rng.normal(size=(2, 3, 5, 8)).astype("float32")
    layer(query, memory)
    randomize(layer, rng)
    mask = np.arange(5) < np.array([[5], [3], [1]])
    found = layer(query, np.where(mask[..., None], memory, 9), mask=mask)
    for index, length in enumerate((5, 3, 1)):
        alone = memory[index : index + 1, :length]
        wanted = layer(query[index : index + 1], alone)
        np.testing.assert_allclose(found[index : index + 1], wanted, atol=1e-5)


def test_initial_attention_weights_have_the_scale_of_pytorch():
    layer = TransformerBlock(4)
    layer.build((None, None, 256))
    kernel = layer.attention.query_dense.kernel
    assert np.std(kernel) == pytest.approx((2 / (4 * 256)) ** 0.5, rel=0.05)


def test_the_number_of_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="heads"):
        TransformerBlock(3).build((None, None, 8))


def test_spatial_attention_refuses_feature_vectors():
    with pytest.raises(ValueError, match="feature maps"):
        ChannelSpatialAttention().build((None, None, 5), (None, None, 7))
