"""The memory of this process: its peak, and how the C library's allocator treats images that come and go."""

import ctypes
import platform
import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch

from basicsr_clsd.runtime.device import module, release_memory

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


def peak_memory(device: torch.device) -> int:
    """Bytes that this process has had at most: of a GPU, or of the machine."""
    if device.type == 'cuda':
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == 'darwin' else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def process_peak() -> int:
    """Bytes of the machine that this process has had at most, from Linux; getrusage's start at its parent's."""
    status = Path('/proc/self/status').read_text(encoding='ascii', errors='replace').splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith('VmHWM'))


def reset_process_peak() -> None:
    """Make :func:`process_peak` what this process has now."""
    Path('/proc/self/clear_refs').write_text('5', encoding='ascii')


class PeakMemory:
    """The most memory that is taken from now on: of a GPU, or of this process."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._before: int | None = None
        if device.type != 'cpu':
            release_memory()
            if hasattr(module(device), 'reset_peak_memory_stats'):  # not MPS
                module(device).reset_peak_memory_stats()
                self._before = module(device).memory_allocated()
            return
        return_freed_memory()  # what the C library has kept would be used again and not be seen
        with suppress(OSError, LookupError, ValueError, StopIteration):  # not Linux
            reset_process_peak()
            self._before = process_peak()

    def bytes(self) -> int | None:
        """Since then; None where it is not known, as of another runtime's memory on a GPU."""
        if self._before is None:
            return None
        if self._device.type != 'cpu':
            return module(self._device).max_memory_allocated() - self._before or None
        return max(process_peak() - self._before, 0)
