"""Read damaged copies of a video, and count the outcomes.

    python -m experiments.faults fuzz VIDEO [--copies=200] [--seed=0] [--limit_s=30]

Every copy has bytes changed, its end cut off, or a part copied elsewhere. Reading must
yield seconds or raise a `VideoError`. Child processes read the copies, so that a crash
of FFmpeg or an endless loop is counted and survived. The exit code is 1 if there was
one, or if memory grew by more than 64 MiB. Linux only: it reads /proc.
"""

import collections
import concurrent.futures.process
import dataclasses
import multiprocessing
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
_STATUSES = ("ok", "refused", "failed", "crashed", "hung")
_ENDS_CHILD = ("crashed", "hung")
_FLIPPED_BYTES = 40
# The start and the end of a file hold its tables.
_TABLE_BYTES = 8192


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The outcome of reading one copy.

    Attributes:
        copy: Its number, from 0.
        kind: How it was damaged: "flip", "cut" or "splice".
        status: "ok", "refused" (a `VideoError`), "failed" (another error), "crashed"
            or "hung".
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
    # A forked process would share FFmpeg's state with this one.
    context = multiprocessing.get_context("spawn")
    outcomes: list[Outcome] = []
    num_children = 0
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder, f"copy{pathlib.Path(path).suffix}")
        while len(outcomes) < copies:
            with concurrent.futures.ProcessPoolExecutor(1, context) as child:
                # The limit is for reading, not for starting Python.
                child.submit(_resident_mib).result()
                status = ""
                while len(outcomes) < copies and status not in _ENDS_CHILD:
                    kind, damaged = damage(content, seed, len(outcomes))
                    file.write_bytes(damaged)
                    start = time.monotonic()
                    future = child.submit(_read, str(file), frames_per_second)
                    status, detail, memory_mib = _wait(future, limit_s)
                    outcomes.append(
                        Outcome(
                            copy=len(outcomes),
                            kind=kind,
                            status=status,
                            detail=detail,
                            taken_s=time.monotonic() - start,
                            memory_mib=memory_mib,
                            child=num_children,
                        )
                    )
            num_children += 1
    return outcomes


def _wait(
    future: "concurrent.futures.Future[tuple[str, str, float]]", limit_s: float
) -> tuple[str, str, float]:
    """Return status, detail and memory in MiB, also if the child hangs or crashes."""
    try:
        return future.result(limit_s)
    except concurrent.futures.TimeoutError:
        for process in multiprocessing.active_children():
            process.kill()
        return "hung", f"no answer within {limit_s:g} s", 0.0
    except concurrent.futures.process.BrokenProcessPool as error:
        return "crashed", str(error), 0.0


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


def _read(path: str, frames_per_second: int) -> tuple[str, str, float]:
    """Read a video in the child; return status, detail and memory in MiB."""
    try:
        num_seconds = 0
        for second in video.read_seconds(path, frames_per_second):
            _check(second, num_seconds, frames_per_second)
            num_seconds += 1
        status, detail = "ok", f"{num_seconds} s"
    except video.VideoError as error:
        status, detail = "refused", str(error)
    except Exception as error:
        status, detail = "failed", repr(error)
    return status, detail, _resident_mib()


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
    lines = ["damage    " + "".join(f"{status:>10}" for status in _STATUSES)]
    for kind in ("flip", "cut", "splice"):
        cells = "".join(f"{counts[kind, status]:>10}" for status in _STATUSES)
        lines.append(f"{kind:<10}{cells}")
    slowest = max(entry.taken_s for entry in outcomes)
    lines += [
        f"slowest copy   {slowest:.2f} s",
        f"memory growth  {memory_growth_mib(outcomes):.1f} MiB",
    ]
    for entry in outcomes:
        if entry.status not in ("ok", "refused"):
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
    failed = any(entry.status not in ("ok", "refused") for entry in outcomes)
    return int(failed or memory_growth_mib(outcomes) > LEAK_MIB)
