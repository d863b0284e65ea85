"""What the tests of inference share: a student with random weights, and what it makes of an image."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.students import student

from basicsr_clsd.runtime.files import save


@pytest.fixture(scope='session')
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``net_g_latest.pth``, an EDSR of a block and 8 channels, x2."""
    path = tmp_path_factory.mktemp('model') / 'net_g_latest.pth'
    save({'params': student(0).state_dict()}, path)
    return path


@pytest.fixture(scope='session')
def expected() -> Callable[[np.ndarray], np.ndarray]:
    """``expected(image)``: what the student of ``model`` makes of RGB (H, W, 3), whole, as uint8 or uint16."""
    network = student(0)

    def run(image: np.ndarray) -> np.ndarray:
        white = np.iinfo(image.dtype).max
        lq = torch.from_numpy(image.astype(np.float64) / white).float().permute(2, 0, 1)[None]
        sr = network(lq)[0].permute(1, 2, 0).numpy()
        return np.round(np.clip(sr, 0, 1) * white).astype(image.dtype)

    return run


def assert_close(found: np.ndarray, wanted: np.ndarray) -> None:
    """Equal but for the rounding of another order of summation."""
    assert found.shape == wanted.shape and found.dtype == wanted.dtype
    steps = 1 if found.dtype == np.uint8 else 3
    assert np.abs(found.astype(int) - wanted.astype(int)).max() <= steps


@pytest.fixture
def close() -> Any:
    return assert_close
