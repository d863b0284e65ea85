import csv
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

pytestmark = pytest.mark.slow

REPO = Path(__file__).resolve().parents[1]


def test_demo_trains_tests_and_says_where_everything_is(tmp_path):
    command = [sys.executable, str(REPO / 'scripts' / 'demo.py'), '--iterations', '4', '--output', str(tmp_path)]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert ended.returncode == 0, ended.stderr
    named = {line.split()[0]: line.split()[-1] for line in ended.stdout.splitlines() if line.startswith(tuple('CLP'))}
    assert cv2.imread(named['Picture']) is not None
    for name in ('Checkpoint', 'Log'):
        assert named[name].startswith(str(tmp_path))
        with open(named[name], 'rb') as file:
            assert file.read(1)
    with open(tmp_path / 'results' / 'demo' / 'results.csv', encoding='utf-8') as file:
        rows = list(csv.DictReader(file))
    assert {row['method'] for row in rows} == {'bicubic', 'demo'}
    # What the field's bicubic gives on the two photos: the photos, their LR images and the protocol are as they were.
    key = {'method': 'bicubic', 'image': 'mean', 'metric': 'psnr'}
    (mean,) = (float(row['value']) for row in rows if key.items() <= row.items())
    assert round(mean, 2) == 33.48


def test_demo_refuses_no_iterations():
    command = [sys.executable, str(REPO / 'scripts' / 'demo.py'), '--iterations', '0']
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 2
    assert '--iterations must be at least 1, not 0' in ended.stderr
