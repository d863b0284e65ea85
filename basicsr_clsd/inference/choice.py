"""Which runtime and which precision: the fastest of those whose pictures are as good."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from basicsr_clsd.errors import UserError
from basicsr_clsd.inference.network import Network
from basicsr_clsd.inference.runtimes import PRECISIONS, TORCH, is_installed, require_runtime
from basicsr_clsd.runtime.device import synchronize
from basicsr_clsd.runtime.hardware import computes_bf16

AUTO, FP32, BF16 = 'auto', 'fp32', 'bf16'
SIDE, DETAIL = 128, 16  # of the image that is looked at, and how many colours are along a side
EQUAL = 1e-4  # of values in [0, 1]: a 40th of a step of 8 bits
COST = 0.01  # dB that a lower precision may cost ...
SUPER_RESOLVED = 38.0  # ... where the network reaches this PSNR, more than on Set5 and Set14 at x2
# An error that does not depend on the network's own adds to it, so it may be this far below the image.
LEAST_PSNR = SUPER_RESOLVED - 10 * math.log10(10 ** (COST / 10) - 1)
TURNS = 3
MARGIN = 1.05  # times as fast as what was best before; less is chance

Open = Callable[[str, str], Network]  # a runtime and a precision to the network in them


class Choice(NamedTuple):
    """A network, and the runtime and precision that it was opened in, in words."""

    network: Network
    text: str


def check_given(runtime: str, precision: str) -> None:
    """Raise a :class:`UserError` for a runtime that is not installed, or does not compute in a precision."""
    known = (AUTO, *PRECISIONS)
    if runtime not in known:
        raise UserError(f'runtime {runtime}: must be one of {", ".join(known)}')
    if runtime != AUTO:
        require_runtime(runtime)
    precisions = PRECISIONS[TORCH if runtime == AUTO else runtime]
    if precision not in (AUTO, *precisions):
        raise UserError(f'precision {precision}: {runtime} has {", ".join(precisions)}')


def choose(open_network: Open, runtimes: Sequence[str], precision: str, device: torch.device) -> Choice:
    """Open a network in the fastest way that is as good as the first runtime in fp32.

    As good is: equal to rounding in fp32; in bf16 at most 0.01 dB of PSNR worse where the network reaches 38 dB. Both
    are measured, on an image of 128 x 128, as speed is.

    Args:
        open_network: Opens it in a runtime and a precision; what a runtime cannot take is a ``UserError``.
        runtimes: To choose from; the first is always taken into account, others where they are installed.
        precision: Its name, or ``auto``: fp32, or bf16 where the hardware has it.
        device: Where the first runtime computes. Others do on the CPU alone, and are no choice for a GPU.
    """
    precisions = _precisions(device) if precision == AUTO else (precision,)
    plain, text = open_network(runtimes[0], precisions[0]), f'{runtimes[0]}, {precisions[0]}'
    others = [name for name in runtimes[1:] if device.type == 'cpu' and is_installed(name)]
    ways = [way for way in product((runtimes[0], *others), precisions) if way[1] in PRECISIONS[way[0]]][1:]
    if not ways:
        return Choice(plain, text)
    image = _image(plain.channels)
    expected, found = plain.upscale(image), {(runtimes[0], precisions[0]): plain}
    for runtime, kind in ways:
        try:
            network = open_network(runtime, kind)
        except UserError:
            continue
        if _as_good(network.upscale(image), expected, kind):
            found[runtime, kind] = network
    seconds = _seconds(found, image)
    best = first = next(iter(found))
    for way in found:
        if seconds[way] * MARGIN < seconds[best]:
            best = way
            text = f'{", ".join(way)}: {seconds[first] / seconds[way]:.1f} times as fast as {", ".join(first)}'
    return Choice(found[best], text)


def _precisions(device: torch.device) -> tuple[str, ...]:
    """Those that ``auto`` may take on a device."""
    if device.type not in ('cpu', 'cuda'):
        return (FP32,)
    return (FP32, BF16) if computes_bf16(0 if device.type == 'cpu' else 'auto') else (FP32,)


def _image(channels: int) -> Tensor:
    """A smooth image of random colours, about as hard on a precision as the hardest of photos."""
    coarse = torch.rand(1, channels, DETAIL, DETAIL, generator=torch.Generator().manual_seed(0))
    return functional.interpolate(coarse, size=(SIDE, SIDE), mode='bicubic').clamp(0, 1)


def _as_good(found: Tensor, expected: Tensor, precision: str) -> bool:
    difference = found - expected
    if precision == FP32:
        return bool(difference.abs().max() <= EQUAL)
    return bool(difference.square().mean() <= 10 ** (-LEAST_PSNR / 10))


def _seconds(networks: Mapping[tuple[str, str], Network], image: Tensor) -> dict[tuple[str, str], float]:
    """The shortest of some turns of each, after it has run once; they take turns, as the machine may do other work."""
    best = dict.fromkeys(networks, math.inf)
    for _ in range(TURNS):
        for way, network in networks.items():
            lq = image.to(network.device)
            synchronize(network.device)
            start = time.perf_counter()
            network.upscale(lq)
            synchronize(network.device)
            best[way] = min(best[way], time.perf_counter() - start)
    return best
