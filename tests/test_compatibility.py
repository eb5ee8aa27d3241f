"""Saved models of earlier releases load, and have equal outputs.

Every release creates its folder of fixtures once. Never create a folder again.
"""

import pathlib

import numpy as np
import pytest

import avsdn_tf

SAVED = sorted(pathlib.Path(__file__).parent.glob("fixtures/*/*.keras"))


def test_models_of_earlier_releases_are_tested():
    assert len(SAVED) >= 6


@pytest.mark.parametrize(
    "path", SAVED, ids=lambda path: f"{path.parent.name} {path.stem}"
)
def test_a_saved_model_loads_with_equal_outputs(path):
    model = avsdn_tf.load(path)
    assert model.categories == ["Bark", "Violin, fiddle"]
    # Version 0.1.0 doesn't record these attributes.
    if path.parent.name == "0.1.0":
        assert model.num_segments is model.segment_s is model.backbones is None
    with np.load(path.with_suffix(".npz")) as arrays:
        arrays = dict(arrays)
    expected = arrays.pop("outputs")
    np.testing.assert_allclose(model.predict_on_batch(arrays), expected, atol=1e-5)
