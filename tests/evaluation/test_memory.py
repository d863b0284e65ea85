"""``test.py`` in a process whose memory does not suffice for a whole image."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.students import ARGUMENTS, student

pytestmark = pytest.mark.slow

WIDE = {'num_feat': 64}
ROOM = 192 * 2**20  # of the whole image, 64 channels at 500x500 pixels take 61 MiB, and four such are needed at once


def results(folder: Path, name: str) -> dict[str, Any]:
    return json.loads((folder / 'results' / name / 'results.json').read_text(encoding='utf-8'))


@pytest.fixture
def large(benchmark_options, make_pairs, tmp_path):
    """A test of one image of 500x500 LR pixels with a wide student."""
    hr, lr = make_pairs(tmp_path / 'Large', count=1, height=1000, width=1000)
    torch.save({'params': student(0, **WIDE).state_dict()}, tmp_path / 'wide.pth')
    return {
        **benchmark_options,
        'network_g': {'type': 'EDSR', **ARGUMENTS, **WIDE},
        'networks': {'wide': {'checkpoint': str(tmp_path / 'wide.pth')}},
        'datasets': {'test_1': {'name': 'Large', 'dataroot_gt': str(hr), 'dataroot_lq': str(lr)}},
    }


@pytest.mark.skipif(sys.platform != 'linux', reason='memory is limited by Linux')
def test_smaller_tiles_when_memory_really_runs_out(large, tested, run_command, write_yaml, tmp_path):
    whole = tested(large)
    assert whole['networks']['wide']['tile'] is None
    opt = write_yaml(tmp_path / 'little.yml', {**large, 'name': 'little'})
    ended = run_command('test', '-opt', opt, accident={'memory': ROOM})
    assert ended.code == 0, ended.err
    little = results(tmp_path, 'little')
    tile = little['networks']['wide']['tile']
    assert tile in (250, 125, 63, 32)
    assert f'wide: memory ran out; going on in tiles of {tile} pixels' in ended.out + ended.err
    assert little['notes'] == [{'row': 'wide', 'kind': 'tiles', 'text': f'tiles of {tile} pixels, overlap 6'}]
    mean, expected = (content['sets']['Large']['wide']['mean'] for content in (little, whole))
    assert mean['psnr'] == pytest.approx(expected['psnr'], abs=1e-3)
    assert mean['ssim'] == pytest.approx(expected['ssim'], abs=1e-4)


@pytest.mark.skipif(sys.platform != 'linux', reason='memory is limited by Linux')
def test_an_output_of_1280x720_that_does_not_fit_costs_no_result(large, run_command, write_yaml, tmp_path):
    opt = write_yaml(tmp_path / 'little.yml', {**large, 'val': {'tile': 64}})
    ended = run_command('test', '-opt', opt, accident={'memory': ROOM})
    assert ended.code == 0, ended.err
    content = results(tmp_path, large['name'])
    assert content['networks']['wide']['latency_failure'] == 'memory ran out'
    text = 'no time and memory of an output of 1280x720: memory ran out'
    assert content['notes'] == [
        {'row': 'wide', 'kind': 'tiles', 'text': 'tiles of 64 pixels, overlap 6'},
        {'row': 'wide', 'kind': 'no_latency', 'text': text},
    ]
    assert f'wide: {text}' in ended.out
