"""The benchmark of training steps: what takes turns with what, and what the ratios are of."""

import json
import subprocess
import sys

import pytest
from conftest import REPO

sys.path.append(str(REPO / 'scripts' / 'benchmarks'))
from step_report import Case, ratio

REPEATS = 2


@pytest.mark.slow
@pytest.mark.parametrize('switch', [[], ['--one-at-a-time']], ids=['all take turns', 'one at a time'])
def test_every_case_has_turns_with_basicsr(tmp_path, switch):
    file, program = tmp_path / 'step.json', REPO / 'scripts' / 'benchmarks' / 'train_step.py'
    arguments = ['--methods', 'EDSR', 'CLSD', '--settings', 'fp32', '--batch', '2', '--scale', '2', '--threads', '1']
    command = [sys.executable, program, *arguments, '--repeats', str(REPEATS), '--json', file, *switch]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    basicsr, *cases = json.loads(file.read_text())['cases']
    assert [case['method'] for case in cases] == ['EDSR', 'CLSD', 'convolution', 'convolution']
    assert len(basicsr['seconds']) == REPEATS * (len(cases) if switch else 1)
    baselines = [case['baseline'] for case in cases]
    assert sum(baselines, []) == basicsr['seconds'] if switch else baselines == [basicsr['seconds']] * len(cases)
    assert all(len(case['seconds']) == REPEATS for case in cases)
    assert '| BasicSR | fp32 |' in done.stdout and '| CLSD | fp32 |' in done.stdout


def test_ratios_are_within_a_repeat_and_beside_basicsr_across_groups():
    def case(seconds, baseline):
        return Case('a method', 'fp32', 1, None, seconds, baseline)

    # The machine is half as fast in the second repeat, and in the other group.
    one, same = case([2.0, 4.0, 2.0], [1.0, 2.0, 1.0]), case([1.0, 2.0, 3.0], [1.0, 2.0, 1.0])
    other = case([4.0, 4.0, 4.0], [2.0, 2.0, 2.0])
    assert ratio(one, same) == 2 and ratio(one, other) == 1 and ratio(other, same) == 2
    basicsr = case([1.0, 2.0, 1.0, 2.0, 2.0, 2.0], [1.0, 2.0, 1.0, 2.0, 2.0, 2.0])
    assert ratio(one, basicsr) == ratio(other, basicsr) == 2
