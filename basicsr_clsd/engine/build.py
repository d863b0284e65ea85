"""From checked options to the data sets, the loader and the model that they name."""

import torch
from torch.utils.data import DataLoader

from basicsr_clsd import registry
from basicsr_clsd.config import Options
from basicsr_clsd.config.schema import Dataset
from basicsr_clsd.data import PairedDataset
from basicsr_clsd.data.sampler import PatchBatches, PositionBatchSampler
from basicsr_clsd.engine.signals import leave_to_parent
from basicsr_clsd.models import SupervisedModel
from basicsr_clsd.runtime.device import training_device
from basicsr_clsd.runtime.distributed import Processes


def build_dataset(options: Options, section: Dataset, phase: str) -> PairedDataset:
    """Build the data set of a section; ``phase`` is ``train``, ``val`` or ``test``."""
    kind = registry.find('data', section.type, f'datasets.{section.name}.type')
    return kind({**section.as_dict(), 'phase': phase, 'scale': options.scale})


def build_loader(
    options: Options, dataset: PairedDataset, seed: int, processes: Processes, iteration: int = 0
) -> DataLoader:
    """Build what yields this process's batches, from those of the iteration after ``iteration`` to the last.

    An iteration takes ``train.accum_iter`` batches. Their patches follow from the seed and their number alone.
    """
    section, train = options.datasets['train'], options.train
    assert train is not None
    sampler = PositionBatchSampler(
        images=len(dataset),
        enlarge=section.dataset_enlarge_ratio,
        batch_size=section.batch_size_per_gpu,
        first=iteration * train.accum_iter,
        last=train.total_iter * train.accum_iter,
        seed=seed,
        rank=processes.rank,
        world=processes.world,
    )
    return DataLoader(
        PatchBatches(dataset, seed, train.channels_last),
        sampler=sampler,
        batch_size=None,  # the data set makes whole batches
        num_workers=section.num_worker_per_gpu,
        pin_memory=section.pin_memory and training_device(options.num_gpu).type != 'cpu',
        worker_init_fn=leave_to_parent,
        # Its own generator: the loader must not draw from the one whose state is checkpointed.
        generator=torch.Generator().manual_seed(seed),
    )


def build_model(options: Options) -> SupervisedModel:
    """Build the model that the options name, with its network, weights, losses and optimizer."""
    return registry.find('models', options.model_type, 'model_type')(options)
