"""The benchmarks of inference and of devices: their command lines at their smallest, and what they write."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from basicsr.metrics import calculate_psnr
from conftest import REPO
from helpers.students import student

pytestmark = pytest.mark.slow


def benchmark(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, REPO / 'scripts' / 'benchmarks' / f'{name}.py', *arguments]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, timeout=600)


def test_devices(tmp_path, make_pairs):
    for package in ('onnx', 'onnxruntime'):
        pytest.importorskip(package)
    network = student(0)
    torch.save({'params': network.state_dict()}, tmp_path / 'net_x2.pth')
    hr, lr = make_pairs(tmp_path / 'Flowers', count=2, height=36, width=44)
    settings = ['--ways', 'torch fp32', '--size', '20x12', '--repeats', 2, '--psnr', f'{hr}:{lr}']
    written = ['--json', tmp_path / 'found.json', '--figure', tmp_path / 'found.png']
    done = benchmark('devices', '-m', tmp_path / 'net_x2.pth', *settings, *written)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / 'found.json').read_text())['rows']
    assert [row['way'] for row in rows] == ['torch fp32', 'onnxruntime fp32']
    values = [psnr(network, hr / path.name, path) for path in sorted(lr.iterdir())]
    for row in rows:
        assert row['psnr'] == {'Flowers': pytest.approx(np.mean(values), abs=1e-3)}
        assert len(row['seconds']) == 2 and min(row['seconds']) > 0 and row['bytes'] > 4 * 2000  # parameters, float32
        assert f'| {row["way"]} | {row["megapixels_per_s"]:.2f} |' in done.stdout
    assert rows[1]['x_onnxruntime'] == 1
    assert rows[0]['megapixels_per_s'] == pytest.approx(4 * 20 * 12 / 1e6 / np.median(rows[0]['seconds']))
    assert cv2.imread(str(tmp_path / 'found.png')) is not None


def psnr(network: torch.nn.Module, hr: Path, lr: Path) -> float:
    """Of one image on Y, by BasicSR's own hands."""
    gt, lq = cv2.imread(str(hr)), cv2.imread(str(lr))
    image = torch.from_numpy(lq[..., ::-1].transpose(2, 0, 1)[None].astype(np.float32) / 255)
    sr = (network(image)[0].clamp(0, 1) * 255).round().permute(1, 2, 0).numpy().astype(np.uint8)[..., ::-1]
    return calculate_psnr(sr, gt, crop_border=2, test_y_channel=True)


def test_inference(tmp_path, make_pairs):
    hr, lr = make_pairs(tmp_path / 'Flowers', count=1, height=36, width=44)
    tiny = ['--scales', 2, '--width', 8, '--blocks', 1, '--sizes', '16x12', '--repeats', 2, '--threads', 1]
    ways = ['--ways', 'Upscaler', 'Upscaler, bf16', '--psnr', f'{hr}:{lr}']
    done = benchmark('inference', '--device', 'cpu', *tiny, *ways, '--json', tmp_path / 'found.json')
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / 'found.json').read_text())
    assert [case['way'] for case in found['cases']] == ['BasicSR', 'Upscaler', 'Upscaler, bf16']
    assert [case['difference'] <= 1 for case in found['cases']] == [True] * 3
    assert found['cases'][0]['x_basicsr'] == 1 and all(len(case['seconds']) == 2 for case in found['cases'])
    assert [row['way'] for row in found['psnr']] == ['BasicSR', 'Upscaler, bf16']
    assert abs(found['psnr'][1]['change']) < 0.1
    assert found['machine']['device'] == 'CPU' and len(found['bars']) == 3


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_inference_without_a_gpu_is_told():
    done = benchmark('inference', '--device', 'cuda')
    assert done.returncode == 2 and done.stderr.endswith('error: torch finds no GPU\n')
