"""Placing a network on its device, compiling it, and finding out whether it works."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from basicsr_clsd.config.schema import Options
from basicsr_clsd.errors import FAULTS, UserError, first_line
from basicsr_clsd.networks.unit_scales import skip_unit_scales
from basicsr_clsd.networks.upsampling import upsample_blockwise
from basicsr_clsd.runtime.device import unsupported

TRIAL_SIDE = 32
RGB, LUMA = 3, 1  # channels


def placed(network: nn.Module, device: torch.device, memory_format: torch.memory_format) -> nn.Module:
    """The network, moved to a device and into a memory format."""
    skip_unit_scales(network)
    if memory_format == torch.channels_last:
        upsample_blockwise(network)
    # Keywords alone, as `to` has no form that takes a device and a format without a type.
    return network.to(device=device, memory_format=memory_format)  # pyright: ignore[reportCallIssue]


def compiled(network: nn.Module, how: bool | str) -> None:
    """Have a network's calls compiled; ``how``: whether, or the ``mode`` of ``torch.compile``."""
    if how is not False:
        network.compile(mode=None if how is True else how)


def parameter_count(network: nn.Module) -> int:
    """How many parameters a network has."""
    return sum(value.numel() for value in network.parameters())


def channels_of(options: Options, *phases: str) -> int:
    """Channels of the images: 3, or 1 where the options train or test on luma; of ``phases``, by default of all."""
    sections = [section for _, section in options.sets(*phases)] if phases else options.datasets.values()
    return 1 if any(section.color == 'y' for section in sections) else 3


def trial_image(channels: int, factor: int = 1) -> Tensor:
    """A black image, (1, C, 32·f, 32·f)."""
    return torch.zeros(1, channels, TRIAL_SIDE * factor, TRIAL_SIDE * factor)


def first_output(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    """The upscaled image of a network that may have more outputs."""
    return output[0] if isinstance(output, tuple) else output


def channels_taken(upscale: Callable[[Tensor], Tensor], scale: int, where: str) -> int:
    """Channels of the images that a network upscales: 3 (RGB) if it can, else 1 (luma).

    Args:
        upscale: See :func:`check_output`.
        scale: See there.
        where: See there.

    Raises:
        UserError: It upscales neither.
    """
    try:
        check_output(upscale, trial_image(RGB), scale, where)
    except UserError:
        check_output(upscale, trial_image(LUMA), scale, where)
        return LUMA
    return RGB


def check_output(upscale: Callable[[Tensor], Tensor], image: Tensor, scale: int, where: str) -> None:
    """Upscale a small image, so that a network that cannot work is told now and not in the middle of a run.

    Args:
        upscale: Runs the network on images (N, C, h, w).
        image: The image.
        scale: How many times the size its output must be.
        where: Key of the network's section in the options, and its arch.

    Raises:
        UserError: It fails, or makes another size of image.
    """
    channels, height, width = image.shape[1:]
    try:
        sr = upscale(image).cpu()  # which waits for a GPU's errors
    except torch.cuda.OutOfMemoryError:  # of other accelerators, too
        raise
    except FAULTS as error:
        if text := unsupported(error):
            raise UserError(text) from error
        raise UserError(f'{where} cannot upscale {channels} channels: {first_line(error)}') from error
    if sr.shape != (1, channels, height * scale, width * scale):
        size = ' x '.join(map(str, sr.shape[1:]))
        raise UserError(f'{where} makes {size} of {channels} x {height} x {width}')
