"""Contrastive self-distillation: a student that learns through auxiliary heads."""

import torch
from basicsr.utils.registry import MODEL_REGISTRY
from torch import Tensor

from basicsr_clsd.archs import NetworkWithHeads
from basicsr_clsd.config.schema import Train
from basicsr_clsd.errors import UserError
from basicsr_clsd.losses import ContrastiveLoss
from basicsr_clsd.models.supervised_model import SupervisedModel
from basicsr_clsd.runtime.distributed import gather_batch


@MODEL_REGISTRY.register()
class CLSDModel(SupervisedModel):
    """Trains a network with heads by L_SR + L_ASR + α L_SD + β Σ_j L_CS^j (CLSD, Moon et al., 2023, Eq. 1-6).

    Each term is there when its section of ``train`` is: ``pixel_opt`` L_SR, ``aux_opt`` L_ASR, ``self_distill_opt``
    L_SD, ``contrastive_opt`` L_CS; ``loss_weight`` is the term's whole factor (½, ½, α·½ and β in the paper). Logged
    beside the weighted terms: ``d_pos`` and ``d_neg``, the mean distance to the positive and the mean of the summed
    distances to the negatives (the denominator of Eq. 5), in units of ``train.pixel_range``.
    """

    def _build_losses(self, train: Train) -> None:
        super()._build_losses(train)
        self.aux_loss = self._build_loss(train.aux_opt)
        self.self_distill_loss = self._build_loss(train.self_distill_opt)
        contrastive = self._build_loss(train.contrastive_opt)
        if contrastive is not None and not isinstance(contrastive, ContrastiveLoss):
            raise UserError(f'train.contrastive_opt.type: {type(contrastive).__name__} is no contrastive loss')
        self.contrastive_loss = contrastive
        if not isinstance(self.net_g, NetworkWithHeads):
            raise UserError(
                f'network_g: CLSDModel needs a network with heads: EDSRHeads, or WithHeads around any other; '
                f'{self.options.network_g.type} has none'
            )

    def loss_terms(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """L_SR, L_ASR, L_SD and L_CS, as far as they were asked for, and the distances within L_CS."""
        sr, head_srs = self.run_network()
        terms, measures = self.student_terms(sr), {}
        student, gt = self.in_pixel_range(sr), self.in_pixel_range(self.gt)
        heads = [self.in_pixel_range(head_sr) for head_sr in head_srs]
        train = self.options.train
        assert train is not None
        if self.aux_loss is not None:
            terms['L_ASR'] = torch.stack([self.aux_loss(head, gt) for head in heads]).mean()
        if self.self_distill_loss is not None and train.self_distill_opt is not None:
            target = student.detach() if train.self_distill_opt.detach_teacher else student
            terms['L_SD'] = torch.stack([self.self_distill_loss(head, target) for head in heads]).mean()
        if self.contrastive_loss is not None:
            # The negatives of an image are those of the whole batch, whatever the number of processes.
            contrastive = self.contrastive_loss.measure(gather_batch(student), [gather_batch(head) for head in heads])
            terms['L_CS'] = contrastive.loss
            measures = {'d_pos': contrastive.positive, 'd_neg': contrastive.negative}
        return terms, measures
