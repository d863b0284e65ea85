"""The frozen network that a student learns from."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from basicsr_clsd import registry
from basicsr_clsd.archs import LQ, student_of, taken_by
from basicsr_clsd.archs.probe import probe
from basicsr_clsd.archs.taps import FeatureTaps
from basicsr_clsd.archs.trunk import TapList, resolve
from basicsr_clsd.config.components import Component
from basicsr_clsd.config.schema import Options
from basicsr_clsd.errors import UserError
from basicsr_clsd.networks.check import (
    channels_of,
    check_output,
    compiled,
    first_output,
    parameter_count,
    placed,
    trial_image,
)
from basicsr_clsd.networks.precision import autocast, keep_ends_fp32
from basicsr_clsd.networks.weights import load_weights

Tapped = tuple[Tensor, dict[str, Tensor]]


class TermTaps:
    """The taps of all distillation terms in one network.

    Args:
        network: The network.
        taps: Of each term, see :func:`~basicsr_clsd.archs.trunk.resolve`.
        where: Key of the terms in the options.
        key: Key of the taps in a term.

    Raises:
        UserError: They do not exist; names the key.
    """

    def __init__(self, network: nn.Module, taps: Sequence[TapList], where: str, key: str) -> None:
        self.of_terms = [
            resolve(wanted, f'{where}.{number}.{key}', lambda: probe(network)) if wanted else []
            for number, wanted in enumerate(taps)
        ]
        self.features = FeatureTaps(network, [tap for term in self.of_terms for tap in term], where)


def build_teacher(options: Options) -> tuple[nn.Module, str]:
    """Build ``network_teacher``, the student of one with heads, and load ``path.pretrain_network_teacher`` if given.

    Returns:
        The network, and a line for the log; empty without a file.

    Raises:
        UserError: The file is not there or does not fit, or the network cannot be built.
    """
    path, line = options.path, ''
    assert options.network_teacher is not None
    network = registry.build('archs', options.network_teacher, 'network_teacher')
    if path.pretrain_network_teacher is not None:
        key = path.param_key_teacher
        try:
            line = load_weights(network, path.pretrain_network_teacher, [key], option='path.param_key_teacher')
        except UserError as error:
            raise UserError(f'path.pretrain_network_teacher: {error}') from error
    return student_of(network), line


class Teacher:
    """``network_teacher`` with the weights of ``path.pretrain_network_teacher``, in eval mode, without gradients.

    It is no part of the model that is trained, saved or wrapped for several processes: every process has its own.

    Args:
        options: With both, and ``train.teacher``: precision, memory format, compilation.
        device: Where it computes.
        taps: Of each distillation term.
        where: Key of the terms in the options.

    Raises:
        UserError: The file is not there or does not fit, or the network or a tap does not work.
    """

    def __init__(self, options: Options, device: torch.device, taps: Sequence[TapList], where: str) -> None:
        section, path = options.network_teacher, options.path
        assert isinstance(section, Component) and options.train is not None
        assert path.pretrain_network_teacher is not None
        how = options.train.teacher
        self.device, self.precision = device, how.precision or 'fp32'
        self.memory_format = torch.channels_last if how.channels_last else torch.contiguous_format
        network, self.loaded = build_teacher(options)
        self.fingerprint = _digest(network)
        self.network = placed(network.requires_grad_(False), device, self.memory_format)
        self.taps = TermTaps(self.network.eval(), taps, where, 'teacher_taps')
        self.takes = taken_by(self.network)
        factor = 1 if self.takes == LQ else options.scale  # from LR to what it is given
        with keep_ends_fp32(self.network):
            image = trial_image(channels_of(options), factor)
            check_output(self._try, image, options.scale // factor, f'network_teacher: {section.type}')
        self._check_sizes(trial_image(1).shape if factor > 1 else None, where)
        compiled(self.network, how.compile or False)
        count = parameter_count(network)
        self.description = (
            f'{section.type}, {count:,} parameters from {path.pretrain_network_teacher}, {self.precision}'
        )

    def _try(self, image: Tensor) -> Tensor:
        with torch.no_grad(), self.taps.features.trial(image) as features:
            sr = first_output(self.network(image.to(self.device)))
        self.sample: Tapped = sr, features  # of a small image, to know the features' sizes by
        return sr

    def _check_sizes(self, lr: torch.Size | None, where: str) -> None:
        """Check that the features of HR images have the size of LR images, ``lr``, where the student's are."""
        for number, tap in ((n, tap) for n, term in enumerate(self.taps.of_terms) for tap in term):
            shape = self.sample[1][tap].shape
            if lr is not None and shape[2:] != lr[2:]:
                raise UserError(
                    f"{where}.{number}.teacher_taps: '{tap}' of {self.taps.features.kind} is {shape[2]} x {shape[3]} "
                    f'where the LR image is {lr[2]} x {lr[3]}; tap a feature of its size'
                )

    @torch.no_grad()
    def __call__(self, image: Tensor) -> Tapped:
        """Run on what it takes, LR images (N, 3, h, w) or HR images, in [0, 1].

        Returns:
            The output, (N, 3, H, W) in that range, and the features by tap.
        """
        with autocast(self.device, self.precision), self.taps.features.recording(image) as features:
            sr = first_output(self.network(image.contiguous(memory_format=self.memory_format)))
        return sr, features


def _digest(network: nn.Module) -> str:
    """SHA-256 of all weights."""
    digest = hashlib.sha256()
    for key, value in sorted(network.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
