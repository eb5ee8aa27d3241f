"""Start several workers on this machine, and stop them together."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import TextIO

import tensorflow as tf

from avsdn_tf.errors import UserError
from avsdn_tf.training.distribution import CLUSTER, names_others, num_cores
from avsdn_tf.training.signals import handle_signals

# Time for workers to save and exit before they are killed.
_GRACE_S = 30.0
_POLL_S = 0.2
# CUDA's environment variable for the GPUs that a process may use.
_GPUS = "CUDA_VISIBLE_DEVICES"


def launch(arguments: Sequence[str], num_workers: int) -> int:
    """Run `python -m avsdn_tf.main` in several workers, and wait for them.

    Output lines are prefixed with the worker's index. If a worker fails, the others are
    stopped. SIGTERM, SIGINT and SIGHUP are forwarded to all workers.

    Args:
        arguments: Command-line arguments of every worker.
        num_workers: Number of workers.

    Returns:
        0, or the exit code of the first worker that failed. The exit code of a worker
        that a signal killed is 128 plus the signal's number.

    Raises:
        UserError: If TF_CONFIG names several tasks, or there are too few GPUs.
    """
    if names_others(os.environ.get(CLUSTER)):
        raise UserError(
            f"Expected no {CLUSTER} in the environment: it names workers, too. Unset "
            "it, or start one worker.",
            field="local_workers",
            value=num_workers,
        )
    workers = _start(arguments, num_workers)
    received: list[int] = []

    def forward(number: int, _: Callable[[], None]) -> None:
        received.append(number)
        # Workers save on SIGTERM and SIGINT; SIGHUP would kill them.
        sent = signal.SIGTERM if number == signal.SIGHUP else number
        for worker in workers:
            if worker.poll() is None:
                worker.send_signal(sent)

    with handle_signals(forward, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)):
        readers = [
            threading.Thread(target=_show, args=(i, worker.stdout), daemon=True)
            for i, worker in enumerate(workers)
        ]
        for reader in readers:
            reader.start()
        failed = _wait(workers)
        if failed is not None:
            if not received:
                print(
                    f"worker {failed} ended with exit code "
                    f"{_exit_code(workers[failed])}; stopping the others",
                    file=sys.stderr,
                    flush=True,
                )
            # Workers that received a signal save and exit by themselves.
            _end(workers, terminate=not received)
        for reader in readers:
            reader.join()
    return 0 if failed is None else _exit_code(workers[failed])


def _start(arguments: Sequence[str], num_workers: int) -> list["subprocess.Popen[str]"]:
    addresses = [f"localhost:{port}" for port in _free_ports(num_workers)]
    cores = max(1, num_cores() // num_workers)
    gpus = _share_gpus(len(tf.config.list_physical_devices("GPU")), num_workers)
    workers = []
    for index in range(num_workers):
        cluster = {
            "cluster": {"worker": addresses},
            "task": {"type": "worker", "index": index},
        }
        workers.append(
            subprocess.Popen(
                [sys.executable, "-m", "avsdn_tf.main", *arguments],
                env={
                    # Divide the cores: competing workers slow each other down.
                    "TF_NUM_INTRAOP_THREADS": str(cores),
                    "PYTHONUNBUFFERED": "1",
                    **os.environ,
                    # Hide TensorFlow's warning about distributed iterators.
                    "TF_CPP_MIN_LOG_LEVEL": "2",
                    **gpus[index],
                    CLUSTER: json.dumps(cluster),
                },
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                # Ctrl-C must reach the workers only through `forward`.
                start_new_session=True,
            )
        )
    return workers


def _share_gpus(num_gpus: int, num_workers: int) -> list[dict[str, str]]:
    """Return environment variables that give every worker its own GPUs.

    Raises:
        UserError: If there are GPUs, but fewer than workers.
    """
    if not num_gpus:
        return [{}] * num_workers
    if num_gpus < num_workers:
        raise UserError(
            f"Expected a GPU for each worker. Received: {num_gpus} GPUs. Start fewer "
            "workers, or one worker with strategy mirrored for all GPUs, or hide the "
            f"GPUs with {_GPUS}=.",
            field="local_workers",
            value=num_workers,
        )
    visible = os.environ.get(_GPUS, ",".join(map(str, range(num_gpus)))).split(",")
    each = num_gpus // num_workers
    return [
        {_GPUS: ",".join(visible[index * each : (index + 1) * each])}
        for index in range(num_workers)
    ]


def _free_ports(count: int) -> list[int]:
    """Return distinct free ports."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("localhost", 0))
        return [each.getsockname()[1] for each in sockets]


def _show(index: int, stream: TextIO) -> None:
    """Print a worker's output line by line."""
    for line in stream:
        print(f"[worker {index}] {line}", end="", flush=True)


def _wait(workers: Sequence["subprocess.Popen[str]"]) -> int | None:
    """Return the index of the first failed worker, or None if all have succeeded."""
    while True:
        codes = [worker.poll() for worker in workers]
        failed = [index for index, code in enumerate(codes) if code]
        if failed:
            # A killed worker makes others fail: report the killed worker.
            return min(failed, key=lambda index: (codes[index] > 0, index))
        if all(code == 0 for code in codes):
            return None
        time.sleep(_POLL_S)


def _end(workers: Sequence["subprocess.Popen[str]"], terminate: bool) -> None:
    """Wait until all workers have exited; kill them after `_GRACE_S`.

    Args:
        workers: The workers.
        terminate: Whether to send SIGTERM first.
    """
    if terminate:
        for worker in workers:
            if worker.poll() is None:
                worker.terminate()
    deadline = time.monotonic() + _GRACE_S
    for worker in workers:
        try:
            worker.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()


def _exit_code(worker: "subprocess.Popen[str]") -> int:
    code = worker.wait()
    return 128 - code if code < 0 else code
