"""What the tests of the evaluation share: two tiny sets, ``test.py``, and results as it writes them."""

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.students import ARGUMENTS

PSNR = {'type': 'calculate_psnr', 'color': 'y', 'border': 2}
SETS = {'Flowers': 3, 'Two': 2}


@pytest.fixture(scope='session')
def sets(tmp_path_factory: pytest.TempPathFactory, make_pairs: Callable[..., tuple[Path, Path]]) -> Path:
    """``Flowers`` and ``Two`` at x2."""
    folder = tmp_path_factory.mktemp('sets')
    for number, (name, count) in enumerate(SETS.items()):
        make_pairs(folder / name, count=count, height=26, width=32, seed=number)
    return folder


@pytest.fixture
def benchmark_options(sets: Path, tmp_path: Path) -> dict[str, Any]:
    """Options of a test on both sets, without networks."""
    return {
        'name': 'several',
        'scale': 2,
        'num_gpu': 0,
        'network_g': {'type': 'EDSR', **ARGUMENTS},
        'path': {'results_root': str(tmp_path / 'results')},
        'datasets': {
            f'test_{number}': {
                'name': name,
                'dataroot_gt': str(sets / name / 'HR'),
                'dataroot_lq': str(sets / name / 'LR'),
            }
            for number, name in enumerate(SETS)
        },
        'val': {'latency': False},
    }


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / 'results.json').read_text(encoding='utf-8'))


@pytest.fixture
def tested(tmp_path: Path, run_command, write_yaml) -> Callable[..., dict[str, Any]]:
    """``tested(options, *arguments)``: runs ``test.py``, which must succeed; returns its ``results.json``.

    ``processes``: how many share the work.
    """

    def run(options: Mapping[str, Any], *arguments: str, processes: int = 1) -> dict[str, Any]:
        opt = write_yaml(tmp_path / 'test.yml', options)
        if processes == 1:
            ended = [run_command('test', '-opt', opt, *arguments, env={**os.environ})]
        else:
            ended = run_command('test', '-opt', opt, *arguments, processes=processes)
        assert [end.code for end in ended] == [0] * processes, ended
        return results(tmp_path / 'results' / options['name'])

    return run


@pytest.fixture
def refused(tmp_path: Path, run_command, write_yaml) -> Callable[..., str]:
    """``refused(options, *arguments)``: runs ``test.py``, which must tell one line and exit with 2; returns it."""

    def run(options: Mapping[str, Any], *arguments: str) -> str:
        ended = run_command('test', '-opt', write_yaml(tmp_path / 'test.yml', options), *arguments)
        assert ended.code == 2, ended
        assert ended.err.startswith('error: ') and ended.err.count('\n') == 1, ended.err
        assert not (tmp_path / 'results').exists()
        return ended.err.removeprefix('error: ').strip()

    return run


def mean_of(values: list[float]) -> float:
    return float(np.mean([value for value in values if math.isfinite(value)] or values))


@pytest.fixture
def write_results(tmp_path) -> Callable[..., Path]:
    """``write_results(name, sets, **keys)``: writes ``NAME/results.json``; ``sets[set][row]`` is PSNR per image.

    The images are called a, b, ...; the mean is that of the finite values.
    """

    def write(name: str, sets: Mapping[str, Mapping[str, list[float]]], **keys: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        content = {
            'name': name,
            'scale': 2,
            'version': 2,
            'metrics': {'psnr': PSNR},
            'sets': {
                dataset: {
                    row: {
                        'mean': {'psnr': mean_of(values)},
                        'images': {chr(97 + n): {'psnr': value} for n, value in enumerate(values)},
                    }
                    for row, values in by_row.items()
                }
                for dataset, by_row in sets.items()
            },
            **keys,
        }
        text = json.dumps(content).replace('Infinity', '"inf"').replace('NaN', '"nan"')
        (folder / 'results.json').write_text(text, encoding='utf-8')
        return folder

    return write


@pytest.fixture
def trained() -> Callable[..., dict[str, Any]]:
    """``trained(row, seed, **options)``: the key ``networks`` of a test of one training."""

    def networks(row: str, seed: int, **options: Any) -> dict[str, Any]:
        run = {'name': row, 'manual_seed': seed, 'iteration': 10, 'options': {'manual_seed': seed, **options}}
        return {row: {'checkpoint': None, 'parameters': 1000 * (seed + 1), 'run': run}}

    return networks
