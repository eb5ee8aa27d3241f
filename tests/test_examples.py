"""Run the programs of README and docs as printed, and parse their commands."""

import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from avsdn_tf.cli.app import build_parsers

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.py"))
# Pattern of a line that each program prints.
PRINTED = {
    # Clip, start and end of an event, category and score.
    "localize": r"^\d \d+\.\d \d+\.\d [A-Z].+ 0\.\d+$",
    "new_categories": r"Trainable params: [\d,]+",
    "fit": "event_f1: ",
    "fit_dataset": "segment_accuracy: ",
    "padded": "segment_f1: ",
    "own_data": "20 files in mydata",
    "train": r"^runs/python 0\.\d+ ",
}


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def trained(data_dir, tmp_path_factory):
    """Run README's first training with fewer epochs; return the working directory."""
    folder = tmp_path_factory.mktemp("readme")
    words = ["train", "--run=runs/first", "--epochs=8", f"--data_dir={data_dir}"]
    subprocess.run([sys.executable, "-m", "avsdn_tf", *words], cwd=folder, check=True)
    return folder


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_programs_run(example, data_dir, trained):
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", example],
        cwd=trained,
        env={**os.environ, "TFDS_DATA_DIR": data_dir},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(PRINTED[example.stem], done.stdout, re.MULTILINE)


def test_pages_show_the_programs_unchanged():
    programs = [example.read_text() for example in EXAMPLES]
    shown = [block for page in PAGES for block in blocks(page, "python")]
    assert [p for p in programs if p not in shown] == []
    assert [b for b in blocks(ROOT / "README.md", "python") if b not in programs] == []


def commands(page):
    """Yield the arguments of each command of this package in the console blocks."""
    for block in blocks(page, "console"):
        for line in block.replace("\\\n", " ").splitlines():
            for part in line.split(" && "):
                words = shlex.split(part, comments=True)
                if words[:1] == ["avsdn"]:
                    yield words[1:]
                elif words[:3] == ["python", "-m", "avsdn_tf.main"]:
                    yield words[3:]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_flags_on_the_pages_exist(page):
    _, parsers = build_parsers()
    for words in commands(page):
        is_named = words and not words[0].startswith("-")
        command, *rest = words if is_named else ["train", *words]
        parser = parsers[command]
        known = {"--help", *(f"--{name}" for name in parser.flag_names())}
        known |= {f"--no{name}" for name in parser.flag_names()}
        for word in rest:
            if word.startswith("-"):
                assert word.partition("=")[0] in known, words
