"""Comparing what was exported with the network, before it gets its name."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from basicsr_clsd.errors import UserError
from basicsr_clsd.inference.runtimes import Run
from basicsr_clsd.inference.torch_network import TorchNetwork

SIZES = ((1, 1, 1), (1, 7, 13), (1, 64, 64))  # batch, height and width
TOLERANCE = 1e-5  # in [0, 1]: a 400th of a step of 8 bits
HALF_TOLERANCE = 2 / 255


def check(
    open_run: Callable[[], Run],
    network: TorchNetwork,
    kind: str,
    tolerance: float = TOLERANCE,
    sizes: Sequence[tuple[int, int, int]] = SIZES,
) -> float:
    """Run a model on images of several sizes; return the largest difference to the network's output.

    Args:
        open_run: Opens it.
        network: What it was made of.
        kind: Of its files, for messages.
        tolerance: The largest difference that is taken for rounding, of values in [0, 1].
        sizes: Batch, height and width of each image.

    Raises:
        UserError: It cannot be run, or differs by more than ``tolerance``.
    """
    source, worst = network.source(), 0.0
    draw = torch.Generator().manual_seed(0)
    try:
        run = open_run()
    except RuntimeError as error:
        raise UserError(f'{network.arch}: its {kind} model cannot be read: {error}') from error
    for batch, height, width in sizes:
        lq = torch.rand(batch, network.channels, height, width, generator=draw)
        size = f'{width}x{height}'
        with torch.no_grad():
            expected = source.module(lq).numpy()
        try:
            found = run(lq.numpy())
        except RuntimeError as error:
            raise UserError(f'{network.arch}: its {kind} model does not run on {size}: {error}') from error
        if found.shape != expected.shape or not (difference := float(np.abs(found - expected).max())) <= tolerance:
            raise UserError(f'{network.arch}: its {kind} model makes another image of {size} than the network')
        worst = max(worst, difference)
    return worst
