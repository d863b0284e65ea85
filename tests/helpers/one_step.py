"""An iteration of a training, without a loader."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from basicsr_clsd.models import SupervisedModel


def step(model: SupervisedModel, batch: Mapping[str, Any], iteration: int = 1) -> dict[str, float]:
    """Train a model on a batch; return what it logs of that."""
    model.update_learning_rate(iteration)
    model.feed_data(batch)
    model.optimize_parameters(iteration)
    return {name: float(value) for name, value in model.log_dict.items()}


def descends(
    model: SupervisedModel, trained: nn.Module, batch: Mapping[str, Any], wanted: Mapping[str, Tensor]
) -> None:
    """A step of SGD at 1e-4 must log these terms, and move what is trained along the gradient of their sum."""
    parameters = dict(trained.named_parameters())
    before = {name: value.detach().clone() for name, value in parameters.items()}
    gradients = torch.autograd.grad(torch.stack(list(wanted.values())).sum(), list(parameters.values()))
    terms = {name: value.item() for name, value in wanted.items()}
    assert step(model, batch) == pytest.approx({**terms, 'L_total': sum(terms.values()), 'done': 1}, rel=1e-5)
    for (name, value), gradient in zip(parameters.items(), gradients, strict=True):
        torch.testing.assert_close(value.data, before[name] - 1e-4 * gradient, rtol=1e-4, atol=1e-7)
