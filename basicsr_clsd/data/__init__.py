"""Data sets, registered in BasicSR's ``DATASET_REGISTRY``, and what feeds them."""

from basicsr_clsd.data.paired_dataset import PairedDataset

__all__ = ['PairedDataset']
