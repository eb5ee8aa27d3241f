"""Messages about wrong command lines."""

import json
import shutil

import keras
import pytest

import tfds_ave
from avsdn_tf import runs
from avsdn_tf.backbones import HUB
from avsdn_tf.cli import flags
from avsdn_tf.cli.start import (
    AUDIO_NETWORKS,
    DATASETS,
    KERAS_NETWORKS,
    VISUAL_NETWORKS,
)
from avsdn_tf.errors import UserError
from avsdn_tf.features import audio
from avsdn_tf.features.visual import RECIPES
from tests.commands import python


def test_wrong_arguments_are_reported_before_tensorflow_starts():
    program = """if True:
    import sys
    sys.argv[0] = "avsdn"
    from avsdn_tf.cli import app
    for line in sys.stdin:
        try:
            app.parse(line.split())
        except (SystemExit, app.UserError):
            assert not {"tensorflow", "keras", "numpy"} & set(sys.modules), line
        else:
            raise AssertionError(line)
    """
    lines = ["--help", "predict --help", "trian", "--mode=magic", "--epochs=0"]
    lines += ["--run=", "fetch yamnte", "predict --rnu=x a.mp4"]
    done = python("-c", program, input="\n".join(lines))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("trian", "Did you mean train?"),
        ("evaluate runs/x", "Did you mean --run=runs/x?"),
        ("train evaluat", "Did you mean evaluate?"),
        ("--model=avdlm", "Did you mean avdln?"),
        ("--mode=supervized", "Did you mean supervised?"),
        ("predict --rnu=x", "Did you mean --run?"),
        ("predict --epochs=3 --run=x a.mp4", "flag of train."),
        ("--demo", "flag of predict."),
        ("--vggish=x", "flag of predict, extract, export."),
        ("--format onnx", "flag of export."),
        ("--epochs=many", "--epochs=many: Expected an integer"),
        ("--bidirectional=perhaps", "Expected true or false"),
        ("extract --workers=0 a.mp4", "Expected a positive integer"),
        ("--run", "--run=VALUE"),
        ("help", "Did you mean --help?"),
        ("doctor all", "flags only"),
        ("push --run=x hf://a/b c", "Received: c."),
        ("push --run=x s3://a/b", "Received: s3://a/b."),
        ("fetch YAMNet", "Did you mean yamnet?"),
        ("build custom synthetic", "one config. Received: custom and synthetic."),
        ("build --manual_dir=", "--manual_dir: expected a path"),
        ("evaluate --run=", "--run: expected a path"),
        ("--run=hf://a/b", "a folder on this machine"),
        ("fetch yamnte", "Did you mean yamnet?"),
        ("--epochs=0", "--epochs=0: "),
        ("--mod=weak", "no flag --mod"),
        ("fly", "train, evaluate, predict, extract, export"),
    ],
)
def test_a_wrong_argument_gets_a_hint(refuse, words, expected):
    message = refuse(*words.split())
    assert expected in message
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("evaluate", "--run=DIR"),
        ("predict a.mp4", "--run=DIR"),
        ("predict --run=x", "a video"),
        ("predict --demo --empty=audio --run=x", "--run, --empty"),
        ("predict --demo=true a.mp4", "Leave out"),
        ("extract", "video"),
        ("export", "--run=DIR"),
        ("export --run=x --vggish=y", "--vggish"),
        ("export --run=x --end_to_end --data_dir=y", "--data_dir"),
        ("export --run=x --end_to_end --format=onnx", "--format=onnx"),
        ("export --run=x --end_to_end --mask", "--mask"),
        ("--local_workers=2 --strategy=single", "--strategy=single"),
        ("--mode=cross_modal --model=avel", "--model=avel"),
        ("--pooling=max", "--pooling=max"),
    ],
)
def test_unused_flags_are_refused(refuse, words, expected):
    assert expected in refuse(*words.split())


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Return the working folder, with unfinished, broken and ended runs."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("no run")
    running = tmp_path / "running"
    running.mkdir()
    (running / "model.keras").write_bytes(b"")
    settings = {"config": {}, "versions": {}}
    (running / "config.json").write_text(json.dumps(settings))
    broken = tmp_path / "broken"
    shutil.copytree(running, broken)
    (broken / "SHA256SUMS").write_text("")
    (broken / "config.json").write_text("{")
    ended = tmp_path / "ended"
    shutil.copytree(running, ended)
    for name in ("SHA256SUMS", "report.json"):
        (ended / name).write_text("")
    for name, files in {
        "data": ("manifest.csv", "categories.txt"),
        "half": ("manifest.csv",),
    }.items():
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).write_text("")
    return tmp_path


MISSING = [
    ("evaluate --run=nope", "--run=nope: No such folder"),
    ("evaluate --run=empty", "--run=empty: "),
    ("evaluate --run=file", "--run=file: "),
    ("evaluate --run=running", "SHA256SUMS"),
    ("evaluate --run=broken", "config.json"),
    ("export --run=nope", "--run=nope: "),
    ("export --run=nope --format=onx", "Did you mean onnx?"),
    ("predict --run=nope a.mp4", "--run=nope: "),
    ("predict --run=nope a.mp4 --visual_network=vgg", "Did you mean vgg19?"),
    ("predict --run=nope a.mp4 --visual_precision=half", "mixed_bfloat16"),
    ("extract nothere.mp4", "nothere.mp4 (no such file or folder)"),
    ("extract empty", "Received: empty"),
    ("extract file --vggish=nope", "--vggish=nope: "),
    ("extract file --visual_weights=nope.h5", "--visual_weights=nope.h5: "),
    ("extract file --out=file/x", "--out=file/x: "),
    ("--run=file", "--run=file: "),
    ("--run=file/x", "--run=file/x: "),
    ("--model=avle", "Did you mean avel?"),
    ("--dataset=custom", "Did you mean tfds_ave/custom?"),
    ("--dataset=tfds_ave/vgg91", "Did you mean tfds_ave/vgg19?"),
    ("--dataset=mnist", "--dataset=mnist: "),
    ("--data_dir=file", "file: Not a folder"),
    ("--run=ended", "--run=ended: This run has ended"),
    ("--run=ended --noresume", "--run=ended: The folder holds files"),
    ("--manifest=data --run=ended", "--run=ended: This run has ended"),
    ("--manifest=nope", "--manifest=nope: No such folder"),
    ("--manifest=empty", "--manifest=empty: manifest.csv is missing"),
    ("--manifest=half", "--manifest=half: categories.txt is missing"),
    ("build custom --manual_dir=half", "categories.txt is missing"),
    ("build --data_dir=file", "--data_dir=file: "),
    ("fetch --to=file", "--to=file: "),
    ("evaluate --run=ended --data_dir=nope", "--data_dir=nope: No such folder"),
    ("export --run=ended --data_dir=nope", "--data_dir=nope: No such folder"),
    ("predict --run=ended nope.mp4", "nope.mp4"),
    ("extract file --visual_network=Resnet152", "Did you mean resnet152?"),
    ("extract file --visual_network=VGG91", "Did you mean VGG19?"),
    ("extract file --audio_network=yamnt", "Did you mean yamnet?"),
    ("manifest nope", "nope: no such folder"),
    (
        "--dataset=tfds_ave/custom --data_dir=empty",
        "empty/tfds_ave/custom. Build it first",
    ),
    ("--model=dmrn --encoders=nope", "--encoders=nope: "),
]


@pytest.mark.parametrize(("words", "expected"), MISSING)
def test_a_missing_input_fails_with_one_message(refuse, folders, words, expected):
    before = set(folders.rglob("*"))
    message = refuse(*words.split())
    assert expected in message
    assert message.count("\n") == 1 + ("avsdn build" in message)
    assert set(folders.rglob("*")) == before


def test_missing_inputs_are_reported_before_tensorflow_starts(folders):
    program = """if True:
    import sys
    sys.argv[0] = "avsdn"
    from avsdn_tf.cli import app
    for line in sys.stdin:
        try:
            app.main(app.parse(line.split()))
        except (SystemExit, app.UserError):
            assert not {"tensorflow", "keras"} & set(sys.modules), line
        else:
            raise AssertionError(line)
    """
    lines = "\n".join(words for words, _ in MISSING)
    done = python("-c", program, input=lines, cwd=folders)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_names_checked_without_tensorflow_equal_the_registries():
    for registry in (flags.MODELS, flags.FORMATS):
        assert registry.names == tuple(registry.entries())
    assert tfds_ave.Builder.builder_configs.keys() == set(DATASETS)
    assert {*AUDIO_NETWORKS, HUB} == set(audio.AUDIO_NETWORKS)
    assert set(VISUAL_NETWORKS) == set(RECIPES)
    names = {name for name in vars(keras.applications) if name[0].isupper()}
    assert set(KERAS_NETWORKS) == names


def test_a_moved_run_needs_a_data_dir(run_folder, tmp_path):
    path = run_folder / "config.json"
    content = json.loads(path.read_text())
    content["config"]["data_dir"] = str(tmp_path / "elsewhere")
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="elsewhere") as error:
        runs.evaluate(run_folder)
    assert error.value.field == "data_dir"
