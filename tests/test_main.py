import inspect
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from avsdn_tf import main, startup
from avsdn_tf.training.config import Config
from avsdn_tf.errors import UserError
from avsdn_tf.features import extractor as extract
from avsdn_tf.models.registry import MODELS

ROOT = pathlib.Path(__file__).resolve().parents[1]


def run(*words, cwd=ROOT):
    return subprocess.run(
        [sys.executable, "-m", "avsdn_tf.main", *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "80"},
    )


def test_the_main_job_and_what_a_program_does_with_its_model(data_dir, tmp_path):
    result = run(
        "--mode=supervised",
        "--epochs=2",
        "--units=8",
        f"--data_dir={data_dir}",
        f"--run={tmp_path / 'runs/first'}",
    )
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    assert "not AVE" in result.stdout
    assert "Accuracy" in result.stdout

    # What the README shows, as it is printed there, in a program of its own.
    lines = (ROOT / "README.md").read_text().splitlines()
    start = next(n for n, line in enumerate(lines) if "import keras" in line)
    snippet = "\n".join(line[4:] for line in lines[start : start + 5])
    assert "load_model" in snippet
    assert "localize" in snippet
    program = (
        f"{snippet}\n"
        "x = np.random.default_rng(0)\n"
        "np.save('out.npy', model.predict_on_batch({\n"
        "    'audio': x.normal(size=(2, 10, 128)).astype('float32'),\n"
        "    'visual': x.normal(size=(2, 10, 2048)).astype('float32')}))\n"
    )
    outputs = []
    for _ in range(2):
        app = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
        )
        assert app.returncode == 0, app.stderr
        outputs.append(np.load(tmp_path / "out.npy"))
    np.testing.assert_array_equal(*outputs)
    assert outputs[0].shape == (2, 10, 29)


@pytest.mark.parametrize(
    "own", [["--local_workers=2"], ["--local_workers", "2"], ["-local_workers", "2"]]
)
def test_workers_are_started_with_all_other_words(own, monkeypatch):
    # What only looks like the flag is not it.
    words = ["--run", "local_workers_x", "--units=8"]
    monkeypatch.setattr(sys, "argv", ["main", *own, *words])
    started = []
    monkeypatch.setattr(main, "launch", lambda *args: started.append(args))
    with flagsaver.flagsaver():
        flags.FLAGS(sys.argv)
        main._launch(Config())
    assert started == [([*words, "--strategy=multi_worker"], 2)]


def test_it_starts_where_standard_error_is_closed():
    program = f"{sys.executable} -c 'import avsdn_tf.main; print(42)' 2>&-"
    done = subprocess.run(
        program, shell=True, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "42\n")


def test_it_starts_where_no_file_can_be_made(monkeypatch, capfd):
    def refuse():
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(startup.tempfile, "TemporaryFile", refuse)
    with startup.quiet_startup():
        print("as usual", file=sys.stderr)
    assert capfd.readouterr().err == "as usual\n"


def test_another_backend_is_one_message(monkeypatch, capsys):
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    with flagsaver.flagsaver():
        flags.FLAGS.unparse_flags()
        words = flags.FLAGS(["avsdn", "--epochs=1"])
        with pytest.raises(SystemExit) as stop:
            main.main(words)
    assert stop.value.code == 2
    said = "Expected Keras's TensorFlow backend. Received: jax."
    assert said in capsys.readouterr().err
    with pytest.raises(UserError, match="KERAS_BACKEND=tensorflow"):
        extract.build_extractor("resnet152")


def test_a_tilde_in_a_path_is_the_home_folder(monkeypatch):
    called = []
    monkeypatch.setattr(main.commands, "evaluate", lambda *args: called.append(args))
    monkeypatch.setenv("HOME", "/home/somebody")
    with flagsaver.flagsaver():
        flags.FLAGS.unparse_flags()
        words = ["avsdn", "evaluate", "--run=~/runs/first", "--data_dir=a~b"]
        main.main(flags.FLAGS(words))
    ((run_folder, data_dir, _),) = called
    assert (run_folder, data_dir) == ("/home/somebody/runs/first", "a~b")


def test_help_lists_commands_flags_and_models():
    result = run("--help")
    for word in (
        "evaluate",
        "--mode",
        "--weak_label",
        "--run",
    ):
        assert word in result.stdout
    lines = [line.strip() for line in result.stdout.splitlines()]
    for name, entry in MODELS.items():
        assert f"{name}: {entry.summary}." in lines


def test_the_console_script_has_the_same_help():
    program = (
        "import sys; sys.argv = ['avsdn', '--help']; "
        "from avsdn_tf.main import run; run()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    for word in ("train      trains", "--[no]demo", "--visual_network", "--weak_label"):
        assert word in done.stdout


@pytest.mark.parametrize(
    ("name", "words", "expected"),
    [
        ("train", ["--run=r", "--units=3"], {0: Config(units=3), 1: "r", 3: True}),
        ("evaluate", ["--run=r", "--data_dir=d"], {0: "r", 1: "d"}),
        (
            "predict",
            ["--run=r", "--vggish=v", "a.mp4", "b.mp4"],
            {0: "r", 1: ["a.mp4", "b.mp4"], 2: "predictions", 3: {"vggish": "v"}},
        ),
        ("predict", ["--demo", "--out=o"], {0: None, 1: [], 2: "o", 3: {}}),
        (
            "extract",
            ["--visual_network=vgg19", "--workers=3", "--empty=audio", "a.mp4"],
            {0: ["a.mp4"], 1: "features", 2: "vgg19", 3: {"empty": "audio"}, 4: 3},
        ),
        (
            "extract",
            ["--visual_precision=mixed_bfloat16", "a.mp4"],
            {0: ["a.mp4"], 3: {"visual_precision": "mixed_bfloat16"}},
        ),
        (
            "export",
            ["--run=r", "--format=onnx", "--out=o", "--data_dir=d"],
            {0: "r", 1: "onnx", 2: "o", 3: None, 4: "d"},
        ),
        (
            "export",
            ["--run=r", "--end_to_end", "--visual_weights=w"],
            {0: "r", 1: "savedmodel", 2: None, 3: {"visual_weights": "w"}},
        ),
        (
            "benchmark",
            ["step", "start", "step", "--repeats=2", "--data_dir=d"],
            {0: ["step", "start"], 1: Config().dataset, 2: "d", 3: 2, 4: "benchmark"},
        ),
    ],
)
def test_a_command_is_called_with_what_its_flags_say(
    monkeypatch, name, words, expected
):
    called = []

    def record(*args):
        called.append(args)
        return 0

    # A replacement that takes other arguments than the command would hide a mistake.
    signature = inspect.signature(getattr(main.commands, name))
    monkeypatch.setattr(main.commands, name, record)
    command = [] if name == "train" else [name]
    with flagsaver.flagsaver():
        flags.FLAGS.unparse_flags()
        main.main(flags.FLAGS(["avsdn", *command, *words]))
    (args,) = called
    signature.bind(*args)
    assert {index: args[index] for index in expected} == expected


def test_failed_videos_are_in_the_exit_code(monkeypatch):
    monkeypatch.setattr(main.commands, "predict", lambda *_: 2)
    with flagsaver.flagsaver():
        flags.FLAGS.unparse_flags()
        words = flags.FLAGS(["avsdn", "predict", "--run=r", "a.mp4"])
        with pytest.raises(SystemExit) as stop:
            main.main(words)
    assert stop.value.code == 1


def test_wrong_mode_is_one_message():
    result = run("--mode=magic")
    assert result.returncode != 0
    assert "Traceback" not in result.stderr
    assert "--mode=magic" in result.stderr
    assert "supervised|weak|cross_modal" in result.stderr


@pytest.fixture
def call(capsys):
    """Runs a command that fails, in this process, and returns what it says."""

    def call(*words):
        with flagsaver.flagsaver():
            flags.FLAGS.unparse_flags()
            with pytest.raises(SystemExit) as stop:
                main.main(flags.FLAGS(["avsdn", *words]))
        assert stop.value.code == 2
        message = capsys.readouterr().err
        assert message.startswith("avsdn_tf: ")
        assert "Traceback" not in message
        return message

    return call


def test_what_does_not_fit_is_one_message(call, data_dir, tmp_path):
    message = call("fly")
    assert "train, evaluate, predict, extract, export" in message
    assert "fly" in message
    message = call("--dataset=tfds_ave/nope", f"--data_dir={data_dir}")
    assert "nope" in message
    assert "synthetic" in message
    assert "Received: 0" in call("--epochs=0")
    assert "--run=DIR" in call("evaluate")
    assert "config.json is missing" in call("evaluate", f"--run={tmp_path}")
    assert "Received: --units" in call("evaluate", f"--run={tmp_path}", "--units=3")
    assert "Received: --demo" in call("--demo")
    assert "Received: --units" in call("extract", "--units=3", "a.mp4")
    assert "Received: a.mp4" in call("train", "a.mp4")
    assert "--run=DIR" in call("export")
    message = call("export", "--run=x", "--end_to_end", "--format=onnx")
    assert "expected --format=savedmodel. Received: --format=onnx" in message
    assert "not read --vggish" in call("export", "--run=x", "--vggish=y")
    message = call("export", "--run=x", "--end_to_end", "--data_dir=y")
    assert "not read --data_dir" in message
    message = call("predict", "--demo", "--empty=audio", "--run=x")
    assert "predict --demo: does not read --run, --empty" in message
    assert "expected no videos" in call("predict", "--demo", "a.mp4")
    run_folder = tmp_path / "run"
    message = call("--model=avel_att", f"--data_dir={data_dir}", f"--run={run_folder}")
    assert "feature maps" in message
    assert "visual_shape=(2048,)" in message
    assert "such as tfds_ave/vgg19, or --model=avel" in message
    message = call(
        "--model=avel", "--merge=mean", f"--data_dir={data_dir}", f"--run={run_folder}"
    )
    assert "--merge: --model=avel has no such option" in message
    message = call("--mode=cross_modal", "--model=avel", f"--run={run_folder}")
    assert "--mode=cross_modal and --model=cross_modal go together" in message
    assert message.count("\n") == 1
    assert not run_folder.exists()


def test_unwritable_run_folder_is_one_message(call, data_dir, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    message = call(f"--data_dir={blocked / 'data'}")
    assert "can't be written" in message
    assert "--data_dir" in message
    message = call(f"--data_dir={data_dir}", f"--run={blocked / 'run'}")
    assert "can't be written" in message
    assert str(blocked) in message


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "strong"}, "--mode: expected one of supervised, weak"),
        ({"dropout": 1.0}, r"--dropout.*Received: 1.0"),
        ({"learning_rate": float("nan")}, r"--learning_rate"),
        ({"weight_decay": -1.0}, r"--weight_decay"),
        ({"decay_steps": -1}, r"--decay_steps"),
        ({"ema": 1.0}, r"--ema.*Received: 1.0"),
        ({"label_smoothing": -0.1}, r"--label_smoothing"),
        ({"seed": -1}, r"--seed: .*\[0, 2\*\*32\). Received: -1"),
        ({"seed": 2**32}, r"--seed.*Received: 4294967296"),
        ({"checkpoint_minutes": float("inf")}, r"--checkpoint_minutes.*finite"),
        ({"clip_norm": float("nan")}, r"--clip_norm.*finite"),
        ({"learning_rate": float("inf")}, r"--learning_rate.*finite"),
        ({"pooling": "max"}, r"--pooling: expected --mode=weak.*--mode=supervised"),
        (
            {"mode": "cross_modal", "model": "cross_modal", "weak_label": "mil"},
            r"--weak_label: expected --mode=weak.*--mode=cross_modal",
        ),
    ],
)
def test_config_refuses_what_makes_no_sense(settings, message):
    with pytest.raises(UserError, match=message):
        Config(**settings)


def test_config_survives_json():
    config = Config(mode="weak", units=7)
    assert Config.from_dict(config.to_dict()) == config
    with pytest.raises(UserError, match="Unknown settings spin"):
        Config.from_dict({"spin": 1})
