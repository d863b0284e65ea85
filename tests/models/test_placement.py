"""Every method and network on a GPU that is only pretended: nothing on the wrong device, no wait, few operators.

The bounds are what was counted, and a little more for other versions of torch. A change that adds operators to a step
makes training slower wherever launching them takes longer than computing.
"""

import json
import subprocess
import sys
from functools import cache

import pytest
from conftest import REPO
from torch.utils import backend_registration

BENCHMARKS = REPO / 'scripts' / 'benchmarks'
QUICK = {'CLSD': 490, 'CLSD, 64 images': 540, 'CLSD on SRVGG': 390, 'FAKD': 890, 'BYOT': 500, 'CSD': 1190}
OTHERS = {
    'EDSR': 210,
    'ASR': 430,
    'DS': 460,
    'CLSD, channels_last': 650,
    'CLSD, EMA, norms of gradients': 920,
    'CLSD of Eq. 6': 520,
    'CLSD, cosine': 510,
    'CLSD, simclr': 490,
    'CLSD, attached student': 490,
    'CLSD, detached negatives': 530,
    'CLSD on RCAN': 5180,
    'CLSD on SwinIR': 2320,
    'CLSD on ECBSR': 1370,
    'CLSD on MSRResNet': 490,
    'FitNet': 390,
    'LFD': 410,
    'LSFD': 460,
    'AugKD': 1210,
    'PISR teacher': 240,
    'PISR': 350,
    'FACD': 530,
}
# A tensor `lq` of the pretended GPU, and what must not be done there.
FAULTS = {
    'wait': ('float(lq.sum())', 'DataDependentOutputException'),
    'shape_from_content': ('lq[lq > 0]', 'DynamicOutputShapeException'),
    'mask_of_the_cpu': ('lq * torch.ones(2, 2)', 'FakeTensorDeviceMismatchError'),
    'copy_to_the_cpu': ('lq.cpu()', "['torch.float32 (2, 2) pretended -> cpu']"),
    'copy_from_the_cpu': ('lq + torch.ones(2, 2).to(device)', "['torch.float32 (2, 2) cpu -> pretended']"),
    'none': ('lq + 1', '[]'),
}

pytestmark = pytest.mark.skipif(
    not hasattr(backend_registration, '_setup_privateuseone_for_python_backend'),
    reason='this torch cannot pretend that there is a GPU',
)


def run(arguments):
    done = subprocess.run([sys.executable, *arguments], cwd=BENCHMARKS, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr[-2000:]
    return done.stdout


@cache
def rows(cases):
    found = json.loads(run(['operators.py', '--json', '--cases', *cases]))
    return {row['case']: row for row in found}


@pytest.mark.parametrize(
    ('case', 'cases'),
    [(case, tuple(QUICK)) for case in QUICK]
    + [pytest.param(case, tuple(OTHERS), marks=pytest.mark.slow) for case in OTHERS],
)
def test_step_copies_two_images_and_runs_few_operators(case, cases):
    row = rows(cases)[case]
    assert row['error'] is None
    lr, hr = row['copies']
    assert lr.startswith('torch.uint8') and hr.startswith('torch.uint8') and lr.endswith('cpu -> pretended')
    image, *masks = row['upscale_copies']  # and not its output, before it is rounded to bytes
    assert image.endswith('cpu -> pretended') and not any(copy.endswith('-> cpu') for copy in masks)
    assert masks == [] or 'SwinIR' in case  # BasicSR makes those of other sizes than the patches' on the CPU
    assert 0.8 * {**QUICK, **OTHERS}[case] < row['operators'] <= {**QUICK, **OTHERS}[case]


def test_faults_are_seen():
    program = """
import torch
from pretended_gpu import Record, pretended_gpu
with pretended_gpu() as device:
    lq = torch.zeros(2, 2).to(device)
    for work in [{works}]:
        record = Record()
        try:
            with record:
                work()
            print(record.copies)
        except Exception as error:
            print(type(error).__name__)
"""
    works = ', '.join(f'lambda: {work}' for work, _ in FAULTS.values())
    found = run(['-c', program.format(works=works)]).splitlines()
    assert dict(zip(FAULTS, found, strict=True)) == {name: seen for name, (_, seen) in FAULTS.items()}
