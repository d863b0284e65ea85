"""Backward and optimizer step, in mixed precision, that a NaN cannot spoil."""

import inspect
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from basicsr_clsd import registry
from basicsr_clsd.archs import ChannelSplittingNetwork, student_of
from basicsr_clsd.config.components import Component
from basicsr_clsd.errors import UserError
from basicsr_clsd.networks.precision import autocast

# What BasicSR's archs call the upsampler and what follows it.
NO_TRUNK = ('upsample', 'upconv', 'conv_up', 'conv_hr', 'conv_last', 'conv_before_upsample')


def build_optimizer(network: nn.Module, section: Component) -> torch.optim.Optimizer:
    """Build the optimizer of ``train.optim_g`` for all that a network trains; a fused one where torch has it."""
    where = 'train.optim_g'
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    known = inspect.signature(registry.find('optimizers', section.type, where)).parameters
    if 'fused' in known and 'fused' not in section.arguments():
        # Several times as fast; which devices and arguments it knows differs between versions of torch.
        with suppress(UserError):
            return registry.build('optimizers', section, where, parameters, fused=True)
    return registry.build('optimizers', section, where, parameters)


def trunk_gradient_norm(network: nn.Module, term: Tensor) -> Tensor:
    """Norm of a loss term's gradient in the trunk: all the student's parameters but the upsampler's and later ones.

    Of a student that is a slice of a wider network, in the wider one's.
    """
    trained = network.wide if isinstance(network, ChannelSplittingNetwork) else student_of(network)
    trunk = [value for name, value in trained.named_parameters() if not name.startswith(NO_TRUNK)]
    gradients = torch.autograd.grad(term, trunk, retain_graph=True, allow_unused=True)
    return torch.stack(torch._foreach_norm([grad for grad in gradients if grad is not None])).norm()


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move a network's exponential moving average, in place; with the bits of BasicSR's `model_ema`."""
    averaged: list[Tensor] = list(average.parameters())
    current: list[Tensor] = list(network.parameters())
    # All at once, as a GPU takes longer to start on each parameter than to compute it.
    torch._foreach_mul_(averaged, decay)
    torch._foreach_add_(averaged, current, alpha=1 - decay)


class Stepper:
    """Accumulates gradients and steps an optimizer, unless the loss or a gradient is not finite.

    All processes of a run decide alike: a loss that is not finite makes every gradient of its process NaN, the mean
    over processes carries that to all of them, and all look at the norm of the mean.

    Args:
        network: Its parameters' gradients are looked at; ``DistributedDataParallel`` or bare.
        optimizer: What is stepped.
        precision: ``fp32``, ``bf16`` or ``fp16`` (which scales the loss).
        device: Where the network is.
        max_norm: Of the gradient, as one vector of all parameters; a longer one is shortened to it (Pascanu, Mikolov,
            Bengio, ICML 2013, algorithm 1).
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        precision: str,
        device: torch.device,
        max_norm: float | None = None,
    ) -> None:
        self.parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self.optimizer = optimizer
        self.precision = precision
        self.device = device
        self.max_norm = max_norm
        # torch's own first scale, 65,536, overflows on losses in 8-bit units: a dozen skipped steps before the first.
        self.scaler = torch.amp.GradScaler(device.type, init_scale=256) if precision == 'fp16' else None

    def autocast(self) -> AbstractContextManager[Any]:
        """The context for the network's forward; losses stay outside of it."""
        return autocast(self.device, self.precision)

    def backward(self, loss: Tensor) -> None:
        """Add a loss's gradients; those of a loss that is not finite are all NaN."""
        finite = torch.isfinite(loss.detach())
        loss = loss * torch.where(finite, 1.0, torch.nan)
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def step(self) -> Tensor:
        """Step the optimizer if every gradient is finite, and forget the gradients.

        On a GPU nothing waits for the result where the optimizer is a fused one, which looks at it by itself.

        Returns:
            1 if the step was done, 0 if it was skipped; a scalar on the device.
        """
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        norms = torch.stack(torch._foreach_norm(gradients))
        done = torch.isfinite(norms).all()
        if self.max_norm is not None:
            torch._foreach_mul_(gradients, (self.max_norm / norms.norm()).clamp(max=1))
        if self.scaler is not None:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        elif self.device.type != 'cpu' and self.optimizer.defaults.get('fused'):
            self.optimizer.found_inf = (~done).float()  # pyright: ignore[reportAttributeAccessIssue]  (as GradScaler)
            self.optimizer.step()
        elif bool(done):
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return done.float()

    def state_dict(self) -> dict[str, Any]:
        """The scale of the loss in fp16; empty otherwise."""
        return {} if self.scaler is None else self.scaler.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the scale of the loss."""
        if self.scaler is not None and state:
            self.scaler.load_state_dict(dict(state))
