"""What a network costs: parameters, multiply-accumulates, time and memory for an output of 1280 x 720 pixels."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from basicsr_clsd.runtime.device import device_name, synchronize
from basicsr_clsd.runtime.memory import PeakMemory

WIDTH, HEIGHT = 1280, 720
ENOUGH_S = 2.0
MOST_RUNS = 10
WARM_UP = 3  # of a GPU, whose clock and memory settle


@dataclass
class Complexity:
    """The costs of one network; None: not known, or not measured.

    Args:
        parameters: Of what is deployed.
        macs_1280x720: Multiply-accumulates of convolutions and matrix products (a FLOP count is twice that).
        latency_s: Median seconds for one image.
        latency_size: Size of the output that it is for, ``1280x720``; x3 makes ``1281x720`` of whole LR pixels.
        peak_bytes: The most memory that this takes beside weights and image: of the GPU, or of the process.
        latency_device: What it was measured on.
        latency_failure: Why there is no time and memory, if they were to be measured.
    """

    parameters: int | None
    macs_1280x720: int | None
    latency_s: float | None = None
    latency_size: str | None = None
    peak_bytes: int | None = None
    latency_device: str | None = None
    latency_failure: str | None = None


def lr_shape(scale: int, channels: int = 3) -> tuple[int, int, int, int]:
    """The LR image for an output of 1280 x 720 pixels, rounded up to whole pixels: (1, C, h, w)."""
    return 1, channels, -(-HEIGHT // scale), -(-WIDTH // scale)


def device_in_words(device: torch.device) -> str:
    """A device, with the number of threads of a CPU."""
    if device.type != 'cpu':
        return device_name(device)
    threads = torch.get_num_threads()
    return f'CPU, {threads} thread{"s" * (threads > 1)}'


def measure_cost(
    upscale: Callable[[Tensor], Tensor], shape: tuple[int, ...], device: torch.device
) -> tuple[float, int | None]:
    """Measure time and memory of upscaling one image of noise, which is where it is computed, and so is its output.

    After a run to warm up, on a GPU three, as many as fit into two seconds, ten at most and one at least.

    Args:
        upscale: Takes (N, C, h, w) on ``device``, and need not have waited for it.
        shape: Of the image.
        device: Where ``upscale`` computes.

    Returns:
        Median seconds, and peak bytes (None where the system does not tell).
    """
    image = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(device)
    for _ in range(1 if device.type == 'cpu' else WARM_UP):
        upscale(image)
    synchronize(device)
    peak = PeakMemory(device)
    seconds: list[float] = []
    while not seconds or (sum(seconds) < ENOUGH_S and len(seconds) < MOST_RUNS):
        started = time.perf_counter()
        upscale(image)
        synchronize(device)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds), peak.bytes()
