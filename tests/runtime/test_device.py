"""Which accelerator is used for what, on machines that are only pretended."""

from types import SimpleNamespace

import pytest
import torch

from basicsr_clsd.errors import UserError
from basicsr_clsd.inference.loader import load
from basicsr_clsd.networks.check import check_output, trial_image
from basicsr_clsd.runtime import device

needs_accelerators = pytest.mark.skipif(not hasattr(torch, 'accelerator'), reason='torch 2.5 or older')


@pytest.fixture
def machine(monkeypatch):
    """``machine(kind)``: torch finds an accelerator of this kind; ``cpu``: none."""

    def use(kind):
        monkeypatch.setattr(torch.accelerator, 'is_available', lambda: kind != 'cpu')
        monkeypatch.setattr(torch.accelerator, 'current_accelerator', lambda: torch.device(kind))
        monkeypatch.setattr(torch.cuda, 'is_available', lambda: kind == 'cuda')

    return use


@needs_accelerators
@pytest.mark.parametrize('kind', ['cuda', 'xpu', 'mps', 'cpu'])
def test_photos_are_upscaled_on_any_accelerator_and_trainings_run_on_cuda(machine, kind):
    machine(kind)
    assert device.inference_device(gpu=True).type == kind
    assert device.inference_device(gpu=False).type == 'cpu'
    assert device.training_device('auto').type == ('cuda' if kind == 'cuda' else 'cpu')
    assert device.training_device(0).type == 'cpu'
    assert device.training_device(1).type == 'cuda'


def test_models_are_opened_on_the_accelerator(monkeypatch):
    placed = []
    monkeypatch.setattr(device, 'accelerator', lambda: torch.device('meta'))  # a place other than the CPU
    monkeypatch.setattr('basicsr_clsd.inference.torch_network.check_output', lambda *_: placed.append(True))
    assert load('small_EDSR_x2', channels=3).device.type == 'meta'
    assert load('small_EDSR_x2', channels=3, gpu=False).device.type == 'cpu'
    assert placed == [True, True]


def test_old_torch_knows_cuda_alone(monkeypatch):
    monkeypatch.delattr(torch, 'accelerator', raising=False)
    for there in (True, False):
        monkeypatch.setattr(torch.cuda, 'is_available', lambda there=there: there)
        assert device.accelerator() == (device.CUDA if there else None)


def test_accelerators_are_named_and_give_memory_back(machine, monkeypatch):
    released = []
    monkeypatch.setattr(torch, 'xpu', SimpleNamespace(get_device_name=str, empty_cache=lambda: released.append('xpu')))
    monkeypatch.setattr(torch, 'mps', SimpleNamespace(empty_cache=lambda: released.append('mps')))
    assert device.device_name(torch.device('xpu')) == 'xpu'
    assert device.device_name(torch.device('mps')) == 'MPS'
    if hasattr(torch, 'accelerator'):
        for kind in ('mps', 'xpu', 'cpu'):
            machine(kind)
            device.release_memory()
        assert released == ['mps', 'xpu']


def test_a_gpu_that_torch_has_no_code_for_is_not_blamed_on_the_network(monkeypatch):
    def upscale(_):
        raise RuntimeError('CUDA error: no kernel image is available for execution on the device')

    with pytest.raises(UserError, match='network_g: EDSR cannot upscale 3 channels: CUDA error'):
        check_output(upscale, trial_image(3), 2, 'network_g: EDSR')
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda: (7, 0))
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda: 'Tesla V100')
    monkeypatch.setattr(torch.cuda, 'get_arch_list', lambda: ['sm_75', 'sm_80'])
    with pytest.raises(UserError, match=r'^this torch has no code for Tesla V100 \(sm_70\); it has sm_75, sm_80'):
        check_output(upscale, trial_image(3), 2, 'network_g: EDSR')
