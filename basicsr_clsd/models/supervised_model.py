"""A network trained against ground truth."""

import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from copy import deepcopy
from typing import Any, ClassVar

import torch
from basicsr.models.base_model import BaseModel
from basicsr.utils import get_root_logger
from basicsr.utils.registry import MODEL_REGISTRY
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from basicsr_clsd import registry
from basicsr_clsd.archs import LQ, NetworkWithHeads, student_of
from basicsr_clsd.archs.windows import whole_windows, window_of
from basicsr_clsd.config.components import ScheduledLoss
from basicsr_clsd.config.schema import Options
from basicsr_clsd.config.training import Train
from basicsr_clsd.errors import UserError
from basicsr_clsd.models.schedule import Factors
from basicsr_clsd.models.stepper import Stepper, build_optimizer, trunk_gradient_norm, update_average
from basicsr_clsd.networks.check import channels_of, check_output, compiled, parameter_count, placed, trial_image
from basicsr_clsd.networks.precision import keep_ends_fp32
from basicsr_clsd.networks.weights import load_weights, params
from basicsr_clsd.runtime import cudnn
from basicsr_clsd.runtime.device import training_device
from basicsr_clsd.runtime.distributed import averaging

STUDENT = 'student'  # what the idle parts of a network hold where no term is of the student's output
PERCEPTUAL = ('L_percep', 'L_style')
ADVICE = '; path.strict_load_g: false takes what fits and leaves the rest at random'


@MODEL_REGISTRY.register()
class SupervisedModel(BaseModel):
    """Trains ``network_g`` with L_SR = pixel loss against HR (CLSD, Eq. 1); BasicSR's ``SRModel`` with its options.

    A subclass adds loss terms in :meth:`loss_terms`. Images are (N, 3, H, W) in [0, 1], RGB; losses see them multiplied
    by ``train.pixel_range``, in float32.

    Args:
        opt: Checked :class:`Options`, or a dict of them as BasicSR's ``build_model`` passes it. With a ``train``
            section the model can train, otherwise it can only upscale.

    Raises:
        UserError: The weights of ``path.pretrain_network_g`` do not load, or the network cannot be built.
    """

    sections: ClassVar[tuple[str, ...]] = ('pixel_opt', 'perceptual_opt')  # losses of ``train`` that it knows
    takes: ClassVar[str] = LQ  # what its network is given
    needs: ClassVar[tuple[str, ...]] = ()  # further keys of the options that must be there

    def __init__(self, opt: Options | Mapping[str, Any]) -> None:
        if not isinstance(opt, Options) and 'is_train' in opt:  # which BasicSR's own pipelines add
            # They would show a traceback of any exception but this one.
            name = type(self).__name__
            get_root_logger().error(f"{name} trains by basicsr_clsd/train.py, not by BasicSR's train_pipeline")
            sys.exit(2)
        self.options = options = opt if isinstance(opt, Options) else Options.model_validate(opt)
        super().__init__({'num_gpu': 0, 'is_train': options.train is not None, 'dist': False})
        self.device = training_device(options.num_gpu)
        self.loaded: list[str] = []  # what was loaded from which file, for the log
        self.factor = options.scale  # between the sides of what the network is given and makes
        self.net_g = self._build_network()
        self.net_g_ema: nn.Module | None = None
        self.parallel: DistributedDataParallel | None = None  # around what is trained, in a run of several processes
        with keep_ends_fp32(self.net_g):
            image = trial_image(channels_of(options))
            check_output(lambda lq: self.upscale(lq)[0], image, self.factor, f'network_g: {options.network_g.type}')
        self.log_dict: dict[str, Tensor] = {}
        self._white = torch.tensor(255.0, device=self.device)
        if options.train is not None:
            self._set_up_training(options.train)

    def _build_network(self) -> nn.Module:
        path = self.options.path
        network = registry.build('archs', self.options.network_g, 'network_g')
        if path.pretrain_network_g is not None:
            keys = [] if path.param_key_g is None else [path.param_key_g]
            line = load_weights(network, path.pretrain_network_g, keys, path.strict_load_g, 'path.param_key_g', ADVICE)
            self.loaded.append(line)
        return placed(network, self.device, self._memory_format())

    def _set_up_training(self, train: Train) -> None:
        if self.options.val.heads and not isinstance(self.net_g, NetworkWithHeads):
            raise UserError(f'val.heads: {self.options.network_g.type} has no heads to validate')
        self.net_g.train()
        if train.ema_decay > 0:
            self.net_g_ema = deepcopy(self.net_g).eval().requires_grad_(False)
        self.factors = Factors()
        self.pixel_loss = self._build_loss(train.pixel_opt, 'L_SR')
        self.perceptual_loss = self._build_loss(train.perceptual_opt, *PERCEPTUAL)
        self._build_losses(train)
        self.optimizers = [optimizer := build_optimizer(self._trained(), train.optim_g)]
        self.schedulers = [registry.build('schedulers', train.scheduler, 'train.scheduler', optimizer)]
        self.stepper = Stepper(self._trained(), optimizer, train.precision, self.device, train.max_grad_norm)
        compiled(self.net_g, train.compile)
        self.idle: set[str] = set()
        self._join_processes()

    def _join_processes(self) -> None:
        """Let processes average the gradients of all that is trained now."""
        if dist.is_initialized():
            self.parallel = None
            unused = self.options.find_unused_parameters or STUDENT in self.idle
            self.parallel = averaging(self._trained(), self.device, unused)

    def _trained(self) -> nn.Module:
        """The module that has every trained parameter, and whose forward uses them."""
        return self.net_g

    def _build_losses(self, train: Train) -> None:
        """Build what a subclass adds; at least one loss must have been asked for."""
        if self.pixel_loss is None and self.perceptual_loss is None:
            raise UserError('train: no loss; give pixel_opt or perceptual_opt')

    def _build_loss(self, section: ScheduledLoss | None, *terms: str) -> nn.Module | None:
        """Build a loss, which makes these terms, if it was asked for."""
        if section is None:
            return None
        for term in terms:
            self.factors.add(term, section.schedule)
        return registry.build('losses', section, 'train').to(self.device)

    def describe(self) -> str:
        """What is trained, for the log."""
        student = f'{parameter_count(student_of(self.net_g)):,} parameters'
        if not isinstance(self.net_g, NetworkWithHeads):
            return f'{self.options.network_g.type}, {student}'
        return f'{self.net_g.heads.description}, {student} and {parameter_count(self.net_g.heads):,} in heads'

    def feed_data(self, data: Mapping[str, Any]) -> None:
        """Take a batch: ``lq`` (N, 3, h, w), ``gt`` (N, 3, H, W) if there is one, and the files they came from.

        Images are floating point in [0, 1], or uint8 in [0, 255], which cross to the device as such and become float32
        in [0, 1] there.
        """
        self.lq: Tensor = self._on_device(data['lq'])
        self.gt: Tensor = self._on_device(data['gt']) if 'gt' in data else self.lq
        self.files: list[str] = list(data.get('gt_path', ()))

    def _on_device(self, image: Tensor) -> Tensor:
        image = image.to(self.device, non_blocking=True)
        if image.dtype != torch.uint8:
            return image.to(memory_format=self._memory_format())
        # By a tensor: a GPU would multiply with the rounded reciprocal of a number, which gives other bits.
        return image.to(torch.float32, memory_format=self._memory_format()).div_(self._white)

    def optimize_parameters(  # pyright: ignore[reportIncompatibleMethodOverride]  (as SRModel does)
        self, current_iter: int
    ) -> None:
        """One iteration on one batch: :meth:`accumulate_gradients`, then :meth:`step`."""
        self.accumulate_gradients(current_iter)
        self.step()

    def accumulate_gradients(self, current_iter: int, part: int = 0, parts: int = 1) -> None:
        """Add the gradients of the batch that was fed; fills ``log_dict`` with scalars on the device.

        Args:
            current_iter: Number of the iteration, from 1.
            part: Number of this micro-batch in the iteration, from 0.
            parts: Micro-batches of an iteration; the loss is their mean.
        """
        if part == 0:
            self._start_iteration(current_iter)
        # Processes exchange gradients once, with those of the last micro-batch.
        waiting = self.parallel.no_sync() if self.parallel is not None and part + 1 < parts else nullcontext()
        with waiting:
            terms, measures = self.loss_terms()
            terms, factors = self.factors.weigh(terms)
            total = torch.stack(list(terms.values())).sum()
            log = {**terms, **factors, **measures, 'L_total': total}
            if (every := self.options.logger.grad_norm_freq) and current_iter % every == 0:
                log |= {f'grad_{name}': trunk_gradient_norm(self.net_g, term) for name, term in terms.items()}
            self.stepper.backward(total / parts)
        before = self.log_dict if part else {}
        self.log_dict = {name: before.get(name, 0) + value.detach() / parts for name, value in log.items()}

    def step(self) -> None:
        """Step the optimizer and the moving average; ``log_dict['done']`` is 0 if a NaN made it skip the step."""
        train = self.options.train
        assert train is not None
        done = self.log_dict['done'] = self.stepper.step()
        # A GPU is not waited for: after a skipped step the average draws near weights that have not changed.
        if self.net_g_ema is not None and (self.device.type != 'cpu' or bool(done)):
            most = self.iteration / (self.iteration + 9) if train.ema_warmup else 1
            update_average(self.net_g_ema, self.net_g, min(train.ema_decay, most))
        if self.factors.gate is not None:
            self.factors.gate.end_iteration(self.iteration)

    def _start_iteration(self, iteration: int) -> None:
        """Find out which terms this iteration has; what only others would train is left out of the gradients."""
        self.iteration = iteration
        self.factors.start_iteration(iteration)
        parts = self._parts()
        idle = {name for name, (_, terms) in parts.items() if not self.factors.active(*terms)}
        idle |= set() if self.factors.active('L_SR', *PERCEPTUAL) else {STUDENT}
        if idle != self.idle:
            for name, (module, _) in parts.items():
                module.requires_grad_(name not in idle)
            self.idle = idle
            self._join_processes()

    def _parts(self) -> dict[str, tuple[nn.Module, Sequence[str]]]:
        """By name, the trained modules that serve some terms alone, with these terms."""
        return {}

    def _memory_format(self) -> torch.memory_format:
        train = self.options.train
        return torch.channels_last if train is not None and train.channels_last else torch.contiguous_format

    def loss_terms(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Run the network on the batch; return the weighted terms of the loss by name, and what else to log."""
        output = self.run_network()
        return self.student_terms(output[0] if isinstance(output, tuple) else output), {}

    def run_network(self, **arguments: Any) -> Any:
        """The network's output for the batch, in ``train.precision``."""
        with self.stepper.autocast():
            return (self._trained() if self.parallel is None else self.parallel)(getattr(self, self.takes), **arguments)

    def student_terms(self, sr: Tensor) -> dict[str, Tensor]:
        """L_SR (Eq. 1), and the perceptual terms if asked for, of the student's output."""
        terms = {}
        if self.pixel_loss is not None and self.factors.active('L_SR'):
            terms['L_SR'] = self.pixel_loss(self.in_pixel_range(sr), self.in_pixel_range(self.gt))
        if self.perceptual_loss is not None and self.factors.active(*PERCEPTUAL):
            both = zip(PERCEPTUAL, self.perceptual_loss(sr, self.gt), strict=True)  # VGG normalises by itself
            terms |= {name: term for name, term in both if term is not None}
        return terms

    def in_pixel_range(self, image: Tensor) -> Tensor:
        """An image for the losses: float32, in [0, ``train.pixel_range``]."""
        assert self.options.train is not None and self.options.train.pixel_range is not None
        pixel_range = self.options.train.pixel_range
        return image.float() if pixel_range == 1 else image.float() * pixel_range

    @torch.no_grad()
    @cudnn.inference()
    def upscale(self, lq: Tensor, heads: bool = False) -> list[Tensor]:
        """Upscale images (N, 3, h, w) with the weights that would be deployed (the averaged ones if there are any).

        Returns:
            The student's output, unclipped, on the device; with ``heads`` those of the heads behind it.
        """
        network = self.net_g if self.net_g_ema is None else self.net_g_ema
        training = network.training
        network.eval()
        try:
            height, width = (side * self.factor for side in lq.shape[2:])
            lq = whole_windows(lq.to(self.device), window_of(network))
            # Not by calling the network, which `train.compile` would compile anew for each size of image.
            outputs = network.forward(lq, with_heads=True) if heads else network.forward(lq)
        finally:
            network.train(training)
        srs = [outputs[0], *outputs[1]] if isinstance(outputs, tuple) else [outputs]
        return [sr[..., :height, :width] for sr in srs]

    def student_weights(self) -> dict[str, dict[str, Tensor]]:
        """What is deployed: ``params`` (and ``params_ema``) of the student alone, under its stock arch's keys."""
        return params(student_of(self.net_g), None if self.net_g_ema is None else student_of(self.net_g_ema))

    def weights(self) -> dict[str, dict[str, Any]]:
        """The files of weights that a training writes, by the beginnings of their names."""
        return {'net_g': self.student_weights()}

    def _stateful(self) -> dict[str, Any]:
        """What an exact resume restores, by its key in the training state; None: the run has it not."""
        return {
            'net_g': self.net_g,
            'net_g_ema': self.net_g_ema,
            'optimizer': self.optimizers[0],
            'scheduler': self.schedulers[0],
            'stepper': self.stepper,
            'gate': self.factors.gate,
        }

    def training_state(self) -> dict[str, Any]:
        """Everything of the model that an exact resume needs."""
        return {key: None if part is None else part.state_dict() for key, part in self._stateful().items()}

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`training_state` returned.

        Raises:
            UserError: The state is that of another network or other options.
        """
        try:
            self._restore(state)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise UserError(f'the training state is of another network: {str(error).splitlines()[0]}') from error

    def _restore(self, state: Mapping[str, Any]) -> None:
        for key, part in self._stateful().items():
            if part is not None:
                part.load_state_dict(state[key])
