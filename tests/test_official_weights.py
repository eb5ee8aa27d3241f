"""Converted PyTorch states of Tian et al., compared with networks in NumPy."""

import importlib.util
import pathlib
import re
import subprocess
import sys

import keras
import numpy as np
import pytest

from avsdn_tf.official_weights import convert_avel, convert_dmrn
from tests import numpy_networks as expected

CATEGORIES = ["Bark", "Violin, fiddle"]
AUDIO, VISUAL, UNITS, CELLS = 5, 6, 4, 49


def linear(rng, outputs, inputs, name, bias=True):
    state = {f"{name}.weight": rng.normal(size=(outputs, inputs)) / inputs**0.5}
    if bias:
        state[f"{name}.bias"] = rng.normal(size=outputs)
    return state


def torch_lstm(rng, width, name):
    state = {}
    for suffix in ("l0", "l0_reverse"):
        state[f"{name}.weight_ih_{suffix}"] = rng.normal(size=(4 * UNITS, width))
        state[f"{name}.weight_hh_{suffix}"] = rng.normal(size=(4 * UNITS, UNITS))
        state[f"{name}.bias_ih_{suffix}"] = rng.normal(size=4 * UNITS)
        state[f"{name}.bias_hh_{suffix}"] = rng.normal(size=4 * UNITS)
    return state


def encoders_state(rng):
    return {
        **torch_lstm(rng, AUDIO, "lstm_audio"),
        **torch_lstm(rng, VISUAL, "lstm_video"),
        **linear(rng, 512, AUDIO, "affine_audio"),
        **linear(rng, 512, VISUAL, "affine_video"),
        **linear(rng, CELLS, 512, "affine_v", bias=False),
        **linear(rng, CELLS, 512, "affine_g", bias=False),
        **linear(rng, 1, CELLS, "affine_h", bias=False),
    }


def avel_state(rng):
    return {
        **encoders_state(rng),
        **linear(rng, 64, 4 * UNITS, "L1"),
        **linear(rng, 3, 64, "L2"),
    }


def dmrn_state(rng):
    return {
        **encoders_state(rng),
        **linear(rng, 2 * UNITS, 2 * UNITS, "U_v.0"),
        **linear(rng, 2 * UNITS, 2 * UNITS, "U_v.2"),
        **linear(rng, 2 * UNITS, 2 * UNITS, "U_a.0"),
        **linear(rng, 2 * UNITS, 2 * UNITS, "U_a.2"),
        **linear(rng, 3, 2 * UNITS, "L2"),
    }


def apply(state, name, x):
    return x @ state[f"{name}.weight"].T + state.get(f"{name}.bias", 0)


def run_lstm(state, name, sequence):
    """Run PyTorch's bidirectional LSTM, with its order of gates and its two biases."""
    outputs = []
    for suffix, step in (("l0", 1), ("l0_reverse", -1)):
        hidden = cell = np.zeros((len(sequence), UNITS))
        steps = []
        for x in np.moveaxis(sequence, 1, 0)[::step]:
            gates = (
                x @ state[f"{name}.weight_ih_{suffix}"].T
                + state[f"{name}.bias_ih_{suffix}"]
                + hidden @ state[f"{name}.weight_hh_{suffix}"].T
                + state[f"{name}.bias_hh_{suffix}"]
            )
            i, f, g, o = np.split(gates, 4, axis=1)
            cell = expected.sigmoid(f) * cell + expected.sigmoid(i) * np.tanh(g)
            hidden = expected.sigmoid(o) * np.tanh(cell)
            steps.append(hidden)
        outputs.append(np.stack(steps[::step], axis=1))
    return np.concatenate(outputs, axis=-1)


def run_encoders(state, audio, visual):
    cells = visual.reshape(*visual.shape[:2], CELLS, VISUAL)
    heard = np.maximum(apply(state, "affine_audio", audio), 0)
    seen = np.maximum(apply(state, "affine_video", cells), 0)
    # As in the program, the audio term has one value for each cell.
    scores = apply(state, "affine_v", seen) + apply(state, "affine_g", heard)[..., None]
    weights = expected.softmax(apply(state, "affine_h", np.tanh(scores))[..., 0])
    attended = np.einsum("btn,btnd->btd", weights, cells)
    return run_lstm(state, "lstm_audio", audio), run_lstm(state, "lstm_video", attended)


@pytest.fixture
def inputs(rng):
    return {
        "audio": rng.normal(size=(2, 6, AUDIO)).astype("float32"),
        "visual": rng.normal(size=(2, 6, 7, 7, VISUAL)).astype("float32"),
    }


def test_converted_avel_equals_the_program(rng, inputs, tmp_path):
    state = avel_state(rng)
    heard, seen = run_encoders(state, **inputs)
    joined = np.maximum(np.concatenate([heard, seen], -1), 0)
    wanted = apply(state, "L2", np.maximum(apply(state, "L1", joined), 0))
    model = convert_avel(state, CATEGORIES)
    np.testing.assert_allclose(model(inputs), wanted, atol=1e-4)
    model.save(tmp_path / "avel.keras")
    loaded = keras.models.load_model(tmp_path / "avel.keras")
    np.testing.assert_array_equal(loaded(inputs), model(inputs))


def test_converted_dmrn_equals_the_program(rng, inputs):
    state = dmrn_state(rng)
    heard, seen = run_encoders(state, **inputs)

    def mlp(name, x):
        return apply(state, f"{name}.2", np.tanh(apply(state, f"{name}.0", x)))

    update = (mlp("U_a", heard) + mlp("U_v", seen)) / 2
    fused = (np.tanh(heard + update) + np.tanh(seen + update)) / 2
    model = convert_dmrn(state, CATEGORIES)
    np.testing.assert_allclose(model(inputs), apply(state, "L2", fused), atol=1e-4)


def test_a_mismatched_state_fails_with_one_message(rng):
    state = avel_state(rng)
    with pytest.raises(ValueError, match=r"'L2.weight' of shape \(2, 64\).*\(3, 64\)"):
        convert_avel(state, CATEGORIES[:1])
    with pytest.raises(ValueError, match=r"array 'U_a.0.weight'"):
        convert_dmrn(state, CATEGORIES)
    with pytest.raises(ValueError, match=r"one network alone.*extra"):
        convert_avel({**state, "extra": np.zeros(1)}, CATEGORIES)
    del state["lstm_video.bias_hh_l0_reverse"]
    with pytest.raises(ValueError, match=r"lstm_video.bias_hh_l0_reverse.*Tian"):
        convert_avel(state, CATEGORIES)
    with pytest.raises(ValueError, match="a matrix"):
        convert_avel({**state, "affine_v.weight": np.zeros(3)}, CATEGORIES)


# Pickles a whole module as PyTorch did in 2018, without attributes added later.
PICKLE_AS_IN_2018 = """
import torch
from models import att_Net

def state(module):
    kept = "_modules _parameters _buffers _backward_hooks _forward_hooks "
    kept += "_forward_pre_hooks training _all_weights mode input_size hidden_size "
    kept += "num_layers bias batch_first dropout bidirectional in_features out_features"
    values = vars(module)
    return {name: values[name] for name in kept.split() if name in values}

torch.nn.Module.__getstate__ = torch.nn.RNNBase.__getstate__ = state
torch.save(att_Net(), "AV_att.pt", _use_new_zipfile_serialization=False)
"""
THEIR_MODULE = """
from torch import nn

class att_Net(nn.Module):
    def __init__(self):
        super().__init__()
        for name, width in (("audio", 128), ("video", 512)):
            lstm = nn.LSTM(width, 128, 1, batch_first=True, bidirectional=True)
            setattr(self, f"lstm_{name}", lstm)
            setattr(self, f"affine_{name}", nn.Linear(width, 512))
        self.affine_v = nn.Linear(512, 49, bias=False)
        self.affine_g = nn.Linear(512, 49, bias=False)
        self.affine_h = nn.Linear(49, 1, bias=False)
        self.L1 = nn.Linear(512, 64)
        self.L2 = nn.Linear(64, 29)
"""


@pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="without PyTorch")
def test_the_code_on_the_page_converts_a_module_pickled_in_2018(tmp_path):
    def run(program):
        return subprocess.run(
            [sys.executable, "-c", program],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    (tmp_path / "models.py").write_text(THEIR_MODULE)
    done = run(PICKLE_AS_IN_2018)
    assert done.returncode == 0, done.stderr
    page = pathlib.Path(__file__).parents[1] / "docs" / "migration.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    (program,) = (block for block in blocks if "convert_avel" in block)
    done = run(program)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("avel ")
    model = keras.models.load_model(tmp_path / "avel_att.keras")
    assert len(model.categories) == 28
    # Without the line that sets `_flat_weights`, PyTorch fails.
    mend = r"torch.nn.RNNBase._flat_weights = .*\n"
    assert "'_flat_weights'" in run(re.sub(mend, "", program)).stderr
