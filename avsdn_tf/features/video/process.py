"""Decode untrusted videos in a child process with memory and time limits.

A few bytes can make FFmpeg allocate gigabytes or decode for years. The child limits its
own memory, and the parent kills the child if the next second of the video takes too
long. If the child ends early for any reason, reading the video raises `VideoError`, and
the next video gets a new child.

A child imports PyAV and NumPy, but neither TensorFlow nor the caller's program. It
decodes several videos in turn, one second ahead of its caller. It exits after some idle
seconds, or when its parent exits and thereby closes the pipe.

The memory limit works on Linux only. The child is no sandbox: it has its parent's
permissions.
"""

import atexit
import contextlib
import dataclasses
import json
import multiprocessing.spawn
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np

from avsdn_tf.features.video.container import VideoError, VideoInfo
from avsdn_tf.features.video.reader import Second, warn_if_inverted
from avsdn_tf.startup import READER

# Time to start Python and to import NumPy, even from a slow network drive.
_START_S = 60
_IDLE_S = 5
# Absolute paths, so that the child finds the same modules in any working directory.
_SYS_PATH = [
    os.path.abspath(entry) if os.path.isdir(entry or os.curdir) else entry
    for entry in sys.path
]
_PROGRAM = f"""
import sys
sys.path[:], sys.argv[:] = sys.argv[1:], [{READER!r}]
try:
    from avsdn_tf.features.video.child import serve
except Exception as error:
    import json
    print(json.dumps({{"problem": repr(error)}}))
else:
    serve()
"""
# Limit NumPy to one thread: the child hardly computes, and NumPy's threads use much
# memory on many-core machines.
_ENVIRONMENT = dict.fromkeys(
    ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1"
)
_IS_WINDOWS = sys.platform == "win32"
_WHAT_TO_DO = (
    "Convert the video to a smaller size, read fewer videos at once, or leave it out."
)


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits for decoding a video.

    Attributes:
        memory_bytes: Memory limit of the child process.
        wait_s: Time limit for each second of the video and for opening it, in seconds.

    Example:
        >>> from avsdn_tf.features.video.process import Limits
        >>> Limits(memory_bytes=4 << 30).wait_s
        30.0
    """

    memory_bytes: int = 2 << 30
    wait_s: float = 30.0


DEFAULT_LIMITS = Limits()


def describe_in_child(
    path: str | os.PathLike[str], limits: Limits = DEFAULT_LIMITS
) -> VideoInfo:
    """Call `container.describe` in a child process."""
    with _borrow_child(os.fsdecode(path), limits) as child:
        child.ask()
        answer = child.receive()
        child.is_idle = True
    return VideoInfo(frozenset(answer["modalities"]), answer["stated_s"])


def read_in_child(
    path: str | os.PathLike[str],
    frames_per_second: int = 1,
    without: str | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Iterator[Second]:
    """Call `reader.read_seconds` in a child process."""
    with _borrow_child(os.fsdecode(path), limits) as child:
        child.ask(frames_per_second=frames_per_second, without=without)
        seconds = (Second(**answer) for answer in iter(child.receive, None))
        yield from warn_if_inverted(path, seconds)
        child.is_idle = True


class _Child:
    """A child process and its pipes.

    `path` and `limits` belong to the current video. `is_idle` is True when the child
    has answered all requests.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.limits = Limits(wait_s=_START_S)
        self.is_idle = False
        self.timer: threading.Timer | None = None
        self._owner = os.getpid()
        self._is_late = False
        self._has_ended = False
        try:
            self._process = subprocess.Popen(
                [multiprocessing.spawn.get_executable(), "-c", _PROGRAM, *_SYS_PATH],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                # Hide messages of the codecs.
                stderr=subprocess.DEVNULL,
                env={**os.environ, **_ENVIRONMENT},
                # Ctrl+C must reach the parent only.
                start_new_session=not _IS_WINDOWS,
                creationflags=_IS_WINDOWS and subprocess.CREATE_NEW_PROCESS_GROUP,
            )
        except OSError as error:
            raise VideoError(
                f"{path}: no process can be started to read it ({error}). Read fewer "
                "videos at once."
            ) from error
        _children.add(self)
        try:
            if answer := self.receive():
                raise VideoError(
                    f"{path}: the process to read it can't start: {answer['problem']}"
                )
        except BaseException:
            self.end()
            raise

    @property
    def is_usable(self) -> bool:
        """Whether the child runs and was not inherited through a fork."""
        is_own = self._owner == os.getpid()
        return is_own and not self._is_late and self._process.poll() is None

    def ask(self, **arguments: Any) -> None:
        """Request the video's seconds if there are arguments, else its `VideoInfo`."""
        folder = None if os.path.isabs(self.path) else os.getcwd()
        request = (self.path, folder, self.limits.memory_bytes, arguments)
        # If the child has ended, `receive` reports why.
        with contextlib.suppress(OSError):
            self._process.stdin.write(f"{json.dumps(request)}\n".encode())
            self._process.stdin.flush()

    def receive(self) -> Any:
        """Return the next answer; raise VideoError for errors and after `wait_s`."""
        timer = threading.Timer(self.limits.wait_s, self._end_late)
        timer.daemon = True
        timer.start()
        try:
            answer = json.loads(self._process.stdout.readline())
            for name, dtype in (("frames", np.uint8), ("waveform", np.float32)):
                if answer and answer.get(name):
                    answer[name] = self._receive_array(answer[name], dtype)
        except (OSError, ValueError, EOFError) as error:
            raise self._explain_end() from error
        finally:
            timer.cancel()
        if answer and "error" in answer:
            raise VideoError(answer["error"])
        return answer

    def _receive_array(self, shape: list[int], dtype: type) -> np.ndarray:
        array = np.empty(shape, dtype)
        content = array.reshape(-1).view(np.uint8)
        if self._process.stdout.readinto(content) < len(content):
            raise EOFError
        return array

    def _end_late(self) -> None:
        self._is_late = True
        self._process.kill()

    def _explain_end(self) -> VideoError:
        self._process.kill()
        code = self._process.wait()
        if self._is_late:
            return VideoError(
                f"{self.path}: opening the file, or reading one second of video, takes "
                f"more than the limit of {self.limits.wait_s:g} s. {_WHAT_TO_DO}"
            )
        how = f"exit code {code}" if code >= 0 else signal.strsignal(-code)
        return VideoError(
            f"{self.path}: the process that read it has ended ({how}), as it may for a "
            f"damaged file or for lack of memory. {_WHAT_TO_DO}"
        )

    def end(self) -> None:
        """Kill the child, unless it was inherited through a fork."""
        if self._has_ended or self._owner != os.getpid():
            return
        self._has_ended = True
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()
        self._process.wait()


_children: weakref.WeakSet[_Child] = weakref.WeakSet()
_idle: list[_Child] = []


@contextlib.contextmanager
def _borrow_child(path: str, limits: Limits) -> Iterator[_Child]:
    """Yield a child for a video; reuse it later if the block leaves it idle."""
    child = _take_idle() or _Child(path)
    child.path, child.limits, child.is_idle = path, limits, False
    try:
        yield child
    finally:
        if child.is_idle:
            child.timer = threading.Timer(_IDLE_S, _end_if_idle, [child])
            child.timer.daemon = True
            _idle.append(child)
            child.timer.start()
        else:
            child.end()


def _take_idle() -> _Child | None:
    while True:
        try:
            child = _idle.pop()
        except IndexError:
            return None
        child.timer.cancel()
        if child.is_usable:
            return child
        child.end()


def _end_if_idle(child: _Child) -> None:
    # Another thread may have taken the child.
    with contextlib.suppress(ValueError):
        _idle.remove(child)
        child.end()


def end_idle() -> None:
    """End the idle children."""
    while child := _take_idle():
        child.end()


@atexit.register
def _end_all() -> None:
    for child in list(_children):
        child.end()
