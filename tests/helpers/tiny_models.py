"""Models of tiny options, and batches for them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from basicsr_clsd.config import Options
from basicsr_clsd.engine.build import build_model
from basicsr_clsd.models import SupervisedModel


@pytest.fixture
def make_model(tmp_path: Path, tiny_options: Callable[..., dict[str, Any]]) -> Callable[..., SupervisedModel]:
    """``make_model(changes, seed=0)``: the model of ``tiny_options`` with changes."""

    def make(changes: dict[str, Any] | None = None, seed: int = 0) -> SupervisedModel:
        torch.manual_seed(seed)
        return build_model(Options.model_validate(tiny_options(tmp_path, changes)))

    return make


@pytest.fixture
def make_batch() -> Callable[..., dict[str, Any]]:
    """``make_batch(seed=0, count=4)``: LR images of 8x8 pixels and HR images of 16x16."""

    def make(seed: int = 0, count: int = 4) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(seed)
        return {
            'lq': torch.rand(count, 3, 8, 8, generator=generator),
            'gt': torch.rand(count, 3, 16, 16, generator=generator),
            'gt_path': [f'HR/{number}.png' for number in range(count)],
        }

    return make
