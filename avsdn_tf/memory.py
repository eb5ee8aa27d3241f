"""How the C library takes this process's memory from the system."""

import ctypes
import sys

# Of mallopt(3).
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
# How much may lie free at a heap's end: what glibc begins with.
_FREE_BYTES = 2**17


def return_large_blocks(num_bytes: int) -> bool:
    """Has every block of `num_bytes` or more returned as soon as it is free.

    With the largest block that was freed, glibc raises two bounds: blocks of up to 32
    MiB are kept in heaps, and twice as much may lie free at a heap's end. Tensors of
    many sizes from many threads leave gaps there, and the process grows. This puts both
    bounds down for good. A program may decide this for its process; a library should
    not.

    Args:
        num_bytes: The first bound. The smaller it is, the more time goes into asking
            the system for memory.

    Returns:
        Whether the C library does so. Others than glibc don't.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    bounds = {_M_TRIM_THRESHOLD: _FREE_BYTES, _M_MMAP_THRESHOLD: num_bytes}
    return all(mallopt(*bound) == 1 for bound in bounds.items())
