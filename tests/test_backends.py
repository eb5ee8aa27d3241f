"""Networks and losses have equal outputs on all backends of Keras.

Keras loads one backend per process, so every backend runs in a process of its own.
"""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

import avsdn_tf
from avsdn_tf import losses
from tests.test_compatibility import SAVED

ROOT = pathlib.Path(__file__).resolve().parents[1]

# Load models saved on TensorFlow, compare their outputs, train a step, and save them.
PROGRAM = """
import json, os, pathlib, sys
import keras, numpy as np
import avsdn_tf
from avsdn_tf import losses

folder, *models = map(pathlib.Path, sys.argv[1:])

differences = {"backend": keras.backend.backend()}
for path in models:
    model = keras.models.load_model(path)
    with np.load(path.with_suffix(".npz")) as arrays:
        arrays = dict(arrays)
    expected = arrays.pop("outputs")
    found = np.asarray(model.predict_on_batch(arrays))
    pair = [arrays["audio"], arrays["visual"]]
    assert abs(model.predict(pair, verbose=0) - found).max() < 1e-6
    named = keras.ops.convert_to_numpy(model(**arrays))
    assert abs(named - found).max() < 1e-6
    differences[path.stem] = float(abs(found - expected).max())
    is_distance = path.stem == "cross_modal"
    loss = losses.ContrastiveLoss() if is_distance else losses.SoftMarginLoss()
    names = () if is_distance else ("SegmentAccuracy", "BackgroundRecall", "EventF1")
    metrics = [f"avsdn_tf>{name}" for name in names]
    model.compile(keras.optimizers.Adam(0.01), loss, metrics=metrics)
    target = np.ones_like(expected)
    if not is_distance:
        target = np.eye(expected.shape[-1], dtype="f")[expected.argmax(-1)]
    before = [weight.copy() for weight in model.get_weights()]
    history = model.fit(arrays, target, epochs=1, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    after = model.get_weights()
    # The step changes all weights, also of the MLPs that `label_guided` adds.
    assert all((a != b).any() for a, b in zip(before, after)), path
    assert len(history) == 1 + len(names), history
    model.save(folder / path.name)
    np.save(folder / f"{path.stem}.npy", np.asarray(model.predict_on_batch(arrays)))
with np.load(folder / "losses.npz") as arrays:
    for name, loss in losses.LOSSES.items():
        found = float(loss()(arrays["target"], arrays["logits"]))
        differences[name] = abs(found - float(arrays[name]))
print(json.dumps(differences))
"""


@pytest.mark.slow
@pytest.mark.backends
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_a_model_moves_between_backends(tmp_path, rng, backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed: pip install 'avsdn_tf[backends]'")
    logits = rng.normal(size=(4, 5, 3)).astype("f")
    target = rng.dirichlet([1, 1, 1], (4, 5)).astype("f")
    values = {name: loss()(target, logits) for name, loss in losses.LOSSES.items()}
    np.savez(tmp_path / "losses.npz", logits=logits, target=target, **values)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, tmp_path, *SAVED],
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    differences = json.loads(done.stdout.splitlines()[-1])
    assert differences.pop("backend") == backend
    assert len(differences) == len(SAVED) + len(losses.LOSSES)
    # Compare each value: `max` ignores a NaN that follows a number.
    assert all(value <= 1e-5 for value in differences.values()), differences
    # TensorFlow loads the models that the other backend saved.
    for path in SAVED:
        model = avsdn_tf.load(tmp_path / path.name)
        with np.load(path.with_suffix(".npz")) as arrays:
            inputs = {name: arrays[name] for name in ("audio", "visual")}
        found = model.predict_on_batch(inputs)
        expected = np.load(tmp_path / f"{path.stem}.npy")
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert keras.backend.backend() == "tensorflow"
