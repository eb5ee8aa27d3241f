"""What `--help` of the commands prints."""

import dataclasses
import itertools
import re
import shlex

import pytest

from avsdn_tf.cli import app
from avsdn_tf.models.registry import MODELS
from avsdn_tf.training.config import Config
from experiments import compare, run
from experiments.benchmark import __main__ as benchmark
from experiments.faults import __main__ as faults

HELP = ("help", "helpfull")


@pytest.fixture
def show(capsys):
    """Return a function that returns the output of `avsdn WORDS`."""

    def show(*words):
        with pytest.raises(SystemExit) as stop:
            app.parse(words)
        assert stop.value.code == 0
        return capsys.readouterr().out

    return show


@pytest.mark.parametrize("word", ["--help", "-h"])
def test_help_lists_the_commands(show, word):
    lines = [line.split() for line in show(word).splitlines()]
    assert {*app.COMMANDS} <= {line[0] for line in lines if line}


@pytest.mark.parametrize("command", app.COMMANDS)
def test_a_commands_help_lists_its_own_flags(show, command):
    text = show(command, "--helpfull")
    _, parsers = app.build_parsers()
    shown = re.findall(r"^  (?:-h, )?--(?:\[no\])?(\w+)", text, re.MULTILINE)
    assert {*shown} == parsers[command].flag_names()
    assert len(shown) == len({*shown})


@pytest.mark.parametrize("command", [None, *app.COMMANDS])
def test_help_fits_a_screen_and_starts_with_purpose_usage_examples(
    show, monkeypatch, command
):
    monkeypatch.setenv("COLUMNS", "80")
    lines = show(*filter(None, [command]), "--help").splitlines()
    assert len(lines) <= 50
    assert max(map(len, lines)) <= 80
    module = app.COMMANDS.get(command)
    assert lines[0] == (module.SUMMARY if module else app._SUMMARY)
    assert lines[2].startswith("Usage: avsdn")
    assert lines[4] in ("Example:", "Examples:")
    examples = itertools.takewhile(bool, lines[5:])
    for example in examples:
        program, name, *words = shlex.split(example)
        parser = app.build_parsers()[1][name]
        _, extras = parser.parse_known_intermixed_args(parser.with_values(words))
        assert (program, command or name, extras) == ("avsdn", name, [])


def test_helpfull_explains_all_settings_and_models_in_help(show, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    short, full = (" ".join(show("train", f"--{word}").split()) for word in HELP)
    for name, entry in MODELS.items():
        assert f"{name}: {entry.summary}." in full
        assert name in short
    for field in dataclasses.fields(Config):
        assert f"--{field.name}" in short
        assert field.metadata["help"].removesuffix(".") in full
    assert "Adam's learning rate [0.001]." in short
    assert "onnx: " in show("export", "--helpfull")


@pytest.mark.parametrize(
    "words",
    [
        [run.main],
        [compare.main],
        [benchmark.main],
        [faults.main],
        [faults.main, "kill"],
        [faults.main, "fuzz"],
    ],
    ids=lambda words: " ".join([words[0].__module__, *words[1:]]),
)
def test_help_of_the_experiments_fits_a_screen(capsys, monkeypatch, words):
    monkeypatch.setenv("COLUMNS", "80")
    main, *words = words
    with pytest.raises(SystemExit) as stop:
        raise SystemExit(main([*words, "--help"]))
    assert stop.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 50
    assert max(map(len, lines)) <= 80
    assert lines[0].endswith(".")
    assert lines[2].startswith("Usage: python -m experiments.")
    assert lines[4] in ("Example:", "Examples:")
    assert lines[5].startswith("  python -m experiments.")
