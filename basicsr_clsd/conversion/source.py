"""What converters take, and what they say when they cannot be had."""

import contextlib
import importlib.util
import io
import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from torch import Tensor, nn

from basicsr_clsd.errors import UserError
from basicsr_clsd.networks.check import first_output

TRACED = (24, 20)  # height and width of the images that a network is traced with
ALSO_TRACED = (28, 36)  # that both differ tells converters which sizes are free


class Source(NamedTuple):
    """A network to convert.

    Args:
        arch: Its registered name, for messages.
        module: Upscales (N, C, h, w) in [0, 1], in float32 on the CPU; one input, one output.
        channels: C: 3 (RGB), or 1 (luma).
        window: Side of a transformer's attention windows in LR pixels; 1: it has none.
    """

    arch: str
    module: nn.Module
    channels: int
    window: int

    def shape(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Of an image for the network, of at least this height and width: whole windows."""
        return 1, self.channels, self._windows(height), self._windows(width)

    def _windows(self, side: int) -> int:
        return math.ceil(side / self.window) * self.window


class SingleOutput(nn.Module):
    """A network of one input and one output."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, lq: Tensor) -> Tensor:
        """Upscale (N, C, h, w)."""
        return first_output(self.network(lq))


def absent(*packages: str) -> list[str]:
    """Those of the packages that are not installed."""
    return [name for name in packages if importlib.util.find_spec(name) is None]


def require(extra: str, *packages: str) -> None:
    """Raise a :class:`UserError` if packages of one of this project's extras are not installed."""
    if missing := absent(*packages):
        verb = 'is' if len(missing) == 1 else 'are'
        raise UserError(f"{' and '.join(missing)} {verb} not installed; pip install 'basicsr-clsd[{extra}]'")


def free_size(source: Source, language: str) -> None:
    """Raise a :class:`UserError` for a network whose converted form would be for one size of image alone."""
    if source.window > 1:
        raise UserError(
            f'{source.arch}: attends within windows, which {language} model has for one size of image alone'
        )


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what tracers and converters say of themselves off the terminal."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter('ignore')
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)
