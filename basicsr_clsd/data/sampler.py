"""The stream of training patches: the patch at position p depends on (seed, p) alone.

A run draws patches at positions 0, 1, 2, ...; iteration i of a global batch of B takes positions (i-1)B to iB-1. So the
data do not depend on the number of loader processes, on where a run was resumed, or on how a global batch is split.
"""

import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from basicsr_clsd.data.paired_dataset import PairedDataset

SampleId = tuple[int, int]  # (index of the image, position)
WORD_BITS = 32
WORD = 2**WORD_BITS - 1


def _derived_seed(*numbers: int) -> int:
    """A 64-bit seed from several numbers, with no structure left between them."""
    words = []
    for number in numbers:  # as NumPy would by itself, in half the time
        words.append(number & WORD)
        while number := number >> WORD_BITS:
            words.append(number & WORD)
    return int(np.random.SeedSequence(np.array(words, np.uint32)).generate_state(1, np.uint64)[0])  # pyright: ignore


class PositionBatchSampler(Sampler[list[SampleId]]):
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

    def __iter__(self) -> Iterator[list[SampleId]]:
        epoch, order = -1, np.empty(0)
        for iteration in range(self.first, self.last):
            batch = []
            start = (iteration * self.world + self.rank) * self.batch_size
            for position in range(start, start + self.batch_size):
                if position // self.length != epoch:
                    epoch = position // self.length
                    generator = torch.Generator().manual_seed(_derived_seed(self.seed, 0, epoch) >> 1)
                    order = torch.randperm(self.length, generator=generator).numpy()
                batch.append((int(order[position % self.length]) % self.images, position))
            yield batch


class PatchBatches(Dataset):
    """Batches of training patches by their positions; the process's own random generators are left alone.

    Args:
        dataset: In the phase ``train``.
        seed: Seed of the run.
        channels_last: Memory format of the batches.
    """

    def __init__(self, dataset: PairedDataset, seed: int, channels_last: bool = False) -> None:
        self.dataset = dataset
        self.seed = seed
        self.channels_last = channels_last
        self._numbers = random.Random()

    def __getitem__(self, draws: Sequence[SampleId]) -> dict[str, Any]:
        numbers = self._seeded(position for _, position in draws)
        return self.dataset.batch([index for index, _ in draws], numbers, self.channels_last)

    def _seeded(self, positions: Iterable[int]) -> Iterator[random.Random]:
        for position in positions:
            self._numbers.seed(_derived_seed(self.seed, 1, position))
            yield self._numbers
