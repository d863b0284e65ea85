"""The factors on the loss terms during a training, and the gate that holds some of them back."""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from basicsr_clsd.archs.probe import interpolate
from basicsr_clsd.config.schedule import NO_GATE, Schedule

WINDOW = 100  # iterations
MARGIN = 0.5  # dB


class Gate:
    """Opens when the student is better than the image that it starts from, and stays open.

    Every 100 iterations the mean over them of the student's PSNR above that of the image, of the whole batch each, is
    compared with 0.5 dB.

    Args:
        interpolation: How the LR image is upscaled: a mode of ``F.interpolate``.
        scale: Super-resolution factor s.
        device: Where the images are.
    """

    def __init__(self, interpolation: str, scale: int, device: torch.device) -> None:
        self.interpolation, self.scale = interpolation, scale
        self.opened: int | None = None  # the iteration after which it was open
        self._errors = torch.zeros(2, dtype=torch.float64, device=device)  # of this iteration: student, image
        self._gain = torch.zeros((), dtype=torch.float64, device=device)  # sum over the window, in dB

    @torch.no_grad()
    def look(self, lq: Tensor, sr: Tensor, gt: Tensor) -> None:
        """Take a (micro-)batch: LR (N, C, h, w), the student's output and HR (N, C, h·s, w·s), in [0, 1]."""
        if self.opened is None:
            image = interpolate(lq.float(), self.scale, self.interpolation)
            self._errors += torch.stack([(output.float() - gt).square().mean() for output in (sr, image)])

    def end_iteration(self, iteration: int) -> None:
        """Decide at the end of a window; all processes decide alike."""
        if self.opened is not None:
            return
        if dist.is_initialized():
            dist.all_reduce(self._errors)
        self._gain += 10 * torch.log10(self._errors[1] / self._errors[0])
        self._errors.zero_()
        if iteration % WINDOW == 0:
            if float(self._gain) / WINDOW > MARGIN:
                self.opened = iteration
                logging.getLogger('basicsr').info(
                    f'The student is {MARGIN} dB above the {self.interpolation} image at iteration {iteration:,}: '
                    'gate student_above_base opens'
                )
            self._gain.zero_()

    def state_dict(self) -> dict[str, Any]:
        """What an exact resume needs."""
        return {'opened': self.opened, 'gain': self._gain}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        self.opened = state['opened']
        self._gain.copy_(state['gain'])


class Factors:
    """The loss terms of a training, and the factor on each in the iteration that runs."""

    def __init__(self) -> None:
        self.gate: Gate | None = None
        self._schedules: dict[str, Schedule | None] = {}
        self._now: dict[str, float] = {}

    def add(self, term: str, schedule: Schedule | None) -> None:
        """Name a term and its schedule; without one its factor is always 1."""
        self._schedules[term] = schedule
        self._now[term] = 1.0

    @property
    def need_gate(self) -> bool:
        """Whether a term waits for the gate."""
        return any(schedule is not None and schedule.gate != NO_GATE for schedule in self._schedules.values())

    def start_iteration(self, iteration: int) -> None:
        """Compute the factors of an iteration, counted from 1."""
        for term, schedule in self._schedules.items():
            if schedule is None:
                self._now[term] = 1.0
            else:
                opened = 0 if schedule.gate == NO_GATE or self.gate is None else self.gate.opened
                self._now[term] = schedule.factor(iteration, opened)

    def active(self, *terms: str) -> bool:
        """Whether any of these terms is to be computed in this iteration."""
        return any(self._now.get(term, 0) > 0 for term in terms)

    def weigh(self, terms: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Multiply the terms by their factors.

        Returns:
            The terms, and what to log of those that have a schedule: ``factor_TERM``, and ``bare_TERM``, the term
            without the factor.
        """
        weighted, log = dict(terms), {}
        device = next(iter(terms.values())).device
        for term, schedule in self._schedules.items():
            if schedule is not None:
                log[f'factor_{term}'] = torch.full((), self._now[term], device=device)
                if term in terms:
                    log[f'bare_{term}'] = terms[term]
                    weighted[term] = self._now[term] * terms[term]
        return weighted, log
