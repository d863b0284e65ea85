"""Which images of a batch are distilled (FACD, Moon et al., arXiv 2211.15951)."""

import torch
from torch import Tensor

from basicsr_clsd.runtime.collectives import gather_batches

NONE, TEACHER_BETTER, HARD = ADAPTIVE = ('none', 'teacher_better', 'hard')


def check_adaptive(adaptive: str) -> None:
    """Raise a ``ValueError`` if that is none of the choices."""
    if adaptive not in ADAPTIVE:
        raise ValueError(f'adaptive must be one of {", ".join(ADAPTIVE)}, not {adaptive!r}')


@torch.no_grad()
def chosen(adaptive: str, sr: Tensor, teacher_sr: Tensor, gt: Tensor) -> Tensor:
    """m_i of each image, 1 or 0, without gradient.

    Args:
        adaptive: ``teacher_better``: 1 where HR is nearer to the teacher's output than to the student's. ``hard``:
            where the student's error is above the median of the whole batch, of all processes. ``none``: everywhere.
        sr: The student's outputs (N, C, H, W).
        teacher_sr: The teacher's.
        gt: HR.

    Returns:
        (N,), in float32.
    """
    error = (sr - gt).abs().flatten(1).mean(1)
    if adaptive == TEACHER_BETTER:
        return ((teacher_sr - gt).abs().flatten(1).mean(1) < error).float()
    if adaptive == HARD:
        (errors,) = gather_batches([error])
        return (error > errors.quantile(0.5)).float()
    return torch.ones_like(error)
