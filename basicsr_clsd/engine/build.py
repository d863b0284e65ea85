"""From checked options to the data sets and the model that they name."""

from basicsr_clsd import registry
from basicsr_clsd.config import Options
from basicsr_clsd.config.schema import Dataset
from basicsr_clsd.data import PairedDataset
from basicsr_clsd.models import SupervisedModel


def build_dataset(options: Options, section: Dataset, phase: str) -> PairedDataset:
    """Build the data set of a section; ``phase`` is ``train``, ``val`` or ``test``."""
    kind = registry.find('data', section.type, f'datasets.{section.name}.type')
    return kind({**section.as_dict(), 'phase': phase, 'scale': options.scale})


def build_model(options: Options) -> SupervisedModel:
    """Build the model that the options name, with its network, weights, losses and optimizer."""
    return registry.find('models', options.model_type, 'model_type')(options)
