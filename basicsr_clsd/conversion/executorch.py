"""From a network to an ExecuTorch program for phones and boards, on XNNPACK."""

import torch

from basicsr_clsd.compat import finish_deferred
from basicsr_clsd.conversion.source import TRACED, Source, free_size, quiet, require
from basicsr_clsd.errors import UserError, first_line

LARGEST_SIDE = 1024  # of an image that a program takes; it plans its memory for this size


def to_executorch(source: Source) -> bytes:
    """Convert a network to the content of a ``.pte`` file.

    It takes (1, C, h, w) in [0, 1], with h and w from 1 to 1024, and gives (1, C, h·s, w·s).

    Raises:
        UserError: ExecuTorch is not installed, or cannot take the network.
    """
    require('devices', 'executorch')
    free_size(source, 'an ExecuTorch')
    finish_deferred()
    with quiet():
        try:
            return _lowered(source)
        except Exception as error:  # torch.export's and ExecuTorch's errors have no common base
            raise UserError(f'{source.arch}: cannot be exported to ExecuTorch: {first_line(error)}') from error


def _lowered(source: Source) -> bytes:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner  # noqa: PLC0415
    from executorch.exir import to_edge_transform_and_lower  # noqa: PLC0415

    sides = {axis: torch.export.Dim(name, min=1, max=LARGEST_SIDE) for axis, name in ((2, 'height'), (3, 'width'))}
    image = torch.rand(source.shape(*TRACED))
    exported = torch.export.export(source.module, (image,), dynamic_shapes={'lq': sides}, strict=False)
    lowered = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
    return bytes(lowered.to_executorch().buffer)
