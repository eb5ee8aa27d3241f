"""The process gives large blocks back, the more so where clips are large."""

import platform
import subprocess
import sys

import pytest
from rich.console import Console

from avsdn_tf import commands, memory
from avsdn_tf.config import Config

# Of 1 MiB blocks: how many come straight from the system after a larger one was freed,
# and whether what smaller ones leave at the heap's end lies there free.
COUNT = """
import ctypes
import sys
from avsdn_tf import memory

class Mallinfo2(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in
        "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
        .split()]

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
libc.mallinfo2.restype = Mallinfo2

def count():
    before = libc.mallinfo2().hblks
    # They are kept, so that no heap has room for the next ones.
    for _ in range(8):
        libc.malloc(2**20)
    return libc.mallinfo2().hblks - before

def leave_at_the_end():
    # Small enough for a heap.
    for block in [libc.malloc(2**17) for _ in range(16)]:
        libc.free(block)
    return libc.mallinfo2().keepcost > 2**20

libc.free(libc.malloc(30 * 2**20))
if sys.argv[1] == "ask":
    assert memory.return_large_blocks(2**18)
print(count(), leave_at_the_end())
"""


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="Only glibc is told where blocks go"
)
@pytest.mark.parametrize(
    ("is_asked", "expected"), [("ask", "8 False"), ("don't", "0 True")]
)
def test_large_blocks_come_straight_from_the_system(is_asked, expected):
    output = subprocess.run(
        [sys.executable, "-c", COUNT, is_asked],
        capture_output=True,
        text=True,
        check=True,
    )
    assert output.stdout.strip() == expected


def test_other_systems_keep_their_way(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not memory.return_large_blocks(2**18)


class ReachedError(Exception):
    """Ends the training where what is tested is behind it."""


@pytest.mark.parametrize("is_large", [True, False])
def test_training_asks_for_what_its_clips_need(is_large, data_dir, monkeypatch):
    asked = []

    def check(*_):
        raise ReachedError

    monkeypatch.setattr(memory, "return_large_blocks", asked.append)
    monkeypatch.setattr(commands, "_check", check)
    config = Config(dataset="tfds_ave/synthetic", data_dir=str(data_dir))
    # What a clip takes: ten segments of 128 + 2048 numbers.
    large = 10 * 2176 * 4 + (not is_large)
    monkeypatch.setattr(commands, "_BLOCK_OF_MAPS", large)
    with pytest.raises(ReachedError):
        commands.train(config, None, Console())
    assert asked == [large if is_large else 4.5 * 2**20]
