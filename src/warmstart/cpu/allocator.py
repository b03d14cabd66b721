"""Keep freed memory in the process instead of returning it to the operating system.

glibc maps memory for each large tensor and unmaps it when the tensor is freed, thousands of times in a training step on
a CPU. The operating system clears every new page (docs/performance.md has the figures).
"""

import ctypes
import platform

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_NEVER = 2**30  # bytes: glibc takes an int


def keep_freed_memory() -> bool:
    """Set glibc's thresholds for this process.

    Returns:
        Whether they were set; False without glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_M_MMAP_THRESHOLD, _NEVER) and mallopt(_M_TRIM_THRESHOLD, _NEVER))
