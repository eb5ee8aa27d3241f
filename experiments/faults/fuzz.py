"""Read damaged copies of a video, and count the outcomes.

    python -m experiments.faults fuzz VIDEO [--copies=200] [--seed=0] [--limit_s=30]

Every copy has bytes changed, its end cut off, or a part copied elsewhere. Reading must
yield seconds or raise a `VideoError`. Child processes read the copies, so that a crash
of FFmpeg or an endless loop is counted and survived. The exit code is 1 if there was
one, or if memory grew by more than 64 MiB. Linux only: it reads /proc.
"""

import collections
import dataclasses
import multiprocessing
import multiprocessing.connection
import os
import pathlib
import statistics
import tempfile
import time
from collections.abc import Sequence

import numpy as np

from avsdn_tf.features import video
from experiments.arguments import Parser, positive

LEAK_MIB = 64
_FLIPPED_BYTES = 40
# The start and the end of a file hold its tables.
_TABLE_BYTES = 8192


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The outcome of reading one copy.

    Attributes:
        copy: Its number, from 0.
        kind: How it was damaged: "flip", "cut" or "splice".
        status: "ok", "refused" (a `VideoError`), "crashed" or "hung".
        detail: The error's message, or how the process ended.
        taken_s: Seconds that it took.
        memory_mib: Resident memory of the process afterwards; 0 if it has ended.
        child: The number of the process that read it.
    """

    copy: int
    kind: str
    status: str
    detail: str
    taken_s: float
    memory_mib: float
    child: int


def damage(content: bytes, seed: int, copy: int) -> tuple[str, bytes]:
    """Damage a file, the same for the same seed and copy.

    Args:
        content: The bytes of the file.
        seed: Seed of all copies.
        copy: Number of the copy.

    Returns:
        How it was damaged, and the damaged bytes.
    """
    rng = np.random.default_rng((seed, copy))
    kind = ("flip", "cut", "splice")[copy % 3]
    size = len(content)
    if kind == "cut":
        return kind, content[: rng.integers(1, size)]
    damaged = np.frombuffer(content, np.uint8).copy()
    if kind == "flip":
        table = min(size, _TABLE_BYTES)
        low, high = [(0, size), (0, table), (size - table, size)][rng.integers(3)]
        # Often few: a reader refuses many at once, and never gets further.
        places = rng.integers(low, high, int(_FLIPPED_BYTES ** rng.random()))
        damaged[places] = rng.integers(0, 256, len(places))
        return kind, damaged.tobytes()
    length = rng.integers(1, size // 4)
    source, target = rng.integers(0, size - length, 2)
    part = damaged[source : source + length].copy()
    if rng.integers(2):
        damaged[target : target + length] = part
    else:
        damaged = np.insert(damaged, target, part)
    return kind, damaged.tobytes()


def fuzz(
    path: str | os.PathLike[str],
    copies: int,
    seed: int,
    limit_s: float,
    frames_per_second: int = 1,
) -> list[Outcome]:
    """Read damaged copies of a video, one at a time.

    Args:
        path: The video.
        copies: How many copies to make.
        seed: Seed of the damage.
        limit_s: Seconds after which a copy counts as hung.
        frames_per_second: Frames to read of a second.

    Returns:
        The outcome of each copy.
    """
    content = pathlib.Path(path).read_bytes()
    outcomes: list[Outcome] = []
    num_children = 0
    with tempfile.TemporaryDirectory() as folder:
        while len(outcomes) < copies:
            reader = _Child(frames_per_second)
            for copy in range(len(outcomes), copies):
                kind, damaged = damage(content, seed, copy)
                file = pathlib.Path(folder, f"{copy}{pathlib.Path(path).suffix}")
                file.write_bytes(damaged)
                start = time.monotonic()
                status, detail, memory_mib = reader.read(file, limit_s)
                taken_s = time.monotonic() - start
                file.unlink()
                outcomes.append(
                    Outcome(
                        copy, kind, status, detail, taken_s, memory_mib, num_children
                    )
                )
                if not reader.is_alive:
                    break
            reader.close()
            num_children += 1
    return outcomes


def memory_growth_mib(outcomes: Sequence[Outcome]) -> float:
    """Return the growth of memory in MiB.

    It is the median of a process's last quarter of copies minus the median of the
    second quarter: the first copies fill caches, and single copies need much memory.
    """
    growths = [0.0]
    for child in {outcome.child for outcome in outcomes}:
        used = [
            outcome.memory_mib
            for outcome in outcomes
            if outcome.child == child and outcome.memory_mib
        ]
        quarter = len(used) // 4
        if quarter:
            growths.append(
                statistics.median(used[-quarter:])
                - statistics.median(used[quarter : 2 * quarter])
            )
    return max(growths)


class _Child:
    """A process that reads videos until one crashes it or hangs."""

    def __init__(self, frames_per_second: int) -> None:
        # A forked process would share FFmpeg's state with this one.
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, frames_per_second), daemon=True
        )
        self._process.start()
        theirs.close()
        # The time limit is for reading, not for starting Python.
        self._connection.recv()
        self.is_alive = True

    def read(self, path: pathlib.Path, limit_s: float) -> tuple[str, str, float]:
        """Read a video; return the status, the detail and the memory in MiB."""
        self._connection.send(str(path))
        if not self._connection.poll(limit_s):
            self.is_alive = False
            return "hung", f"no answer within {limit_s:g} s", 0.0
        try:
            return self._connection.recv()
        except EOFError:
            self.is_alive = False
            self._process.join()
            return "crashed", f"exit code {self._process.exitcode}", 0.0

    def close(self) -> None:
        self._process.kill()
        self._process.join()
        self._connection.close()


def _serve(
    connection: multiprocessing.connection.Connection, frames_per_second: int
) -> None:
    connection.send("ready")
    while True:
        path = connection.recv()
        try:
            num_seconds = 0
            for second in video.read_seconds(path, frames_per_second):
                _check(second, num_seconds, frames_per_second)
                num_seconds += 1
            status, detail = "ok", f"{num_seconds} s"
        except video.VideoError as error:
            status, detail = "refused", str(error)
        except Exception as error:
            status, detail = "crashed", repr(error)
        connection.send((status, detail, _resident_mib()))


def _check(second: video.Second, index: int, frames_per_second: int) -> None:
    if second.index != index:
        raise AssertionError(f"second {second.index} came as number {index}")
    if second.frames is None and second.waveform is None:
        raise AssertionError("a second with neither picture nor sound")
    if second.frames is not None and (
        second.frames.shape[0] != frames_per_second
        or max(second.frames.shape[1:3]) > 1080
        or second.frames.dtype != np.uint8
    ):
        raise AssertionError(f"frames are {second.frames.shape}")
    if second.waveform is not None and not (
        second.waveform.shape == (video.SAMPLE_RATE_HZ,)
        and np.abs(second.waveform).max() <= 1
    ):
        raise AssertionError("the waveform is not 16000 samples in [-1, 1]")


def _resident_mib() -> float:
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _table(outcomes: Sequence[Outcome]) -> str:
    counts = collections.Counter((entry.kind, entry.status) for entry in outcomes)
    statuses = ("ok", "refused", "crashed", "hung")
    lines = ["damage    " + "".join(f"{status:>10}" for status in statuses)]
    for kind in ("flip", "cut", "splice"):
        cells = "".join(f"{counts[kind, status]:>10}" for status in statuses)
        lines.append(f"{kind:<10}{cells}")
    slowest = max(entry.taken_s for entry in outcomes)
    lines += [
        f"slowest copy   {slowest:.2f} s",
        f"memory growth  {memory_growth_mib(outcomes):.1f} MiB",
    ]
    for entry in outcomes:
        if entry.status in ("crashed", "hung"):
            lines.append(f"copy {entry.copy} {entry.status}: {entry.detail}")
    return "\n".join(lines)


def main(argv: Sequence[str]) -> int:
    """Read the copies, print a table, and return the exit code."""
    parser = Parser("experiments.faults fuzz", __doc__)
    add = parser.add_argument
    add("video", help="the video to damage copies of")
    add("--copies", type=positive, default=200, help="how many copies (200)")
    add("--seed", type=int, default=0, help="seed of the damage (0)")
    add("--limit_s", type=float, default=30.0, help="seconds until a copy hangs (30)")
    args = parser.parse_args(argv)
    if not os.path.isfile(args.video):
        parser.error(f"{args.video}: expected a video, and there is no such file")
    outcomes = fuzz(args.video, args.copies, args.seed, args.limit_s)
    print(_table(outcomes))
    failed = any(entry.status in ("crashed", "hung") for entry in outcomes)
    return int(failed or memory_growth_mib(outcomes) > LEAK_MIB)
