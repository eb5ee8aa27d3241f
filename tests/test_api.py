"""The documented names of the API, and the examples in their docstrings."""

import doctest
import importlib
import inspect
import pathlib
import re
import types

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

import avsdn_tf
import tfds_ave
from avsdn_tf import backbones, official_weights, videos
from avsdn_tf.features import visual
from avsdn_tf.features.extractor import Extractor
from tests import numpy_heads, small_videos, test_cross_modality, test_official_weights
from tests.test_audio_features import YamnetsSignature

DOCS = pathlib.Path(__file__).resolve().parents[1] / "docs"
DOCUMENTED = [
    name
    for page in sorted((DOCS / "api").glob("*.md"))
    for name in re.findall(r"^::: (\S+)", page.read_text(), re.MULTILINE)
]
# Names that need no example: modules, whose members have examples, and a string.
NO_DOCSTRING = {"avsdn_tf.metrics", "avsdn_tf.zero_shot", "avsdn_tf.__version__"}
STATES = {
    "avel": test_official_weights.avel_state,
    "dmrn": test_official_weights.dmrn_state,
    "psp": numpy_heads.psp_state,
    "cpsp": numpy_heads.cpsp_state,
    "cmran": numpy_heads.cmran_state,
    "cmbs": numpy_heads.cmbs_state,
    "cace": numpy_heads.cace_state,
}


def resolve(name):
    path, _, last = name.rpartition(".")
    return getattr(importlib.import_module(path), last)


def public_methods(name):
    """Yield the public methods of a class that have an example."""
    value = resolve(name)
    for key, member in vars(value).items() if inspect.isclass(value) else ():
        if not key.startswith("_") and "Example:" in (inspect.getdoc(member) or ""):
            yield f"{name}.{key}", member


EXAMPLES = {
    **{name: resolve(name) for name in DOCUMENTED if name not in NO_DOCSTRING},
    **{key: value for name in DOCUMENTED for key, value in public_methods(name)},
}


class Loudness(small_videos.Loudness):
    """Audio features as wide as those of the synthetic data set."""

    width = 128

    def __call__(self, seconds):
        return np.tile(super().__call__(seconds)[:, :1], (1, 128))


class Brightness(small_videos.Brightness):
    """Visual features as wide as those of the synthetic data set."""

    shape = (2048,)

    def __call__(self, frames):
        return np.tile(super().__call__(frames)[:, :1], (1, 2048))


@pytest.fixture(scope="module")
def folder(data_dir, tmp_path_factory):
    """Return a folder with the files that the examples read."""
    folder = tmp_path_factory.mktemp("examples")
    small_videos.write_clip(folder / "dog.mp4", 10)
    settings = {"epochs": 1, "units": 4, "batch_size": 240, "data_dir": data_dir}
    avsdn_tf.train(run=folder / "runs" / "first", **settings)
    tf.saved_model.save(YamnetsSignature(), str(folder / "yamnet"))
    test_cross_modality.write_weights(
        folder / "cmm_model_weights.h5", np.random.default_rng(0), 512, 128
    )
    return folder


@pytest.fixture
def _no_network(folder, data_dir, monkeypatch):
    """Replace the downloads of the examples, and TFDS's data folder."""
    extractor = Extractor(Loudness(), Brightness())
    monkeypatch.setattr(videos, "extractor_for", lambda *_, **__: extractor)
    monkeypatch.setitem(backbones._AUDIO_SOURCES, "yamnet", str(folder / "yamnet"))
    load = visual._load
    monkeypatch.setattr(visual, "_load", lambda recipe, _: load(recipe, None))
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", data_dir)
    monkeypatch.chdir(folder)


@pytest.fixture
def start():
    """Return the names that the code in docs/api.md defines."""
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS / "api.md").read_text(), re.S)
    names = {}
    exec(code, names)
    return names


@pytest.mark.usefixtures("_no_network")
@pytest.mark.parametrize("name", EXAMPLES)
def test_docstring_examples_run(name, start, rng):
    text = inspect.getdoc(EXAMPLES[name])
    assert "Example:\n" in text, "the docstring has no example"
    head = name.rpartition("convert_")[2]
    if head in STATES:
        start["state"] = STATES[head](rng)
        count = 2 if head in ("avel", "dmrn") else numpy_heads.CATEGORIES
        start["categories"] = [str(number) for number in range(count)]
    example = doctest.DocTestParser().get_doctest(text, start, name, None, None)
    assert example.examples
    out = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    result = runner.run(example, out=out.append)
    assert not result.failed, "".join(out)


def test_every_public_name_is_documented():
    documented = {resolve(name) for name in DOCUMENTED if name not in NO_DOCSTRING}
    for module in (
        avsdn_tf,
        avsdn_tf.metrics,
        avsdn_tf.models,
        official_weights,
        tfds_ave,
    ):
        for name in module.__all__:
            value = getattr(module, name)
            if not isinstance(value, (types.ModuleType, str)):
                assert value in documented, f"{module.__name__}.{name}"
    own = {
        value
        for module in (avsdn_tf.losses, avsdn_tf.zero_shot)
        for name, value in vars(module).items()
        if not name.startswith("_")
        and inspect.isclass(value)
        and value.__module__ == module.__name__
    }
    assert own <= documented


def test_no_private_name_is_documented():
    assert len(set(DOCUMENTED)) == len(DOCUMENTED)
    for name in DOCUMENTED:
        parts = name.split(".")
        assert not any(p.startswith("_") and p != "__version__" for p in parts)
        assert name in NO_DOCSTRING or resolve(name).__doc__
