"""A network with heads and the hint between them, as one module."""

from typing import Any

import torch
from torch import Tensor, nn

from basicsr_clsd import registry
from basicsr_clsd.archs import NetworkWithHeads
from basicsr_clsd.archs.probe import probe
from basicsr_clsd.archs.taps import FeatureTaps
from basicsr_clsd.archs.trunk import resolve
from basicsr_clsd.config.components import HintTerm
from basicsr_clsd.errors import UserError
from basicsr_clsd.losses import HintLoss

KEY = 'train.hint_opt'


class HintedNetwork(nn.Module):
    """A network with heads and its hint, so that processes average the gradients of both.

    Args:
        network: The network; its heads have upsamplers of their own.
        section: The hint's section of the options.
        image: A small image (1, C, h, w), to know the features' sizes by.

    Raises:
        UserError: The heads share the student's tail, or the hint does not fit the features.
    """

    def __init__(self, network: NetworkWithHeads, section: HintTerm, image: Tensor) -> None:
        super().__init__()
        if any(getattr(head, 'shares_tail', False) for head in network.heads):
            raise UserError(f'{KEY}: needs heads with upsamplers of their own; these share the tail of the student')
        student = network.student
        where = f'{KEY}.target'
        paths = resolve([section.target], where, lambda: probe(student))
        if len(paths) != 1:
            raise UserError(f'{where}: must be one feature, not {len(paths)}')
        self.network = network
        self.taps = FeatureTaps(network.heads, [str(number) for number in range(len(network.heads))], KEY)
        self.target = FeatureTaps(student, paths, where)
        network.eval()
        with torch.no_grad(), self.taps.trial(image) as features, self.target.trial(image) as target:
            network(image, with_heads=True)
        network.train()
        (wanted,), (tap,) = target.values(), paths
        sizes = [f'{feature.shape[2]} x {feature.shape[3]}' for feature in (wanted, *features.values())]
        if len(set(sizes)) != 1:
            raise UserError(
                f"{where}: '{tap}' of {self.target.kind} is {sizes[0]}, the heads' features are {sizes[1]}; "
                'name a feature of their size'
            )
        if not issubclass(registry.find('losses', section.type, f'{KEY}.type'), HintLoss):
            raise UserError(f'{KEY}.type: {section.type} is no hint loss; use HintLoss')
        channels = [feature.shape[1] for feature in features.values()]
        loss: HintLoss = registry.build(
            'losses', section, KEY, head_channels=channels, student_channels=wanted.shape[1]
        )
        self.loss = loss.to(image.device)

    def forward(self, lq: Tensor, with_heads: bool | None = None, with_hint: bool = False) -> Any:
        """Run the network on images (N, C, h, w); with the hint return (SR, [SR^1, ..., SR^T], L_H)."""
        if not with_hint:
            return self.network(lq, with_heads)
        with self.taps.recording(lq) as features, self.target.recording(lq) as target:
            sr, head_srs = self.network(lq, with_heads)
        with torch.autocast(lq.device.type, enabled=False):
            (wanted,) = target.values()
            hint = self.loss([features[tap].float() for tap in self.taps.taps], wanted.float())
        return sr, head_srs, hint
