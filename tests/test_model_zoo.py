"""The cards of the model zoo, against what its models do."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from basicsr.metrics import calculate_psnr

from basicsr_clsd.networks.zoo import SUFFIXES, ZOO

README = (ZOO / 'README.md').read_text(encoding='utf-8')
CARDS = re.findall(r'^\| `(\S+)\.pth` \|.* ([\d.]+) / [\d.]+ \|$', README, re.MULTILINE)


def test_every_model_has_a_card():
    assert sorted(name for name, _ in CARDS) == sorted(file.stem for file in ZOO.glob('*') if file.suffix in SUFFIXES)


@pytest.mark.slow
@pytest.mark.parametrize(('name', 'psnr'), CARDS)
def test_card_has_what_infer_reaches_on_set14(run_command, benchmark_data, tmp_path: Path, name: str, psnr: str):
    scale = int(name[-1])
    ended = run_command('infer', '-m', name, '-i', benchmark_data / 'Set14' / f'LRbicx{scale}', '-o', tmp_path, '--cpu')
    assert ended.code == 0
    reached, bicubic = [], []
    for path in sorted((benchmark_data / 'Set14' / 'HR' / f'x{scale}').glob('*.png')):
        folder = benchmark_data / 'Set14' / f'LRbicx{scale}'
        gt, lq = cv2.imread(str(path)), cv2.imread(str(folder / path.name))
        assert gt is not None
        assert lq is not None
        plain = cv2.resize(lq, gt.shape[1::-1], interpolation=cv2.INTER_CUBIC)
        for sr, values in ((cv2.imread(str(tmp_path / f'{path.stem}_x{scale}.png')), reached), (plain, bicubic)):
            values.append(calculate_psnr(sr, gt, crop_border=scale, test_y_channel=True))
    assert len(reached) == 14
    assert np.mean(reached) == pytest.approx(float(psnr), abs=0.01)
    assert np.mean(reached) > np.mean(bicubic) + 1
