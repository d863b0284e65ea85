"""Knowledge distillation: a student that learns from a larger, trained network."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from basicsr.utils.registry import MODEL_REGISTRY
from torch import Tensor, nn

from basicsr_clsd import registry
from basicsr_clsd.archs import student_of
from basicsr_clsd.archs.taps import FeatureTaps
from basicsr_clsd.config.components import DistillationTerm
from basicsr_clsd.config.training import Train
from basicsr_clsd.errors import FAULTS, UserError
from basicsr_clsd.losses import DistillationLoss, Outputs
from basicsr_clsd.models.supervised_model import SupervisedModel
from basicsr_clsd.models.teacher import Tapped, Teacher, TermTaps
from basicsr_clsd.networks.check import channels_of, first_output, parameter_count, trial_image

KEY = 'train.distill_opt'


@MODEL_REGISTRY.register()
class KDModel(SupervisedModel):
    """Trains ``network_g`` by L_SR and the terms of ``train.distill_opt`` between it and a frozen teacher.

    Each term is a :class:`~basicsr_clsd.losses.DistillationLoss` with taps in both networks. What its layers learn is
    part of the training state and absent from the student's weights; the teacher is in neither. Images and features
    reach the losses in float32, images in [0, ``train.pixel_range``], features in their networks' own units.
    """

    needs = ('network_teacher', 'path.pretrain_network_teacher', 'train.distill_opt')
    sections = (*SupervisedModel.sections, 'distill_opt')

    def _build_losses(self, train: Train) -> None:
        super()._build_losses(train)
        sections = train.distill_opt or []
        self.teacher = Teacher(self.options, self.device, [section.teacher_taps for section in sections], KEY)
        self.loaded.append(self.teacher.loaded)
        taps = TermTaps(student_of(self.net_g), [section.student_taps for section in sections], KEY, 'student_taps')
        student, teacher = self._sample(taps.features), self.teacher.sample
        terms: dict[str, _Term] = {}
        for number, section in enumerate(sections):
            pair = taps.of_terms[number], self.teacher.taps.of_terms[number]
            term = self._build_term(section, pair, student, teacher, f'{KEY}.{number}')
            name = section.name or term.loss.symbol
            if name in terms:
                raise UserError(f"{KEY}.{number}.name: two terms are named '{name}'; give this one a name of its own")
            terms[name] = term
            self.factors.add(name, section.schedule)
        self.pupil = _Pupil(self.net_g, taps.features, terms, self.in_pixel_range)

    def _sample(self, taps: FeatureTaps) -> Tapped:
        """The student's output and features of a small image."""
        self.net_g.eval()
        image = trial_image(channels_of(self.options)).to(self.device)
        with torch.no_grad(), taps.trial(image) as features:
            sr = first_output(self.net_g(image))
        self.net_g.train()
        return sr, features

    def _build_term(
        self,
        section: DistillationTerm,
        taps: tuple[list[str], list[str]],
        student: Tapped,
        teacher: Tapped,
        where: str,
    ) -> '_Term':
        """Build a term for the channels at its taps, of the student and of the teacher, and try it out."""
        if len(taps[0]) != len(taps[1]):
            counts = f'{len(taps[1])} taps, {len(taps[0])} of the student'
            raise UserError(f'{where}.teacher_taps: {counts}; each needs its counterpart')
        kind = registry.find('losses', section.type, f'{where}.type')
        if not issubclass(kind, DistillationLoss):
            raise UserError(f'{where}.type: {section.type} is no distillation loss')
        given = {
            key: [tapped[1][tap].shape[1] for tap in paths]
            for key, tapped, paths in (
                ('student_channels', student, taps[0]),
                ('teacher_channels', teacher, taps[1]),
            )
            if key in inspect.signature(kind).parameters
        }
        try:
            loss = kind(**section.arguments(), **given).to(self.device)
            term = _Term(loss, *taps)
            with torch.no_grad():
                term(student, teacher, student[0])
        except FAULTS as error:
            raise UserError(f'{where}: {section.type}: {str(error).splitlines()[0]}') from error
        return term

    def _trained(self) -> nn.Module:
        return self.pupil

    def _parts(self) -> dict[str, tuple[nn.Module, Sequence[str]]]:
        return {name: (term, [name]) for name, term in zip(self.pupil.names, self.pupil.terms, strict=True)}

    def describe(self) -> str:
        """What is trained, and by whom, for the log."""
        layers = parameter_count(self.pupil.terms)
        regressors = f' and {layers:,} in regressors' if layers else ''
        return f'{super().describe()}{regressors}; teacher {self.teacher.description}'

    def loss_terms(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """L_SR and the terms between student and teacher."""
        wanted = [name for name in self.pupil.names if self.factors.active(name)]
        teacher: Tapped | None = None
        if wanted:
            teacher_sr, teacher_features = self.teacher(getattr(self, self.teacher.takes))
            teacher = self.in_pixel_range(teacher_sr), teacher_features
        pupil = self.pupil if self.parallel is None else self.parallel
        with self.stepper.autocast():
            sr, terms = pupil(self.lq, self.in_pixel_range(self.gt), teacher, wanted)
        return {**self.student_terms(sr), **terms}, {}

    def training_state(self) -> dict[str, Any]:
        """Everything that an exact resume needs; of the teacher only what tells it from others."""
        return {**super().training_state(), 'teacher': self.teacher.fingerprint}

    def _stateful(self) -> dict[str, Any]:
        return {**super()._stateful(), 'terms': self.pupil.terms}

    def _restore(self, state: Mapping[str, Any]) -> None:
        if state['teacher'] != self.teacher.fingerprint:
            path = self.options.path.pretrain_network_teacher
            raise UserError(f'{path}: not the teacher of the run to resume; its weights are others')
        super()._restore(state)


class _Term(nn.Module):
    """A loss with its taps."""

    def __init__(self, loss: DistillationLoss, student_taps: Sequence[str], teacher_taps: Sequence[str]) -> None:
        super().__init__()
        self.loss, self.student_taps, self.teacher_taps = loss, student_taps, teacher_taps

    def forward(self, student: Tapped, teacher: Tapped, gt: Tensor) -> Tensor:
        """The term of the outputs (N, 3, H, W), in the losses' range, and the features by tap."""
        return self.loss(
            Outputs(student[0], [student[1][tap].float() for tap in self.student_taps]),
            Outputs(teacher[0], [teacher[1][tap].float() for tap in self.teacher_taps]),
            gt,
        )


class _Pupil(nn.Module):
    """The student and its terms as one module, so that processes average the gradients of all that is trained."""

    def __init__(
        self, student: nn.Module, taps: FeatureTaps, terms: Mapping[str, _Term], scaled: Callable[[Tensor], Tensor]
    ) -> None:
        super().__init__()
        self.student, self.taps, self.scaled = student, taps, scaled
        self.names, self.terms = list(terms), nn.ModuleList(terms.values())

    def forward(
        self, lq: Tensor, gt: Tensor, teacher: Tapped | None, wanted: Sequence[str]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Upscale ``lq``; return the output, in [0, 1], and the wanted terms by name.

        ``gt`` and ``teacher`` are scaled; there is a teacher where a term is wanted.
        """
        with self.taps.recording(lq) as features:
            sr = first_output(self.student(lq))
        with torch.autocast(lq.device.type, enabled=False):
            student, terms = (self.scaled(sr), features), {}
            for name, term in zip(self.names, self.terms, strict=True):
                if teacher is not None and name in wanted:
                    terms[name] = term(student, teacher, gt)
        return sr, terms
