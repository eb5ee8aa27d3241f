import dataclasses
import importlib.util
import json
import pathlib
import platform
import re
import subprocess

import h5py
import keras
import numpy as np
import pytest
from rich.console import Console

from avsdn_tf import AVEL, AVSDN
from avsdn_tf.data.batches import scoring_batches
from avsdn_tf.data.dataset import open_dataset
from avsdn_tf.errors import UserError
from experiments import programs
from experiments.benchmark import __main__ as command
from experiments.benchmark import (
    comparison,
    contenders,
    machine,
    our_program,
    plain_keras_program,
    turns,
    video,
)
from experiments.benchmark.batch import Batch
from experiments.benchmark.comparison import Comparison
from experiments.benchmark.parts import write_features
from tests.small_videos import write_clip

CATEGORIES = [f"category {i}" for i in range(28)]
needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="the extra `bench` is missing"
)
AVSDN_BATCH = Batch("avsdn", (12,), size=3, num_segments=7, units=6)
AVEL_BATCH = Batch("avel_att", (3, 2, 12), size=3, num_segments=7, units=6)


def build(batch):
    keras.utils.set_random_seed(1)
    if batch.network == "avsdn":
        return AVSDN(CATEGORIES, visual_shape=batch.visual_shape, units=batch.units)
    return AVEL(
        CATEGORIES, visual_shape=batch.visual_shape, attention=True, units=batch.units
    )


def copy_dense(source, target):
    import torch

    with torch.no_grad():
        target.weight.copy_(torch.tensor(np.array(source.kernel).T))
        if target.bias is not None:
            target.bias.copy_(torch.tensor(np.array(source.bias)))


def copy_lstm(source, target, end=""):
    import torch

    cell = source.cell
    values = {
        "weight_ih": np.array(cell.kernel).T,
        "weight_hh": np.array(cell.recurrent_kernel).T,
        "bias_ih": np.array(cell.bias),
        "bias_hh": np.zeros(cell.bias.shape),
    }
    with torch.no_grad():
        for name, value in values.items():
            getattr(target, f"{name}_l0{end}").copy_(torch.tensor(value))


def copy_to_torch(model, other):
    if isinstance(model, AVSDN):
        copy_lstm(model.audio_encoder.lstm, other.audio_encoder)
        copy_lstm(model.visual_encoder.lstm, other.visual_encoder)
        copy_lstm(model.decoder.lstm.lstm, other.decoder)
        for fusion, mlp in (
            (model.hidden_fusion, other.hidden_mlp),
            (model.cell_fusion, other.cell_mlp),
        ):
            copy_dense(fusion.audio_mlp.layers[0], mlp[0])
            copy_dense(fusion.audio_mlp.layers[1], mlp[2])
        copy_dense(model.decoder.head, other.head)
        return
    for name in (
        *("audio_projection", "visual_projection"),
        *("audio_scores", "visual_scores", "cell_score"),
    ):
        copy_dense(getattr(model.visual_pooling, name), getattr(other, name))
    for name in ("audio_encoder", "visual_encoder"):
        lstm = getattr(model, name).lstm
        copy_lstm(lstm.forward_layer, getattr(other, name))
        copy_lstm(lstm.backward_layer, getattr(other, name), "_reverse")
    copy_dense(model.hidden, other.hidden)
    copy_dense(model.head, other.head)


@needs_torch
@pytest.mark.parametrize("batch", [AVSDN_BATCH, AVEL_BATCH])
def test_the_pytorch_network_equals_ours(batch):
    import torch

    from experiments.benchmark import torch_program

    model = build(batch)
    other = torch_program.NETWORKS[batch.network](batch.visual_shape, batch.units)
    copy_to_torch(model, other)
    audio, visual, target = batch.random()
    expected = np.asarray(model({"audio": audio, "visual": visual}))
    with torch.inference_mode():
        logits = other(torch.tensor(audio), torch.tensor(visual))
    np.testing.assert_allclose(logits.numpy(), expected, rtol=1e-4, atol=1e-5)
    from avsdn_tf.losses import SoftmaxBinaryCrossentropy

    loss = torch_program.segment_loss(logits, torch.tensor(target))
    expected_loss = SoftmaxBinaryCrossentropy()(target, expected)
    assert float(loss) == pytest.approx(float(expected_loss), rel=1e-4)


@pytest.mark.parametrize("batch", [AVSDN_BATCH, AVEL_BATCH])
def test_the_plain_keras_network_equals_ours(batch):
    model = build(batch)
    other = plain_keras_program.NETWORKS[batch.network](batch)
    by_shape = {}
    for weight in model.weights:
        by_shape.setdefault(tuple(weight.shape), []).append(weight)
    shapes = sorted(tuple(weight.shape) for weight in other.weights)
    assert shapes == sorted(tuple(weight.shape) for weight in model.weights)
    rng = np.random.default_rng(0)
    # The order of the weights differs: assign one array to all weights of its shape.
    for shape, weights in by_shape.items():
        value = rng.normal(size=shape, scale=0.3)
        for weight in (*weights, *other.weights):
            if tuple(weight.shape) == shape:
                weight.assign(value)
    audio, visual, _ = batch.random()
    expected = model({"audio": audio, "visual": visual})
    found = other([audio, visual])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_turn_lasts_for_a_minimum_time_and_number_of_calls(monkeypatch):
    calls = []
    assert len(turns.take_turn(lambda: calls.append(1), 0.0)) == len(calls) == 1
    assert len(turns.take_turn(lambda: calls.append(1), 0.0, least=4)) == 4
    # A call that returns 4 does four units of work: divide its time by 4.
    clock = iter([0.0, 0.0, 8.0, 8.0, 8.0, 16.0, 16.0])

    class Clock:
        perf_counter = staticmethod(lambda: next(clock))

    monkeypatch.setattr(turns, "time", Clock)
    assert turns.take_turn(lambda: 4, 10.0) == [2.0, 2.0]


@pytest.fixture(scope="module")
def feature_file(data_dir, tmp_path_factory):
    path = tmp_path_factory.mktemp("features") / "features.h5"
    write_features(open_dataset("tfds_ave/synthetic", data_dir), path)
    return path


def test_contenders_take_turns_and_report_their_memory(tmp_path, monkeypatch):
    (tmp_path / "busy.py").write_text(
        "def work(batch, path):\n    return lambda: len(open(path).read())\n"
    )
    (tmp_path / "once").write_text("x")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    settings = {"path": str(tmp_path / "once")}
    programs_ = {"busy": ("busy", "work", settings)}
    times = contenders.compete(programs_, AVSDN_BATCH, repeats=2, seconds=0.05)
    settings["batch"] = AVSDN_BATCH
    assert [len(turn) >= 3 for turn in times["busy"]] == [True, True]
    assert all(0 < seconds < 60 for turn in times["busy"] for seconds in turn)
    with contenders.Contender("busy", "work", **settings) as program:
        program.take_turn()
        assert 20e6 < program.finish() < 4e9
    settings["path"] = "nowhere"
    with (
        contenders.Contender("busy", "work", **settings) as program,
        pytest.raises(UserError, match=r"(?s)busy.work failed.*nowhere"),
    ):
        program.take_turn()
    with pytest.raises(UserError, match="epochs"):
        programs.run_command(["--epochs=0"])


def test_every_other_round_runs_in_reverse_order():
    calls = []
    work = {name: lambda name=name: calls.append(name) or 1 for name in "ab"}
    assert contenders.alternate(work, 2) == {"a": [1, 1], "b": [1, 1]}
    assert calls == ["a", "b", "b", "a"]


def test_peak_memory_excludes_the_parent_process():
    # Use more memory than the child: Linux may report the parent's peak for the child.
    held = np.ones(40_000_000)
    for code, low, high in (
        ("pass", 1e6, 100e6),
        ("held = bytearray(200_000_000)", 200e6, 300e6),
    ):
        with programs.Program(["-c", code]) as program:
            assert low < program.finish() < high
    assert held[-1] == 1


def test_programs_use_all_cores(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    code = "import os; raise SystemExit('OMP_NUM_THREADS' in os.environ)"
    with programs.Program(["-c", code]) as program:
        program.finish()


def test_a_program_that_hangs_is_killed():
    with programs.Program(["-c", "import time; time.sleep(600)"]) as program:
        pass
    assert program.process.returncode


def test_the_feature_file_contains_the_data_set(data_dir, feature_file):
    dataset = open_dataset("tfds_ave/synthetic", data_dir)
    with h5py.File(feature_file) as file:
        assert file["visual"].dtype == np.float32
        assert len(file["audio"]) == 480 + 96
        rows = file["rows_validation"][...]
        batch = next(iter(scoring_batches(dataset, "validation", 96)))
        for name in ("audio", "visual", "labels"):
            expected = batch["segment_labels" if name == "labels" else name]
            np.testing.assert_array_equal(file[name][rows], expected.numpy())


def example():
    speeds = {
        "PyTorch": [1000.0, 1100.0, 900.0],
        "avsdn_tf": [2000.0, 2100.0, 2050.0],
    }
    start = Comparison(
        "start",
        "s",
        {"PyTorch": [0.4], "avsdn_tf": [12.5]},
        note="A caveat.",
    )
    training = Comparison("training", "clips a second", speeds, less_is_better=False)
    return [training, start]


def test_ratios_above_one_are_better():
    training, start = example()
    assert training.ratios == {"PyTorch": 1.0, "avsdn_tf": 2.05}
    assert start.ratios["avsdn_tf"] == pytest.approx(0.032)


def test_a_result_contains_machine_versions_and_disclaimer():
    header = {
        "command": "python -m experiments.benchmark",
        "parts": ["step", "start"],
        "machine": machine.describe_machine(),
        "dataset": "tfds_ave/synthetic",
        "disclaimer": "Simulated data",
        "repeats": 3,
    }
    page = re.sub(" +", " ", comparison.to_markdown(header, example()))
    for text in (
        "torch ",
        "Simulated data.\n",
        "| avsdn_tf | 2,050 | 2,000 to 2,100 | 2.05 |",
        "| avsdn_tf | 12.5 | 12.5 to 12.5 | 0.03 |",
        "A caveat.",
    ):
        assert text in page
    assert header["machine"]["cores"] >= 1
    found = json.loads(json.dumps(example()[0].to_json()))
    assert found["ratios"]["avsdn_tf"] == 2.05


def test_the_figure_has_a_panel_per_comparison_and_a_bar_per_program():
    figure = comparison.draw(example())
    assert [axes.get_title("left") for axes in figure.axes] == ["training", "start"]
    for axes, expected in zip(figure.axes, example(), strict=True):
        widths = [bar.get_width() for bar in axes.patches]
        assert widths == list(expected.ratios.values())
        assert len({bar.get_facecolor() for bar in axes.patches}) == 2


def test_the_description_of_code_names_the_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "_ROOT", tmp_path)
    assert "outside of git" in machine.describe_code()

    def git(*words):
        who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        command = ["git", "-C", str(tmp_path), *who, *words]
        return subprocess.check_output(
            command, text=True, stderr=subprocess.DEVNULL
        ).strip()

    git("init")
    assert "unknown" in machine.describe_code()
    (tmp_path / "code.py").write_text("a = 1")
    git("add", ".")
    git("commit", "--message=first")
    assert machine.describe_code().endswith(git("rev-parse", "--short", "HEAD"))
    # Recipes count as code: they affect results, too.
    (tmp_path / "experiments").mkdir()
    for name in ("code.py", "experiments/best.json"):
        (tmp_path / name).write_text("{}")
        assert "uncommitted" in machine.describe_code()
        git("add", ".")
        git("commit", "--message=next")
    (tmp_path / "page.md").write_text("A result")
    assert "uncommitted" not in machine.describe_code()


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        ("model name\t: A\nflags\t\t: avx2 avx512_bf16\n", ("A", True)),
        ("model name\t: B\nflags\t\t: avx2 avx512f\n\nmodel name\t: C\n", ("B", False)),
        (
            "cpu family\t: 23\nmodel\t\t: 1\nmodel name\t: D\n",
            ("D (family 23, model 1)", False),
        ),
        ("Features\t: asimd bf16\n", (platform.machine(), True)),
        ("", (platform.machine(), False)),
    ],
)
def test_the_processor_is_read_from_cpuinfo(monkeypatch, cpuinfo, expected):
    monkeypatch.setattr(pathlib.Path, "read_text", lambda *_, **__: cpuinfo)
    assert (machine.processor(), machine.has_bfloat16()) == expected


def test_the_error_about_missing_pytorch_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    args = command.parse(["step", f"--out={tmp_path / 'b'}"])
    with pytest.raises(UserError, match=r"avsdn_tf\[bench\]"):
        command.measure(args, Console())
    assert not (tmp_path / "b").exists()


def test_data_of_other_shapes_are_refused(data_dir):
    dataset = open_dataset("tfds_ave/synthetic", data_dir)
    with pytest.raises(UserError, match="128") as refused:
        command._check_shapes(dataclasses.replace(dataset, audio_width=5))
    assert refused.value.field == "dataset"


def test_an_error_about_arguments_is_one_line(capsys):
    for words, text in ((["step", "fly"], "fly"), (["--repeats=0"], "--repeats")):
        with pytest.raises(SystemExit) as stop:
            command.main(words)
        assert stop.value.code == 2
        error = capsys.readouterr().err
        assert text in error
        assert error.count("\n") == 1
    with pytest.raises(SystemExit):
        command.main(["video"])
    assert "--videos" in capsys.readouterr().err


def test_equal_settings_record_equal_commands(tmp_path):
    words = ["step", "video", "--repeats=2", "--videos", "a b.mp4", "c.mp4"]
    args = command.parse([*words, "--out=elsewhere"])
    again = command.parse(["step", "video", "--dataset=tfds_ave/synthetic", *words[2:]])
    assert command._command(args) == command._command(again)
    assert "'a b.mp4'" in command._command(args)


@pytest.mark.parametrize("how", ["keras", "graph", "xla", "savedmodel"])
def test_our_program_runs_a_prediction(how):
    our_program.inference(AVSDN_BATCH, how)()


def test_programs_train_a_step(data_dir):
    assert our_program.step(AVSDN_BATCH, data_dir)() > 1
    assert plain_keras_program.training(AVSDN_BATCH)() > 1


def test_plain_keras_trains_an_epoch(feature_file):
    batch = Batch("avsdn", (2048,), units=4)
    plain_keras_program.epoch(batch, str(feature_file))()


@needs_torch
def test_the_pytorch_program_trains(feature_file):
    import torch

    from experiments.benchmark import torch_program

    # Beside other processes, two threads would mostly wait for each other.
    torch.set_num_threads(1)
    torch_program.training(AVEL_BATCH, fused=True)()
    torch_program.inference(AVEL_BATCH)()
    batch = Batch("avsdn", (2048,), units=4)
    torch_program.first_step(batch, str(feature_file))()
    torch_program.epoch(batch, str(feature_file))()


def test_the_stages_of_feature_extraction_can_be_measured(
    extractor, tmp_path, monkeypatch
):
    for name in ("a", "b"):
        write_clip(tmp_path / f"{name}.mp4", 2)
    monkeypatch.setattr(video, "build_extractor", lambda **_: extractor)
    args = command.parse(["video", "--repeats=2", "--videos", str(tmp_path)])
    speed, shares = video.measure_video(args, None)
    assert speed.title.startswith("4 s of video, vggish and resnet152")
    stages = ["the whole", "decode", "audio features", "visual features"]
    assert list(speed.values) == list(shares.values) == stages
    assert shares.medians["the whole"] == pytest.approx(100)


@needs_torch
@pytest.mark.slow
@pytest.mark.parametrize("part", sorted(command.PARTS.keys() - {"heads", "video"}))
def test_every_part_can_be_measured(data_dir, part):
    args = command.parse(
        [part, "--repeats=1", "--seconds=0.05", f"--data_dir={data_dir}"]
    )
    comparisons = list(command.PARTS[part](args, open_dataset(args.dataset, data_dir)))
    assert comparisons
    for found in comparisons:
        assert len(found.values) > 1
        assert all(median > 0 for median in found.medians.values())
