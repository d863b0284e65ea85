"""One door to all models: what it imports, how often it reads, what training and testing get by it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.students import student

from basicsr_clsd import Upscaler
from basicsr_clsd.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[2]
FIRST_PHOTO = """
import json, sys
reads = []
sys.addaudithook(lambda event, arguments: reads.append(str(arguments[0])) if event == 'open' else None)
import numpy as np
import basicsr_clsd
upscaler = basicsr_clsd.Upscaler(sys.argv[1], gpu=False)
size = upscaler(np.zeros((6, 5, 3), np.uint8)).shape
modules = sorted(sys.modules)
from basicsr.archs import build_network
from basicsr.utils.registry import ARCH_REGISTRY
print(json.dumps({
    'size': size,
    'reads': [path for path in reads if path.endswith(('.pth', '.safetensors'))],
    'modules': modules,
    'rcan': type(build_network({'type': 'RCAN', 'num_in_ch': 3, 'num_out_ch': 3})).__name__,
    'registered': sorted(name for name, _ in ARCH_REGISTRY),
}))
"""


@pytest.fixture(scope='module')
def first_photo() -> dict:
    """What a fresh process does to upscale an image by a model of the zoo."""
    made = subprocess.run(
        [sys.executable, '-c', FIRST_PHOTO, 'small_EDSR_x2'], check=True, cwd=REPOSITORY, capture_output=True, text=True
    )
    return json.loads(made.stdout)


def test_a_photo_needs_nothing_of_training(first_photo):
    assert first_photo['size'] == [12, 10, 3]
    own = {name.split('.')[1] for name in first_photo['modules'] if name.startswith('basicsr_clsd.')}
    assert {'inference', 'networks', 'archs'} <= own
    assert not own & {'losses', 'models', 'data', 'prepare', 'engine', 'evaluation', 'reporting', 'deploy'}
    # What BasicSR's packages would import, which takes longer than all the rest.
    assert not {'scipy', 'torchvision.ops', 'basicsr.data', 'basicsr.models', 'torch._dynamo'} & {
        *first_photo['modules']
    }


def test_the_file_is_read_once(first_photo):
    assert [Path(path).name for path in first_photo['reads']] == ['small_EDSR_x2.pth']


def test_basicsr_is_whole_when_it_is_asked_for(first_photo):
    assert first_photo['rcan'] == 'RCAN'
    assert {'EDSR', 'EDSRHeads', 'RCAN', 'SwinIR', 'WithHeads'} <= set(first_photo['registered'])


IMAGE = np.random.default_rng(0).integers(0, 256, (7, 9, 3), np.uint8)


@pytest.mark.parametrize(
    'wrapped',
    [
        lambda state: {'state_dict': state, 'epoch': 3},
        lambda state: {'params': {f'module.{name}': value for name, value in state.items()}},
        lambda state: {f'_orig_mod.{name}': value for name, value in state.items()},
        lambda state: {'state_dict': {f'module._orig_mod.{name}': value for name, value in state.items()}},
    ],
)
def test_wrappers_of_other_trainers_are_taken_off(model, tmp_path, wrapped):
    torch.save(wrapped(dict(student(0).state_dict())), tmp_path / 'net.pth')
    np.testing.assert_array_equal(Upscaler(tmp_path / 'net.pth')(IMAGE), Upscaler(model)(IMAGE))


def test_keys_that_are_unknown_are_named(tmp_path):
    torch.save({'generator': dict(student(0).state_dict()), 'epoch': 3}, tmp_path / 'net.pth')
    with pytest.raises(UserError, match=r"no weights under the key 'params' .*; it has generator, epoch$"):
        Upscaler(tmp_path / 'net.pth')


def test_a_name_that_is_none_lists_the_zoo():
    with pytest.raises(UserError, match=r"^small_EDRS_x2: no such file \(did you mean 'small_EDSR_x2'\?\)$"):
        Upscaler('small_EDRS_x2')
    with pytest.raises(UserError, match=r'^gone: no such file; the model zoo has .*small_CLSD_x2, .*small_teacher_x2$'):
        Upscaler('gone')
