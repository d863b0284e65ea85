"""Time and the processor's name, as all benchmarks take them."""

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


def cpu_name() -> str:
    """Return the processor's name, from Linux."""
    models = (line for line in Path('/proc/cpuinfo').read_text().splitlines() if line.startswith('model name'))
    return next(models, os.uname().machine).split(': ')[-1]
