"""What makes a training slower than it need be, told at its start."""

from collections.abc import Iterator

import torch

from basicsr_clsd.config.training import Train
from basicsr_clsd.data import PairedDataset


def advice(train: Train, images: PairedDataset, device: torch.device) -> Iterator[str]:
    """Yield a line for each thing that could be faster.

    Args:
        train: How is trained.
        images: On what.
        device: Where.
    """
    if device.type != 'cpu' and images.decodes:
        folders = 'HR LR' if images.opt.get('dataroot_lq') is None else f'{images.gt.root} {images.lq.root}'
        yield (
            'The loader decodes a whole image for each patch, and the GPU waits for it. Without decoding: python '
            f'scripts/prepare_data.py lmdb {folders} --raw, with both folders in datasets.train'
        )
    if device.type == 'cpu' and train.compile and train.channels_last and train.precision == 'bf16':
        yield 'train.compile makes a training in bf16 with channels_last slower on a CPU; leave it out'
