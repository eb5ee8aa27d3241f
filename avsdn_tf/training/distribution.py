"""Devices for training: one, several, or the devices of several workers."""

import contextlib
import dataclasses
import functools
import json
import os
import re
import time
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from avsdn_tf.data.batches import ALL, NUM_SHARDS, InputShard
from avsdn_tf.errors import UserError, first_line
from avsdn_tf.text import short_name

CLUSTER = "TF_CONFIG"
_LOST = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
    tf.errors.UnavailableError,
)
_FAREWELL_S = 2.0
_EXAMPLE = (
    '{"cluster": {"worker": ["host1:12345", "host2:12345"]}, '
    '"task": {"type": "worker", "index": 0}}'
)


@dataclasses.dataclass(frozen=True)
class Placement:
    """The devices that train one model together.

    Attributes:
        strategy: TensorFlow's distribution strategy.
        shard: The part of every global batch that this process reads.
    """

    strategy: tf.distribute.Strategy
    shard: InputShard = ALL

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the run folder."""
        return self.shard.worker == 0

    @property
    def has_peers(self) -> bool:
        """Whether other processes train with this one."""
        return self.shard.num_workers > 1

    def describe(self) -> str:
        """Return text with the numbers of workers and devices; "" for one device."""
        if self.has_peers:
            return (
                f"{self.shard.num_workers} workers, "
                f"{self.strategy.num_replicas_in_sync} devices in all"
            )
        replicas = self.shard.num_replicas
        return f"{replicas} devices" if replicas > 1 else ""

    def sum_over_workers(self, values: Sequence[float]) -> np.ndarray:
        """Return the sums of values over all workers. All workers must call this."""
        if not self.has_peers:
            return np.asarray(values, np.float64)
        shared = np.asarray(values, np.float64) / self.shard.num_replicas
        return self._sum(tf.constant(shared)).numpy()

    def wait_for_workers(self) -> None:
        """Wait until all workers have called this."""
        self.sum_over_workers([0.0])

    def leave(self) -> None:
        """Wait until all workers have called this, or one is lost; the chief ends last.

        TensorFlow logs errors in workers whose peers end too early.
        """
        if not self.has_peers:
            return
        with contextlib.suppress(*_LOST):
            self.wait_for_workers()
        # Let all workers finish the collective operation, which needs the chief.
        time.sleep(_FAREWELL_S if self.is_chief else _FAREWELL_S / 4)

    @functools.cached_property
    def _sum(self) -> tf.types.experimental.PolymorphicFunction:
        @tf.function
        def sum_values(values: tf.Tensor) -> tf.Tensor:
            # Copy the tensor to each replica: `reduce` would count a plain tensor once
            # per worker, not once per replica.
            per_replica = self.strategy.run(lambda: tf.identity(values))
            return self.strategy.reduce("SUM", per_replica, axis=None)

        return sum_values


def num_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    # macOS has no sched_getaffinity.
    return os.cpu_count() or 1


def place(name: str) -> Placement:
    """Choose the devices, and connect to the other workers if there are any.

    With several workers, call this before any other use of TensorFlow.

    Args:
        name: `Config.strategy`. `"auto"` uses all workers if the environment variable
            TF_CONFIG names several, else all GPUs of this machine, else one device.

    Raises:
        UserError: If TF_CONFIG is missing or invalid, or a worker can't be reached.
    """
    cluster = os.environ.get(CLUSTER)
    if name == "auto" and names_others(cluster):
        name = "multi_worker"
    if name == "multi_worker":
        workers, index = _read_cluster(cluster)
        try:
            strategy = tf.distribute.MultiWorkerMirroredStrategy()
        except (tf.errors.OpError, ValueError, RuntimeError) as error:
            raise UserError(
                f"worker {index}: {workers[index]} can't connect to the other workers. "
                f"Expected its port to be free, and {', '.join(workers)} to be "
                f"started. Received: {first_line(error)}"
            ) from error
        replicas = strategy.num_replicas_in_sync // len(workers)
        return Placement(strategy, InputShard(index, len(workers), replicas))
    gpus = tf.config.list_logical_devices("GPU")
    if name == "mirrored" or (name == "auto" and len(gpus) > 1):
        devices = gpus or tf.config.list_logical_devices("CPU")
        try:
            strategy = tf.distribute.MirroredStrategy([each.name for each in devices])
        # TensorFlow parses TF_CONFIG for this strategy too.
        except ValueError as error:
            raise UserError(
                f"{CLUSTER}: expected JSON. Correct or unset this variable. Received: "
                f"{first_line(error)}"
            ) from error
        return Placement(strategy, InputShard(num_replicas=len(devices)))
    return Placement(tf.distribute.get_strategy())


def names_others(text: str | None) -> bool:
    """Return whether a TF_CONFIG names several tasks, or can't be parsed.

    Job managers also set TF_CONFIG for a single task, with an empty cluster or only a
    chief.
    """
    try:
        cluster = json.loads((text or "").strip() or "{}").get("cluster") or {}
        return sum(map(len, cluster.values())) > 1
    except (AttributeError, RecursionError, TypeError, ValueError):
        return True


def _read_cluster(text: str | None) -> tuple[list[str], int]:
    """Return the addresses of all workers and the index of this worker."""
    try:
        if not text:
            raise ValueError("nothing")
        cluster = json.loads(text)
        if not isinstance(cluster, dict):
            raise ValueError(text)
        workers = cluster["cluster"]["worker"]
        kind, index = cluster["task"]["type"], int(cluster["task"]["index"])
        if set(cluster["cluster"]) != {"worker"} or kind != "worker":
            raise ValueError(f"tasks other than workers in {text}")
        if not isinstance(workers, list) or not all(map(_is_address, workers)):
            raise ValueError(f"no list of HOST:PORT in {text}")
        if not 0 <= index < len(workers):
            raise ValueError(f"task {index} of {len(workers)} workers")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        reason = f"no {error} in {text}" if isinstance(error, KeyError) else error
        raise UserError(
            f"{CLUSTER}: expected the addresses of all workers and the index of this "
            f"one, such as {_EXAMPLE}. Alternatives: local_workers starts workers on "
            f"this machine and sets {CLUSTER}; strategy single ignores {CLUSTER}. "
            f"Received: {short_name(str(reason), 200)}"
        ) from error
    if len(workers) > NUM_SHARDS:
        raise UserError(
            f"{CLUSTER}: expected at most {NUM_SHARDS} workers, the number of data "
            f"shards. Received: {len(workers)}. A worker can use several GPUs."
        )
    return workers, index


def _is_address(value: object) -> bool:
    return isinstance(value, str) and value.rpartition(":")[2].isdecimal()


@contextlib.contextmanager
def lost_workers(placement: Placement) -> Iterator[None]:
    """Convert the failure of a collective operation to a UserError.

    Raises:
        UserError: If another worker doesn't respond.
    """
    try:
        yield
    except _LOST as error:
        if not placement.has_peers:
            raise
        # The message may also name this worker, which reports the failure.
        named = map(int, re.findall(r"/task:(\d+)", str(error)))
        others = [index for index in named if index != placement.shard.worker]
        who = f"worker {others[0]}" if others else "one of the workers"
        raise UserError(
            f"worker {placement.shard.worker}: lost {who} "
            f"({type(error).__name__}). Expected all "
            f"{placement.shard.num_workers} workers until the end. See that worker's "
            "output, and start all workers again: the same command resumes from the "
            "last checkpoint."
        ) from error
