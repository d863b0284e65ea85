"""A network of the registry with the weights of a file, to be tested."""

from copy import copy, deepcopy

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from basicsr_clsd import registry
from basicsr_clsd.config import Options
from basicsr_clsd.models import SupervisedModel
from basicsr_clsd.networks.weights import student_state

FLOPS_OF_A_MAC = 2


class TorchNetwork:
    """``network_g`` with the weights of ``path.pretrain_network_g``.

    Args:
        options: Checked options, without ``train``.

    Raises:
        UserError: The network cannot be built, the weights do not fit it, or it makes images of another scale.
    """

    def __init__(self, options: Options) -> None:
        self.arch = options.network_g.type
        self.model: SupervisedModel = registry.find('models', options.model_type, 'model_type')(options)
        network = self.model.net_g
        student = student_state(network)
        self.parameters = sum(value.numel() for name, value in network.named_parameters() if name in student)
        self.window = self.model.window
        self.device = self.model.device

    def upscale(self, lq: Tensor) -> Tensor:
        """Upscale (N, C, h, w) in [0, 1] to (N, C, h·s, w·s), unclipped, on the CPU."""
        return self.model.upscale(lq)[0]

    def macs(self, shape: tuple[int, ...]) -> int | None:
        """Multiply-accumulates of convolutions and matrix products for an input of this shape; None: not known.

        Counted by ``torch.utils.flop_counter`` on tensors without content, so that nothing is computed.
        """
        model = copy(self.model)
        model.net_g = deepcopy(self.model.net_g)  # EDSR keeps, in its forward, a tensor that would have no content
        counter = FlopCounterMode(display=False)
        try:
            with FakeTensorMode(allow_non_fake_inputs=True), counter:
                model.upscale(torch.empty(shape))
        except (RuntimeError, TypeError, ValueError, NotImplementedError):  # an operator that needs content
            return None
        return counter.get_total_flops() // FLOPS_OF_A_MAC
