"""Parameters and multiply-accumulates against what the layers add up to; time and memory as far as they can be told."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.students import ARGUMENTS

from basicsr_clsd import registry
from basicsr_clsd.config import Options
from basicsr_clsd.config.components import Component
from basicsr_clsd.evaluation.complexity import lr_shape, measure_cost
from basicsr_clsd.evaluation.evaluated import EvaluatedModel
from basicsr_clsd.inference.torch_network import TorchNetwork

ROOT = Path(__file__).resolve().parents[2]


def network(**section) -> TorchNetwork:
    scale = section.get('upscale', 2)
    section = {'type': 'EDSR', **ARGUMENTS, **section}
    component = Component.model_validate(section)
    return TorchNetwork(registry.build('archs', component, 'network_g'), component, scale)


def edsr_by_hand(features: int, blocks: int, scale: int) -> tuple[int, int]:
    """Parameters, and multiply-accumulates per LR pixel, of a network of 3x3 convolutions."""
    ups = [2, 2] if scale == 4 else [scale]
    layers = [(3, features, 1), *[(features, features, 1)] * (2 * blocks + 1)]
    area = 1
    for up in ups:
        layers.append((features, features * up**2, area))
        area *= up**2
    layers.append((features, 3, area))
    parameters = sum(9 * given * made + made for given, made, _ in layers)
    return parameters, sum(9 * given * made * area for given, made, area in layers)


@pytest.mark.parametrize('scale', [2, 3, 4])
def test_parameters_and_macs_of_edsr(scale):
    edsr = network(num_feat=16, num_block=3, upscale=scale)
    parameters, macs = edsr_by_hand(16, 3, scale)
    _, _, height, width = shape = lr_shape(scale)
    assert (height, width) == {2: (360, 640), 3: (240, 427), 4: (180, 320)}[scale]
    assert edsr.parameters == parameters
    assert edsr.macs(shape) == macs * height * width


def test_the_papers_student_has_the_published_parameters():
    assert network(num_feat=64, num_block=16).parameters == pytest.approx(1.37e6, rel=0.01)


def test_heads_are_not_part_of_what_is_deployed():
    heads = network(type='EDSRHeads', num_block=2, head_taps=[1], head_num_block=2)
    plain = network(num_block=2)
    assert (heads.parameters, heads.macs(lr_shape(2))) == (plain.parameters, plain.macs(lr_shape(2)))


def test_counting_leaves_the_network_as_it_was():
    edsr, lq = network(), torch.rand(1, 3, 8, 8)
    before = edsr.upscale(lq)
    edsr.macs(lr_shape(2))
    assert torch.equal(edsr.upscale(lq), before)


def test_matrix_products_of_a_transformer_count():
    swin = network(
        type='SwinIR', img_size=8, window_size=4, depths=[2], embed_dim=8, num_heads=[2], mlp_ratio=2,
        upsampler='pixelshuffledirect', num_in_ch=None, num_out_ch=None, num_feat=None, num_block=None,
    )  # fmt: skip
    assert (swin.macs((1, 3, 16, 16)) or 0) == 4 * (swin.macs((1, 3, 8, 8)) or 0) > 0


def test_time_is_of_a_few_runs():
    def upscale(lq: torch.Tensor) -> torch.Tensor:
        calls.append(tuple(lq.shape))
        return lq

    calls: list[tuple[int, ...]] = []
    seconds, _ = measure_cost(upscale, (1, 3, 8, 8), torch.device('cpu'))
    assert seconds > 0 and set(calls) == {(1, 3, 8, 8)} and 2 <= len(calls) <= 11


# In a process of its own: what else has run in one decides what its allocator keeps.
MEMORY = """
import torch
from basicsr_clsd.evaluation.complexity import measure_cost

print(measure_cost(lambda lq: torch.ones(40 * 2**20, dtype=torch.uint8), (1, 3, 8, 8), torch.device('cpu'))[1])
"""


def test_memory_is_what_a_run_takes():
    done = subprocess.run([sys.executable, '-c', MEMORY], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == 'None\n' or 0.9 < int(done.stdout) / (40 * 2**20) < 1.5


@pytest.mark.parametrize(
    ('error', 'told'),
    [
        (RuntimeError('CUDA out of memory. Tried to allocate'), 'memory ran out'),
        (MemoryError(), 'memory ran out'),
        (RuntimeError('sides must be multiples of 64\nsee above'), 'sides must be multiples of 64'),
    ],
)
def test_an_output_that_cannot_be_made_is_no_failure_of_the_test(error, told, monkeypatch):
    def upscale(lq: torch.Tensor) -> torch.Tensor:
        raise error

    unable = network()
    monkeypatch.setattr(unable, 'upscale', upscale)
    section = {'type': 'EDSR', **ARGUMENTS}
    options = Options.model_validate({'name': 'a', 'scale': 2, 'num_gpu': 0, 'network_g': section})
    complexity = EvaluatedModel('a', 'a.pth', unable, options, ensemble=False).complexity(latency=True)
    assert (complexity.latency_s, complexity.peak_bytes, complexity.latency_failure) == (None, None, told)
    assert complexity.parameters and complexity.macs_1280x720
