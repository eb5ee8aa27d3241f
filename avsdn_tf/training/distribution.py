"""Where training runs: on one device, on several, or together with other workers."""

import contextlib
import dataclasses
import functools
import json
import os
import re
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from avsdn_tf import data
from avsdn_tf.errors import UserError, first_line

CLUSTER = "TF_CONFIG"
_LOST = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
    tf.errors.UnavailableError,
)
_EXAMPLE = (
    '{"cluster": {"worker": ["host1:12345", "host2:12345"]}, '
    '"task": {"type": "worker", "index": 0}}'
)


@dataclasses.dataclass(frozen=True)
class Placement:
    """The devices that train one model together.

    Attributes:
        strategy: Puts the weights on the devices, and sums over them.
        part: Which part of every batch this process has.
    """

    strategy: tf.distribute.Strategy
    part: data.Part = data.WHOLE

    @property
    def is_chief(self) -> bool:
        """Whether this process is the one that writes."""
        return self.part.worker == 0

    @property
    def has_peers(self) -> bool:
        """Whether other processes train with this one."""
        return self.part.num_workers > 1

    def describe(self) -> str:
        """Returns what a person wants to know of it; empty for one device."""
        if self.has_peers:
            return (
                f"{self.part.num_workers} workers, "
                f"{self.strategy.num_replicas_in_sync} devices in all"
            )
        replicas = self.part.num_replicas
        return f"{replicas} devices" if replicas > 1 else ""

    def sum_over_workers(self, values: Sequence[float]) -> np.ndarray:
        """Returns the sums of numbers that each worker has; all workers must ask."""
        if not self.has_peers:
            return np.asarray(values, np.float64)
        shared = np.asarray(values, np.float64) / self.part.num_replicas
        return self._sum(tf.constant(shared)).numpy()

    def wait_for_workers(self) -> None:
        """Returns when all workers have come to this point."""
        self.sum_over_workers([0.0])

    @functools.cached_property
    def _sum(self) -> tf.types.experimental.PolymorphicFunction:
        @tf.function
        def sum_values(values: tf.Tensor) -> tf.Tensor:
            # A tensor of each replica: one that all share would count once a worker.
            per_replica = self.strategy.run(lambda: tf.identity(values))
            return self.strategy.reduce("SUM", per_replica, axis=None)

        return sum_values


def num_cores() -> int:
    """Returns how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    # A Mac has no such list.
    return os.cpu_count() or 1


def place(name: str) -> Placement:
    """Chooses the devices, and meets the other workers if there are any.

    With several workers, nothing else may have used TensorFlow before.

    Args:
        name: `--strategy` of the configuration. `"auto"` takes all workers that the
            variable TF_CONFIG names, or all GPUs of this machine, or its one device.

    Raises:
        UserError: If TF_CONFIG is needed and missing, or makes no sense.
    """
    cluster = os.environ.get(CLUSTER)
    if name == "auto" and cluster:
        name = "multi_worker"
    if name == "multi_worker":
        workers, index = _read_cluster(cluster)
        try:
            strategy = tf.distribute.MultiWorkerMirroredStrategy()
        except (tf.errors.OpError, ValueError, RuntimeError) as error:
            raise UserError(
                f"worker {index}: can't meet the others at {workers[index]}. Expected "
                f"a free port there, and all of {', '.join(workers)} started. Received:"
                f" {first_line(error)}"
            ) from error
        replicas = strategy.num_replicas_in_sync // len(workers)
        return Placement(strategy, data.Part(index, len(workers), replicas))
    gpus = tf.config.list_logical_devices("GPU")
    if name == "mirrored" or (name == "auto" and len(gpus) > 1):
        devices = gpus or tf.config.list_logical_devices("CPU")
        strategy = tf.distribute.MirroredStrategy([device.name for device in devices])
        return Placement(strategy, data.Part(num_replicas=len(devices)))
    return Placement(tf.distribute.get_strategy())


def _read_cluster(text: str | None) -> tuple[list[str], int]:
    """Returns the addresses of the workers and the index of this one."""
    try:
        if not text:
            raise ValueError("nothing")
        cluster = json.loads(text)
        workers = cluster["cluster"]["worker"]
        kind, index = cluster["task"]["type"], int(cluster["task"]["index"])
        if set(cluster["cluster"]) != {"worker"} or kind != "worker":
            raise ValueError(f"tasks other than workers in {text}")
        if not 0 <= index < len(workers):
            raise ValueError(f"task {index} of {len(workers)} workers")
    except (ValueError, KeyError, TypeError) as error:
        reason = f"no {error} in {text}" if isinstance(error, KeyError) else error
        raise UserError(
            f"{CLUSTER}: expected the addresses of all workers and the index of this "
            f"one, such as {_EXAMPLE}; or --local_workers=N, which sets it for workers "
            f"on this machine. Received: {reason}"
        ) from error
    if len(workers) > data.NUM_SHARES:
        raise UserError(
            f"{CLUSTER}: expected at most {data.NUM_SHARES} workers, since the data is "
            f"read in as many shares. Received: {len(workers)}. A worker can have "
            "several GPUs."
        )
    return workers, index


@contextlib.contextmanager
def lost_workers(placement: Placement) -> Iterator[None]:
    """Turns the failure of what workers do together into one message.

    Raises:
        UserError: If another worker does not answer any more.
    """
    try:
        yield
    except _LOST as error:
        if not placement.has_peers:
            raise
        # The message also names the device that noticed.
        named = map(int, re.findall(r"/task:(\d+)", str(error)))
        others = [index for index in named if index != placement.part.worker]
        who = f"worker {others[0]}" if others else "one of the workers"
        raise UserError(
            f"worker {placement.part.worker}: lost {who} "
            f"({type(error).__name__}). Expected all "
            f"{placement.part.num_workers} workers until the end; see what ended it, "
            "and start all of them again: the same command goes on from the last "
            "checkpoint."
        ) from error
