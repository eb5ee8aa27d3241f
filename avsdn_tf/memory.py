"""How the C library takes this process's memory from the system."""

import ctypes
import sys

# Of mallopt(3).
_M_MMAP_THRESHOLD = -3


def return_large_blocks(num_bytes: int) -> bool:
    """Has every block of `num_bytes` or more returned as soon as it is free.

    glibc raises its own bound, up to 32 MiB, with the largest block that was freed, and
    keeps what is smaller in heaps, of which it then returns less. There, tensors of
    many sizes from many threads leave gaps, and the process grows. A program may decide
    this for its process; a library should not.

    Args:
        num_bytes: The bound. The smaller it is, the more time goes into asking the
            system for memory.

    Returns:
        Whether the C library does so. Others than glibc don't.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and mallopt(_M_MMAP_THRESHOLD, num_bytes) == 1
