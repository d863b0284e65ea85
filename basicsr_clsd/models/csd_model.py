"""Contrastive self-distillation in one set of weights: the student is a slice of its teacher."""

from typing import Any

import torch
from basicsr.utils.registry import MODEL_REGISTRY
from torch import Tensor, nn
from torch import distributed as dist

from basicsr_clsd import registry
from basicsr_clsd.archs.probe import interpolate
from basicsr_clsd.archs.slices import ChannelSplittingNetwork
from basicsr_clsd.config.training import Train
from basicsr_clsd.errors import FAULTS, UserError, first_line
from basicsr_clsd.losses import RatioOfFeaturesLoss
from basicsr_clsd.models.supervised_model import SupervisedModel
from basicsr_clsd.models.teacher import build_teacher
from basicsr_clsd.networks.check import channels_of, check_output, parameter_count, placed, trial_image
from basicsr_clsd.networks.features import build_extractor
from basicsr_clsd.networks.precision import keep_ends_fp32
from basicsr_clsd.networks.weights import params
from basicsr_clsd.runtime.collectives import gather_batches

KEY = 'train.contrast_opt'


@MODEL_REGISTRY.register()
class CSDModel(SupervisedModel):
    """Trains ``network_teacher`` and, in its leading channels, ``network_g`` (CSD, Wang et al., IJCAI 2021).

    L_SR + L_C + L_T: ``pixel_opt`` of the student against HR, ``contrast_opt`` of the student's features between the
    teacher's and those of bicubic images, ``teacher_opt`` of the teacher against HR. Logged beside them: ``A_l`` and
    ``B_l``, the numerator and the denominator of L_C in layer l. The teacher's weights are the training state.
    """

    sections = (*SupervisedModel.sections, 'contrast_opt', 'teacher_opt')
    needs = ('network_teacher',)
    net_g: ChannelSplittingNetwork

    def _build_network(self) -> nn.Module:
        options, path = self.options, self.options.path
        if options.train is None:
            return super()._build_network()
        if path.pretrain_network_g is not None:
            raise UserError(
                'path.pretrain_network_g: the student is a slice of network_teacher; give path.pretrain_network_teacher'
            )
        student = registry.build('archs', options.network_g, 'network_g')
        teacher, line = build_teacher(options)
        self.loaded += [line] if line else []
        network = placed(ChannelSplittingNetwork(teacher, student), self.device, self._memory_format())
        with keep_ends_fp32(teacher), torch.no_grad():
            image = trial_image(channels_of(options)).to(self.device)
            assert options.network_teacher is not None
            check_output(teacher, image, options.scale, f'network_teacher: {options.network_teacher.type}')
        return network

    def _build_losses(self, train: Train) -> None:
        super()._build_losses(train)
        self.teacher_loss = self._build_loss(train.teacher_opt, 'L_T')
        self.contrast_loss: RatioOfFeaturesLoss | None = None
        if train.contrast_opt is None:
            return
        section, dataset = train.contrast_opt, self.options.datasets['train']
        if not issubclass(registry.find('losses', section.type, f'{KEY}.type'), RatioOfFeaturesLoss):
            raise UserError(f'{KEY}.type: {section.type} is no ratio of features; use RatioOfFeaturesLoss')
        loss: RatioOfFeaturesLoss = registry.build('losses', section, KEY)
        batch = dataset.batch_size_per_gpu * (dist.get_world_size() if dist.is_initialized() else 1)
        if loss.num_negative > batch:
            raise UserError(f'{KEY}.num_negative: {loss.num_negative} are more than the {batch} images of a batch')
        assert dataset.gt_size is not None
        extractor = build_extractor(section, KEY, self.options.manual_seed or 0, dataset.gt_size)
        self.extractor = placed(extractor, self.device, self._memory_format())
        image = torch.zeros(1, channels_of(self.options), dataset.gt_size, dataset.gt_size, device=self.device)
        try:
            with torch.no_grad():
                features = self.extractor(image)
                loss(features, features, features)
        except FAULTS as error:
            raise UserError(f'{KEY}: {section.extractor}: {first_line(error)}') from error
        self.contrast_loss = loss
        self.factors.add('L_C', section.schedule)

    def describe(self) -> str:
        """What is trained, for the log."""
        section = self.options.network_teacher
        assert section is not None
        student, wide = parameter_count(self.net_g.template), parameter_count(self.net_g.wide)
        return f'{self.options.network_g.type}, {student:,} parameters, a slice of {section.type}, {wide:,}'

    def loss_terms(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """L_SR, L_C and L_T, as far as they were asked for, and what L_C is made of."""
        if not self.factors.active('L_C', 'L_T'):
            return self.student_terms(self.run_network(with_teacher=False)), {}
        sr, teacher_sr = self.run_network()
        terms, measures = self.student_terms(sr), {}
        if self.contrast_loss is not None and self.factors.active('L_C'):
            with torch.set_grad_enabled(not self.contrast_loss.detach_teacher):
                teacher = self.extractor(teacher_sr.float())
            with torch.no_grad():
                # The first images of the whole batch, whatever the number of processes.
                (lq,) = gather_batches([self.lq])
                first = lq[: self.contrast_loss.num_negative].float()
                negatives = self.extractor(interpolate(first, self.options.scale, 'bicubic'))
            ratio = self.contrast_loss.measure(self.extractor(sr.float()), teacher, negatives)
            terms['L_C'] = ratio.loss
            for name, values in (('A', ratio.positive), ('B', ratio.negative)):
                measures |= {f'{name}_{number}': value for number, value in enumerate(values, start=1)}
        if self.teacher_loss is not None and self.factors.active('L_T'):
            terms['L_T'] = self.teacher_loss(self.in_pixel_range(teacher_sr), self.in_pixel_range(self.gt))
        return terms, measures

    def weights(self) -> dict[str, dict[str, Any]]:
        """The files of weights by their beginning: the student's, and the whole network's."""
        return {**super().weights(), 'net_teacher': params(self.net_g, self.net_g_ema)}
