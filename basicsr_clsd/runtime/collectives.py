"""What a loss takes from the batches of all processes, with gradient."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist


class _GatherBatches(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *batches: Tensor) -> tuple[Tensor, ...]:
        ctx.world, ctx.own = dist.get_world_size(), own_rows(len(batches[0]))
        ctx.set_materialize_grads(False)
        stacked = torch.stack(batches)
        parts = stacked.new_empty(ctx.world, *stacked.shape)
        dist.all_gather(list(parts.unbind()), stacked)
        return tuple(part.flatten(0, 1) for part in parts.unbind(1))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        # Every process computes one and the same loss of the whole batch, so the sum of their gradients, which the
        # reverse of a gather would ask all processes for, is `world` times this one's. DistributedDataParallel's mean
        # over processes takes the factor out again.
        return tuple(None if gradient is None else gradient[ctx.own] * ctx.world for gradient in gradients)


def own_rows(size: int) -> slice:
    """Where a batch of this process is among those of all, joined: ``size`` rows; all rows without a process group."""
    rank = dist.get_rank() if dist.is_initialized() else 0
    return slice(rank * size, (rank + 1) * size)


def gather_batches(batches: Sequence[Tensor]) -> Sequence[Tensor]:
    """Join each of some batches with the same batch of all processes, in the order of their ranks, with gradient.

    For a loss that every process computes alike on the joined batches, under ``DistributedDataParallel``: its gradient
    is then that of one process with the whole batches. Only the gradient of :func:`own_rows` is used.

    Args:
        batches: (N, ...) each, of one shape and type in all processes.

    Returns:
        (W·N, ...) each, for W processes; ``batches`` itself without a process group.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return batches
    gathered: tuple[Tensor, ...] = _GatherBatches.apply(*batches)  # pyright: ignore[reportAssignmentType]
    return gathered


class _AverageOfProcesses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        mean = value.clone()
        dist.all_reduce(mean)
        return mean / dist.get_world_size()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        # Of the mean, 1/world is this process's part; DistributedDataParallel's mean over processes has that factor.
        return gradients[0]


def average_of_processes(value: Tensor) -> Tensor:
    """The mean of all processes' values, with gradient.

    For a loss that every process computes alike from means over its own batch, as :func:`gather_batches` is for one
    of the images themselves.

    Args:
        value: Of one shape in all processes.

    Returns:
        ``value`` itself without a process group.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return value
    mean: Tensor = _AverageOfProcesses.apply(value)  # pyright: ignore[reportAssignmentType]
    return mean
