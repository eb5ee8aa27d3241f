import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

import avsdn_tf
from avsdn_tf import events, export, videos
from avsdn_tf.cli import export as command
from avsdn_tf.data import batches, dataset
from avsdn_tf.errors import UserError
from avsdn_tf.export import end_to_end, savedmodel
from avsdn_tf.features import visual
from avsdn_tf.features.audio import AudioNetwork
from avsdn_tf.features.extractor import Extractor
from avsdn_tf.features.visual import VisualNetwork, VisualRecipe
from avsdn_tf.models.fusion import mlp
from avsdn_tf.training.config import Config
from tests import commands
from tests.commands import avsdn

ROOT = pathlib.Path(__file__).resolve().parents[1]
KERAS = tuple(map(int, keras.version().split(".")[:2]))
WRITABLE = [n for n, kind in export.FORMATS.items() if kind.oldest_keras <= KERAS]
CATEGORIES = ["Bark", "Violin, fiddle", "Kettle"]
METADATA = {"classes": [*CATEGORIES, "Background"], "segment_s": 0.5, "num_segments": 5}


def small_models():
    keras.utils.set_random_seed(0)
    return {
        "avsdn": avsdn_tf.AVSDN(CATEGORIES, 6, (8,), units=4, dropout=0.5),
        "both ways": avsdn_tf.AVSDN(CATEGORIES, 6, (8,), units=4, bidirectional=True),
        "attention": avsdn_tf.AVEL(CATEGORIES, 6, (2, 2, 8), units=4, attention=True),
        "half": avsdn_tf.AVSDN(CATEGORIES, 6, (8,), units=4, dtype="mixed_bfloat16"),
        "multi-label": avsdn_tf.AVSDN(
            CATEGORIES,
            6,
            (8,),
            units=4,
            bidirectional=True,
            multi_label=True,
            thresholds=[0.4, 0.5, 0.6],
        ),
    }


def make_clips(model, rng, num_segments=5, count=3):
    shape = (count, num_segments)
    return {
        "audio": rng.normal(size=(*shape, model.audio_width)).astype("f"),
        # Large, so that all classes occur.
        "visual": 9 * rng.normal(size=(*shape, *model.visual_shape)).astype("f"),
    }


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("savedmodel", "both ways"),
        ("savedmodel", "half"),
        ("onnx", "both ways"),
        ("onnx", "attention"),
        ("litert", "both ways"),
        ("litert", "attention"),
        ("keras", "avsdn"),
        ("keras", "half"),
    ],
)
def test_an_artefact_and_keras_compute_equal_logits(tmp_path, rng, name, kind):
    if name not in WRITABLE:
        pytest.skip("Keras 3.12, the last one for Python 3.10, writes no LiteRT")
    model = small_models()[kind]
    clips = [make_clips(model, rng), make_clips(model, rng, count=1)]
    path, largest = export.export_model(model, name, tmp_path, METADATA, clips)
    assert path == tmp_path / export.FORMATS[name].name
    scale = max(np.abs(model.predict_on_batch(batch)).max() for batch in clips)
    if kind != "half":
        assert 0 <= largest <= 1e-5 * max(1, scale)
    # No temporary file is left.
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    logits = export.FORMATS[name].run(path, clips[0])
    # A half-precision network is exported in float32.
    tolerance = 0.3 if kind == "half" else 1e-4
    expected = model.predict_on_batch(clips[0])
    np.testing.assert_allclose(logits, expected, atol=tolerance)
    if name == "savedmodel":
        metadata = json.loads((path / "assets.extra" / "avsdn_tf.json").read_text())
    elif name == "onnx":
        import onnx

        (prop,) = onnx.load(path).metadata_props
        assert prop.key == "avsdn_tf.json"
        metadata = json.loads(prop.value)
    else:
        metadata = json.loads(zipfile.ZipFile(path).read("avsdn_tf.json"))
    assert metadata == METADATA
    if name in ("savedmodel", "onnx"):
        longer = make_clips(model, rng, num_segments=7)
        np.testing.assert_allclose(
            export.FORMATS[name].run(path, longer),
            model.predict_on_batch(longer),
            atol=tolerance,
        )


@pytest.mark.parametrize("name", export.FORMATS)
def test_an_artefact_accepts_a_mask_on_request(tmp_path, rng, name):
    if name not in WRITABLE:
        pytest.skip("Keras 3.12, the last one for Python 3.10, writes no LiteRT")
    model = small_models()["multi-label"]
    clips = make_clips(model, rng)
    lengths = (5, 3, 1)
    clips["mask"] = (np.arange(5) < np.array(lengths)[:, None]).astype("f")
    path, largest = export.export_model(
        model, name, tmp_path, METADATA, [clips], mask=True
    )
    logits = export.FORMATS[name].run(path, clips)
    assert largest <= 1e-5 * max(1, np.abs(logits).max())
    assert np.isfinite(logits).all()
    for index, length in enumerate(lengths):
        alone = {n: clips[n][index : index + 1, :length] for n in ("audio", "visual")}
        np.testing.assert_allclose(
            logits[index, :length], model.predict_on_batch(alone)[0], atol=1e-4
        )


def test_litert_accepts_long_clips(tmp_path, rng):
    if "litert" not in WRITABLE:
        pytest.skip("Keras 3.12, the last one for Python 3.10, writes no LiteRT")
    model = small_models()["both ways"]
    clips = make_clips(model, rng, num_segments=40)
    metadata = {**METADATA, "num_segments": 40}
    _, largest = export.export_model(model, "litert", tmp_path, metadata, [clips])
    assert largest <= 1e-5 * max(1, np.abs(model.predict_on_batch(clips)).max())


@pytest.mark.parametrize("kind", ["avsdn", "multi-label"])
def test_a_savedmodel_returns_the_events_of_localize(tmp_path, rng, kind):
    model = small_models()[kind]
    for weight in model.weights:
        # An untrained network predicts one class everywhere.
        if weight.dtype == "float32":
            weight.assign(weight.numpy() * 3)
    clips = make_clips(model, rng, num_segments=9, count=6)
    # TensorFlow reads [1] in a path as a glob pattern.
    out = tmp_path / "v [1]"
    lengths = np.array([9, 9, 9, 9, 5, 1])
    clips["mask"] = (np.arange(9) < lengths[:, None]).astype("f")
    path, _ = export.export_model(
        model, "savedmodel", out, METADATA, [clips], mask=True
    )
    path.rename(tmp_path / "plain")
    predict = tf.saved_model.load(str(tmp_path / "plain")).signatures["serving_default"]
    found = predict(**{name: tf.constant(values) for name, values in clips.items()})
    found = {name: values.numpy() for name, values in found.items()}
    logits = model.predict_on_batch(clips)
    activate = events.sigmoid if model.multi_label else events.softmax
    real = clips["mask"] > 0
    np.testing.assert_allclose(
        found["probabilities"][real], activate(logits[real]), atol=1e-5
    )
    expected = [
        (clip, event)
        for clip, (probabilities, length) in enumerate(
            zip(found["probabilities"], lengths, strict=True)
        )
        for event in events.events_from_probabilities(
            probabilities[:length], CATEGORIES, 0.5, model.multi_label, model.thresholds
        )
    ]
    assert len({event.category for _, event in expected}) > 1
    assert found["event_clip"].tolist() == [clip for clip, _ in expected]
    assert [CATEGORIES[number] for number in found["event_class"]] == [
        event.category for _, event in expected
    ]
    for name in ("start_s", "end_s", "score"):
        wanted = [getattr(event, name) for _, event in expected]
        np.testing.assert_allclose(found[f"event_{name}"], wanted, rtol=1e-5)


def test_a_clip_of_background_has_no_events():
    found = savedmodel.events_of_clips(tf.constant([[[0.1, 0.9], [0.4, 0.6]]]), 1.0)
    assert all(values.shape == [0] for values in found.values())
    assert len(found) == 5


@pytest.fixture
def replace_run(monkeypatch):
    """Return a function that changes the logits of exported Keras files."""
    chosen = export.FORMATS["keras"]

    def replace(run):
        changed = dataclasses.replace(
            chosen, run=lambda path, clips: run(chosen.run(path, clips), clips)
        )
        monkeypatch.setitem(export.FORMATS, "keras", changed)

    return replace


def test_an_artefact_with_different_logits_is_not_kept(tmp_path, rng, replace_run):
    model = small_models()["avsdn"]
    clips = [make_clips(model, rng)]
    assert np.abs(model.predict_on_batch(clips[0])).max() < 1
    replace_run(lambda logits, _: logits + 3e-5)
    out = tmp_path / "new" / "folders"
    with pytest.raises(UserError, match=r"3e-05"):
        export.export_model(model, "keras", out, METADATA, clips)

    def fail(logits, _):
        raise RuntimeError("no such operation")

    replace_run(fail)
    with pytest.raises(UserError, match=r"RuntimeError: no such operation"):
        export.export_model(model, "keras", out, METADATA, clips)
    # Created folders are removed, too.
    assert list(tmp_path.iterdir()) == []


def test_an_impossible_export_fails_with_one_message(tmp_path, rng, monkeypatch):
    model = small_models()["avsdn"]
    clips = [make_clips(model, rng)]
    (tmp_path / "model.keras").touch()
    with pytest.raises(UserError, match=r"model.keras exists"):
        export.export_model(model, "keras", tmp_path, METADATA, clips)
    with pytest.raises(UserError, match=r"labels segments\. Received: AVDLN"):
        export.export_model(avsdn_tf.AVDLN(), "keras", tmp_path, METADATA, clips)
    find = export.importlib.util.find_spec
    monkeypatch.setattr(
        export.importlib.util,
        "find_spec",
        lambda name: None if name == "tf2onnx" else find(name),
    )
    with pytest.raises(UserError, match=r"Expected tf2onnx.*'avsdn_tf\[export\]'"):
        export.export_model(model, "onnx", tmp_path, METADATA, clips)
    monkeypatch.setattr(export.keras, "version", lambda: "3.12.4")
    with pytest.raises(UserError, match=r"Keras 3\.13 .* Keras 3\.12\.4"):
        export.export_model(model, "litert", tmp_path, METADATA, clips)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="can't be written"):
        export.export_model(model, "savedmodel", tmp_path / "file", METADATA, clips)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "model.keras"]
    with pytest.raises(UserError, match=r"config\.json is missing"):
        avsdn("export", f"--run={tmp_path}", "--format=keras")


@pytest.fixture(scope="module")
def run(data_dir, tmp_path_factory):
    """Return the folder of a small run with all exports."""
    folder = tmp_path_factory.mktemp("exported") / "run"
    config = Config(epochs=1, units=4, data_dir=data_dir)
    commands.train(config, folder)
    for name in WRITABLE:
        avsdn("export", f"--run={folder}", f"--format={name}")
    return folder


def page_scripts():
    """Return the Python programs in docs/export.md."""
    text = (ROOT / "docs/export.md").read_text()
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


@pytest.mark.parametrize("number", range(3))
def test_scripts_in_docs_export_run_without_avsdn_tf(run, number):
    scripts = page_scripts()
    assert len(scripts) == 3
    assert len([*filter(None, scripts[number].splitlines())]) <= 10
    if "tflite" in scripts[number] and "litert" not in WRITABLE:
        pytest.skip("Keras 3.12, the last one for Python 3.10, writes no LiteRT")
    blocked = "import sys; sys.modules['avsdn_tf'] = sys.modules['tfds_ave'] = None\n"
    done = subprocess.run(
        [sys.executable, "-c", blocked + scripts[number]],
        cwd=run,
        capture_output=True,
        text=True,
        check=False,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
    )
    assert done.returncode == 0, done.stderr
    # Each line contains a second, its class and its probability.
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[0] for line in lines] == list(map(str, range(10)))
    assert all(0 < float(line[-1]) <= 1 for line in lines)
    assert "avsdn_tf" not in scripts[number].replace("avsdn_tf.json", "")


def test_the_export_command_checks_real_and_random_clips(
    run, data_dir, tmp_path, capsys
):
    out = tmp_path / "out"
    avsdn("export", f"--run={run}", "--format=keras", "--mask", f"--out={out}")
    printed = capsys.readouterr().out
    assert "on 16 random clips and 16 of tfds_ave/synthetic's test split" in printed
    metadata = json.loads(zipfile.ZipFile(out / "model.keras").read("avsdn_tf.json"))
    assert metadata["classes"][-1] == "Background"
    assert (metadata["num_segments"], metadata["segment_s"]) == (10, 1.0)
    assert (metadata["mask"], metadata["multi_label"], metadata["thresholds"]) == (
        True,
        False,
        None,
    )
    assert "not AVE" in metadata["disclaimer"]
    assert metadata["avsdn_tf"] == avsdn_tf.__version__
    # Without its data set, a run is checked on random clips.
    settings = json.loads((run / "config.json").read_text())["config"]
    settings |= {"dataset": "tfds_ave/resnet152", "data_dir": str(tmp_path)}
    model, config = avsdn_tf.load(run), Config(**settings)
    clips, checked = command._clips_to_check(model, config, None)
    assert checked == "16 random clips (tfds_ave/resnet152 is not built here)"
    assert clips[0]["visual"].shape == (16, 10, 2048)
    # A data folder that the user names must hold the data set.
    with pytest.raises(dataset.NotBuiltError):
        command._clips_to_check(model, config, str(tmp_path))


def test_the_export_command_refuses_differences_on_real_clips(
    run, data_dir, tmp_path, replace_run
):
    opened = dataset.open_dataset("tfds_ave/synthetic", data_dir)
    real = next(iter(batches.scoring_batches(opened, "test", 16)))["audio"].numpy()

    def run_differently(logits, clips):
        return logits + 1e-2 * np.array_equal(clips["audio"], real)

    replace_run(run_differently)
    with pytest.raises(UserError, match=r"0\.01"):
        avsdn("export", f"--run={run}", "--format=keras", f"--out={tmp_path / 'x'}")
    assert list(tmp_path.iterdir()) == []


def test_an_export_needs_no_data(run, data_dir, tmp_path, monkeypatch, capsys):
    """Random clips replace a data set that is damaged, missing or of other shapes."""
    opened = dataset.open_dataset("tfds_ave/synthetic", data_dir)
    other = dataclasses.replace(opened, audio_width=5)

    def damaged(*_, **__):
        raise UserError("train.tfrecord: damaged or missing examples.")

    def absent(*_, **__):
        raise dataset.NotBuiltError("Not built.")

    for index, (opening, reason) in enumerate(
        (
            (lambda *_, **__: other, "is not the run's data set"),
            (damaged, "is not the run's data set"),
            (absent, "is not built here"),
        )
    ):
        monkeypatch.setattr(dataset, "open_dataset", opening)
        out = tmp_path / str(index)
        avsdn("export", f"--run={run}", "--format=keras", f"--out={out}")
        printed = capsys.readouterr().out
        assert "16 random clips (" in printed
        assert reason in printed
        assert (out / "model.keras").is_file()
        # A data folder that the user names must hold the data set.
        with pytest.raises(UserError):
            avsdn(
                *("export", f"--run={run}", "--format=keras"),
                *(f"--out={tmp_path / 'x'}", f"--data_dir={data_dir}"),
            )


def test_an_export_builds_no_data(run, tmp_path):
    settings = json.loads((run / "config.json").read_text())["config"]
    config = Config(**(settings | {"data_dir": str(tmp_path)}))
    _, checked = command._clips_to_check(avsdn_tf.load(run), config, None)
    assert checked == "16 random clips (tfds_ave/synthetic is not built here)"
    assert not any(tmp_path.iterdir())


def test_feature_maps_in_half_precision_are_checked_in_float32(
    run, data_dir, monkeypatch
):
    scoring_batches = batches.scoring_batches

    def in_half(*args):
        return scoring_batches(*args).map(
            lambda batch: {**batch, "visual": tf.cast(batch["visual"], tf.float16)}
        )

    monkeypatch.setattr(batches, "scoring_batches", in_half)
    clips, _ = command._clips_to_check(avsdn_tf.load(run), Config(), data_dir)
    assert [batch["visual"].dtype for batch in clips] == ["float32", "float32"]


def test_clips_are_cut_or_padded_to_one_length():
    clips = {
        "audio": np.ones((2, 3, 5), "float16"),
        "visual": np.ones((2, 3, 2, 2, 4), "float16"),
        "length": np.array([3, 1]),
    }
    for num_segments, lengths in ((2, [2, 1]), (4, [3, 1])):
        found = command._fit(clips, num_segments)
        assert found["mask"].sum(axis=1).tolist() == lengths
        assert found["visual"].shape == (2, num_segments, 2, 2, 4)
        assert {values.dtype.name for values in found.values()} == {"float32"}
        assert found["audio"][:, 3:].sum() == 0


def test_a_cross_modality_run_is_not_exported(run_folder):
    settings = {"config": {"mode": "cross_modal"}, "versions": {}}
    (run_folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match="labels segments"):
        avsdn("export", f"--run={run_folder}", "--format=keras")


class SmallVGGish(tf.Module):
    """A small network with the signature of TensorFlow Hub's VGGish."""

    def __init__(self):
        super().__init__()
        self.weights = tf.Variable(tf.random.stateless_normal((8, 6), (1, 2)))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32)])
    def __call__(self, waveform):
        patches = tf.shape(waveform)[0] // 15_360
        used = tf.reshape(waveform[: patches * 15_360], (-1, 8, 1920))
        return tf.linalg.matmul(tf.reduce_mean(used, -1), self.weights) * 30


def small_network(include_top, weights, pooling, input_shape):
    assert not include_top
    inputs = keras.Input(input_shape)
    outputs = keras.layers.Conv2D(4, 16, 16)(inputs)
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(outputs))


@pytest.mark.parametrize("multi_label", [False, True])
def test_an_end_to_end_savedmodel_localizes_events(
    tmp_path, rng, monkeypatch, multi_label
):
    recipe = VisualRecipe(small_network, lambda x: x / 255.0, "avg", (4,), 2)
    monkeypatch.setitem(visual.RECIPES, "small", recipe)
    tf.saved_model.save(SmallVGGish(), str(tmp_path / "vggish"))
    extractor = Extractor(
        AudioNetwork(tmp_path / "vggish"), VisualNetwork("small", "none")
    )
    keras.utils.set_random_seed(0)
    model = avsdn_tf.AVSDN(CATEGORIES, 6, (4,), units=4, multi_label=multi_label)
    # Large weights make seconds differ; the bias rules out background.
    kernel, _ = model.decoder.head.get_weights()
    bias = np.array([0, 0, 0, -99])[: model.num_classes]
    model.decoder.head.set_weights([50 * kernel, bias])
    out = tmp_path / "v [1]"
    path, largest = end_to_end.export_end_to_end(model, extractor, out, METADATA)
    assert path == out / "end_to_end"
    path = path.rename(tmp_path / "end_to_end")
    assert largest <= 1e-5
    metadata = json.loads((path / "assets.extra" / "avsdn_tf.json").read_text())
    assert metadata["frames_per_second"] == 2
    assert metadata["sample_rate_hz"] == 16_000

    predict = tf.saved_model.load(str(path)).signatures["serving_default"]
    frames = tf.constant(rng.integers(0, 256, (7, 2, 40, 60, 3), np.uint8))
    found = predict(waveform=tf.zeros(7 * 16_000), frames=frames)
    expected = events.events_from_probabilities(
        found["probabilities"].numpy(), CATEGORIES, 0.5, multi_label
    )
    assert expected
    for name in ("start_s", "end_s", "score"):
        wanted = [getattr(event, name) for event in expected]
        np.testing.assert_allclose(found[f"event_{name}"], wanted, rtol=1e-5)
    found_names = [CATEGORIES[index] for index in found["event_class"]]
    assert found_names == [event.category for event in expected]
    with pytest.raises(tf.errors.InvalidArgumentError, match="as many seconds"):
        predict(waveform=tf.zeros(6 * 16_000), frames=frames)


def test_an_end_to_end_export_computes_in_float32(run, tmp_path, monkeypatch):
    loaded = []
    monkeypatch.setattr(
        videos, "extractor_for", lambda model, **given: loaded.append(given)
    )
    monkeypatch.setattr(end_to_end, "export_end_to_end", lambda *_: (tmp_path, 0.0))
    avsdn("export", f"--run={run}", "--end_to_end", f"--vggish={tmp_path}")
    assert loaded == [{"vggish": str(tmp_path), "visual_precision": "float32"}]


def test_an_end_to_end_export_refuses_mismatched_backbones(tmp_path, monkeypatch):
    monkeypatch.setattr(AudioNetwork, "__init__", lambda self: None)
    monkeypatch.setattr(VisualNetwork, "__init__", lambda self: None)
    audio, visual = AudioNetwork(), VisualNetwork()
    audio.width, visual.shape = 64, (8,)
    extractor = Extractor(audio, visual)
    model = small_models()["avsdn"]
    with pytest.raises(UserError, match=r"6.*64"):
        end_to_end.export_end_to_end(model, extractor, tmp_path, METADATA)
    with pytest.raises(UserError, match=r"labels segments. Received: AVDLN"):
        end_to_end.export_end_to_end(
            avsdn_tf.AVDLN(visual_shape=(8,)), extractor, tmp_path, METADATA
        )
    assert not list(tmp_path.iterdir())


def test_a_full_disk_fails_with_one_message(tmp_path, rng, monkeypatch):
    def fill_disk(*_):
        message = "end_to_end/variables; No space left on device"
        raise tf.errors.ResourceExhaustedError(None, None, message)

    monkeypatch.setattr(AudioNetwork, "__init__", lambda self: None)
    monkeypatch.setattr(VisualNetwork, "__init__", lambda self: None)
    audio, visual = AudioNetwork(), VisualNetwork()
    audio.width, visual.shape, visual.frames_per_second = 6, (8,), 1
    monkeypatch.setattr(end_to_end, "_write_end_to_end", fill_disk)
    model = small_models()["avsdn"]
    said = r"can't be written \(No space left on device\)"
    extractor = Extractor(audio, visual)
    with pytest.raises(UserError, match=said):
        end_to_end.export_end_to_end(model, extractor, tmp_path, METADATA)
    keras_format = dataclasses.replace(export.FORMATS["keras"], write=fill_disk)
    monkeypatch.setitem(export.FORMATS, "keras", keras_format)
    with pytest.raises(UserError, match=said):
        export.export_model(
            model, "keras", tmp_path, METADATA, [make_clips(model, rng)]
        )
    assert not list(tmp_path.iterdir())


def test_an_end_to_end_export_refuses_custom_networks(tmp_path):
    extractor = Extractor(audio=mlp(2, 2), visual=mlp(2, 2))
    model = small_models()["avsdn"]
    with pytest.raises(UserError, match="AudioNetwork"):
        end_to_end.export_end_to_end(model, extractor, tmp_path, METADATA)


@pytest.mark.parametrize("window", [1, 2, 5, 10])
def test_the_graph_and_stitch_logits_use_equal_windows(window, rng):
    model = avsdn_tf.AVSDN(CATEGORIES, 6, (4,), units=4)
    audio, visual = (rng.random((7, width), np.float32) for width in (6, 4))
    found = end_to_end._stitch(model, tf.constant(audio), tf.constant(visual), window)
    expected = events.stitch_logits(model, [(audio, visual)], window)
    np.testing.assert_allclose(found, expected, atol=1e-6)


RUN_ONNX = """
import sys, numpy as np, onnxruntime

session = onnxruntime.InferenceSession(sys.argv[1])
for clips, segments in ((0, 5), (0, 0), (2, 0), (2, 3)):
    inputs = {
        each.name: np.zeros((clips, segments, *each.shape[2:]), np.float32)
        for each in session.get_inputs()
    }
    try:
        print(session.run(["logits"], inputs)[0].shape)
    except Exception as error:
        print("refused", *str(error).split())
"""


def test_an_empty_batch_does_not_crash_the_process(tmp_path, rng):
    pytest.importorskip("onnxruntime")
    model = small_models()["both ways"]
    clips = [make_clips(model, rng)]
    path, _ = export.export_model(model, "onnx", tmp_path, METADATA, clips)
    done = subprocess.run(
        [sys.executable, "-c", RUN_ONNX, path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *without_clips, without_segments, whole = done.stdout.splitlines()
    for line in without_clips:
        assert line.startswith("refused")
        assert "of_one_clip_or_more" in line
    assert without_segments.startswith("refused")
    assert whole == "(2, 3, 4)"
