"""Metrics of pyiqa, which stands here as a module of the few lines that are used of it."""

import importlib.machinery
import importlib.util
import sys
import types

import numpy as np
import pytest
import torch
from helpers.students import ARGUMENTS

from basicsr_clsd.config import Options, check
from basicsr_clsd.config.components import Metric
from basicsr_clsd.errors import UserError
from basicsr_clsd.evaluation import metrics
from basicsr_clsd.evaluation.metrics import measure

LPIPS = {'type': 'calculate_pyiqa', 'metric': 'lpips', 'crop_border': 2, 'better': 'lower'}


@pytest.fixture
def pyiqa(monkeypatch):
    """``create_metric('lpips')`` is the mean absolute difference of R, weighed by column, and counts its making."""
    made = []

    def create_metric(name):
        if name != 'lpips':
            raise AssertionError(f'Metric {name} not implemented yet.')
        made.append(name)

        def difference(image, gt):
            assert image.shape == gt.shape == (1, 3, 16, 20) and image.dtype == torch.float32
            assert 0 <= image.min() and image.max() <= 1
            return ((image - gt)[:, 0].abs() * torch.arange(20)).mean().reshape(1, 1)

        return difference

    module = types.ModuleType('pyiqa')
    module.__spec__ = importlib.machinery.ModuleSpec('pyiqa', None)
    setattr(module, 'create_metric', create_metric)  # noqa: B010  (a module has no such attribute for pyright)
    monkeypatch.setitem(sys.modules, 'pyiqa', module)
    metrics._metric.cache_clear()
    yield made
    metrics._metric.cache_clear()


def options(**metrics) -> Options:
    sets = {'test': {'dataroot_gt': 'HR', 'dataroot_lq': 'LR'}}
    network = {'type': 'EDSR', **ARGUMENTS}
    val = {'protocol': 'y_crop_scale', 'metrics': metrics}
    return Options.model_validate({'name': 'a', 'scale': 2, 'network_g': network, 'datasets': sets, 'val': val})


def test_images_reach_the_metric_as_rgb_without_border(pyiqa):
    rng = np.random.default_rng(0)
    image, gt = (rng.integers(0, 256, (20, 24, 3)).astype(np.uint8) for _ in range(2))
    with_lpips = options(lpips=LPIPS)
    check(with_lpips, testing=True)
    values = [measure(image, gt, with_lpips.val.metrics) for _ in range(2)]
    assert list(values[0]) == ['psnr', 'ssim', 'lpips']
    red = np.abs(image[2:-2, 2:-2, 2].astype(float) - gt[2:-2, 2:-2, 2]) / 255
    assert values[0]['lpips'] == pytest.approx((red * np.arange(20)).mean(), abs=1e-6)
    assert values[0] == values[1] and pyiqa == ['lpips']
    gray = {'lpips': Metric.model_validate(LPIPS)}
    assert measure(image[..., 2], gt[..., 2], gray)['lpips'] == values[0]['lpips']


def test_a_metric_that_pyiqa_does_not_have(pyiqa):
    image = np.zeros((20, 24, 3), np.uint8)
    metrics = {'x': Metric.model_validate({**LPIPS, 'metric': 'lpipz'})}
    with pytest.raises(UserError, match="pyiqa cannot make the metric 'lpipz': Metric lpipz not implemented yet"):
        measure(image, image, metrics)


def test_a_metric_without_its_name(pyiqa):
    with pytest.raises(UserError, match=r'val\.metrics\.lpips\.metric: missing'):
        check(options(lpips={'type': 'calculate_pyiqa'}), testing=True)


def test_without_the_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(UserError, match=r"metrics\.lpips: pyiqa is not installed; pip install 'basicsr-clsd\[perc"):
        check(options(lpips=LPIPS), testing=True)
