"""The stream of training patches: the patch at position p depends on (seed, p) alone.

A run draws patches at positions 0, 1, 2, ...; iteration i of a global batch of B takes positions (i-1)B to iB-1. So the
data do not depend on the number of loader processes, on where a run was resumed, or on how a global batch is split.
"""

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

Draw = tuple[int, int]  # (index of the image, position)


def _derived_seed(*numbers: int) -> int:
    """A 64-bit seed from several numbers, with no structure left between them."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


class PositionBatchSampler(Sampler[list[Draw]]):
    """Batches of (index, position) from one iteration to another.

    Every epoch visits all images ``enlarge`` times, in an order drawn from (seed, epoch); a batch may reach
    into the next epoch, so that no image is dropped and the number of iterations is what was asked for.

    Args:
        images: Number of images.
        enlarge: How often an epoch visits each image.
        batch_size: Images of a batch of this process.
        first: Iterations that are already done.
        last: Iteration to end after.
        seed: Seed of the run.
        rank: This process among ``world``.
        world: Number of processes that share each global batch.
    """

    def __init__(
        self,
        *,
        images: int,
        enlarge: int,
        batch_size: int,
        first: int,
        last: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.images = images
        self.length = images * enlarge
        self.batch_size = batch_size
        self.first = first
        self.last = last
        self.seed = seed
        self.rank = rank
        self.world = world

    def __len__(self) -> int:
        return self.last - self.first

    def __iter__(self) -> Iterator[list[Draw]]:
        epoch, order = -1, torch.empty(0)
        for iteration in range(self.first, self.last):
            batch = []
            start = (iteration * self.world + self.rank) * self.batch_size
            for position in range(start, start + self.batch_size):
                if position // self.length != epoch:
                    epoch = position // self.length
                    generator = torch.Generator().manual_seed(_derived_seed(self.seed, 0, epoch) >> 1)
                    order = torch.randperm(self.length, generator=generator)
                batch.append((int(order[position % self.length]) % self.images, position))
            yield batch


class SeededDataset(Dataset):
    """Gives a data set its random numbers by position, and leaves the process's generators as they were.

    Args:
        dataset: A map-style data set that draws from ``random``, ``numpy.random`` or ``torch``.
        seed: Seed of the run.
    """

    def __init__(self, dataset: Dataset, seed: int) -> None:
        self.dataset = dataset
        self.seed = seed

    def __getitem__(self, draw: Draw) -> Any:
        index, position = draw
        seed = _derived_seed(self.seed, 1, position)
        python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002  (BasicSR draws from it)
        with torch.random.fork_rng(devices=[]):
            random.seed(seed)
            np.random.seed(seed & 0xFFFFFFFF)  # noqa: NPY002
            torch.manual_seed(seed >> 1)
            try:
                return self.dataset[index]
            finally:
                random.setstate(python_state)
                np.random.set_state(numpy_state)  # noqa: NPY002
