"""An iteration of a training, without a loader."""

from collections.abc import Mapping
from typing import Any

from basicsr_clsd.models import SupervisedModel


def step(model: SupervisedModel, batch: Mapping[str, Any], iteration: int = 1) -> dict[str, float]:
    """Train a model on a batch; return what it logs of that."""
    model.update_learning_rate(iteration)
    model.feed_data(batch)
    model.optimize_parameters(iteration)
    return {name: float(value) for name, value in model.log_dict.items()}
