"""A network trained against ground truth."""

import math
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from basicsr.archs import build_network
from basicsr.losses import build_loss
from basicsr.models.base_model import BaseModel
from basicsr.utils.registry import MODEL_REGISTRY
from torch import Tensor, nn

from basicsr_clsd.config.check import OPTIMIZERS, SCHEDULERS
from basicsr_clsd.config.schema import Component, Options, Train
from basicsr_clsd.errors import NonFiniteLossError, UserError
from basicsr_clsd.models.weights import load_weights, student_state


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

    def __init__(self, opt: Options | Mapping[str, Any]) -> None:
        self.options = opt if isinstance(opt, Options) else Options.model_validate(opt)
        options = self.options
        gpu = torch.cuda.is_available() if options.num_gpu == 'auto' else options.num_gpu > 0
        super().__init__({'num_gpu': int(gpu), 'is_train': options.train is not None, 'dist': False})
        self.net_g = self._build_network()
        self.net_g_ema: nn.Module | None = None
        self.log_dict: dict[str, float] = {}
        if options.train is not None:
            self._set_up_training(options.train)

    def _build_network(self) -> nn.Module:
        section, path = self.options.network_g, self.options.path
        try:
            network = build_network(section.as_dict())
        except (TypeError, ValueError, AssertionError, RuntimeError, LookupError) as error:
            raise UserError(f'network_g: {section.type} cannot be built: {error}') from error
        if path.pretrain_network_g is not None:
            load_weights(network, path.pretrain_network_g, path.param_key_g, path.strict_load_g)
        return network.to(self.device)

    def _set_up_training(self, train: Train) -> None:
        if self.options.val.heads and not hasattr(self.net_g, 'heads'):
            raise UserError(f'val.heads: {self.options.network_g.type} has no heads to validate')
        self.net_g.train()
        if train.ema_decay > 0:
            self.net_g_ema = deepcopy(self.net_g).eval().requires_grad_(False)
        self.pixel_loss = self._build_loss(train.pixel_opt)
        self.perceptual_loss = self._build_loss(train.perceptual_opt)
        self._build_losses(train)
        parameters = [parameter for parameter in self.net_g.parameters() if parameter.requires_grad]
        try:
            optimizer = OPTIMIZERS[train.optim_g.type](parameters, **train.optim_g.arguments())
        except (TypeError, ValueError, LookupError) as error:
            raise UserError(f'train.optim_g: {error}') from error
        try:
            scheduler = SCHEDULERS[train.scheduler.type](optimizer, **train.scheduler.arguments())
        except (TypeError, ValueError, AssertionError) as error:
            raise UserError(f'train.scheduler: {error}') from error
        self.optimizers, self.schedulers = [optimizer], [scheduler]

    def _build_losses(self, train: Train) -> None:
        """Build what a subclass adds; at least one loss must have been asked for."""
        if self.pixel_loss is None and self.perceptual_loss is None:
            raise UserError('train: no loss; give pixel_opt or perceptual_opt')

    def _build_loss(self, section: Component | None) -> nn.Module | None:
        if section is None:
            return None
        try:
            return build_loss({'type': section.type, **section.arguments()}).to(self.device)
        except (TypeError, ValueError) as error:
            raise UserError(f'train: {section.type}: {error}') from error

    def feed_data(self, data: Mapping[str, Any]) -> None:
        """Take a batch: ``lq`` (N, 3, h, w), ``gt`` (N, 3, H, W) if there is one, and the files they came from."""
        self.lq: Tensor = data['lq'].to(self.device, non_blocking=True)
        self.gt: Tensor = data['gt'].to(self.device, non_blocking=True) if 'gt' in data else self.lq
        self.files: list[str] = list(data.get('gt_path', ()))

    def optimize_parameters(  # pyright: ignore[reportIncompatibleMethodOverride]  (as SRModel does)
        self, current_iter: int
    ) -> None:
        """One step: forward, loss terms, backward, optimizer, moving average; fills ``log_dict``.

        Raises:
            NonFiniteLossError: A term or its gradient is NaN or infinite; the step has not changed any weight then.
        """
        train = self.options.train
        assert train is not None
        terms, measures = self.loss_terms()
        total = torch.stack(list(terms.values())).sum()
        self.log_dict = {name: value.item() for name, value in {**terms, **measures}.items()}
        self.log_dict['L_total'] = total.item()
        self._require_finite(self.log_dict, current_iter)
        if train.log_grad_norms and current_iter % train.log_grad_norms == 0:
            self.log_dict |= {f'grad_{name}': self._grad_norm(term) for name, term in terms.items()}
        self.optimizers[0].zero_grad()
        total.backward()
        # Clipping at infinity changes no gradient, and returns the norm of all.
        norm = nn.utils.clip_grad_norm_(self.net_g.parameters(), math.inf).item()
        self._require_finite({'the gradient': norm}, current_iter)
        self.optimizers[0].step()
        if self.net_g_ema is not None:
            self.model_ema(train.ema_decay)

    def _require_finite(self, values: Mapping[str, float], current_iter: int) -> None:
        for name, value in values.items():
            if not math.isfinite(value):
                raise NonFiniteLossError(f'iteration {current_iter}: {name} is {value}; files: {", ".join(self.files)}')

    def loss_terms(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Run the network on the batch; return the weighted terms of the loss by name, and what else to log."""
        output = self.net_g(self.lq)
        return self.student_terms(output[0] if isinstance(output, tuple) else output), {}

    def student_terms(self, sr: Tensor) -> dict[str, Tensor]:
        """L_SR (Eq. 1), and the perceptual terms if asked for, of the student's output."""
        terms = {}
        if self.pixel_loss is not None:
            terms['L_SR'] = self.pixel_loss(self.in_pixel_range(sr), self.in_pixel_range(self.gt))
        if self.perceptual_loss is not None:
            # VGG's inputs are in [0, 1] by its own normalisation.
            for name, term in zip(('L_percep', 'L_style'), self.perceptual_loss(sr, self.gt), strict=True):
                if term is not None:
                    terms[name] = term
        return terms

    def in_pixel_range(self, image: Tensor) -> Tensor:
        """An image for the losses: float32, in [0, ``train.pixel_range``]."""
        assert self.options.train is not None and self.options.train.pixel_range is not None
        pixel_range = self.options.train.pixel_range
        return image.float() if pixel_range == 1 else image.float() * pixel_range

    def _grad_norm(self, term: Tensor) -> float:
        """Norm of a term's gradient in the student's trunk: all its parameters but the upsampler's and conv_last's."""
        trunk = [
            value
            for name, value in self.get_bare_model(self.net_g).named_parameters()
            if not name.startswith(('heads.', 'upsample', 'conv_last'))
        ]
        gradients = torch.autograd.grad(term, trunk, retain_graph=True, allow_unused=True)
        return float(torch.stack([grad.square().sum() for grad in gradients if grad is not None]).sum().sqrt())

    @torch.no_grad()
    def upscale(self, lq: Tensor, heads: bool = False) -> list[Tensor]:
        """Upscale images (N, 3, h, w) with the weights that would be deployed (the averaged ones if there are any).

        Returns:
            The student's output, unclipped, on the CPU; with ``heads`` those of the heads behind it.
        """
        network = self.get_bare_model(self.net_g) if self.net_g_ema is None else self.net_g_ema
        training = network.training
        network.eval()
        try:
            height, width = (side * self.options.scale for side in lq.shape[2:])
            lq = _whole_windows(lq.to(self.device), getattr(network, 'window_size', 1))
            outputs = network(lq, with_heads=True) if heads else network(lq)
        finally:
            network.train(training)
        srs = [outputs[0], *outputs[1]] if isinstance(outputs, tuple) else [outputs]
        return [sr[..., :height, :width].cpu() for sr in srs]

    def student_weights(self) -> dict[str, dict[str, Tensor]]:
        """What is deployed: ``params`` (and ``params_ema``) of the student alone, under its stock arch's keys."""
        weights = {'params': _on_cpu(student_state(self.get_bare_model(self.net_g)))}
        if self.net_g_ema is not None:
            weights['params_ema'] = _on_cpu(student_state(self.net_g_ema))
        return weights

    def training_state(self) -> dict[str, Any]:
        """Everything of the model that an exact resume needs."""
        return {
            'net_g': self.get_bare_model(self.net_g).state_dict(),
            'net_g_ema': None if self.net_g_ema is None else self.net_g_ema.state_dict(),
            'optimizer': self.optimizers[0].state_dict(),
            'scheduler': self.schedulers[0].state_dict(),
        }

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`training_state` returned.

        Raises:
            UserError: The state is that of another network or other options.
        """
        try:
            self.get_bare_model(self.net_g).load_state_dict(state['net_g'])
            if self.net_g_ema is not None:
                self.net_g_ema.load_state_dict(state['net_g_ema'])
            self.optimizers[0].load_state_dict(state['optimizer'])
            self.schedulers[0].load_state_dict(state['scheduler'])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise UserError(f'the training state is of another network: {str(error).splitlines()[0]}') from error


def _whole_windows(image: Tensor, window: int) -> Tensor:
    """Mirror an image at its lower and right border up to a multiple of a transformer's window, as SwinIR is tested."""
    for axis in (2, 3):
        missing = -image.shape[axis] % window
        mirrored = image.flip(axis).narrow(axis, 0, min(missing, image.shape[axis]))
        image = torch.cat([image, mirrored], axis) if missing else image
    return image


def _on_cpu(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.detach().cpu() for key, value in state.items()}
