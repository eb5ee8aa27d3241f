import dataclasses
import importlib.util
import json
import os
import pathlib
import platform
import signal
import subprocess
import sys

import h5py
import keras
import numpy as np
import pytest
from rich.console import Console

from avsdn_tf import AVEL, AVSDN, commands, data
from experiments.benchmark import contenders, operations, parts, results, turns
from experiments.benchmark.feature_file import write_feature_file
from avsdn_tf.training.config import Config
from avsdn_tf.errors import UserError
from experiments import profile_step

ROOT = pathlib.Path(__file__).resolve().parents[1]
CATEGORIES = [f"category {i}" for i in range(28)]
needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="the extra `bench` is missing"
)


def random_clips(rng, visual_shape):
    shapes = {"audio": (128,), "visual": visual_shape}
    return {n: rng.random((3, 10, *s)).astype(np.float32) for n, s in shapes.items()}


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


def copy_both_directions(source, target):
    copy_lstm(source.lstm.forward_layer, target)
    copy_lstm(source.lstm.backward_layer, target, "_reverse")


def compare(model, other, clips):
    import torch

    with torch.inference_mode():
        found = other(*(torch.tensor(clips[name]) for name in ("audio", "visual")))
    np.testing.assert_allclose(
        found.numpy(), np.asarray(model(clips)), rtol=1e-4, atol=1e-5
    )


@needs_torch
def test_avsdn_in_pytorch_is_the_same_network(rng):
    from experiments.benchmark import torch_program

    keras.utils.set_random_seed(1)
    model = AVSDN(CATEGORIES, visual_shape=(12,), units=6)
    other = torch_program.AVSDN(128, 12, 6)
    for name in ("audio_encoder", "visual_encoder"):
        copy_lstm(getattr(model, name).lstm, getattr(other, name))
    copy_lstm(model.decoder.lstm.lstm, other.decoder)
    for fusion, mlp in (
        (model.hidden_fusion, other.hidden_mlp),
        (model.cell_fusion, other.cell_mlp),
    ):
        copy_dense(fusion.audio_mlp.layers[0], mlp[0])
        copy_dense(fusion.audio_mlp.layers[1], mlp[2])
    copy_dense(model.decoder.head, other.head)
    compare(model, other, random_clips(rng, (12,)))


@needs_torch
def test_avel_in_pytorch_is_the_same_network(rng):
    from experiments.benchmark import torch_program

    keras.utils.set_random_seed(1)
    model = AVEL(CATEGORIES, visual_shape=(3, 2, 12), attention=True, units=6)
    other = torch_program.AVEL(128, (3, 2, 12), 6)
    for name in (
        *("audio_projection", "visual_projection"),
        *("audio_scores", "visual_scores", "cell_score"),
    ):
        copy_dense(getattr(model.visual_pooling, name), getattr(other, name))
    copy_both_directions(model.audio_encoder, other.audio_encoder)
    copy_both_directions(model.visual_encoder, other.visual_encoder)
    copy_dense(model.hidden, other.hidden)
    copy_dense(model.head, other.head)
    compare(model, other, random_clips(rng, (3, 2, 12)))


@needs_torch
def test_the_loss_in_pytorch_is_the_same(rng):
    import torch

    from experiments.benchmark import torch_program
    from avsdn_tf.losses import SoftmaxBinaryCrossentropy

    logits = rng.normal(size=(4, 10, 29)).astype(np.float32)
    target = np.eye(29, dtype=np.float32)[rng.integers(29, size=(4, 10))]
    found = torch_program.segment_loss(torch.tensor(logits), torch.tensor(target))
    expected = SoftmaxBinaryCrossentropy()(target, logits)
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


def kernels(model):
    return {w.path: w.shape for w in model.weights if len(w.shape) == 2}


def test_the_operations_of_avsdn_are_those_of_its_kernels():
    model = AVSDN(CATEGORIES, visual_shape=(40,), units=6)
    expected = 0
    for path, (rows, columns) in kernels(model).items():
        # A fusion network's MLP is applied to both modalities' states of a clip.
        expected += rows * columns * (2 if "fusion" in path else 7)
    found = operations.count("avsdn", 7, (40,), 6, training=False)
    assert found == 2 * expected


def test_the_operations_of_avel_are_those_of_its_kernels():
    model = AVEL(CATEGORIES, visual_shape=(3, 2, 40), attention=True, units=6)
    of_cells = {
        model.visual_pooling.visual_projection.kernel.path,
        model.visual_pooling.visual_scores.kernel.path,
        model.visual_pooling.cell_score.kernel.path,
    }
    expected = 7 * 6 * 40
    for path, (rows, columns) in kernels(model).items():
        expected += 7 * rows * columns * (6 if path in of_cells else 1)
    found = operations.count("avel_att", 7, (3, 2, 40), 6, training=False)
    assert found == 2 * expected


def test_training_costs_twice_and_three_times():
    for network, shape in (("avsdn", (2048,)), ("avel_att", (7, 7, 512))):
        once = operations.count(network, 10, shape, 128, training=False)
        trained = operations.count(network, 10, shape, 128, training=True)
        assert 2 * once < trained < 3 * once


def test_a_turn_lasts_as_long_as_it_should():
    calls = []
    times = turns.take_turn(lambda: calls.append(1), 0.0)
    assert len(times) == len(calls) == 1
    assert len(turns.take_turn(lambda: calls.append(1), 0.0, least=4)) == 4
    # Work that is done four times at once takes a quarter each.
    clock = iter([0.0, 0.0, 8.0, 8.0, 8.0, 16.0, 16.0])

    class Clock:
        perf_counter = staticmethod(lambda: next(clock))

    before, turns.time = turns.time, Clock
    try:
        assert turns.take_turn(lambda: 4, 10.0) == [2.0, 2.0]
    finally:
        turns.time = before


def test_contenders_take_turns_and_say_how_large_they_were(data_dir, tmp_path):
    dataset = data.open_dataset("tfds_ave/synthetic", data_dir)
    files = tmp_path / "features.h5"
    write_feature_file(dataset, files)
    program = contenders.Contender(
        contenders.H5PY, "reading", files=str(files), batch_size=64
    )
    with program:
        times = contenders.take_turns({"h5py": program}, repeats=2, seconds=0.05)
    assert [len(turn) >= 1 for turn in times["h5py"]] == [True, True]
    assert all(0 < seconds < 60 for turn in times["h5py"] for seconds in turn)
    assert 20e6 < program.peak_bytes < 4e9


def test_what_a_program_holds_is_its_own():
    # Far more than the program needs, and so much that its peak would show it.
    held = np.ones(125_000_000)
    program = contenders.Program(["-c", "pass"])
    assert 1e6 < program.wait() < 100e6
    assert held[-1] == 1
    program = contenders.Program(["-c", "held = bytearray(200_000_000)"])
    assert 200e6 < program.wait() < 300e6


def test_programs_have_all_cores(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    code = "import os; raise SystemExit('OMP_NUM_THREADS' in os.environ)"
    program = contenders.Program(["-c", code])
    program.wait()
    assert program.process.returncode == 0


def test_a_program_that_hangs_is_ended():
    with contenders.command(["--help"]) as program:
        pass
    # Its end came from outside, and did not have to be waited for.
    assert program.process.returncode == -signal.SIGKILL


def test_a_contender_that_fails_says_why():
    program = contenders.Contender(
        contenders.H5PY, "reading", files="nowhere.h5", batch_size=64
    )
    with (
        program,
        pytest.raises(UserError, match=r"(?s)h5py_program.reading failed.*nowhere"),
    ):
        program.take_turn(0)


def test_a_command_that_fails_says_why():
    with pytest.raises(UserError, match="--epochs: expected a positive number"):
        contenders.run_command(["--epochs=0"])


def test_the_feature_file_holds_what_the_data_set_does(data_dir, tmp_path):
    dataset = data.open_dataset("tfds_ave/synthetic", data_dir)
    write_feature_file(dataset, tmp_path / "features.h5")
    with h5py.File(tmp_path / "features.h5") as file:
        assert file["visual"].dtype == np.float32
        assert len(file["audio"]) == 480 + 96
        rows = file["rows_validation"][...]
        batch = next(iter(data.scoring_batches(dataset, "validation", 96)))
        for name in ("audio", "visual", "labels"):
            expected = batch["segment_labels" if name == "labels" else name]
            np.testing.assert_array_equal(file[name][rows], expected.numpy())


def test_a_larger_data_set_holds_the_same_clips_again(data_dir, tmp_path):
    dataset = data.open_dataset("tfds_ave/synthetic", data_dir)
    setting = parts.Setting(dataset, "tfds_ave/synthetic", data_dir, 1)
    larger = data.open_dataset(
        "tfds_ave/synthetic", str(parts.enlarge(setting, 3, tmp_path))
    )
    assert larger.num_clips("train") == 3 * dataset.num_clips("train")

    def rows(of):
        batches = data.training_batches(of, Config())
        return sorted(
            int(row)
            for batch in batches
            for row, weight in zip(batch["row"], batch["weight"], strict=True)
            if weight
        )

    assert rows(larger) == sorted(3 * rows(dataset))


def example():
    speeds = [
        results.measurement("PyTorch", [1000.0, 1100.0, 900.0], limit_share=0.4),
        results.measurement("avsdn_tf", [2000.0, 2100.0, 2050.0], limit_share=0.6),
    ]
    times = [
        results.measurement("PyTorch", [0.4]),
        results.measurement("avsdn_tf", [12.5]),
    ]
    return [
        results.Comparison("training", "clips a second", speeds, limit="matrix rate"),
        results.Comparison("start", "s", times, less_is_better=True),
    ]


def test_ratios_are_above_one_for_what_is_better():
    training, start = example()
    assert [training.ratio(m) for m in training.measurements] == [1.0, 2.05]
    assert start.ratio(start.measurements[1]) == pytest.approx(0.032)
    assert training.rows[1] == ["avsdn_tf", "2,050", "2,000 to 2,100", "2.05", "60%"]
    assert start.rows[1] == ["avsdn_tf", "12.5", "12.5 to 12.5", "0.03"]


def test_results_name_machine_versions_and_stand_ins():
    pytest.importorskip("torch", reason="the extra `bench` is missing")
    header = {
        "command": "python -m avsdn_tf.main benchmark",
        "parts": ["step", "start"],
        "machine": results.describe_machine(),
        "dataset": "tfds_ave/synthetic",
        "notice": "Simulated data: these are not AVE results",
        "repeats": 3,
    }
    page = results.to_markdown(header, example())
    assert "torch " in page
    assert "Simulated data: these are not AVE results.\n" in page
    assert "| avsdn_tf | 2,050 | 2,000 to 2,100 | 2.05 | 60% |" in page
    found = json.loads(json.dumps(results.to_json(header, example())))
    assert found["comparisons"][0]["measurements"][1]["ratio"] == 2.05
    assert found["machine"]["cores"] >= 1


def test_the_figure_has_a_panel_a_comparison_and_a_bar_a_program():
    figure = results.draw(example())
    assert [axes.get_title("left") for axes in figure.axes] == ["training", "start"]
    for axes, comparison in zip(figure.axes, example(), strict=True):
        # Grey as the baseline are its variants; what is compared with it is not.
        colors = [bar.get_facecolor() for bar in axes.patches]
        baseline = comparison.measurements[0].program.split(",")[0]
        assert [color == colors[0] for color in colors] == [
            m.program.split(",")[0] == baseline for m in comparison.measurements
        ]
        assert len(set(colors)) == 2
        widths = [bar.get_width() for bar in axes.patches]
        assert widths == [comparison.ratio(m) for m in comparison.measurements]


def test_code_is_named_by_its_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "_ROOT", tmp_path)
    assert results.describe_code() == "by code outside of git"

    def git(*words):
        who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        command = ["git", "-C", str(tmp_path), *who, *words]
        return subprocess.run(
            command, check=True, capture_output=True, text=True
        ).stdout.strip()

    git("init")
    assert results.describe_code() == "by an unknown commit"
    (tmp_path / "code.py").write_text("a = 1")
    git("add", ".")
    git("commit", "--message=first")
    commit = git("rev-parse", "--short", "HEAD")
    assert results.describe_code() == f"by commit {commit}"
    (tmp_path / "code.py").write_text("a = 2")
    changed = f"by commit {commit} with uncommitted changes"
    assert results.describe_code() == changed
    git("commit", "--all", "--message=second")
    assert "changes" not in results.describe_code()
    # A recipe decides as much as code does.
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "best.json").write_text("{}")
    assert results.describe_code().endswith(" with uncommitted changes")


@pytest.mark.parametrize(
    ("told", "expected"),
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
def test_what_linux_tells_of_the_processor(monkeypatch, told, expected):
    monkeypatch.setattr(pathlib.Path, "read_text", lambda *_, **__: told)
    assert (results.processor(), results.has_bfloat16()) == expected


def test_without_pytorch_the_benchmark_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'avsdn_tf\[bench\]'"):
        commands.benchmark(
            ["step"], "tfds_ave/synthetic", None, 1, str(tmp_path / "b"), Console()
        )
    assert not (tmp_path / "b").exists()


@needs_torch
def test_data_of_other_shapes_are_one_message(data_dir, tmp_path, monkeypatch):
    dataset = data.open_dataset("tfds_ave/synthetic", data_dir)
    monkeypatch.setattr(
        data, "open_dataset", lambda *_: dataclasses.replace(dataset, audio_width=5)
    )
    with pytest.raises(
        UserError, match=r"expected AVE's audio width, 128.*Received: 5"
    ):
        commands.benchmark(
            ["epoch"], "tfds_ave/custom", None, 1, str(tmp_path / "b"), Console()
        )
    assert not (tmp_path / "b").exists()


def test_parts_that_there_are_not():
    result = subprocess.run(
        [sys.executable, "-m", "avsdn_tf.main", "benchmark", "step", "fly"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ,
    )
    assert result.returncode == 2
    assert result.stderr == (
        "avsdn_tf: benchmark: expected flags, as --name=value, and of step, latency, "
        "reading, epoch, start, growth. Received: fly\n"
    )


def test_the_page_of_the_profile_has_the_same_kinds_for_all():
    times = {"as it is": {"MatMul": 3.0, "Mul": 1.0}, "Keras's Adam": {"Sqrt": 2.0}}
    rows = [
        results.measurement(name, [cost])
        for name, cost in zip(times, (10, 20), strict=True)
    ]
    comparison = results.Comparison("a step", "ms", rows, less_is_better=True)
    machine = results.describe_machine()
    page = profile_step.to_markdown("a command", machine, comparison, times)
    assert "| Keras's Adam | 20.0 | 20.0 to 20.0 | 0.50 |" in page
    assert page.splitlines()[-4:] == [
        "|---|---:|---:|",
        "| MatMul | 3.0 | 0.0 |",
        "| Mul | 1.0 | 0.0 |",
        "| others | 0.0 | 2.0 |",
    ]


@pytest.mark.slow
def test_a_step_is_profiled_with_and_without_what_makes_it_fast(tmp_path):
    subprocess.run(
        [
            *(sys.executable, "-m", "experiments.profile_step"),
            *("--repeats=1", f"--out={tmp_path / 'profile'}"),
        ],
        cwd=ROOT,
        check=True,
    )
    found = json.loads((tmp_path / "profile.json").read_text())
    assert list(found["step_ms"]) == list(profile_step.REPLACED)
    kinds = {name: set(of) for name, of in found["operations_ms"].items()}
    assert all("MatMul" in of for of in kinds.values())
    # What was to be replaced was.
    assert "ResourceApplyAdam" not in kinds["Keras's Adam"]
    assert "ResourceApplyAdam" in kinds["as it is"]
    assert "While" not in kinds["as it is"]
    assert (tmp_path / "profile.md").is_file()


@needs_torch
@pytest.mark.slow
@pytest.mark.parametrize("part", list(parts.PARTS))
def test_every_part_can_be_measured(data_dir, part):
    dataset = data.open_dataset("tfds_ave/synthetic", data_dir)
    setting = parts.Setting(dataset, "tfds_ave/synthetic", data_dir, 1)
    setting = dataclasses.replace(setting, seconds=0.1)
    comparisons = list(parts.PARTS[part](setting))
    assert comparisons
    for comparison in comparisons:
        assert len(comparison.measurements) > 1
        assert all(m.median > 0 for m in comparison.measurements)
