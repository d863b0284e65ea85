"""Two trainings and their tests, as the commands leave them, and the page of a report on them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from basicsr_clsd.config.components import Metric
from basicsr_clsd.evaluation.metrics import bicubic, measure
from basicsr_clsd.evaluation.results import MetricProtocol
from basicsr_clsd.reporting.html import read_sources, report_page

LIMIT = 10 * 2**20
METRICS = {
    name: Metric.model_validate({'type': f'calculate_{name}', 'crop_border': 2, 'test_y_channel': True})
    for name in ('psnr', 'ssim')
}
START = {
    'kind': 'start',
    'iter': 0,
    'time': '2026-01-01T00:00:00+00:00',
    'versions': {'basicsr-clsd': '0.1.0', 'torch': '2.15.0'},
    'device': 'x86_64 CPU',
    'threads': 2,
    'processes': 1,
    'host': 'here',
    'command': ['basicsr_clsd/train.py', '-opt', 'a.yml'],
}
TIMING = {'it_per_s': 10.0, 'data_wait': 0.1, 'memory_gib': 1.0}


def write_report_sources(folder: Path, make_pairs: Callable[..., tuple[Path, Path]]) -> Path:
    """Two trainings, and their tests (HR with noise) on two images of different sizes, as ``test.py`` leaves them."""
    hr, lr = make_pairs(folder / 'Set', count=2, height=64, width=96)
    image = cv2.imread(str(hr / 'img2.png'))
    assert image is not None
    cv2.imwrite(str(hr / 'img2.png'), image[:48])
    cv2.imwrite(str(lr / 'img2.png'), image[:48:2, ::2])
    rng = np.random.default_rng(0)
    for name, noise in (('train_EDSR_x2_seed0', 8), ('train_CLSD_x2_seed0', 4)):
        test = folder / 'results' / name
        (test / 'visualization' / 'Set').mkdir(parents=True)
        rows: dict[str, Any] = {'bicubic': {}, name: {}}
        for path in sorted(hr.iterdir()):
            gt, lq = cv2.imread(str(path)), cv2.imread(str(lr / path.name))
            assert gt is not None and lq is not None
            sr = np.clip(gt + rng.normal(0, noise, gt.shape), 0, 255).round().astype(np.uint8)
            cv2.imwrite(str(test / 'visualization' / 'Set' / f'{path.stem}_{name}.png'), sr)
            rows['bicubic'][path.stem] = measure(bicubic(lq.astype(np.uint8), 2), gt.astype(np.uint8), METRICS)
            rows[name][path.stem] = measure(sr, gt.astype(np.uint8), METRICS)
        sets = {row: {'mean': values['img1'], 'images': values} for row, values in rows.items()}
        weights = folder / 'experiments' / name / 'models' / 'net_g_latest.pth'
        run = {'name': name, 'manual_seed': 0}
        network = {'run': run, 'checkpoint': str(weights), 'images': f'visualization/{{set}}/{{image}}_{name}.png'}
        content = {'version': 2, 'name': name, 'scale': 2, 'networks': {name: network}, 'sets': {'Set': sets}}
        content['metrics'] = {name: MetricProtocol.of(metric).model_dump() for name, metric in METRICS.items()}
        content['data'] = {'Set': {'name': 'Set', 'dataroot_gt': str(hr), 'dataroot_lq': str(lr)}}
        (test / 'results.json').write_text(json.dumps(content), encoding='utf-8')
        write_training(weights.parents[1], noise)
    return folder


def write_training(folder: Path, noise: int) -> None:
    (folder / 'models').mkdir(parents=True)
    options = {'name': folder.name, 'scale': 2, 'manual_seed': 0, 'train': {'total_iter': 2000, 'weight': noise}}
    (folder / f'{folder.name}.yml').write_text(yaml.safe_dump(options), encoding='utf-8')
    rows = [
        START,
        {'kind': 'train', 'iter': 1000, 'epoch': 0, 'lr': 2e-4, 'values': {'L_SR': 4.5, 'L_CS': 1e-5}, **TIMING},
        {'iter': 1000, 'dataset': 'Set', 'metric': 'psnr', 'value': 31.0},  # as earlier versions wrote it
        {'kind': 'train', 'iter': 2000, 'epoch': 1, 'lr': 1e-4, 'values': {'L_SR': 3.5, 'L_CS': 'NaN'}, **TIMING},
        {'kind': 'validation', 'iter': 2000, 'dataset': 'Set', 'metric': 'psnr', 'value': 32.0},
    ]
    text = ''.join(json.dumps(row) + '\n' for row in rows)
    (folder / 'metrics.jsonl').write_text(text + '{"iter": 3', encoding='utf-8')  # cut off by a kill


def page_of(folder: Path, limit: int = LIMIT, title: str = 'Test') -> str:
    sources = read_sources([str(path) for path in sorted((folder / 'results').iterdir())])
    return report_page(sources, title, folder, limit, paper=True, baseline=None)
