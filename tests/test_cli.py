import ast
import json
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys

import keras
import pytest

from avsdn_tf import startup
from avsdn_tf.cli import app, evaluate
from avsdn_tf.errors import UserError
from avsdn_tf.training import launcher
from avsdn_tf.training.config import CROSS_MODAL, Config
from avsdn_tf.training.signals import TrainingInterruptedError
from tests.commands import ROOT, call, python


@pytest.mark.parametrize(
    "program", [["-m", "avsdn_tf"], ["-m", "avsdn_tf.main"], ["avsdn"]]
)
def test_every_entry_point_prints_the_version(program):
    if program == ["avsdn"]:
        program = [pathlib.Path(sys.executable).parent / "avsdn"]
        if not program[0].exists():
            pytest.skip("the console script is not installed")
    done = python(*program, "--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("avsdn_tf ")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", {}),
        ("train --epochs=3", {"epochs": 3}),
        ("--epochs 3 -units=7", {"epochs": 3, "units": 7}),
        ("--bidirectional", {"bidirectional": True}),
        ("--bidirectional True --units 3", {"bidirectional": True, "units": 3}),
        ("--noshared_mlp --no-resume", {"shared_mlp": False}),
        ("--bidirectional=false --shared_mlp=1", {}),
        ("--mode=cross_modal", {"mode": CROSS_MODAL}),
        ("--learning_rate=1e-4 --dropout .5", {"learning_rate": 1e-4, "dropout": 0.5}),
        ("--verbosity=-1 --mode=weak", {"mode": "weak"}),
    ],
)
def test_settings_are_parsed_in_every_form(words, expected):
    args = app.parse(words.split())
    assert args.command == "train"
    assert args.config == Config(**expected)


def test_a_config_converted_to_flags_is_parsed_unchanged():
    for config in (
        Config(),
        Config(mode=CROSS_MODAL, epochs=300),
        Config(mode="weak", bidirectional=True, shared_mlp=False, data_dir="a b"),
    ):
        assert app.parse(config.to_flags()).config == config
    assert Config(units=3).to_flags() == ["--mode=supervised", "--units=3"]


def test_commands_flags_and_videos_are_accepted_in_any_order():
    args = app.parse(["--run=r", "evaluate", "--data_dir", "d"])
    assert (args.command, args.run, args.data_dir) == ("evaluate", "r", "d")
    args = app.parse(["predict", "a.mp4", "--run=r", "b.mp4", "--out", "o", "c.mp4"])
    assert (args.run, args.out) == ("r", "o")
    assert args.videos == ["a.mp4", "b.mp4", "c.mp4"]
    args = app.parse(["extract", "a.mp4", "--workers=3", "--", "-b.mp4"])
    assert (args.workers, args.videos) == (3, ["a.mp4", "-b.mp4"])


def test_a_tilde_in_a_path_is_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    args = app.parse(["evaluate", "--run=~/runs/first", "--data_dir=a~b"])
    assert (args.run, args.data_dir) == ("/home/somebody/runs/first", "a~b")
    args = app.parse(["--encoders=~/r", "--data_dir", "~/d"])
    assert args.config.encoders == "/home/somebody/r"
    assert args.config.data_dir == "/home/somebody/d"


def documented():
    """Yield the documented command lines."""
    pages = [ROOT / "README.md", ROOT / "tfds_ave/README.md", *ROOT.glob("docs/*.md")]
    before = r"(?:^\s*|exec |&& |\| `)"
    pattern = re.compile(before + r"python -m avsdn_tf\.main([^`#\n']*)", re.MULTILINE)
    for page in pages:
        for words in pattern.findall(page.read_text(encoding="utf-8")):
            yield re.sub(r"\[.*?\]", "", words).strip()


@pytest.mark.parametrize("words", sorted(set(documented())))
def test_documented_command_lines_are_parsed(words):
    if words.endswith("--help"):
        return
    assert app.parse(shlex.split(words)).command in app.COMMANDS


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (UserError("no", field="run", value="x"), 2, "avsdn_tf: --run=x: no\n"),
        (UserError("no"), 2, "avsdn_tf: no\n"),
        (KeyboardInterrupt(), 130, "avsdn_tf: evaluate was stopped.\n"),
        (TrainingInterruptedError(signal.SIGTERM, "at 3"), 143, "SIGTERM"),
        (TrainingInterruptedError(signal.SIGINT, "at 3"), 130, "SIGINT"),
    ],
)
def test_errors_become_exit_codes(monkeypatch, capsys, error, code, message):
    def run(_):
        raise error

    monkeypatch.setattr(evaluate, "run", run)
    try:
        found = call("evaluate", "--run=r")
    except SystemExit as stop:
        found = stop.code
    assert found == code
    assert message in capsys.readouterr().err


def test_another_backend_fails_with_one_message(monkeypatch, refuse):
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    assert "KERAS_BACKEND=tensorflow" in refuse("--epochs=1")


def test_a_run_trained_by_the_command_loads_in_a_program(data_dir, tmp_path):
    run = tmp_path / "run"
    setting = ["--epochs=1", "--units=8", f"--data_dir={data_dir}", f"--run={run}"]
    done = python("-m", "avsdn_tf.main", "--mode=supervised", *setting)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "not AVE" in done.stdout
    report = json.loads((run / "report.json").read_text())
    assert f"{report['accuracy']:.1%}".split("%")[0] in done.stdout
    program = (
        "import sys, avsdn_tf, keras\n"
        "model = keras.models.load_model(sys.argv[1])\n"
        "print(model.num_segments, model.segment_s, len(model.categories))"
    )
    done = python("-c", program, run / "model.keras")
    assert done.stdout.split() == ["10", "1.0", "28"], done.stderr

    (run / "report.json").unlink()
    assert call("evaluate", f"--run={run}", f"--data_dir={data_dir}") == 0
    assert json.loads((run / "report.json").read_text()) == report
    assert call("export", f"--run={run}", "--format=keras", f"--out={tmp_path}") == 0
    assert (tmp_path / "model.keras").exists()


def test_missing_runs_and_unwritable_folders_are_named(refuse, data_dir, tmp_path):
    assert "config.json" in refuse("evaluate", f"--run={tmp_path}")
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    message = refuse(f"--data_dir={data_dir}", f"--run={blocked / 'run'}")
    assert str(blocked) in message
    assert "--dataset=tfds_ave/nope" in refuse(
        "--dataset=tfds_ave/nope", f"--data_dir={data_dir}"
    )
    run = tmp_path / "run"
    message = refuse("--model=avel_att", f"--data_dir={data_dir}", f"--run={run}")
    assert "--model=avel_att" in message
    assert "(2048,)" in message
    message = refuse(
        "--model=avel", "--merge=mean", f"--data_dir={data_dir}", f"--run={run}"
    )
    assert "--merge=mean" in message
    assert not run.exists()


def test_workers_get_the_settings_and_the_same_run_folder(monkeypatch):
    started = []
    monkeypatch.setattr(
        launcher, "launch", lambda words, count: started.append((words, count)) or 7
    )
    assert call("--local_workers=2", "--units=8", "--run", "r", "--noresume") == 7
    assert call("--local_workers", "2") == 7
    (words, count), (other_words, _) = started
    args = app.parse(words)
    assert count == 2
    assert args.config == Config(units=8, strategy="multi_worker")
    assert (args.run, args.resume, args.local_workers) == ("r", False, None)
    assert app.parse(other_words).run.startswith("runs/avsdn-supervised-synthetic-")


def test_importing_the_package_keeps_the_settings_of_the_process():
    program = """if True:
    import os, signal, sys, threading, warnings
    # These libraries change the process themselves: import them first.
    import tensorflow, keras, av, h5py

    def state():
        descriptors = {}
        for number in range(64):
            try:
                stat = os.fstat(number)
                descriptors[number] = [stat.st_dev, stat.st_ino]
            except OSError:
                pass
        return {
            "environment": dict(os.environ),
            "descriptors": descriptors,
            "signals": [str(signal.getsignal(number)) for number in range(1, 32)],
            "warnings": [str(entry) for entry in warnings.filters],
            "threads": sorted(thread.name for thread in threading.enumerate()),
            "pools": [
                tensorflow.config.threading.get_intra_op_parallelism_threads(),
                tensorflow.config.threading.get_inter_op_parallelism_threads(),
            ],
            "excepthook": sys.excepthook.__module__,
            "stderr": id(sys.stderr),
        }

    before = state()
    import avsdn_tf
    after = state()
    for name in before:
        assert before[name] == after[name], (name, before[name], after[name])
    """
    done = python("-c", program)
    assert done.returncode == 0, done.stderr


def test_no_module_imports_a_unix_only_library():
    for package in ("avsdn_tf", "tfds_ave"):
        for path in (ROOT / package).rglob("*.py"):
            # Only module-level imports: functions may check the platform first.
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.Import):
                    names = {alias.name for alias in node.names}
                    assert not {"fcntl", "pwd", "resource", "termios"} & names, path


@pytest.mark.parametrize(
    ("program", "words", "expected"),
    [
        ("/usr/bin/avsdn", [], True),
        ("-m", ["python", "-W", "error", "-m", "avsdn_tf.main", "--help"], True),
        ("-m", ["python", "-m", "avsdn_tf"], True),
        ("-m", ["python", "-m", "experiments.run", "table1"], True),
        ("-m", ["python", "-m", "experiments.benchmark.turns"], False),
        ("-m", ["python", "-m", "pytest", "avsdn_tf"], False),
        ("avsdn.py", ["python", "avsdn.py"], False),
        ("", ["python"], False),
    ],
)
def test_is_command_line_recognizes_the_program(monkeypatch, program, words, expected):
    monkeypatch.setattr(sys, "argv", [program])
    monkeypatch.setattr(sys, "orig_argv", words)
    assert startup.is_command_line() is expected


def test_tensorflow_starts_with_a_closed_standard_error():
    program = f"{sys.executable} -c 'import avsdn_tf.startup as s;"
    program += " s.start_tensorflow(); print(42)' 2>&-"
    done = subprocess.run(
        program, shell=True, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "42\n")


def test_quiet_startup_drops_only_notices(capfd):
    def start():
        with startup.quiet_startup():
            os.write(2, b"I0000 00:00 cpu_feature_guard.cc\nE0000 00:00 a failure\n")
            raise KeyError

    with pytest.raises(KeyError):
        start()
    assert capfd.readouterr().err == "E0000 00:00 a failure\n"


def test_quiet_startup_works_without_temporary_files(monkeypatch, capfd):
    def fail():
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(startup.tempfile, "TemporaryFile", fail)
    with startup.quiet_startup():
        print("as usual", file=sys.stderr)
    assert capfd.readouterr().err == "as usual\n"


@pytest.mark.parametrize("backend", ["nonsense", "mxnet"])
def test_a_backend_that_cant_be_imported_fails_with_one_message(tmp_path, backend):
    done = python(
        *("-m", "avsdn_tf", "--epochs=1", f"--run={tmp_path / 'run'}"),
        env={**os.environ, "KERAS_BACKEND": backend},
    )
    assert done.returncode == 2
    assert "KERAS_BACKEND=tensorflow" in done.stderr
    assert done.stderr.count("\n") == 1
