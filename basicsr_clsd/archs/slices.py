"""A student that is the leading slice of a wider network's weights."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from basicsr_clsd.archs.heads import NetworkWithHeads
from basicsr_clsd.errors import UserError


class ChannelSplittingNetwork(nn.Module):
    """A wide network, and a student that computes with the leading channels of it (CSD, Wang et al., IJCAI 2021).

    Each weight of the student is the leading block of the wide network's weight of the same name, so that both are
    trained in the wide network's parameters. Nothing of the student is trained or saved but that.

    In evaluation it is the student, bit for bit the stock arch. Its state dict is the wide network's.

    Args:
        wide: The wide network.
        student: A network of the same arch, as deep and not wider; its own weights do not matter.

    Raises:
        UserError: A weight of the student is not there in the wide network, or is larger; names it.
    """

    def __init__(self, wide: nn.Module, student: nn.Module) -> None:
        super().__init__()
        if isinstance(wide, NetworkWithHeads) or isinstance(student, NetworkWithHeads):
            raise UserError('network_g: a slice of network_teacher is trained without heads, of both')
        whole = dict(wide.named_parameters())
        for name, value in student.named_parameters():
            rule = 'the student must be a slice of the teacher: the same arch, as deep, and not wider'
            if name not in whole:
                raise UserError(f'network_g: {name} is not in network_teacher; {rule}')
            mine, its = tuple(value.shape), tuple(whole[name].shape)
            if len(mine) != len(its) or any(part > total for part, total in zip(mine, its, strict=True)):
                raise UserError(f'network_g: {name} is {mine}, and {its} in network_teacher; {rule}')
        self.wide, self.template = wide, student.requires_grad_(False)

    def slices(self) -> dict[str, Tensor]:
        """The student's weights by name: views of the wide network's, with their gradient."""
        whole = dict(self.wide.named_parameters())
        return {
            name: whole[name][tuple(slice(size) for size in value.shape)]
            for name, value in self.template.named_parameters()
        }

    @property
    def student(self) -> nn.Module:
        """The student as a network of its own, with the weights of now."""
        with torch.no_grad():
            slices = self.slices()
            for name, value in self.template.named_parameters():
                value.copy_(slices[name])
        return self.template

    def forward(self, x: Tensor, with_teacher: bool | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Upscale images (N, C, h, w) in [0, 1].

        Args:
            x: The images.
            with_teacher: Run the wide network too; by default in training and not in evaluation.

        Returns:
            The student's output (N, C, h·s, w·s); with the teacher the pair of both outputs.
        """
        sr = functional_call(self.template, self.slices(), (x,))
        if not (self.training if with_teacher is None else with_teacher):
            return sr
        return sr, self.wide(x)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """All weights of the wide network under its own keys; see ``nn.Module.state_dict``."""
        return self.wide.state_dict(*args, **kwargs)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load what :meth:`state_dict` gave; see ``nn.Module.load_state_dict``."""
        return self.wide.load_state_dict(state_dict, strict, assign)


def student_of(network: nn.Module) -> nn.Module:
    """The part of a network that is deployed: the student of one that has one, else the network itself."""
    return network.student if isinstance(network, NetworkWithHeads | ChannelSplittingNetwork) else network
