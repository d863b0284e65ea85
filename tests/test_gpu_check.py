"""The check of a GPU: of the one that there is, and of itself on a CPU."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from conftest import REPO

sys.path.append(str(REPO / 'scripts' / 'benchmarks'))
from gpu_parts.speed import shares

PARTS = 'ABCDEFGHI'
FAILS = """
def rows(check):
    yield Row('first', 1.0, 'at most 2', 'met')
    {fault}
"""


def check(*arguments):
    command = [sys.executable, REPO / 'scripts' / 'benchmarks' / 'gpu_check.py', *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=1800)


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason='torch finds no GPU')
@pytest.mark.parametrize('part', PARTS[:4])
def test_gpu_is_as_it_should_be(part):
    done = check('--quick', '--parts', part)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_every_part_runs_on_a_cpu(tmp_path):
    file = tmp_path / 'found.json'
    done = check('--device', 'cpu', '--quick', '--json', file)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(file.read_text())
    rows = found['rows']
    assert sorted({row['part'] for row in rows}) == list(PARTS)
    assert {row['outcome'] for row in rows} == {'met', 'skipped'}
    assert all(row['reason'] for row in rows if row['outcome'] == 'skipped')
    assert all(row['value'] is not None for row in rows if row['outcome'] == 'met')
    names = {row['name'] for row in rows}
    assert {'fp32: tensors of the state that differ', 'L_CS of global, 4 images: gradient'} <= names
    assert {'CLSD, fp32: gradients against the CPU', 'CLSD, tf32, not deterministic: x the seconds'} <= names
    assert found['machine']['torch'] == torch.__version__
    assert all(row['name'][:20] in done.stdout for row in rows)


@pytest.mark.slow
def test_two_processes_of_a_cpu():
    done = check('--device', 'cpu', '--quick', '--gpus', '2', '--parts', 'I')
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'an error of one: seconds until all have ended' in done.stdout
    assert 'two processes: gradients' in done.stdout


def test_kernels_are_told_by_their_time():
    busy, longest, other = shares([('relu', 1.0), ('convolution', 2.0), ('relu', 3.0)], taken=12.0)
    assert (busy.value, longest.value, other.value) == (0.5, 4 / 6, 2 / 6)
    assert longest.name.endswith('relu') and other.name.endswith('convolution')


@pytest.mark.parametrize(
    ('fault', 'reason'),
    [
        ('yield Row("second", 3.0, "at most 2", "failed")', 'second'),
        ('raise RuntimeError("broken")', 'ended with 1: RuntimeError: broken'),
        ('import os; os._exit(9)', 'ended with 9'),
        ('import time; time.sleep(600)', 'took more than 30 s'),
    ],
    ids=['unmet bar', 'error', 'end', 'hangs'],
)
def test_what_fails_costs_its_own_row_alone(tmp_path, fault, reason):
    """A part that has another in its place; the rows before the fault, and the next part, are there nevertheless."""
    program = tmp_path / 'gpu_check.py'
    source = (REPO / 'scripts' / 'benchmarks' / 'gpu_check.py').read_text(encoding='utf-8')
    limit = 30 if '30 s' in reason else 300  # on a busy machine the start takes its time
    program.write_text(
        source.replace("'placement:rows', 300", f"'faulty:rows', {limit}").replace("'numerics:rows'", "'good:rows'"),
        encoding='utf-8',
    )
    parts = tmp_path / 'gpu_parts'
    parts.mkdir()
    for name in ('__init__.py', 'rows.py'):
        shutil.copy(REPO / 'scripts' / 'benchmarks' / 'gpu_parts' / name, parts)
    for name, line in (('faulty', fault), ('good', 'pass')):
        parts.joinpath(f'{name}.py').write_text('from gpu_parts.rows import Row\n' + FAILS.format(fault=line))
    file = tmp_path / 'found.json'
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(map(str, (REPO, REPO / 'scripts' / 'benchmarks')))}
    arguments = ['--device', 'cpu', '--parts', 'A', 'B', '--json', file]
    done = subprocess.run(
        [sys.executable, program, *arguments], capture_output=True, text=True, check=False, timeout=300, env=environment
    )
    assert done.returncode == 1, done.stderr
    first, failed, last = json.loads(file.read_text())['rows']
    assert (first['part'], first['outcome'], last['part'], last['outcome']) == ('A', 'met', 'B', 'met')
    assert failed['outcome'] == 'failed' and reason in f'{failed["name"]} {failed["reason"]}'


@pytest.mark.parametrize(
    'arguments',
    [
        ['--parts', 'Z'],
        ['--device', 'tpu'],
        ['--device', 'cpu', '--gpus', '-1'],
        ['--device', 'cpu', '--json', '/nowhere/found.json'],
        pytest.param(
            ['--device', 'cuda'], marks=pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
        ),
    ],
)
def test_bad_arguments_are_told(arguments):
    done = check(*arguments)
    assert done.returncode == 2 and 'error: ' in done.stderr and 'Traceback' not in done.stderr
