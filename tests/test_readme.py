"""The programs that the README shows, run as they are printed there."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]


def programs(title):
    """The indented programs of a section."""
    section = (ROOT / "README.md").read_text().split(f"\n## {title}\n\n")[1]
    blocks = section.split("\n## ")[0].split("\n\n")
    return [
        "\n".join(line[4:] for line in block.splitlines())
        for block in blocks
        if block.startswith("    import")
    ]


@pytest.mark.parametrize("number", [1, 2])
def test_networks_fit_as_keras_models(data_dir, tmp_path, number):
    program = programs("Use a trained model in another program")[number]
    assert "model.fit(" in program
    assert len(program.splitlines()) <= 10
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", program],
        cwd=tmp_path,
        env={**os.environ, "TFDS_DATA_DIR": data_dir},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "loss: " in done.stdout
