"""Time and memory, as all benchmarks take them."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import torch


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Time some work; that of a GPU is waited for."""
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    work()
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def peak_resident_bytes() -> int:
    """Return the peak resident size, from Linux; getrusage's would start at that of the parent process."""
    status = Path('/proc/self/status').read_text()
    return 1024 * int(next(line for line in status.splitlines() if line.startswith('VmHWM')).split()[1])


def cpu_name() -> str:
    """Return the processor's name, from Linux."""
    models = (line for line in Path('/proc/cpuinfo').read_text().splitlines() if line.startswith('model name'))
    return next(models, os.uname().machine).split(': ')[-1]


def reset_peak() -> None:
    """Make the peak resident size what is resident now."""
    Path('/proc/self/clear_refs').write_text('5')
