"""From checked options to what they name in BasicSR's registries."""

from basicsr.utils.registry import DATASET_REGISTRY, MODEL_REGISTRY

from basicsr_clsd.config import Options
from basicsr_clsd.config.check import registered
from basicsr_clsd.config.schema import Dataset
from basicsr_clsd.data import PairedDataset
from basicsr_clsd.models import SupervisedModel


def build_dataset(options: Options, section: Dataset, phase: str) -> PairedDataset:
    """Build the data set of a section; ``phase`` is ``train``, ``val`` or ``test``."""
    return registered(DATASET_REGISTRY, section.type)({**section.as_dict(), 'phase': phase, 'scale': options.scale})


def build_model(options: Options) -> SupervisedModel:
    """Build the model that the options name, with its network, weights, losses and optimizer."""
    return registered(MODEL_REGISTRY, options.model_type)(options)
