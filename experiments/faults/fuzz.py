"""Read damaged copies of a video, and count the outcomes.

Usage: python -m experiments.faults fuzz VIDEO [FLAGS]

Example:
  python -m experiments.faults fuzz dog.mp4 --copies=50

Bytes of each copy are changed, cut off at the end, or copied elsewhere.
Reading must yield seconds or raise a `VideoError`. Child processes read the
copies, so that crashes and endless loops are counted. The exit code is 1 if a
copy crashed, hung or raised another error, or if memory grew by more than 64
MiB. Needs Linux's /proc.
"""

import collections
import concurrent.futures.process
import itertools
import multiprocessing
import os
import pathlib
import statistics
import tempfile
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from avsdn_tf.features import video
from avsdn_tf.startup import quiet_startup
from experiments.arguments import Parser, positive
from experiments.markdown import to_table

LEAK_MIB = 64
_STATUSES = ("ok", "refused", "failed", "crashed", "hung")
_KINDS = ("flip", "cut", "splice")
_FLIPPED_BYTES = 40
# Containers have their tables at the start or the end of a file.
_TABLE_BYTES = 8192


class Outcome(NamedTuple):
    """The outcome of reading one copy.

    Attributes:
        kind: Kind of damage: "flip", "cut" or "splice".
        status: "ok", "refused" (a `VideoError`), "failed" (another error), "crashed"
            or "hung".
        detail: The error message, or the number of seconds read.
        taken_s: Time for reading the copy, in seconds.
        memory_mib: Resident memory of the process afterwards; 0 if it has ended.
    """

    kind: str
    status: str
    detail: str
    taken_s: float
    memory_mib: float


def damage(content: bytes, seed: int, copy: int) -> tuple[str, bytes]:
    """Return the kind of damage and the damaged bytes, determined by seed and copy."""
    rng = np.random.default_rng((seed, copy))
    kind = _KINDS[copy % 3]
    size = len(content)
    if kind == "cut":
        return kind, content[: rng.integers(1, size)]
    damaged = np.frombuffer(content, np.uint8).copy()
    if kind == "flip":
        table = min(size, _TABLE_BYTES)
        low, high = [(0, size), (0, table), (size - table, size)][rng.integers(3)]
        # Often change only a few bytes: many changes make the reader fail early.
        places = rng.integers(low, high, int(_FLIPPED_BYTES ** rng.random()))
        damaged[places] = rng.integers(0, 256, len(places))
        return kind, damaged.tobytes()
    length = rng.integers(1, size // 4)
    source, target = rng.integers(0, size - length, 2)
    piece = damaged[source : source + length].copy()
    if rng.integers(2):
        damaged[target : target + length] = piece
    else:
        damaged = np.insert(damaged, target, piece)
    return kind, damaged.tobytes()


def fuzz(
    path: str | os.PathLike[str], copies: int, seed: int, limit_s: float
) -> list[Outcome]:
    """Read damaged copies of a video one by one, and return their outcomes.

    A copy that takes more than `limit_s` seconds counts as hung.
    """
    content = pathlib.Path(path).read_bytes()
    # A forked process would share FFmpeg's state with its parent.
    context = multiprocessing.get_context("spawn")
    outcomes: list[Outcome] = []
    pool = None
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder, f"copy{pathlib.Path(path).suffix}")
        for copy in range(copies):
            if not pool:
                pool = concurrent.futures.ProcessPoolExecutor(1, context)
                # Start Python and TensorFlow before the time limit begins.
                with quiet_startup():
                    pool.submit(_resident_mib).result()
            kind, damaged = damage(content, seed, copy)
            file.write_bytes(damaged)
            start = time.monotonic()
            try:
                answer = pool.submit(_read, str(file)).result(limit_s)
            except concurrent.futures.TimeoutError:
                answer = "hung", f"no answer within {limit_s:g} s", 0.0
            except concurrent.futures.process.BrokenProcessPool as error:
                answer = "crashed", str(error), 0.0
            taken_s = time.monotonic() - start
            outcomes.append(Outcome(kind, *answer[:2], taken_s, answer[2]))
            if answer[0] == "hung":
                for process in multiprocessing.active_children():
                    process.kill()
            if answer[0] in ("hung", "crashed") or copy == copies - 1:
                pool = pool.shutdown()
    return outcomes


def _read(path: str) -> tuple[str, str, float]:
    """Read a video in the child; return status, detail and memory in MiB."""
    try:
        num_seconds = 0
        for second in video.read_seconds(path, frames_per_second=1):
            _check(second, num_seconds)
            num_seconds += 1
        status, detail = "ok", f"{num_seconds} s"
    except video.VideoError as error:
        status, detail = "refused", str(error)
    except Exception as error:
        status, detail = "failed", repr(error)
    return status, detail, _resident_mib()


def _check(second: video.Second, index: int) -> None:
    """Check the index, the shapes and the values of a second."""
    frames, waveform = second.frames, second.waveform
    is_valid = second.index == index and not (frames is None and waveform is None)
    if frames is not None:
        is_valid &= len(frames) == 1 and max(frames.shape[1:3]) <= 1080
        is_valid &= frames.dtype == np.uint8
    if waveform is not None:
        is_valid &= waveform.shape == (video.SAMPLE_RATE_HZ,)
        is_valid &= bool(np.abs(waveform).max() <= 1)
    if not is_valid:
        raise AssertionError(f"second {index} is invalid: {second}")


def _resident_mib() -> float:
    """Return the resident memory of this process in MiB."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def memory_growth_mib(outcomes: Sequence[Outcome]) -> float:
    """Return the largest growth of a process's memory in MiB.

    The growth is the median memory in the last quarter of copies, minus the median in
    the second quarter. The first quarter fills caches.
    """
    growths = [0.0]
    # Measure each process separately: a copy with memory 0 has ended the process.
    for _, group in itertools.groupby(outcomes, lambda each: each.memory_mib > 0):
        used = [each.memory_mib for each in group]
        if quarter := len(used) // 4:
            second = statistics.median(used[quarter : 2 * quarter])
            growths.append(statistics.median(used[-quarter:]) - second)
    return max(growths)


def main(argv: Sequence[str]) -> int:
    """Run the command, and return the exit code."""
    parser = Parser("experiments.faults fuzz", __doc__)
    add = parser.add_argument
    add("video", metavar="VIDEO", help="Video to copy and damage.")
    text = "Number of copies [200]."
    add("--copies", type=positive, default=200, metavar="N", help=text)
    text = "Random seed of the damage [0]."
    add("--seed", type=int, default=0, metavar="N", help=text)
    text = "Seconds until reading a copy counts as hung [30]."
    add("--limit_s", type=float, default=30.0, metavar="X", help=text)
    args = parser.parse_args(argv)
    if not os.path.isfile(args.video):
        parser.error(f"{args.video}: no such file. Expected a video")
    outcomes = fuzz(args.video, args.copies, args.seed, args.limit_s)
    counts = collections.Counter((each.kind, each.status) for each in outcomes)
    growth_mib = memory_growth_mib(outcomes)
    rows = [[kind, *(str(counts[kind, s]) for s in _STATUSES)] for kind in _KINDS]
    print("\n".join(to_table([["damage", *_STATUSES], *rows])))
    print(f"slowest copy: {max(each.taken_s for each in outcomes):.2f} s")
    print(f"memory growth: {growth_mib:.1f} MiB")
    failed = [
        f"copy {copy} {each.status}: {each.detail}"
        for copy, each in enumerate(outcomes)
        if each.status not in ("ok", "refused")
    ]
    print("".join(f"{line}\n" for line in failed), end="")
    return int(bool(failed) or growth_mib > LEAK_MIB)
