import csv
import functools
import json
import os
import pathlib
import signal
import subprocess

import numpy as np
import pytest
import tensorflow as tf

from avsdn_tf.data.batches import InputShard
from avsdn_tf.data.dataset import open_dataset
from avsdn_tf.errors import UserError
from avsdn_tf.run_folder import RunFolder
from avsdn_tf.training import distribution, launcher
from avsdn_tf.training.config import Config
from avsdn_tf.training.loop import train
from tests import processes

# 480 clips: the last batch has only 80.
COMMON = {"epochs": 2, "batch_size": 100}
MODES = {
    "supervised": {"mode": "supervised", "units": 8},
    "weak": {"mode": "weak", "weak_label": "average", "units": 8},
}
TASKS = {
    **MODES,
    # An epoch has 4800 pairs of segments.
    "cross_modal": {"mode": "cross_modal", "batch_size": 1000},
}
MODES_AND_SLOW = [
    "supervised",
    *(pytest.param(mode, marks=pytest.mark.slow) for mode in ("weak", "cross_modal")),
]
COLUMNS = ("loss", "accuracy", "validation_accuracy")


def read_metrics(run):
    with (pathlib.Path(run) / "metrics.csv").open() as file:
        return [[float(row[name]) for name in COLUMNS] for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def single(data_dir, tmp_path_factory):
    """Return a function that trains a mode on one device, and returns its metrics."""

    @functools.cache
    def metrics_of(mode):
        folder = RunFolder(tmp_path_factory.mktemp(mode) / "run")
        config = Config(**{**COMMON, **TASKS[mode]})
        folder.write_config(config.to_dict(), "hash")
        train(config, open_dataset("tfds_ave/synthetic", data_dir), folder)
        return read_metrics(folder.path)

    return metrics_of


@pytest.mark.distributed
@pytest.mark.parametrize("mode", MODES_AND_SLOW)
def test_two_devices_and_one_device_give_equal_losses(data_dir, single, tmp_path, mode):
    settings = {**COMMON, **TASKS[mode], "data_dir": data_dir, "strategy": "mirrored"}
    code, output = processes.run(
        *Config(**settings).to_flags(),
        f"--run={tmp_path / 'run'}",
        module="experiments.benchmark.two_devices",
    )
    assert code == 0, output
    assert "; 2 devices" in output
    np.testing.assert_allclose(
        read_metrics(tmp_path / "run"), single(mode), rtol=0, atol=1e-5
    )


@pytest.mark.distributed
@pytest.mark.parametrize("mode", MODES_AND_SLOW)
def test_two_workers_and_one_worker_give_equal_losses(data_dir, single, tmp_path, mode):
    flags = {**COMMON, **TASKS[mode], "data_dir": data_dir, "run": tmp_path / "run"}
    code, output = processes.run(
        "--strategy=multi_worker",
        "--local_workers=2",
        *(f"--{name}={value}" for name, value in flags.items()),
    )
    assert code == 0, output
    assert "[worker 0] kept epoch" in output
    assert "2 workers, 2 devices in all" in output
    # Worker 1 prints nothing, and isn't reported as crashed when it exits first.
    assert "[worker 1]" not in output
    assert "crashed" not in output
    assert output.splitlines()[-1].startswith("[worker 0] Page to open: ")
    np.testing.assert_allclose(
        read_metrics(tmp_path / "run"), single(mode), rtol=0, atol=1e-5
    )


@pytest.mark.distributed
def test_a_lost_worker_stops_all_workers_and_the_run_resumes(data_dir, tmp_path):
    run = tmp_path / "run"
    command = (
        "--local_workers=2",
        "--epochs=20",
        "--patience=20",
        "--units=4",
        f"--data_dir={data_dir}",
        f"--run={run}",
    )
    with processes.started(*command) as process:
        processes.read_until(process, "epoch   2/20")
        victims = [
            pid
            for pid in map(int, filter(str.isdigit, os.listdir("/proc")))
            if is_worker(pid, process.pid, index=1)
        ]
        assert len(victims) == 1
        os.kill(victims[0], signal.SIGKILL)
        code, output, seconds = processes.finish(process)
    assert code == 128 + signal.SIGKILL
    assert "worker 1 ended with exit code 137; stopping the others" in output
    assert seconds < 60

    with processes.started(*command) as process:
        (*_, line) = processes.read_until(process, "[worker 0] resuming in epoch")
        assert int(line.split("epoch ")[1].split(",")[0]) >= 3
        processes.read_until(process, "[worker 0] epoch")
        process.send_signal(signal.SIGTERM)
        code, output, _ = processes.finish(process)
    assert code == 128 + signal.SIGTERM
    assert "Stopped by SIGTERM in epoch" in output

    code, output = processes.run(*command)
    assert code == 0, output
    assert len(read_metrics(run)) == 20


@pytest.mark.distributed
def test_a_worker_with_other_settings_stops_all_workers(data_dir, tmp_path):
    addresses = [f"localhost:{port}" for port in launcher._free_ports(2)]
    run = tmp_path / "run"

    def worker(index, units):
        task = {"type": "worker", "index": index}
        return processes.started(
            "--epochs=1",
            f"--units={units}",
            f"--data_dir={data_dir}",
            f"--run={run}",
            env={
                "TF_CONFIG": json.dumps(
                    {"cluster": {"worker": addresses}, "task": task}
                )
            },
        )

    with worker(0, units=4) as chief, worker(1, units=8) as other:
        code, output, _ = processes.finish(other)
        assert code == 2
        assert "units 4, received 8" in output
        code, output, seconds = processes.finish(chief)
    assert code == 2
    assert "worker 0: lost worker 1" in output
    assert seconds < 60
    assert not run.exists()


def test_workers_share_no_gpu(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    name = "CUDA_VISIBLE_DEVICES"
    assert launcher._share_gpus(0, 2) == [{}, {}]
    assert launcher._share_gpus(2, 2) == [{name: "0"}, {name: "1"}]
    assert launcher._share_gpus(5, 2) == [{name: "0,1"}, {name: "2,3"}]
    monkeypatch.setenv(name, "GPU-a,GPU-b")
    assert launcher._share_gpus(2, 2) == [{name: "GPU-a"}, {name: "GPU-b"}]
    with pytest.raises(UserError, match="a GPU for each worker"):
        launcher._share_gpus(1, 2)


def test_the_launcher_forwards_sighup_as_sigterm(monkeypatch):
    program = 'trap "exit 9" TERM; echo ready; while :; do sleep 0.1; done'

    worker = subprocess.Popen(["sh", "-c", program], stdout=subprocess.PIPE)

    def start(arguments, num_workers):
        assert (arguments, num_workers) == (["--run=r"], 1)
        return [worker]

    def hang_up(index, stream):
        assert (index, stream.readline()) == (0, b"ready\n")
        os.kill(os.getpid(), signal.SIGHUP)

    monkeypatch.delenv(distribution.CLUSTER, raising=False)
    monkeypatch.setattr(launcher, "_start", start)
    monkeypatch.setattr(launcher, "_show", hang_up)
    # Under nohup, the tests would ignore SIGHUP.
    before = signal.signal(signal.SIGHUP, signal.default_int_handler)
    try:
        with worker:
            assert launcher.launch(["--run=r"], 1) == 9
    finally:
        signal.signal(signal.SIGHUP, before)


def is_worker(pid, parent, index):
    """Return whether process `pid` is worker `index`, a child of process `parent`."""
    folder = pathlib.Path(f"/proc/{pid}")
    try:
        status = (folder / "status").read_text()
        environment = (folder / "environ").read_bytes().decode()
    except OSError:
        return False
    return f"PPid:\t{parent}\n" in status and f'"index": {index}' in environment


@pytest.mark.parametrize(
    ("cluster", "message"),
    [
        (None, "TF_CONFIG: expected the addresses.*local_workers.*: nothing"),
        ("{", "TF_CONFIG: expected the addresses.*such as"),
        ("[]", r"Received: \[\]$"),
        ('{"cluster": {}}', "Received: no 'worker' in "),
        (
            '{"cluster": {"worker": ["a:1"]}, "task": {"type": "ps", "index": 0}}',
            "tasks other than workers",
        ),
        (
            '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
            "task 1 of 1 workers",
        ),
        (
            json.dumps(
                {
                    "cluster": {"worker": [f"a:{i}" for i in range(9)]},
                    "task": {"type": "worker", "index": 0},
                }
            ),
            "expected at most 8 workers.*Received: 9",
        ),
    ],
)
def test_a_wrong_cluster_fails_with_one_message(monkeypatch, cluster, message):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if cluster is not None:
        monkeypatch.setenv("TF_CONFIG", cluster)
    with pytest.raises(UserError, match=message):
        distribution.place("multi_worker")


ONE_TASK = {
    "cluster": {"worker": ["localhost:1"]},
    "task": {"type": "worker", "index": 0},
}


@pytest.mark.parametrize(
    "cluster",
    [
        None,
        "",
        " ",
        "{}",
        '{"cluster": {}}',
        '{"cluster": null, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": []}}',
        '{"cluster": {"chief": ["a:1"]}, "task": {"type": "chief", "index": 0}}',
        '{"environment": "cloud"}',
        json.dumps(ONE_TASK),
    ],
)
def test_one_device_is_the_default_without_a_gpu(monkeypatch, cluster):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if cluster is not None:
        monkeypatch.setenv("TF_CONFIG", cluster)
    placement = distribution.place("auto")
    assert placement.is_chief
    assert placement.describe() == ""
    assert placement.strategy is tf.distribute.get_strategy()
    np.testing.assert_array_equal(placement.sum_over_workers([1, 2.5]), [1, 2.5])


@pytest.mark.parametrize(
    "cluster",
    [
        "{",
        "[]",
        "3",
        "[" * 100_000,
        '{"cluster": ["a:1", "b:1"]}',
        '{"cluster": {"worker": 3}}',
        '{"cluster": {"worker": ["a:1", "b:1"]}}',
        '{"cluster": {"worker": "a:1"}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": [1, 2]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a", "b"]}, "task": {"type": "worker", "index": 0}}',
        *(
            json.dumps(
                {
                    "cluster": {"worker": ["a:1", "b:1"], **more},
                    "task": {"type": kind, "index": 0},
                }
            )
            for kind, more in (
                ("evaluator", {}),
                ("ps", {"ps": ["c:1"]}),
                ("worker", {"ps": ["c:1"]}),
                ("chief", {"chief": ["c:1"]}),
            )
        ),
    ],
)
def test_the_default_strategy_refuses_an_unusable_cluster(monkeypatch, cluster):
    monkeypatch.setenv("TF_CONFIG", cluster)
    with pytest.raises(UserError, match=r"TF_CONFIG: expected.*strategy single"):
        distribution.place("auto")
    assert distribution.place("single").describe() == ""


def test_invalid_json_in_tf_config_fails_with_one_message_with_mirrored(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "{")
    with pytest.raises(UserError, match="TF_CONFIG: expected JSON"):
        distribution.place("mirrored")


def test_local_workers_need_no_cluster_and_ignore_an_empty_cluster(monkeypatch):
    ended = subprocess.Popen(["true"], stdout=subprocess.PIPE, text=True)
    monkeypatch.setattr(launcher, "_start", lambda *_: [ended])
    monkeypatch.setenv("TF_CONFIG", "{}")
    with ended:
        assert launcher.launch([], 1) == 0
    monkeypatch.setenv("TF_CONFIG", '{"cluster": {"worker": ["a:1", "b:1"]}}')
    with pytest.raises(UserError, match="Unset it"):
        launcher.launch([], 1)


def test_a_lost_worker_is_named():
    class Peers:
        has_peers = True
        shard = InputShard(worker=0, num_workers=3)

    error = tf.errors.UnavailableError(
        None, None, "device_/job:worker/replica:0/task:0: /job:worker/task:2: gone"
    )
    with (
        pytest.raises(UserError, match=r"worker 0: lost worker 2 \(Unavailable.*all 3"),
        distribution.lost_workers(Peers()),
    ):
        raise error
    # On one device, the error has another cause: it is not converted.
    with (
        pytest.raises(tf.errors.UnavailableError),
        distribution.lost_workers(distribution.place("single")),
    ):
        raise error


def test_the_slurm_script_in_the_docs_sets_workers_and_index(tmp_path):
    text = (pathlib.Path(__file__).parents[1] / "docs/devices.md").read_text()
    script = text[text.index("#!/bin/bash") :].split("```")[0]
    commands = {
        "scontrol": "printf 'node1\\nnode2\\n'",
        "srun": 'for SLURM_PROCID in 0 1; do export SLURM_PROCID; "$@"; done',
        "python": 'echo "$TF_CONFIG"',
    }
    for name, body in commands.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        ["bash", "-euc", script],
        env={
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "SLURM_JOB_NODELIST": "n[1-2]",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    clusters = done.stdout.splitlines()
    assert len(clusters) == 2
    for index, cluster in enumerate(clusters):
        addresses = ["node1:12345", "node2:12345"]
        assert distribution._read_cluster(cluster) == (addresses, index)
