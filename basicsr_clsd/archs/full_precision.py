"""A convolution whose output keeps all bits of its weights' type under autocast."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


class FullPrecisionConv2d(nn.Conv2d):
    """A convolution that autocast leaves in the precision of its weights, float32.

    Of features in half precision its gradients are computed in that, as those of all other layers are: the gradient of
    an image needs no more bits than that of a feature, and in float32 takes a processor with AMX several times as long.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (nn.Conv2d's name)
        """Convolve (N, C, H, W)."""
        with torch.autocast(input.device.type, enabled=False):
            if input.dtype == self.weight.dtype or self.padding_mode != 'zeros' or isinstance(self.padding, str):
                return super().forward(input.to(self.weight.dtype))
            geometry = self.stride, self.padding, self.dilation
            return _HalfBackward.apply(input, self.weight, self.bias, geometry, self.groups)  # pyright: ignore[reportReturnType]


class _HalfBackward(torch.autograd.Function):
    """A convolution in its weights' type; gradients are computed in the type of its input."""

    @staticmethod
    def forward(  # noqa: PLR0913  (the operands and the geometry of a convolution)
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Any, groups: int
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry, ctx.groups = geometry, groups
        stride, padding, dilation = geometry
        return F.conv2d(x.to(weight.dtype), weight, bias, stride, padding, dilation, groups)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight = ctx.saved_tensors
        operands = gradient.to(x.dtype), x, weight.to(x.dtype), [weight.shape[0]]
        geometry = (*map(list, ctx.geometry), False, [0, 0], ctx.groups)
        wanted = list(ctx.needs_input_grad[:3])
        of_x, *of_parameters = torch.ops.aten.convolution_backward(*operands, *geometry, wanted)
        return of_x, *(None if value is None else value.to(weight.dtype) for value in of_parameters), None, None
