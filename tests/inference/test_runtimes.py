"""Other runtimes than torch: the same pictures, which is chosen, and one line for what cannot be."""

import importlib.util
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from basicsr.archs import build_network
from basicsr.metrics import calculate_psnr
from helpers.students import student, write_onnx

from basicsr_clsd import Upscaler
from basicsr_clsd.errors import UserError
from basicsr_clsd.inference.choice import COST, LEAST_PSNR, choose
from basicsr_clsd.inference.loader import load
from basicsr_clsd.inference.runtimes import PACKAGES, is_installed

RUNTIMES = ('onnxruntime', 'openvino', 'ncnn')
CPU = torch.device('cpu')


def need(*runtimes: str) -> None:
    for runtime in runtimes:
        if not is_installed(runtime):
            pytest.skip(f'{runtime} is not installed')


def photo(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels)).astype(np.uint8)


@pytest.mark.parametrize('runtime', RUNTIMES)
def test_values_are_those_of_torch_at_any_size(model, runtime):
    need(runtime)
    plain, network = load(model), load(model, runtime=runtime)
    assert (network.scale, network.channels, network.receptive_field) == (2, 3, 6)
    assert network.parameters == plain.parameters and network.macs((1, 3, 9, 8)) == plain.macs((1, 3, 9, 8))
    for shape in ((1, 3, 1, 1), (2, 3, 7, 13), (1, 3, 64, 64)):
        lq = torch.rand(shape).to(memory_format=torch.channels_last)
        torch.testing.assert_close(network.upscale(lq), plain.upscale(lq), rtol=0, atol=1e-4)


@pytest.mark.parametrize('runtime', RUNTIMES)
def test_tiles_ensemble_and_transparency_are_those_of_torch(model, close, runtime):
    need(runtime)
    for channels, settings in ((4, {'tile': 9}), (3, {'ensemble': True}), (1, {})):
        given = photo(23, 31, channels)
        close(Upscaler(model, runtime=runtime, **settings)(given), Upscaler(model, **settings)(given))


def test_luma(tmp_path, close):
    need(*RUNTIMES)
    section = {'type': 'ECBSR', 'num_in_ch': 1, 'num_out_ch': 1, 'num_block': 1, 'num_channel': 8}
    section |= {'with_idt': True, 'act_type': 'prelu', 'scale': 2}
    torch.manual_seed(0)
    torch.save({'params': build_network(dict(section)).state_dict()}, tmp_path / 'net.pth')
    (tmp_path / 'opt.yml').write_text(f'name: x\nscale: 2\nnetwork_g: {section}\n')
    plain, *others = (
        Upscaler(tmp_path / 'net.pth', options=tmp_path / 'opt.yml', runtime=name) for name in ('torch', *RUNTIMES)
    )
    for other in others:
        close(other(photo(9, 14)), plain(photo(9, 14)))


def test_onnx_files_run_by_openvino_too(tmp_path):
    need('onnxruntime', 'openvino')
    write_onnx(student(0), tmp_path / 'net.onnx')
    found, wanted = (load(tmp_path / 'net.onnx', runtime=name) for name in ('openvino', None))
    lq = torch.rand(1, 3, 9, 14)
    torch.testing.assert_close(found.upscale(lq), wanted.upscale(lq), rtol=0, atol=1e-5)
    for name in ('torch', 'ncnn'):
        with pytest.raises(UserError, match=rf'runs by onnxruntime or openvino, not by {name}$'):
            load(tmp_path / 'net.onnx', runtime=name)


SIGNALLED = """
import os, signal, sys
from basicsr_clsd import Upscaler
signal.signal(signal.SIGUSR1, lambda *given: print('told'))
networks = [Upscaler(sys.argv[1], runtime='openvino') for _ in range(2)]
while networks:
    del networks[0]
os.kill(os.getpid(), signal.SIGUSR1)
"""


def test_signals_are_handled_after_openvino_networks_have_gone(model):
    need('openvino')
    ended = subprocess.run([sys.executable, '-c', SIGNALLED, model], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, 'told\n'), ended.stderr


def test_commands(model, run_command, tmp_path):
    need('onnxruntime')
    assert cv2.imwrite(str(tmp_path / 'photo.png'), photo(20, 30))
    pictures = []
    for runtime in ('torch', 'onnxruntime', 'auto'):
        out = tmp_path / f'{runtime}.png'
        ended = run_command('infer', '-i', tmp_path / 'photo.png', '-o', out, '-m', model, '--runtime', runtime)
        assert ended.code == 0 and ended.err == ''
        assert (', fp32' in ended.out) == (runtime == 'auto')  # it says what it took
        pictures.append(cv2.imread(str(out)).astype(int))
    assert all(np.abs(picture - pictures[0]).max() <= 1 for picture in pictures)
    ended = run_command(
        'infer', '-i', tmp_path, '-o', tmp_path, '-m', model, '--runtime', 'ncnn', '--precision', 'bf16'
    )
    assert ended.code == 2 and ended.err == 'error: precision bf16: ncnn has fp32\n'


@pytest.mark.parametrize('runtime', RUNTIMES)
def test_a_runtime_that_is_not_installed(model, monkeypatch, runtime):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    extra, *packages = PACKAGES[runtime]
    names = ' and '.join(packages)
    with pytest.raises(UserError, match=rf"^{names} are not installed; pip install 'basicsr-clsd\[{extra}\]'$"):
        Upscaler(model, runtime=runtime)
    assert Upscaler(model, runtime='auto', precision='fp32').choice == 'torch, fp32'


def test_what_a_runtime_cannot_take_names_the_operator(tmp_path):
    need('ncnn', 'onnxruntime')
    section = {'type': 'SwinIR', 'upscale': 2, 'img_size': 8, 'window_size': 8, 'depths': [1], 'embed_dim': 8}
    section |= {'num_heads': [2], 'upsampler': 'pixelshuffledirect', 'in_chans': 3, 'mlp_ratio': 2}
    torch.save({'params': build_network(dict(section)).state_dict()}, tmp_path / 'net.pth')
    (tmp_path / 'opt.yml').write_text(f'name: x\nscale: 2\nnetwork_g: {section}\n')
    for name, fault in (
        ('ncnn', 'SwinIR: ncnn has no .*torch.unbind'),
        ('onnxruntime', 'SwinIR: attends within windows'),
    ):
        with pytest.raises(UserError, match=fault):
            Upscaler(tmp_path / 'net.pth', options=tmp_path / 'opt.yml', runtime=name)


class Made:
    """A network of a known speed and a known error."""

    channels, device = 3, torch.device('cpu')

    def __init__(self, seconds: float, error: float = 0.0) -> None:
        self.seconds, self.error = seconds, error

    def upscale(self, lq: torch.Tensor) -> torch.Tensor:
        time.sleep(self.seconds)
        return lq + self.error


def chosen(ways: dict[tuple[str, str], Made | None], precision: str = 'fp32') -> str:
    """What is chosen of networks by runtime and precision, of which None cannot be opened."""

    def open_network(runtime: str, kind: str) -> Made:
        made = ways.get((runtime, kind))
        if made is None:
            raise UserError('no')
        return made

    return choose(open_network, tuple(dict.fromkeys(name for name, _ in ways)), precision, CPU).text


def test_the_fastest_of_equals_is_chosen():
    need('openvino', 'onnxruntime')
    slow, quick, wrong = Made(0.1), Made(0.01), Made(0, 0.01)
    assert chosen({('torch', 'fp32'): quick, ('openvino', 'fp32'): slow}) == 'torch, fp32'
    assert chosen({('torch', 'fp32'): slow, ('openvino', 'fp32'): quick}).startswith('openvino, fp32: ')
    assert chosen({('torch', 'fp32'): slow, ('openvino', 'fp32'): wrong}) == 'torch, fp32'
    ways = {('torch', 'fp32'): slow, ('onnxruntime', 'fp32'): None, ('openvino', 'fp32'): quick}
    assert chosen(ways).startswith('openvino, fp32: ')


def test_bf16_is_chosen_where_it_is_faster_and_costs_little(monkeypatch):
    monkeypatch.setattr('basicsr_clsd.inference.choice.computes_bf16', lambda num_gpu: True)
    error = 10 ** (-LEAST_PSNR / 20)
    slow, near, far = Made(0.1), Made(0.01, 0.9 * error), Made(0.01, 1.1 * error)
    assert chosen({('torch', 'fp32'): slow, ('torch', 'bf16'): near}, 'auto').startswith('torch, bf16: ')
    assert chosen({('torch', 'fp32'): slow, ('torch', 'bf16'): far}, 'auto') == 'torch, fp32'
    assert chosen({('torch', 'fp32'): near, ('torch', 'bf16'): slow}, 'auto') == 'torch, fp32'
    monkeypatch.setattr('basicsr_clsd.inference.choice.computes_bf16', lambda num_gpu: False)
    assert chosen({('torch', 'fp32'): slow, ('torch', 'bf16'): near}, 'auto') == 'torch, fp32'


@pytest.mark.slow
@pytest.mark.parametrize('name', ['small_EDSR_x2', 'small_teacher_x2'])
def test_bf16_costs_no_more_than_it_may(benchmark_data: Path, name: str):
    full, half = Upscaler(name, gpu=False), Upscaler(name, precision='bf16', gpu=False)
    for folder in (benchmark_data / 'Set5', benchmark_data / 'Set14'):
        change = []
        for path in sorted((folder / 'LRbicx2').glob('*.png')):
            lq, gt = cv2.imread(str(path)), cv2.imread(str(folder / 'HR' / 'x2' / path.name))
            images = (upscaler(np.ascontiguousarray(lq[..., ::-1]))[..., ::-1] for upscaler in (full, half))
            change.append(np.subtract(*(calculate_psnr(sr, gt, crop_border=2, test_y_channel=True) for sr in images)))
        assert np.mean(change) <= COST
