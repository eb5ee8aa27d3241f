"""Commands with closed streams, full disks, wrong clocks and unwritable files."""

import json
import os
import pathlib
import subprocess
import sys
import time

import keras
import pytest

from avsdn_tf import runs
from avsdn_tf.cli import app
from avsdn_tf.errors import UserError
from avsdn_tf.report import run_report
from avsdn_tf.training.tensorboard import TensorBoard

ROOT = pathlib.Path(__file__).resolve().parents[1]
FULL = pathlib.Path("/dev/full")
COMMAND = [sys.executable, "-m", "avsdn_tf"]


@pytest.fixture(scope="module")
def run(data_dir, tmp_path_factory):
    """Train, and close the output after a line; return folder, exit code and stderr."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    words = ["--epochs=2", "--units=4", f"--data_dir={data_dir}", f"--run={folder}"]
    with subprocess.Popen(
        [*COMMAND, *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
    return folder, process.returncode, errors


def test_training_continues_after_its_output_is_closed(run):
    folder, code, errors = run
    assert (code, errors) == (0, "")
    assert 0 < json.loads((folder / "report.json").read_text())["accuracy"] < 1


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("words", [["--version"], ["predict", "--help"]])
def test_output_to_a_full_disk_fails_with_one_message(words):
    with FULL.open("w") as full:
        done = subprocess.run(
            [*COMMAND, *words],
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "No space left" in done.stderr
    with FULL.open("w") as full:
        # Standard error is full, too: the exit code is the only report.
        done = subprocess.run(
            [*COMMAND, *words], cwd=ROOT, stdout=full, stderr=full, check=False
        )
    assert done.returncode == 1


def test_characters_outside_the_encoding_are_printed_as_escapes():
    done = subprocess.run(
        [*COMMAND, "evaluate", "--run=犬"],
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 2
    assert rb"--run=\u72ac: No such folder" in done.stderr


@pytest.mark.parametrize("command", ["train", "evaluate", "export"])
def test_the_name_of_a_run_folder_must_be_utf8(command):
    with pytest.raises(UserError, match="UTF-8") as raised:
        app.parse([command, os.fsdecode(b"--run=caf\xe9")])
    assert raised.value.field == "run"
    # A video may have any name.
    assert app.parse(["extract", os.fsdecode(b"caf\xe9.mp4")]).videos


@pytest.mark.parametrize("year", [1970, 1979, 2108])
def test_a_year_outside_the_zip_formats_range_fails_with_one_message(
    monkeypatch, capsys, year
):
    then = time.struct_time((year, 1, 1, 0, 0, 0, 0, 1, 0))
    monkeypatch.setattr(app.time, "localtime", lambda: then)
    with pytest.raises(SystemExit) as stop:
        app.main(app.parse(["--epochs=1"]))
    assert stop.value.code == 2
    assert f"the year {year}" in capsys.readouterr().err


def test_unwritable_tensorboard_logs_fail_with_one_message(tmp_path):
    (tmp_path / "tensorboard").write_text("not a folder")
    logs = TensorBoard(tmp_path / "tensorboard", lambda: "All is saved.")
    logs.set_model(keras.Sequential())
    with pytest.raises(UserError, match=r"tensorboard: .*All is saved\."):
        logs.on_train_begin()


def test_scores_are_printed_if_the_report_cant_be_written(
    run, data_dir, monkeypatch, capsys
):
    folder, _, _ = run
    before = (folder / "report.json").read_text()
    # Replace `access`: root may write to any folder.
    monkeypatch.setattr(runs.os, "access", lambda *_: False)
    monkeypatch.setattr(run_report, "write_text", _fail)
    assert app.main(app.parse(["evaluate", f"--run={folder}"])) == 0
    lines = capsys.readouterr().out.splitlines()
    accuracy = json.loads(before)["accuracy"]
    assert any(
        line.split()[:2] == ["Accuracy", f"{accuracy:.1%}"[:-1]] for line in lines
    )
    assert sum("Read-only file system" in line for line in lines) == 1
    assert (folder / "report.json").read_text() == before


def _fail(*_):
    raise OSError(30, os.strerror(30))
