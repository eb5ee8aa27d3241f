"""Starts several workers on this machine, and ends them together."""

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
from avsdn_tf.training.distribution import CLUSTER, num_cores
from avsdn_tf.training.signals import handling

# How long workers may take to save and end before they are killed.
_GRACE_S = 30.0
_POLL_S = 0.2
# What CUDA reads: which GPUs a process may use.
_GPUS = "CUDA_VISIBLE_DEVICES"


def launch(arguments: Sequence[str], num_workers: int) -> int:
    """Runs `python -m avsdn_tf.main` once a worker, until all have ended.

    Each line that a worker prints is shown with its number. If one fails, the others
    are ended. SIGTERM, SIGINT and SIGHUP to this process ask all of them to stop.

    Args:
        arguments: The command line of every worker.
        num_workers: How many.

    Returns:
        The exit code: that of the first worker that failed, or 0. A worker that was
        killed by a signal counts as 128 and the signal's number.

    Raises:
        UserError: If TF_CONFIG is set: these would not be the workers that it names;
            or there are too few GPUs.
    """
    if CLUSTER in os.environ:
        raise UserError(
            f"--local_workers={num_workers}: expected no {CLUSTER} in the environment, "
            "since it names workers too. Unset it, or leave --local_workers out."
        )
    workers = _start(arguments, num_workers)
    asked: list[int] = []

    def forward(number: int, _: Callable[[], None]) -> None:
        asked.append(number)
        # Workers save on SIGTERM and SIGINT, and would die of a lost terminal.
        told = signal.SIGTERM if number == signal.SIGHUP else number
        for worker in workers:
            if worker.poll() is None:
                worker.send_signal(told)

    with handling(forward, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)):
        readers = [
            threading.Thread(target=_show, args=(i, worker.stdout), daemon=True)
            for i, worker in enumerate(workers)
        ]
        for reader in readers:
            reader.start()
        failed = _wait(workers)
        if failed is not None:
            if not asked:
                print(
                    f"worker {failed} ended with exit code "
                    f"{_exit_code(workers[failed])}; ending the others",
                    file=sys.stderr,
                    flush=True,
                )
            # Those that were asked to stop are saving, and end on their own.
            _end(workers, ask=not asked)
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
                    # Workers that fight for cores wait for each other all the time.
                    "TF_NUM_INTRAOP_THREADS": str(cores),
                    "PYTHONUNBUFFERED": "1",
                    **os.environ,
                    # TensorFlow warns that it can't rewrite a distributed iterator.
                    "TF_CPP_MIN_LOG_LEVEL": "2",
                    **gpus[index],
                    CLUSTER: json.dumps(cluster),
                },
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                # Of a key that interrupts, workers hear through this process alone.
                start_new_session=True,
            )
        )
    return workers


def _share_gpus(num_gpus: int, num_workers: int) -> list[dict[str, str]]:
    """Returns what the environment of every worker says of GPUs: none has two owners.

    Raises:
        UserError: If there are some, and fewer than workers.
    """
    if not num_gpus:
        return [{}] * num_workers
    if num_gpus < num_workers:
        raise UserError(
            f"--local_workers={num_workers}: expected a GPU for each of the workers. "
            f"Received: {num_gpus}. Start fewer, or none: --strategy=mirrored takes "
            "all GPUs of a machine, and CUDA_VISIBLE_DEVICES= hides them."
        )
    visible = os.environ.get(_GPUS, ",".join(map(str, range(num_gpus)))).split(",")
    share = num_gpus // num_workers
    return [
        {_GPUS: ",".join(visible[index * share : (index + 1) * share])}
        for index in range(num_workers)
    ]


def _free_ports(count: int) -> list[int]:
    """Returns ports that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("localhost", 0))
        return [one.getsockname()[1] for one in sockets]


def _show(index: int, stream: TextIO) -> None:
    """Prints a worker's lines as they come."""
    for line in stream:
        print(f"[worker {index}] {line}", end="", flush=True)


def _wait(workers: Sequence["subprocess.Popen[str]"]) -> int | None:
    """Returns the first worker that failed, or None when all have ended well."""
    while True:
        codes = [worker.poll() for worker in workers]
        failed = [index for index, code in enumerate(codes) if code]
        if failed:
            # One that was killed may have taken others with it.
            return min(failed, key=lambda index: (codes[index] > 0, index))
        if all(code == 0 for code in codes):
            return None
        time.sleep(_POLL_S)


def _end(workers: Sequence["subprocess.Popen[str]"], ask: bool) -> None:
    """Waits until all workers have ended, and kills those that don't."""
    if ask:
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
