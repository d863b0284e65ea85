"""ONNX files: the numbers of the network they were made of, and one line for what cannot be tested."""

import importlib.util

import pytest
import torch
from helpers.students import student, write_onnx

from basicsr_clsd.errors import UserError
from basicsr_clsd.inference.onnx_network import OnnxNetwork
from basicsr_clsd.inference.tiles import Tiles, receptive_field

pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')


@pytest.fixture
def path(tmp_path):
    write_onnx(student(0), tmp_path / 'net.onnx')
    return tmp_path / 'net.onnx'


def test_output_is_that_of_the_network(path):
    network, lq = OnnxNetwork(path, 2), torch.rand(1, 3, 9, 14)
    torch.testing.assert_close(network.upscale(lq), student(0)(lq), rtol=0, atol=1e-5)


def test_receptive_field_and_tiles(path):
    network, lq = OnnxNetwork(path, 2), torch.rand(1, 3, 40, 30)
    assert receptive_field(network.upscale, 2) == 6
    torch.testing.assert_close(Tiles(network.upscale, 2, tile=11)(lq), network.upscale(lq), rtol=0, atol=1e-5)


def test_macs_are_those_of_the_layers(path):
    network = OnnxNetwork(path, 2)
    per_pixel = 9 * (3 * 8 + 3 * 8 * 8 + 8 * 32 + 4 * 8 * 3)
    assert network.macs((1, 3, 10, 12)) == per_pixel * 120


def test_files_that_cannot_be_tested(path, tmp_path):
    with pytest.raises(UserError, match=r'net\.onnx: makes 3 x 64 x 64 of 3 x 32 x 32, not scale 4$'):
        OnnxNetwork(path, 4)
    with pytest.raises(UserError, match=r'net\.onnx: cannot upscale 1 channels: '):
        OnnxNetwork(path, 2, channels=1)
    write_onnx(student(0), tmp_path / 'fixed.onnx', sides=(16, 20))
    with pytest.raises(UserError, match=r'fixed\.onnx: takes images of 16 x 20 pixels alone'):
        OnnxNetwork(tmp_path / 'fixed.onnx', 2)
    for content in (b'', b'no network', path.read_bytes()[:200]):
        (tmp_path / 'bad.onnx').write_bytes(content)
        with pytest.raises(UserError, match=r'bad\.onnx: ') as told:
            OnnxNetwork(tmp_path / 'bad.onnx', 2)
        assert '\n' not in str(told.value)


def test_without_the_extra(path, monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(UserError, match=r"onnxruntime are not installed; pip install 'basicsr-clsd\[deploy\]'"):
        OnnxNetwork(path, 2)
