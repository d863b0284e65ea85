"""A teacher that is given HR images, before there is a student."""

from typing import Any, ClassVar

from basicsr.utils.registry import MODEL_REGISTRY
from torch import Tensor, nn

from basicsr_clsd.archs import GT, PrivilegedTeacher
from basicsr_clsd.config.training import Train
from basicsr_clsd.models.supervised_model import SupervisedModel
from basicsr_clsd.networks.origin import DECODER
from basicsr_clsd.networks.weights import params

IMITATION = 'L_I'


@MODEL_REGISTRY.register()
class PrivilegedModel(SupervisedModel):
    """Trains a :class:`~basicsr_clsd.archs.PrivilegedTeacher` by L_SR + L_I (PISR, Lee et al., ECCV 2020).

    ``pixel_opt`` is L_SR of the decoder's image against HR, ``imitation_opt`` L_I of the encoder's image against LR.
    Validation, too, is of HR images, and no measure of super-resolution. Beside the whole network the decoder is saved
    alone, in its stock arch: the student starts from it.
    """

    takes: ClassVar[str] = GT
    sections = (*SupervisedModel.sections, 'imitation_opt')
    net_g: PrivilegedTeacher

    def _build_network(self) -> nn.Module:
        self.factor = 1
        return super()._build_network()

    def _build_losses(self, train: Train) -> None:
        super()._build_losses(train)
        self.imitation_loss = self._build_loss(train.imitation_opt, IMITATION)

    def loss_terms(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """L_SR and L_I, as far as they were asked for."""
        sr, encoded = self.run_network()
        terms = self.student_terms(sr)
        if self.imitation_loss is not None and self.factors.active(IMITATION):
            terms[IMITATION] = self.imitation_loss(self.in_pixel_range(encoded), self.in_pixel_range(self.lq))
        return terms, {}

    def weights(self) -> dict[str, dict[str, Any]]:
        """The files of weights by their beginning: the whole network's, and the decoder's."""
        average = None if self.net_g_ema is None else self.net_g_ema.get_submodule('decoder')
        return {**super().weights(), DECODER: params(self.net_g.decoder, average)}
