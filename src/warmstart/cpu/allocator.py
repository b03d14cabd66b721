"""Keep freed memory for the next step instead of giving it back to the operating system.

glibc maps each large tensor anew and unmaps it when it is freed; a training step on a CPU does so thousands of times,
and every page is then faulted in and cleared again (docs/performance.md has the figure).
"""

import ctypes
import platform

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_NEVER = 2**30  # bytes: glibc takes an int


def keep_freed_memory() -> bool:
    """Set glibc's thresholds for this process, whether or not it is on a GPU; False where there is no glibc."""
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_M_MMAP_THRESHOLD, _NEVER) and mallopt(_M_TRIM_THRESHOLD, _NEVER))
