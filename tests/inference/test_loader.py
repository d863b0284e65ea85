"""One door to all models: what it imports, how often it reads, what training and testing get by it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.students import ARGUMENTS, student
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from basicsr_clsd import Upscaler
from basicsr_clsd.errors import UserError
from basicsr_clsd.inference.loader import load
from basicsr_clsd.inference.torch_network import TorchNetwork

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


def wrapped(state, prefixes, counts, keys, extra):
    """A checkpoint as another trainer saves it."""
    state = {''.join(prefixes) + name: value for name, value in state.items()}
    if counts:  # of thop, in each module and in the whole
        modules = {name.rpartition('.')[0] for name in state} | {''.join(prefixes).rstrip('.')}
        state |= {f'{module}.{name}'.lstrip('.'): torch.zeros(1) for module in modules for name in counts}
    return {**dict.fromkeys(keys, state), **extra} if keys else state


@given(
    prefixes=st.sampled_from([(), ('module.',), ('_orig_mod.',), ('module.', '_orig_mod.'), ('_orig_mod.', 'module.')]),
    counts=st.sampled_from([(), ('total_ops', 'total_params')]),
    keys=st.sampled_from([(), ('params',), ('params', 'params_ema'), ('params_ema',), ('state_dict',), ('generator',)]),
    extra=st.sampled_from([{}, {'epoch': 3}, {'optimizer': {'state': {}, 'param_groups': []}, 'best': 1.5}]),
)
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
def test_wrappers_of_other_trainers_are_taken_off(tmp_path, prefixes, counts, keys, extra):
    state = dict(student(0).state_dict())
    torch.save(wrapped(state, prefixes, counts, keys, extra if keys else {}), tmp_path / 'net.pth')
    network = load(tmp_path / 'net.pth', gpu=False)
    assert isinstance(network, TorchNetwork)
    loaded = network.module.state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], value) for name, value in state.items())


def test_every_command_takes_them_off(tmp_path, run_command, make_pairs, tiny_options, write_yaml):
    state = dict(student(0).state_dict())
    checkpoint = wrapped(state, ('module.', '_orig_mod.'), ('total_ops',), ('state_dict',), {'epoch': 3})
    torch.save(checkpoint, tmp_path / 'net.pth')
    for name in ('train', 'val'):
        make_pairs(tmp_path / name, count=2)
    changes = {
        'model_type': 'SupervisedModel',
        'network_g': {'type': 'EDSR', **ARGUMENTS, 'head_taps': None, 'head_num_block': None},
        'train': {'aux_opt': None, 'contrastive_opt': None, 'total_iter': 1},
        'val': {'latency': False},
        'path': {'pretrain_network_g': 'net.pth'},
    }
    opt = write_yaml(tmp_path / 'tiny.yml', tiny_options(tmp_path, changes))
    for command in (
        ['infer', '-i', tmp_path / 'val' / 'LR', '-o', tmp_path / 'out', '-m', 'net.pth'],
        ['export', 'basicsr', '-m', 'net.pth', '-o', 'exported.pth'],
        ['train', '-opt', opt],
        ['test', '-opt', opt],
        ['test', '-opt', opt, '--checkpoints', 'net.pth'],
    ):
        ended = run_command(*command, cwd=tmp_path)
        assert (ended.code, ended.err) == (0, ''), command


def test_keys_that_are_unknown_are_named(tmp_path):
    """Without advice, as there is no option to choose one by."""
    state = dict(student(0).state_dict())
    torch.save({'generator': state, 'average': state, 'epoch': 3}, tmp_path / 'net.pth')
    with pytest.raises(UserError, match=r"no weights under the key 'params'; it has generator, average, epoch$"):
        Upscaler(tmp_path / 'net.pth')


def test_a_name_that_is_none_lists_the_zoo():
    with pytest.raises(UserError, match=r"^small_EDRS_x2: no such file \(did you mean 'small_EDSR_x2'\?\)$"):
        Upscaler('small_EDRS_x2')
    with pytest.raises(UserError, match=r'^gone: no such file; the model zoo has .*small_CLSD_x2, .*small_x4$'):
        Upscaler('gone')
