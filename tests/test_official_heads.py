"""Compare converted checkpoints with NumPy copies of the published programs."""

import keras
import numpy as np
import pytest

from avsdn_tf import official_weights
from tests import numpy_heads as programs

CATEGORIES = [str(number) for number in range(programs.CATEGORIES)]
SHAPE = (programs.SIDE, programs.SIDE, programs.VISUAL)
both_variants = pytest.mark.parametrize("weak", [False, True])


@pytest.fixture
def inputs(rng):
    # Five segments, as CMBS averages only the four largest scores.
    return {
        "audio": rng.random((2, 5, programs.AUDIO), "float32"),
        "visual": rng.random((2, 5, *SHAPE), "float32"),
    }


def check_heads(model, inputs, event_logits, category_logits):
    outputs = model.compute_outputs(inputs)
    np.testing.assert_allclose(outputs["event_logits"], event_logits, atol=1e-4)
    np.testing.assert_allclose(outputs["category_logits"], category_logits, atol=1e-4)
    classes = category_logits.argmax(axis=-1)[:, None]
    classes = np.where(event_logits > 0, classes, programs.CATEGORIES)
    np.testing.assert_array_equal(np.argmax(model(inputs), axis=-1), classes)


@both_variants
def test_converted_psp_equals_the_program(rng, inputs, weak, tmp_path):
    state = programs.psp_state(rng, weak)
    model = official_weights.convert_psp(state, CATEGORIES)
    wanted = programs.run_psp(state, **inputs, weak=weak)
    np.testing.assert_allclose(model(inputs), wanted, atol=1e-4)
    model.save(tmp_path / "psp.keras")
    loaded = keras.models.load_model(tmp_path / "psp.keras")
    np.testing.assert_array_equal(loaded(inputs), model(inputs))


@both_variants
def test_converted_cpsp_equals_the_program(rng, inputs, weak):
    state = programs.cpsp_state(rng, weak)
    # The program saves float64 weights under the prefix of DataParallel.
    saved = {f"module.{name}": array.astype(float) for name, array in state.items()}
    model = official_weights.convert_cpsp(saved, CATEGORIES)
    assert model.weak == weak
    check_heads(model, inputs, *programs.run_cpsp(state, **inputs, weak=weak))


@both_variants
def test_converted_cmran_equals_the_program(rng, inputs, weak):
    state = programs.cmran_state(rng, weak)
    model = official_weights.convert_cmran(state, CATEGORIES)
    assert model.weak == weak
    check_heads(model, inputs, *programs.run_cmran(state, **inputs, weak=weak))


def test_converted_cmbs_equals_the_program(rng, inputs):
    state = programs.cmbs_state(rng)
    model = official_weights.convert_cmbs(state, CATEGORIES)
    check_heads(model, inputs, *programs.run_cmbs(state, **inputs))


def test_converted_weak_cmbs_equals_the_program(rng, inputs):
    state = programs.cmbs_state(rng, weak=True)
    model = official_weights.convert_cmbs(state, CATEGORIES)
    gate, category_logits = programs.run_weak_cmbs(state, **inputs)
    outputs = model.compute_outputs(inputs)
    found = programs.sigmoid(np.asarray(outputs["event_logits"]))
    np.testing.assert_allclose(found, gate, atol=1e-5)
    np.testing.assert_allclose(outputs["category_logits"], category_logits, atol=1e-4)
    # The program gives all segments the category of the clip.
    classes = np.argmax(model(inputs), axis=-1)
    wanted = category_logits.argmax(axis=-1)[:, None]
    np.testing.assert_array_equal(classes, np.broadcast_to(wanted, classes.shape))
    model.always_event = False
    check_heads(model, inputs, np.log(gate / (1 - gate)), category_logits)


def test_converted_cace_net_equals_the_program(rng, inputs):
    state = programs.cace_state(rng)
    model = official_weights.convert_cace(state, CATEGORIES)
    check_heads(model, inputs, *programs.run_cace(state, **inputs))


def test_missing_and_unused_arrays_fail_with_one_message(rng):
    state = programs.cmran_state(rng)
    with pytest.raises(ValueError, match=r"'CAS_model|'audio_visual_rnn_layer|norm"):
        official_weights.convert_cmbs(state, CATEGORIES)
    with pytest.raises(ValueError, match=r"one network alone.*extra"):
        official_weights.convert_cmran({**state, "extra": np.zeros(1)}, CATEGORIES)
    del state["AVInter.video_multihead.in_proj_bias"]
    with pytest.raises(ValueError, match=r"AVInter\.video_multihead\.in_proj_bias.*Xu"):
        official_weights.convert_cmran(state, CATEGORIES)
