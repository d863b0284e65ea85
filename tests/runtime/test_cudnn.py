"""The flags of cuDNN where networks run: in a training as the options say, in fp32 wherever images are measured."""

import pytest
import torch
from rich.console import Console

from basicsr_clsd.config import Options
from basicsr_clsd.engine.trainer import Trainer
from basicsr_clsd.inference.loader import load
from basicsr_clsd.runtime.cudnn import CUDNN, MATMUL
from basicsr_clsd.runtime.distributed import Processes


@pytest.fixture(autouse=True)
def flags():
    """``flags()``: TF32 in convolutions and in products, deterministic, benchmark. They are restored after the test."""

    def now():
        return CUDNN.allow_tf32, MATMUL.allow_tf32, CUDNN.deterministic, CUDNN.benchmark

    before = now()
    yield now
    CUDNN.allow_tf32, MATMUL.allow_tf32, CUDNN.deterministic, CUDNN.benchmark = before


@pytest.fixture
def seen(flags):
    """``seen(network)``: a list of the flags each time that the network runs from now on."""

    def watch(network):
        found = []
        # At a layer, as validation does not call the network but its forward.
        layer = next(module for module in network.modules() if not list(module.children()))
        layer.register_forward_pre_hook(lambda *_: found.append(flags()))
        return found

    return watch


@pytest.mark.parametrize(('precision', 'tf32'), [('fp32', False), ('tf32', True)])
def test_photos_and_tests_are_in_fp32_unless_tf32_is_asked_for(flags, seen, monkeypatch, precision, tf32):
    monkeypatch.setattr('basicsr_clsd.inference.torch_network.fused', lambda module, *_: module)
    network = load('small_EDSR_x2', channels=3, precision=precision, gpu=False)
    found = seen(network.module)  # pyright: ignore[reportAttributeAccessIssue]
    CUDNN.allow_tf32, MATMUL.allow_tf32, CUDNN.benchmark = True, True, True
    before = flags()
    network.upscale(torch.rand(1, 3, 8, 8))
    assert found == [(tf32, False, before[2], False)]
    assert flags() == before


@pytest.mark.parametrize('train', [{}, {'tf32': False, 'deterministic': False, 'cudnn_benchmark': True}])
def test_training_computes_as_its_options_say_and_validates_in_fp32(
    tiny_options, tmp_path, make_pairs, make_batch, flags, seen, train
):
    for name in ('train', 'val'):
        make_pairs(tmp_path / name)
    MATMUL.allow_tf32 = True
    trainer = Trainer(Options.model_validate(tiny_options(tmp_path, {'train': train})), Console(), Processes())
    wanted = train.get('tf32', True), False, train.get('deterministic', True), train.get('cudnn_benchmark', False)
    model = trainer.model
    found = seen(model.net_g)
    model.feed_data(make_batch())
    model.optimize_parameters(1)
    assert found == [wanted] == [flags()]
    found.clear()
    model.upscale(torch.rand(1, 3, 8, 8))
    assert found == [(False, False, wanted[2], False)]
    assert flags() == wanted
