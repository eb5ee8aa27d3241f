import csv
import dataclasses
import json
import os
import re
import signal
import threading
import time
import types

import numpy as np
import pytest

from avsdn_tf.cross_modality import Distances, right_starts
from avsdn_tf.data.dataset import open_dataset
from avsdn_tf.run_folder import RunFolder
from avsdn_tf.training.config import Config
from experiments import run, runs, summary, tables
from experiments.published import best_changes, load_row, load_table
from tests.experiment_runs import write_run


class FakeTrainings(list):
    """Configurations of the trainings. Trainings of a model in `failing` fail."""

    failing = ()


class FakeProcess:
    """A training that has ended when it is first polled."""

    def __init__(self, code):
        self._code = code

    def poll(self):
        return self._code


@pytest.fixture
def fake_training(monkeypatch):
    """Replace training by runs with 8 (AVSDN) or 6 of 10 segments correct."""
    trained = FakeTrainings()

    def start(self, origin):
        assert origin["threads"] >= 1
        trained.append(self.config)
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        if self.config.model in trained.failing:
            self.log.write_text("starting\navsdn_tf: no luck\n")
            return FakeProcess(2)
        write_run(self.folder, 2 if self.config.model == "avsdn" else 4, self.config)
        return FakeProcess(0)

    monkeypatch.setattr(runs.Run, "start", start)
    monkeypatch.setattr(runs, "_POLL_S", 0)
    # Drawing takes a second; other tests cover figures.
    monkeypatch.setattr(run.figures, "save", lambda _, path, __: path.touch())
    return trained


@pytest.fixture
def fill(tmp_path, data_dir):
    """Return a function that fills a table and returns its Markdown."""

    def fill(table, *words):
        run.main(
            [
                table,
                "--seeds=2",
                "--dataset=tfds_ave/synthetic",
                f"--data_dir={data_dir}",
                f"--runs={tmp_path / 'runs'}",
                f"--results={tmp_path / 'results'}",
                *words,
            ]
        )
        return read_table(tmp_path, table)

    return fill


def read_table(tmp_path, table="table1", suffix="md"):
    (path,) = (tmp_path / "results").glob(f"{table}-*.{suffix}")
    # Tables are padded with spaces.
    return re.sub(" +", " ", path.read_text())


def read_lines(tmp_path, table="table1"):
    return list(csv.DictReader(read_table(tmp_path, table, "csv").splitlines()))


def change(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["table9"], "table1"),
        (["table1", "--jobs=0"], "--jobs"),
        (["table1", "--epochs=0"], "--epochs"),
        (["table1", "--dataset=tfds_ave/custom"], "has AVE's classes: synthetic"),
        (["table1", "--dataset=mnist"], "--dataset=mnist: Expected tfds_ave/CONFIG"),
        (
            ["tian", "--dataset=tfds_ave/resnet152_maps"],
            "of tian: tfds_ave/resnet152, vgg19",
        ),
        (
            ["table3", "--dataset=tfds_ave/resnet152,tfds_ave/vgg19"],
            "one data set for each kind of features: tfds_ave/resnet152",
        ),
        (["table1", "--data_dir=/nowhere", "--runs=/nowhere"], "avsdn build"),
        (["changes_weak", "--recipe=best"], "--recipe=best: changes_weak"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_impossible_table_fails_with_one_message(words, message, capsys):
    with pytest.raises(SystemExit) as stop:
        run.main(words)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_table_shows_failures_and_resumes(tmp_path, fake_training, fill, capsys):
    fake_training.failing = ("avel_visual",)
    with pytest.raises(SystemExit, match=r"2 run\(s\) failed"):
        fill("table1", "--recipe=paper", "--jobs=2")
    # Four rows fit the data set, two seeds each.
    assert len(fake_training) == 8
    results = {path.name for path in (tmp_path / "results").iterdir()}
    stem = "table1-synthetic-simulated-not-ave"
    assert results == {f"{stem}.md", f"{stem}.csv", f"{stem}.png"}
    text = read_table(tmp_path)
    title = text.splitlines()[0]
    assert title.endswith(", on tfds_ave/synthetic (simulated, not AVE)")
    assert f"]({stem}.png)" in text
    failed = r"\| AVEL visual only \| ResNet-152 \| paper \| 65.0 \| failed"
    assert re.search(failed, text)
    assert "seed=0: exit code 2, avsdn_tf: no luck (see " in text
    assert "not run: needs tfds_ave/vgg19" in text
    assert re.search(r"\| AVSDN \| ResNet-152 \| paper \| 75.4 \| 80.0 ± 0.0", text)
    # Every clip scores 80 % against 60 %, so the interval has no width.
    assert "+20.0 (20.0 to 20.0)" in text
    assert re.search(r"always background [| ]+ 10\.0 ", text)
    lines = read_lines(tmp_path)
    accuracies = [line["accuracy"] for line in lines]
    assert accuracies == ["0.6", "", "", "", "", "0.6", "", "0.8"]
    assert "no luck" in lines[4]["note"]
    printed = capsys.readouterr().out.splitlines()
    assert printed.count("training supervised,avsdn,seed=1") == 1
    (line,) = [line for line in printed if "done supervised,avsdn,seed=1, 0:0" in line]
    assert re.match(r"\d/8 ", line)

    fake_training.clear()
    with pytest.raises(SystemExit, match="failed"):
        fill("table1", "--recipe=paper", f"--data_dir={tmp_path}")
    # With another data folder, too, only failed runs are trained again.
    assert {config.model for config in fake_training} == {"avel_visual"}


def test_rows_show_more_than_accuracy(tmp_path, fake_training, fill):
    text = fill("table1", "--recipe=paper", "--seeds=1", "--epochs=7", "--patience=3")
    assert "| partial clips | background recall | event F1 | validation |" in text
    assert "80.0 | 80.0 to 80.0 | | 31.0 | 32.0 | 33.0 | 50.0 | 1 | 0 |" in text
    assert "standard deviation" not in text
    assert "At most 7 epochs a run; a run ends early after 3 epochs" in text
    packages = "TensorFlow 2.0, Keras 3.0, avsdn_tf 0.0"
    assert f"- Trained by an unrecorded commit, {packages}.\n" in text
    assert re.search(r"^- Written by (commit [0-9a-f]{7}|code outside)", text, re.M)
    first, *_, line = read_lines(tmp_path)
    # An undefined score is left out; no number has more than four digits.
    assert first["event_f1"] == ""
    assert line["event_f1"] == "0.33"
    assert line["seconds"] == "0.3333"
    assert line["training_labels"] == ""
    assert (line["epochs"], line["patience"]) == ("7", "3")


def test_weak_tables_name_the_training_labels(fake_training, fill):
    text = fill("table2", "--recipe=paper")
    assert "| AVEL audio only | VGGish | mil_background | paper |" in text
    assert "| AVSDN | ResNet-152 | average | paper |" in text
    assert "unequal labels" in text
    # All rows of table 3 have equal labels.
    text = fill("table3", "--recipe=paper")
    assert "| average | paper |" in text
    assert "unequal" not in text


def test_the_labels_table_compares_both_systems_on_equal_labels(
    tmp_path, fake_training, fill
):
    text = fill("labels")
    lines = read_lines(tmp_path, "labels")
    avel, same, own = lines[:3]
    assert [line["model"] for line in lines] == ["avel", "avsdn", "avsdn"] * 2
    assert avel["training_labels"] == same["training_labels"] == "mil_background"
    assert own["training_labels"] == "average"
    # Each row differs from the row before in one thing: the system, then the labels.
    assert [line["gain"] for line in lines] == ["", "0.2", "0.0"] * 2
    assert "over the row before" in text
    assert "unequal" not in text
    # Runs that table 2 shares with this table are not trained again.
    fake_training.clear()
    fill("table2")
    assert {config.model for config in fake_training} == {"avel_audio", "avel_visual"}


def test_a_damaged_run_fails_only_its_own_row(tmp_path, fake_training, fill, capsys):
    fill("table1", "--recipe=paper")
    fake_training.clear()
    folders = {
        (config["model"], config["seed"]): path.parent
        for path in (tmp_path / "runs").glob("*/*/config.json")
        for config in [json.loads(path.read_text())["config"]]
    }
    truncated = folders["avel_audio", 0] / "predictions.npz"
    truncated.write_bytes(truncated.read_bytes()[:100])
    (folders["avel_visual", 0] / "report.json").write_text("[1")
    (folders["avel_visual", 1] / "config.json").write_text('{"config": 3}')
    path = folders["avel", 0] / "config.json"
    change(path, config={**json.loads(path.read_text())["config"], "epochs": 7})
    report = folders["avel", 1] / "report.json"
    report.write_text(json.dumps({"accuracy": 0.5}))
    with pytest.raises(SystemExit, match=r"5 run\(s\) failed"):
        fill("table1", "--recipe=paper")
    assert not fake_training
    text, printed = read_table(tmp_path), capsys.readouterr()
    assert "Traceback" not in printed.err
    for where in (text, printed.out):
        assert str(truncated) in where
        assert f"{folders['avel_visual', 0] / 'report.json'}: expected the" in where
        assert f"{folders['avel_visual', 1] / 'config.json'}: " in where
        assert f"{folders['avel', 0]}: holds a run with epochs 7, not 60" in where
        assert f"{report}: expected the report of a finished run." in where
    assert re.search(r"\| AVEL audio only .* 60.0 \|.* 1 \(failed: 0\) ", text)
    assert "| AVEL audio+visual | ResNet-152 | paper | 74.0 | failed |" in text
    assert re.search(r"\| AVSDN \| ResNet-152 \| paper \| 75.4 \| 80.0 ± 0.0", text)


@pytest.mark.parametrize("what", ["clips", "disclaimer", "hash", "learnt"])
def test_runs_on_other_data_are_not_mixed(fake_training, fill, tmp_path, what):
    fill("table1", "--recipe=paper")
    folders = [
        RunFolder(tmp_path / f"runs/synthetic/supervised,avsdn,seed={seed}")
        for seed in (0, 1)
    ]
    last = folders[1]
    if what == "clips":
        config = Config.from_dict(last.read_settings())
        last.path.rename(tmp_path / "elsewhere")
        write_run(last.path, 0, config, clips=(1, 2, 3))
        message = "other test clips"
    elif what == "disclaimer":
        # As if AVE's features had replaced the simulated features in the data folder.
        change(last.report, disclaimer=None)
        message = "none, as on AVE"
    elif what == "hash":
        for folder, name in zip(folders, ("first", "second"), strict=True):
            change(folder.config, dataset_hash=name)
            change(folder.report, dataset_hash=name)
        message = "built from other files"
    else:
        change(last.config, dataset_hash="first")
        change(last.report, dataset_hash="second")
        message = "than it was trained on"
    with pytest.raises(SystemExit, match=r"1 run\(s\) failed"):
        fill("table1", "--recipe=paper")
    text = read_table(tmp_path)
    assert message in text
    assert "simulated, not AVE" in text.splitlines()[0]


def with_disclaimers(monkeypatch, disclaimers):
    """Simulate data sets with these disclaimers; return the list of opened names."""
    opened = []

    def open_it(name, _):
        opened.append(name)
        return types.SimpleNamespace(disclaimer=disclaimers[name])

    monkeypatch.setattr(run, "open_dataset", open_it)
    return opened


def test_a_row_uses_the_first_data_set_with_its_features(
    tmp_path, fake_training, fill, monkeypatch
):
    names = ["tfds_ave/synthetic", "tfds_ave/vgg19"]
    opened = with_disclaimers(monkeypatch, dict.fromkeys(names, "Simulated"))
    both = f"--dataset={','.join(names)}"
    text = fill("table1", "--recipe=paper", "--seeds=1", both)
    assert opened == names
    used = [config.dataset for config in fake_training]
    assert used == [names[0], *[names[1]] * 3, *[names[0]] * 3]
    title = "on tfds_ave/synthetic and tfds_ave/vgg19 (simulated, not AVE)"
    assert text.splitlines()[0].endswith(title)
    assert f"{both} " in text
    assert (tmp_path / "results/table1-synthetic+vgg19-simulated-not-ave.csv").is_file()
    # AVSDN is compared with rows of both data sets.
    assert text.count("+20.0 (20.0 to 20.0)") == 6
    assert text.count("not run: needs tfds_ave/resnet152_maps") == 1


def test_a_table_refuses_both_ave_and_simulated_data(
    fake_training, capsys, monkeypatch
):
    kinds = {"tfds_ave/resnet152": "Stand-in", "tfds_ave/vgg19": None}
    with_disclaimers(monkeypatch, kinds)
    with pytest.raises(SystemExit) as stop:
        run.main(["table1", f"--dataset={','.join(kinds)}"])
    assert stop.value.code == 2
    text = "tfds_ave/resnet152: Stand-in; tfds_ave/vgg19: AVE"
    assert text in capsys.readouterr().err
    assert not fake_training


def test_a_run_fails_if_the_run_with_its_encoders_failed(
    tmp_path, fake_training, fill, monkeypatch
):
    with_disclaimers(monkeypatch, {"tfds_ave/vgg19": None})
    words = ("--recipe=paper", "--seeds=1", "--dataset=tfds_ave/vgg19")
    (source,) = runs.plan(
        load_row("table1_avel_att_vgg19"),
        run.parse(["table1", *words, f"--runs={tmp_path / 'runs'}"]),
    )
    write_run(source.folder, 4, dataclasses.replace(source.config, epochs=5))
    rows = [load_row("tian_dmrn")]
    monkeypatch.setattr(run.published, "load_table", lambda _: rows)
    with pytest.raises(SystemExit, match=r"2 run\(s\) failed"):
        fill("tian", *words)
    assert not fake_training
    assert "holds a run with epochs 5, not 60" in read_table(tmp_path, "tian")


def test_a_table_is_written_if_all_runs_fail(tmp_path, fake_training, fill):
    fake_training.failing = ("avel_audio", "avel_visual", "avel", "avsdn")
    with pytest.raises(SystemExit, match=r"8 run\(s\) failed"):
        fill("table1", "--recipe=paper")
    text = read_table(tmp_path)
    assert text.count("| failed |") == 4
    assert "simulated, not AVE" in text


@pytest.fixture
def heard_signals():
    """Set signal handlers: background processes and nohup ignore signals."""
    before = {number: signal.getsignal(number) for number in runs._SIGNALS}
    for number in before:
        signal.signal(number, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)],
)
def test_a_signal_stops_all_training_processes(
    number, code, monkeypatch, fill, capsys, heard_signals
):
    class Endless(FakeProcess):
        pid = None
        asked = ended = 0

        def poll(self):
            Endless.asked += 1
            if Endless.asked == 1:
                os.kill(os.getpid(), number)
            assert Endless.asked < 100

        def terminate(self):
            Endless.ended += 1

        def wait(self):
            assert Endless.ended == 2

    monkeypatch.setattr(runs.Run, "start", lambda self, origin: Endless(None))
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as stop:
        fill("table1", "--recipe=paper", "--jobs=2")
    assert stop.value.code == code
    assert "the same command resumes them" in capsys.readouterr().err
    assert signal.getsignal(number) == before


def test_a_killed_table_resumes(tmp_path, data_dir, capsys, heard_signals):
    words = [
        "table1",
        "--recipe=paper",
        "--seeds=1",
        "--epochs=5",
        "--patience=5",
        "--dataset=tfds_ave/synthetic",
        f"--data_dir={data_dir}",
        f"--runs={tmp_path / 'runs'}",
    ]
    # Write finished runs for all rows but one, which is really trained.
    dataset = open_dataset("tfds_ave/synthetic", data_dir)
    clips = [int(clip["row"]) for clip in dataset.builder.as_dataset(split="test")]
    args = run.parse(words)
    for row in run.load_rows(args):
        for planned in runs.plan(row, args):
            if row.model == "avel_audio":
                trained = planned
            else:
                write_run(planned.folder, 4, planned.config, clips, dataset.disclaimer)

    def interrupt():
        while not RunFolder(trained.folder).metrics.is_file():
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGTERM)

    watcher = threading.Thread(target=interrupt, daemon=True)
    watcher.start()
    with pytest.raises(SystemExit) as stop:
        run.main(words)
    assert stop.value.code == 143
    printed = capsys.readouterr()
    assert f"training {trained.folder.name}" in printed.out
    assert "the same command resumes them" in printed.err
    # No process holds the folder's lock.
    with RunFolder(trained.folder).lock():
        assert not trained.is_done()

    run.main(words)
    output = " ".join(capsys.readouterr().out.split())
    assert f"1/1 done {trained.folder.name}" in output
    assert "experiments/results is not changed" in output
    assert trained.is_done()
    (table,) = (tmp_path / "runs" / "tables").glob("*.md")
    text = re.sub(" +", " ", table.read_text())
    assert re.search(r"\| AVEL audio only \| VGGish \| paper \| 59.5 \| \d", text)
    threads = len(os.sched_getaffinity(0))
    origin = (
        rf"- 1 of 4 runs trained by .* cores: \d+, threads a run: {threads}, Tensor"
    )
    assert re.search(origin, text)


def test_best_recipe_changes_only_options_of_the_model(fake_training, fill):
    text = fill("table1", "--seeds=1")
    best = [config for config in fake_training if config.ema]
    assert len(fake_training) == 2 * len(best) == 8
    for config in best:
        assert config.bidirectional == (config.model == "avsdn")
        assert config.dropout
    # Both recipes have equal scores: the gains are 0, and AVSDN is 20 points ahead.
    assert text.count("+0.0 (0.0 to 0.0)") == 4
    assert text.count("+20.0 (20.0 to 20.0)") == 6


def test_changes_are_compared_with_the_row_before(fake_training, fill):
    text = fill("changes_weak", "--seeds=1")
    assert len(fake_training) == 1 + len(best_changes("weak"))
    assert text.count("+0.0 (0.0 to 0.0)") == len(best_changes("weak"))
    assert "AVSDN minus row" not in text
    assert "over the row before" in text
    assert text.count("| step |") == len(best_changes("weak")) - 1


def test_scores_of_the_cross_modality_task_fill_a_row(tmp_path):
    labels = np.array([[1, 1, 0], [0, 1, 1]])
    distances = np.ones((2, 3, 3))
    # Sound and picture of clip 7 match in the event. Clip 9 has equal distances.
    distances[0, 0, 0] = distances[0, 1, 1] = 0
    folder = RunFolder(tmp_path)
    Distances(np.array([9, 7]), distances[::-1], labels[::-1]).save(folder.predictions)
    wanted = Distances(np.array([7, 9]), distances, labels)
    for name, right in zip(("a2v", "v2a"), right_starts(wanted), strict=True):
        clips, correct = summary.read_correct(load_row(f"tian_avdln_{name}"), folder)
        # Clips are sorted by row.
        assert clips.tolist() == [7, 9]
        np.testing.assert_array_equal(correct, right[:, None])


def plan_one(row, *words):
    dataset = f"tfds_ave/{row.dataset_config or 'resnet152'}"
    args = run.parse([row.table, "--seeds=1", f"--dataset={dataset}", *words])
    (planned,) = runs.plan(row, args)
    return planned


@pytest.fixture(scope="module")
def two_tasks():
    """Return the lines of a table with two tasks and a failed row."""
    dmrn, a2v, v2a, avsdn = load_table("tian")

    def outcome(row, trivial):
        names = (row.metric, "validation_accuracy", "seconds", *summary.SEGMENT_SCORES)
        scores = dict.fromkeys(names, 0.7)
        return summary.Outcome(
            scores, trivial, None, None, np.arange(2), np.ones((2, 1))
        )

    segments = {"always_background": 0.2}
    starts = {"random_window": 0.3, "always_at_end": 0.4}
    results = [
        summary.Result(dmrn, [plan_one(dmrn)], [outcome(dmrn, segments)], {}),
        summary.Result(a2v, [plan_one(a2v)], [outcome(a2v, starts)], {}),
        summary.Result(v2a, [plan_one(v2a)], [], {0: "no luck"}),
        summary.Result(dataclasses.replace(dmrn, recipe="best"), [], [], {}),
        summary.Result(avsdn, [plan_one(avsdn)], [outcome(avsdn, segments)], {}),
    ]
    return summary.summarize(results), summary.trivial_scores(results)


def test_two_tasks_have_separate_trivial_baselines(two_tasks):
    lines, trivial = two_tasks
    text = tables.to_markdown("Title", None, "command", lines, trivial, [], "a.png")
    text = re.sub(" +", " ", text)
    assert "| trivial, labelling segments: always background |" in text
    assert "| trivial, finding the start: random window |" in text
    assert "the mean of A2V and V2A" in text
    assert "At most 60 (dmrn, avsdn) or 20 (avdln) epochs a run" in text
    # AVSDN is compared with DMRN, and not with a network of another task.
    assert ["avsdn_minus" in line for line in lines] == [True, *[False] * 4]


def test_figure_text_does_not_overlap_data(two_tasks):
    figure = tables.draw("Title", *two_tasks)
    (axes,) = figure.axes
    assert figure.get_suptitle() == "Title"
    # The legend is outside of the axes. A row without a result shows a text.
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert axes.get_legend() is None
    assert not legend.get_window_extent().overlaps(axes.get_window_extent())
    words = {text.get_text(): text.get_position()[1] for text in axes.texts}
    assert words == {"failed: 0": 2, "not run": 3}
    # Each row has the dashed lines of its own task.
    dashed = {}
    for line in axes.lines:
        if line.get_label().startswith("trivial"):
            (value, _), (low, high) = line.get_data()
            key = (line.get_label(), round(value))
            dashed.setdefault(key, []).append((low + high) / 2)
    assert dashed == {
        ("trivial: always background", 20): [0, 3, 4],
        ("trivial: random window", 30): [1, 2],
        ("trivial: always at end", 40): [1, 2],
    }
