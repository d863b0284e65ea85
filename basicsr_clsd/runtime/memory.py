"""The memory of this process: its peak, and how the C library's allocator treats images that come and go."""

import ctypes
import platform
import resource
import sys

import torch

# glibc's <malloc.h>.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -2, -3, -4
MIB = 2**20
KEPT = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: 2**31 - 1, M_TOP_PAD: 64 * MIB}
# glibc's own, after large blocks have been freed, to which its thresholds adapt.
RETURNED = {M_MMAP_MAX: 65536, M_MMAP_THRESHOLD: 32 * MIB, M_TRIM_THRESHOLD: 64 * MIB, M_TOP_PAD: 0}


def keep_freed_memory(keep: bool = True) -> None:
    """Have glibc keep up to 2 GiB of freed memory for the next iteration; nothing is done with other C libraries.

    By itself it gives blocks above 32 MiB back to the system at once, and the system fills them with zeros, page by
    page, each time they are asked for anew: a sixth of a training step's time on a CPU. The bits computed are the same.

    Args:
        keep: False gives memory back as glibc does by itself.
    """
    if platform.libc_ver()[0] == 'glibc':
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in (KEPT if keep else RETURNED).items():
            mallopt(parameter, value)


def return_freed_memory() -> None:
    """Have glibc give back what it keeps; nothing is done with other C libraries."""
    if platform.libc_ver()[0] == 'glibc':
        ctypes.CDLL(None).malloc_trim(0)


def peak_memory() -> int:
    """Bytes that this process has had at most: of its GPU, or of the machine where there is none."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == 'darwin' else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
