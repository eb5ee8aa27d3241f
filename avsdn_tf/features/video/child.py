"""Decode videos on request, in the child process that `process.py` starts.

Each line of standard input is a request. Each answer is a line of JSON, followed by the
bytes of its arrays.
"""

import json
import os
import queue
import sys
import threading
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from avsdn_tf.features.video.container import VideoError, describe
from avsdn_tf.features.video.reader import read_seconds

_GIB = 2**30


def serve() -> None:
    """Answer the parent's requests until the parent ends."""
    requests: queue.SimpleQueue[list[Any]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=[requests], daemon=True).start()
    with os.fdopen(os.dup(1), "wb") as output:
        # Redirect standard output, so that no library prints between the answers.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        _send(output, {})
        while True:
            path, folder, memory_bytes, arguments = requests.get()
            try:
                if folder is not None:
                    os.chdir(folder)
                _limit_memory(memory_bytes)
                for answer in _answers(path, arguments):
                    _send(output, answer)
            except Exception as error:
                _send(output, {"error": _explain(error, path, memory_bytes)})


def _listen(requests: queue.SimpleQueue[list[Any]]) -> None:
    """Queue requests; exit, even while decoding, when the parent ends."""
    try:
        for line in sys.stdin.buffer:
            requests.put(json.loads(line))
    finally:
        os._exit(0)


def _answers(path: str, arguments: dict[str, Any]) -> Iterator[dict[str, Any] | None]:
    if arguments:
        for second in read_seconds(path, **arguments):
            yield vars(second)
        yield None
    else:
        info = describe(path)
        yield {"modalities": sorted(info.modalities), "stated_s": info.stated_s}


def _send(output: BinaryIO, answer: dict[str, Any] | None) -> None:
    arrays = [each for each in (answer or {}).values() if isinstance(each, np.ndarray)]
    output.write(json.dumps(answer, default=np.shape).encode() + b"\n")
    for array in arrays:
        output.write(array.reshape(-1).view(np.uint8))
    output.flush()


def _limit_memory(num_bytes: int) -> None:
    """Make allocations beyond a limit fail (Linux only)."""
    if sys.platform == "linux":
        import resource

        # RLIMIT_DATA covers the heap and the threads' stacks, but no shared libraries.
        kind = resource.RLIMIT_DATA
        _, highest = resource.getrlimit(kind)
        if highest != resource.RLIM_INFINITY:
            num_bytes = min(num_bytes, highest)
        resource.setrlimit(kind, (num_bytes, highest))


def _explain(error: Exception, path: str, memory_bytes: int) -> str:
    # PyAV raises BlockingIOError if FFmpeg lacks memory for a thread's stack.
    if isinstance(error.__cause__ or error, (MemoryError, BlockingIOError)):
        return (
            f"{path}: takes more than {memory_bytes / _GIB:.3g} GiB of memory, which "
            "is the limit. Convert the video to a smaller size, or leave it out."
        )
    if isinstance(error, VideoError):
        return str(error)
    return f"{path}: cannot be read ({type(error).__name__}: {error})."
