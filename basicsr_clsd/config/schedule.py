"""The weight of a loss term over the iterations of a training."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field

from basicsr_clsd.config.section import Count, Section
from basicsr_clsd.errors import UserError

NO_GATE = 'none'
STEEPNESS = 5  # of the sigmoid ramp of mean teacher (Tarvainen and Valpola, NeurIPS 2017)


class Schedule(Section):
    """A factor on a loss term, up(t) · down(t) at iteration t, counted from 1.

    up(t) is 0 up to ``start_iter`` and 1 after ``warmup_iter`` more iterations; down(t) is 1 before ``anneal_start``
    and ``final`` from ``anneal_end`` on.
    """

    start_iter: Count = Field(default=0, description='the term is off up to this iteration')
    warmup_iter: Count = Field(default=0, description='iterations that the factor then takes to reach 1')
    shape: Literal['linear', 'sigmoid'] = Field(
        default='linear', description='of the warm-up: x, or exp(-5 (1 - x)²), for x from 0 to 1'
    )
    anneal_start: Count | None = Field(default=None, description='the factor begins to fall')
    anneal_end: Count | None = Field(default=None, description='the factor is `final` from here on')
    anneal_shape: Literal['linear', 'cosine'] = Field(default='linear', description='of the fall')
    final: float = Field(default=0, ge=0, le=1, description='factor after the fall; a term of factor 0 is not computed')
    gate: Literal['none', 'student_above_base'] = Field(
        default=NO_GATE,
        description='of `contrastive_opt` and `self_distill_opt`: `student_above_base`: the iterations of `start_iter` '
        'and `warmup_iter` count only after the student is 0.5 dB better than the interpolated image that it adds '
        '(bicubic where it adds none), as a mean of 100 training batches',
    )

    def factor(self, iteration: int, opened: int | None = 0) -> float:
        """The factor in [0, 1] at an iteration.

        Args:
            iteration: From 1.
            opened: The iteration after which the gate was open; None: it is still closed. Without a gate it is 0.
        """
        return 0.0 if opened is None else self._up(iteration - opened) * self._down(iteration)

    def _up(self, iteration: int) -> float:
        if iteration <= self.start_iter:
            return 0.0
        if iteration >= self.start_iter + self.warmup_iter:
            return 1.0
        x = (iteration - self.start_iter) / self.warmup_iter
        return x if self.shape == 'linear' else math.exp(-STEEPNESS * (1 - x) ** 2)

    def _down(self, iteration: int) -> float:
        if self.anneal_start is None or self.anneal_end is None or iteration <= self.anneal_start:
            return 1.0
        if iteration >= self.anneal_end:
            return self.final
        x = (iteration - self.anneal_start) / (self.anneal_end - self.anneal_start)
        left = 1 - x if self.anneal_shape == 'linear' else (1 + math.cos(math.pi * x)) / 2
        return self.final + (1 - self.final) * left

    def may_be_off(self, iteration: int) -> bool:
        """Whether the factor is 0 at an iteration, for a gate that never opens."""
        return self.factor(iteration, opened=0 if self.gate == NO_GATE else None) == 0

    def shorten(self, part: float) -> None:
        """Fit the schedule to a training of a part of the iterations."""
        self.start_iter, self.warmup_iter = int(self.start_iter * part), int(self.warmup_iter * part)
        if self.anneal_start is not None and self.anneal_end is not None:
            self.anneal_start, self.anneal_end = int(self.anneal_start * part), math.ceil(self.anneal_end * part)


def check_schedules(sections: Mapping[str, Schedule | None], gated: Sequence[str], total_iter: int) -> None:
    """Check the schedules of all loss terms of a training, by the key of their loss.

    Args:
        sections: One for each loss; None: it has none.
        gated: The losses that can have a gate.
        total_iter: Length of the training.

    Raises:
        UserError: Names the key that is wrong.
    """
    for loss, schedule in sections.items():
        if schedule is not None:
            _check(schedule, f'{loss}.schedule', total_iter)
            if schedule.gate != NO_GATE and loss not in gated:
                raise UserError(f'{loss}.schedule.gate: only {" and ".join(gated)} can have one')
    schedules = list(sections.values())
    given = [schedule for schedule in schedules if schedule is not None]
    # Where all are off, one of them is at the first or the last iteration of its being so.
    turns = [1, *(turn for schedule in given for turn in (schedule.start_iter, schedule.anneal_end) if turn)]
    for iteration in sorted(turns):
        if given and all(schedule is not None and schedule.may_be_off(iteration) for schedule in schedules):
            raise UserError(f'train: no loss at iteration {iteration}: the factor of every schedule may be 0 then')


def _check(schedule: Schedule, where: str, total_iter: int) -> None:
    start, end, up = schedule.anneal_start, schedule.anneal_end, schedule.start_iter + schedule.warmup_iter
    if start is None or end is None:
        if start is not end:
            missing = 'anneal_start' if start is None else 'anneal_end'
            raise UserError(f'{where}.{missing}: missing; anneal_start and anneal_end go together')
        return
    if end <= start:
        raise UserError(f'{where}.anneal_end: {end} is not after anneal_start, {start}')
    if start < up:
        raise UserError(f'{where}.anneal_start: {start} is before the warm-up ends, at {up}')
    if end > total_iter:
        raise UserError(f'{where}.anneal_end: {end} is after train.total_iter, {total_iter}')
