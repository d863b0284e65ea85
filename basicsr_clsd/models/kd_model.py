"""Knowledge distillation: a student that learns from a larger, trained network."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from basicsr.utils.registry import MODEL_REGISTRY
from torch import Tensor, nn
from torch import distributed as dist

from basicsr_clsd import registry
from basicsr_clsd.archs import LQ, student_of
from basicsr_clsd.archs.taps import FeatureTaps
from basicsr_clsd.config.components import DistillationTerm
from basicsr_clsd.config.training import Train
from basicsr_clsd.errors import FAULTS, UserError
from basicsr_clsd.losses import DistillationLoss, Outputs
from basicsr_clsd.models.supervised_model import SupervisedModel
from basicsr_clsd.models.teacher import Tapped, Teacher, TermTaps
from basicsr_clsd.models.views import PAIRS, ZOOM_IN, ZOOM_OUT, Images, View, shrinking, zoomed_in, zoomed_out
from basicsr_clsd.networks.check import channels_of, check_output, first_output, parameter_count, trial_image
from basicsr_clsd.runtime.collectives import own_rows

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
            self._check_view(section, term, f'{KEY}.{number}')
            name = section.name or term.loss.symbol
            if name in terms:
                raise UserError(f"{KEY}.{number}.name: two terms are named '{name}'; give this one a name of its own")
            terms[name] = term
            self.factors.add(name, section.schedule)
        self.pupil = _Pupil(self.net_g, taps.features, terms, self.in_pixel_range)
        self.batch_number = 0  # of the batch that is fed, among all of the training

    def _check_view(self, section: DistillationTerm, term: '_Term', where: str) -> None:
        """Check that there are the images that a term asks for."""
        scale, kind = self.options.scale, section.images
        if kind != ZOOM_IN and (section.crops, section.consistency) != (1, 0):
            raise UserError(f'{where}.images: crops and consistency are of zoom_in, not of {kind}')
        if kind != PAIRS and self.teacher.takes != LQ:
            raise UserError(f'{where}.images: {kind} is nothing for a teacher that is given HR images')
        if kind == ZOOM_IN and term.loss.needs_gt:
            raise UserError(f'{where}.images: zoom_in has no ground truth, which {section.type} needs')
        if section.crops > scale**2:
            raise UserError(f'{where}.crops: {section.crops} are more than the {scale**2} parts of an HR image')
        if section.consistency > 0 and term.student_taps:
            raise UserError(f'{where}.consistency: features cannot be turned back; leave it out, or the taps')
        if kind == ZOOM_OUT:
            self._check_zoom_out(f'{where}.images: zoom_out')

    def _check_zoom_out(self, where: str) -> None:
        """Try both networks on the small images, and make what makes them."""
        scale, dataset = self.options.scale, self.options.datasets['train']
        assert dataset.gt_size is not None
        side = dataset.gt_size // scale
        if side % scale:
            raise UserError(f'{where} needs LR patches of a multiple of {scale} pixels, not of {side}')
        small = torch.zeros(1, channels_of(self.options), side // scale, side // scale, device=self.device)
        for name, network in (('network_g', self.net_g), ('network_teacher', self.teacher.network)):
            with torch.no_grad():
                check_output(lambda image, run=network: first_output(run(image)), small, scale, f'{where}: {name}')
        self.shrinking = shrinking(side, scale, self.device)

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
            term = _Term(loss, View(section.images, section.crops, section.consistency), *taps)
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

    def accumulate_gradients(self, current_iter: int, part: int = 0, parts: int = 1) -> None:
        """See :meth:`SupervisedModel.accumulate_gradients`."""
        self.batch_number = (current_iter - 1) * parts + part
        super().accumulate_gradients(current_iter, part, parts)

    def loss_terms(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """L_SR and the terms between student and teacher."""
        wanted = [name for name in self.pupil.names if self.factors.active(name)]
        views = [view for name, view in self.pupil.views.items() if name in wanted]
        # The pairs come first, and always, for L_SR.
        runs = [self._run(view, view in views) for view in dict.fromkeys([View(), *views])]
        pupil = self.pupil if self.parallel is None else self.parallel
        with self.stepper.autocast():
            sr, terms = pupil(runs, wanted)
        losses: list[Any] = [term.loss for term in self.pupil.terms]
        measures = {key: value for loss in losses for key, value in loss.measures.items()}
        return {**self.student_terms(sr), **terms}, measures

    def _run(self, view: View, taught: bool) -> '_Run':
        """The images of a view, and what the teacher makes of them if it is to."""
        if view.kind == ZOOM_IN:
            rows = own_rows(len(self.gt))
            whole = len(self.gt) * (dist.get_world_size() if dist.is_initialized() else 1)
            positions = range(self.batch_number * whole + rows.start, self.batch_number * whole + rows.stop)
            images = zoomed_in(view, self.gt, self.options.scale, self.options.manual_seed or 0, positions)
        elif view.kind == ZOOM_OUT:
            images = zoomed_out(self.lq, self.shrinking)
        else:
            images = Images(self.lq, getattr(self, self.teacher.takes), self.gt)
        teacher: Tapped | None = None
        if taught:
            sr, features = self.teacher(images.teacher)
            teacher = self.in_pixel_range(sr), features
        return _Run(view, images, teacher)

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


class _Run(NamedTuple):
    """The images of a view, and what the teacher makes of them: its scaled output and its features."""

    view: View
    images: Images
    teacher: Tapped | None


class _Term(nn.Module):
    """A loss with its taps, and the images that it is of."""

    def __init__(
        self, loss: DistillationLoss, view: View, student_taps: Sequence[str], teacher_taps: Sequence[str]
    ) -> None:
        super().__init__()
        self.loss, self.view, self.student_taps, self.teacher_taps = loss, view, student_taps, teacher_taps

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
        self.views = {name: term.view for name, term in terms.items()}

    def forward(self, runs: Sequence[_Run], wanted: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """Upscale the images of all runs; return the first's output, in [0, 1], and the wanted terms by name."""
        srs, terms = [], {}
        for view, images, teacher in runs:
            with self.taps.recording(images.student) as features:
                srs.append(first_output(self.student(images.student)))
            with torch.autocast(images.student.device.type, enabled=False):
                student = self.scaled(images.restored(srs[-1])), features
                for name, term in zip(self.names, self.terms, strict=True):
                    if teacher is not None and name in wanted and self.views[name] == view:
                        gt = teacher[0] if images.label is None else self.scaled(images.label)
                        terms[name] = term(student, teacher, gt)
        return srs[0], terms
