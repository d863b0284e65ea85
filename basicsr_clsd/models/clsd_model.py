"""Contrastive self-distillation: a student that learns through auxiliary heads."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from basicsr.utils.registry import MODEL_REGISTRY
from torch import Tensor, nn

from basicsr_clsd.archs import NetworkWithHeads
from basicsr_clsd.config.training import Train
from basicsr_clsd.errors import UserError
from basicsr_clsd.losses import ContrastiveLoss
from basicsr_clsd.models.hints import HintedNetwork
from basicsr_clsd.models.schedule import Gate
from basicsr_clsd.models.supervised_model import SupervisedModel
from basicsr_clsd.networks.check import channels_of, parameter_count, trial_image
from basicsr_clsd.runtime.collectives import gather_batches, own_rows

HINT = 'L_H'
HEAD_TERMS = ('L_ASR', 'L_SD', 'L_CS', HINT)


@MODEL_REGISTRY.register()
class CLSDModel(SupervisedModel):
    """Trains a network with heads by L_SR + L_ASR + α L_SD + β Σ_j L_CS^j (CLSD, Moon et al., 2023, Eq. 1-6) + λ L_H.

    Each term is there when its section of ``train`` is: ``pixel_opt`` L_SR, ``aux_opt`` L_ASR, ``self_distill_opt``
    L_SD, ``contrastive_opt`` L_CS, ``hint_opt`` L_H, the hint of BYOT (Zhang et al., ICCV 2019); ``loss_weight`` is the
    term's whole factor (½, ½, α·½ and β in the paper). The adapters of a hint are part of the training state and of
    nothing else. Logged beside the weighted terms: ``d_pos`` and ``d_neg``, the mean distance to the positive and the
    mean of the summed distances to the negatives (the denominator of Eq. 5), in units of ``train.pixel_range``.
    """

    sections = (*SupervisedModel.sections, 'aux_opt', 'self_distill_opt', 'contrastive_opt', 'hint_opt')

    def _build_losses(self, train: Train) -> None:
        super()._build_losses(train)
        self.aux_loss = self._build_loss(train.aux_opt, 'L_ASR')
        self.self_distill_loss = self._build_loss(train.self_distill_opt, 'L_SD')
        contrastive = self._build_loss(train.contrastive_opt, 'L_CS')
        if contrastive is not None and not isinstance(contrastive, ContrastiveLoss):
            raise UserError(f'train.contrastive_opt.type: {type(contrastive).__name__} is no contrastive loss')
        self.contrastive_loss = contrastive
        if not isinstance(self.net_g, NetworkWithHeads):
            raise UserError(
                f'network_g: CLSDModel needs a network with heads: EDSRHeads, or WithHeads around any other; '
                f'{self.options.network_g.type} has none'
            )
        self.heads = heads = self.net_g.heads
        self.hinted: HintedNetwork | None = None
        if train.hint_opt is not None:
            image = trial_image(channels_of(self.options)).to(self.device)
            self.hinted = HintedNetwork(self.net_g, train.hint_opt, image)
            self.factors.add(HINT, train.hint_opt.schedule)
        if train.head_gradient != 1:
            for head in heads:
                head.register_forward_pre_hook(partial(_scale_gradients, train.head_gradient))
        if self.factors.need_gate:
            interpolation = heads.image_skip or 'bicubic'
            self.factors.gate = Gate(interpolation, self.options.scale, self.device)

    def _trained(self) -> nn.Module:
        return self.net_g if self.hinted is None else self.hinted

    def _parts(self) -> dict[str, tuple[nn.Module, Sequence[str]]]:
        hint = {} if self.hinted is None else {'hint': (self.hinted.loss, [HINT])}
        return {'heads': (self.heads, HEAD_TERMS), **hint}

    def describe(self) -> str:
        """What is trained, for the log."""
        adapters = 0 if self.hinted is None else parameter_count(self.hinted.loss)
        return super().describe() + (f' and {adapters:,} in adapters' if adapters else '')

    def loss_terms(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """L_SR, L_ASR, L_SD, L_CS and L_H, as far as they were asked for, and the distances within L_CS."""
        hint: Tensor | None = None
        if self.hinted is not None and self.factors.active(HINT):
            sr, head_srs, hint = self.run_network(with_hint=True)
        elif self.factors.active(*HEAD_TERMS):
            sr, head_srs = self.run_network()
        else:
            sr, head_srs = self.run_network(with_heads=False), []
        if self.factors.gate is not None:
            self.factors.gate.look(self.lq, sr, self.gt)
        terms, measures = self.student_terms(sr), {}
        student, gt = self.in_pixel_range(sr), self.in_pixel_range(self.gt)
        heads = [self.in_pixel_range(head_sr) for head_sr in head_srs]
        train = self.options.train
        assert train is not None
        if self.aux_loss is not None and self.factors.active('L_ASR'):
            terms['L_ASR'] = torch.stack([self.aux_loss(head, gt) for head in heads]).mean()
        if self.self_distill_loss is not None and self.factors.active('L_SD'):
            assert train.self_distill_opt is not None
            target = student.detach() if train.self_distill_opt.detach_teacher else student
            terms['L_SD'] = torch.stack([self.self_distill_loss(head, target) for head in heads]).mean()
        if self.contrastive_loss is not None and self.factors.active('L_CS'):
            # The negatives of an image are those of the whole batch, whatever the number of processes.
            student, *heads = gather_batches([student, *heads])
            contrastive = self.contrastive_loss.measure(student, heads, own_rows(len(sr)))
            terms['L_CS'] = contrastive.loss
            measures = {'d_pos': contrastive.positive, 'd_neg': contrastive.negative}
        if hint is not None:
            terms[HINT] = hint
        return terms, measures

    def _stateful(self) -> dict[str, Any]:
        hint = {} if self.hinted is None else {'hint': self.hinted.loss}
        return {**super()._stateful(), **hint}


class _ScaledGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, feature: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return feature.view_as(feature)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.factor * gradients[0], None


def _scale_gradients(factor: float, head: nn.Module, features: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    """Hook of a head: the gradient that it gives the features which it starts from is multiplied."""
    return tuple(None if feature is None else _ScaledGradient.apply(feature, factor) for feature in features)
