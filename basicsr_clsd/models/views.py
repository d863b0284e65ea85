"""The images that a distillation term is of: the pairs of a batch, or these zoomed in or out (AugKD)."""

import random
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from basicsr_clsd.images.matlab_resize import resize_matrix

PAIRS, ZOOM_IN, ZOOM_OUT = 'pairs', 'zoom_in', 'zoom_out'


class Change(NamedTuple):
    """What is done to an image (C, h, w) in [0, 1], in this order: inverted in colour, flipped, transposed."""

    invert: bool
    hflip: bool
    vflip: bool
    transpose: bool

    def apply(self, image: Tensor) -> Tensor:
        """Change an image."""
        image = 1 - image if self.invert else image
        image = image.flip(-1) if self.hflip else image
        image = image.flip(-2) if self.vflip else image
        return image.transpose(-2, -1) if self.transpose else image

    def undo(self, image: Tensor) -> Tensor:
        """Take a change back, last first."""
        image = image.transpose(-2, -1) if self.transpose else image
        image = image.flip(-2) if self.vflip else image
        image = image.flip(-1) if self.hflip else image
        return 1 - image if self.invert else image


class View(NamedTuple):
    """Which images.

    Args:
        kind: ``pairs``; ``zoom_in``, parts of HR of the size of LR; or ``zoom_out``, LR made smaller.
        crops: Parts of each HR image, at most s².
        consistency: Probability of each change of what the student is given, see :class:`Change`.
    """

    kind: str = PAIRS
    crops: int = 1
    consistency: float = 0.0


class Images(NamedTuple):
    """The images of a view, in [0, 1].

    Args:
        student: What the student is given, (N, C, h, w).
        teacher: What the teacher is given, likewise.
        label: Ground truth, (N, C, h·s, w·s); None: there is none.
        changes: What was done to the student's images; its outputs are to be turned back. Empty: nothing.
    """

    student: Tensor
    teacher: Tensor
    label: Tensor | None
    changes: Sequence[Change] = ()

    def restored(self, sr: Tensor) -> Tensor:
        """The student's outputs, turned back."""
        if not self.changes:
            return sr
        return torch.stack([change.undo(image) for change, image in zip(self.changes, sr, strict=True)])


def zoomed_in(view: View, gt: Tensor, scale: int, seed: int, positions: Iterable[int]) -> Images:
    """Cut parts of LR's size out of HR images, on a grid of s x s; both networks go beyond HR there.

    Args:
        view: How many, and what is done to the student's.
        gt: HR images (N, C, h·s, w·s).
        scale: s.
        seed: Of the run.
        positions: Of the images in the stream of patches; parts and changes follow from seed and position alone.
    """
    height, width = (side // scale for side in gt.shape[2:])
    parts: list[Tensor] = []
    changes: list[Change] = []
    for image, position in zip(gt, positions, strict=True):
        numbers = random.Random(f'{ZOOM_IN} {seed} {position}')
        for place in numbers.sample(range(scale**2), view.crops):
            top, left = (height * (place // scale), width * (place % scale))
            parts.append(image[:, top : top + height, left : left + width])
            changes.append(Change(*(numbers.random() < view.consistency for _ in Change._fields)))
    whole = torch.stack(parts)
    if not any(any(change) for change in changes):
        return Images(whole, whole, None)
    changed = torch.stack([change.apply(part) for change, part in zip(changes, parts, strict=True)])
    return Images(changed, whole, None, changes)


def zoomed_out(lq: Tensor, matrix: Tensor) -> Images:
    """Make LR images (N, C, h, h) smaller by :func:`shrinking`; they are the ground truth of what that gives."""
    small = matrix @ lq @ matrix.T
    return Images(small, small, lq)


def shrinking(side: int, scale: int, device: torch.device) -> Tensor:
    """The matrix (side / s, side) that makes a column of pixels smaller, by MATLAB's bicubic."""
    matrix = resize_matrix(side, side // scale, 1 / scale, True, 'replicate').toarray()
    return torch.from_numpy(matrix).to(device, torch.float32)
