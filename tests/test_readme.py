"""The programs that the README shows, run as they are printed there."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
TITLE = "Use a trained model in another program"


def programs(title):
    """The indented programs of a section."""
    section = (ROOT / "README.md").read_text().split(f"\n## {title}\n\n")[1]
    blocks = section.split("\n## ")[0].split("\n\n")
    return [
        "\n".join(line[4:] for line in block.splitlines())
        for block in blocks
        if block.startswith("    import")
    ]


def run_program(number, folder, data_dir, *flags):
    """Runs a program of the README; returns it and what it prints."""
    program = programs(TITLE)[number]
    done = subprocess.run(
        [sys.executable, *flags, "-c", program],
        cwd=folder,
        env={**os.environ, "TFDS_DATA_DIR": data_dir},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return program, done.stdout


@pytest.fixture(scope="module")
def trained(data_dir, tmp_path_factory):
    """A folder in which the command that the programs' run comes from was called."""
    folder = tmp_path_factory.mktemp("readme")
    section = (ROOT / "README.md").read_text().split(f"\n## {TITLE}\n\n")[1]
    (command,) = (line for line in section.splitlines() if "--run=runs/first" in line)
    words = command.split()[1:]
    words += ["--epochs=8", f"--data_dir={data_dir}"]
    subprocess.run([sys.executable, *words], cwd=folder, check=True)
    return folder


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        # Clip, start and end of an event, category and score.
        (0, r"^\d \d+\.\d \d+\.\d [A-Z].+ 0\.\d+$"),
        (3, r"Trainable params: [\d,]+"),
    ],
)
def test_programs_print_what_a_trained_run_finds(data_dir, trained, number, shown):
    _, printed = run_program(number, trained, data_dir)
    assert re.search(shown, printed, re.MULTILINE)


@pytest.mark.parametrize("number", [1, 2])
def test_networks_fit_as_keras_models(data_dir, tmp_path, number):
    flags = ("-W", "error::UserWarning")
    program, printed = run_program(number, tmp_path, data_dir, *flags)
    assert "model.fit(" in program
    assert len(program.splitlines()) <= 10
    assert "loss: " in printed
