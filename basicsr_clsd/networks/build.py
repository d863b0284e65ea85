"""Placing a network on its device, and finding out whether it works."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from basicsr_clsd.config.schema import Options
from basicsr_clsd.errors import FAULTS, UserError, first_line
from basicsr_clsd.networks.precision import ends_in_full_precision

TRIAL_SIDE = 32


def placed(network: nn.Module, device: torch.device, memory_format: torch.memory_format) -> nn.Module:
    """The network, moved to a device and into a memory format."""
    # Keywords alone, as `to` has no form that takes a device and a format without a type.
    return network.to(device=device, memory_format=memory_format)  # pyright: ignore[reportCallIssue]


def trial_image(options: Options) -> Tensor:
    """A black image, (1, 3, 32, 32), or of one channel where the options train or test on luma."""
    channels = 1 if any(section.color == 'y' for section in options.datasets.values()) else 3
    return torch.zeros(1, channels, TRIAL_SIDE, TRIAL_SIDE)


def try_out(network: nn.Module, upscale: Callable[[Tensor], Tensor], options: Options, where: str) -> None:
    """Upscale a small image, so that a network that cannot work is told now and not in the middle of a run.

    From then on its first and last convolution are kept in full precision.

    Args:
        network: The network.
        upscale: Runs it.
        options: Scale and channels of the images.
        where: Key of the network's section in ``options``.

    Raises:
        UserError: It fails, or makes another size of image.
    """
    image, kind, scale = trial_image(options), options[where].type, options.scale
    channels = image.shape[1]
    try:
        with ends_in_full_precision(network):
            sr = upscale(image)
    except torch.cuda.OutOfMemoryError:
        raise
    except FAULTS as error:
        raise UserError(f'{where}: {kind} cannot upscale {channels} channels: {first_line(error)}') from error
    if sr.shape != (1, channels, TRIAL_SIDE * scale, TRIAL_SIDE * scale):
        size = ' x '.join(map(str, sr.shape[1:]))
        raise UserError(f'{where}: {kind} makes {size} of {channels} x {TRIAL_SIDE} x {TRIAL_SIDE}')
