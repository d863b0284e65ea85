"""What a training does on a GPU, as far as it can be seen without one."""

import json
import logging

import pytest
import torch

from basicsr_clsd.config import Options
from basicsr_clsd.data import PairedDataset
from basicsr_clsd.engine.advice import advice
from basicsr_clsd.engine.checkpoint import changed_options, random_state, set_random_state

CPU, CUDA = torch.device('cpu'), torch.device('cuda')


@pytest.fixture
def generators(monkeypatch):
    """The states of the generators of two GPUs, of which this process uses the second."""
    states = [torch.tensor([1]), torch.tensor([2])]
    monkeypatch.setattr(torch.cuda, 'is_initialized', lambda: True)
    monkeypatch.setattr(torch.cuda, 'current_device', lambda: 1)
    monkeypatch.setattr(torch.cuda, 'get_rng_state', lambda: states[torch.cuda.current_device()])
    monkeypatch.setattr(
        torch.cuda, 'set_rng_state', lambda state: states.__setitem__(torch.cuda.current_device(), state)
    )
    return states


@pytest.mark.parametrize('now', [0, 1], ids=['one visible GPU', 'two'])
@pytest.mark.parametrize('earlier', [False, True])
def test_generator_of_the_gpu_is_restored_whichever_gpus_are_visible(generators, monkeypatch, now, earlier):
    state = random_state()
    assert state['cuda'] == [torch.tensor([2])]
    if earlier:
        state['cuda'] = [torch.tensor([7]), torch.tensor([2])][-1 - now :]
    monkeypatch.setattr(torch.cuda, 'current_device', lambda: now)
    generators[:] = [torch.tensor([9]), torch.tensor([9])]
    set_random_state(state)
    assert generators[now].item() == 2 and generators[1 - now].item() == 9


def test_state_of_a_cpu_has_none(monkeypatch, caplog, generators):
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, 'is_initialized', lambda: False)
        state = random_state()
        assert state['cuda'] == []
        set_random_state({**state, 'cuda': [torch.tensor([5])]})
    assert generators == [torch.tensor([1]), torch.tensor([2])]
    with caplog.at_level(logging.WARNING, 'basicsr'):
        set_random_state(state)
    assert 'The state is of a CPU' in caplog.text


def test_images_that_are_decoded_whole_are_told_on_a_gpu_alone(tiny_options, tmp_path, make_pairs, run_command):
    make_pairs(tmp_path / 'train')
    make_pairs(tmp_path / 'val')
    options = Options.model_validate(tiny_options(tmp_path))
    assert options.train is not None
    section = {**options.datasets['train'].as_dict(), 'phase': 'train', 'scale': 2}
    (line,) = advice(options.train, PairedDataset(section), CUDA)
    folders = f'{tmp_path}/train/HR', f'{tmp_path}/train/LR'
    assert f'prepare_data.py lmdb {" ".join(folders)} --raw' in line
    assert list(advice(options.train, PairedDataset(section), CPU)) == []
    assert list(advice(options.train, PairedDataset({**section, 'cache_images': True}), CUDA)) == []
    ended = run_command('scripts/prepare_data', 'lmdb', *folders, '--raw')
    assert ended.code == 0, ended.err
    assert list(advice(options.train, PairedDataset(section), CUDA)) == []


@pytest.mark.parametrize(
    ('train', 'device', 'told'),
    [
        ({'precision': 'bf16', 'channels_last': True, 'compile': True}, CPU, True),
        ({'precision': 'bf16', 'channels_last': True, 'compile': 'max-autotune'}, CPU, True),
        ({'precision': 'bf16', 'channels_last': True, 'compile': True}, CUDA, False),
        ({'precision': 'fp32', 'compile': True}, CPU, False),
        ({'precision': 'bf16', 'channels_last': True}, CPU, False),
    ],
)
def test_compiling_bf16_on_a_cpu_is_told(tiny_options, tmp_path, make_pairs, train, device, told):
    make_pairs(tmp_path / 'train')
    options = Options.model_validate(tiny_options(tmp_path, {'train': train}))
    assert options.train is not None
    section = {**options.datasets['train'].as_dict(), 'phase': 'train', 'scale': 2, 'cache_images': True}
    assert any('train.compile' in line for line in advice(options.train, PairedDataset(section), device)) is told


def test_rounding_may_change_at_a_resume(tiny_options, tmp_path):
    before, now = (
        Options.model_validate(tiny_options(tmp_path, {'train': {'tf32': tf32, 'cudnn_benchmark': tf32}}))
        for tf32 in (False, True)
    )
    changes = changed_options(before.model_dump(mode='json'), now, 1, 1)
    assert changes == ['train.cudnn_benchmark was False, is True', 'train.tf32 was False, is True']


def test_log_and_record_say_how_is_computed(make_run):
    run = make_run({'train': {'tf32': False, 'cudnn_benchmark': True, 'total_iter': 1}})
    ended = run.start()
    assert ended.code == 0, ended.err
    text = 'precision fp32, channels_last false, tf32 false, deterministic true, cudnn_benchmark true'
    assert text in ended.out and text in (run.root / 'train_tiny.log').read_text()
    start = json.loads((run.root / 'metrics.jsonl').read_text().splitlines()[0])
    assert (start['precision'], start['tf32'], start['deterministic'], start['cudnn_benchmark']) == (
        'fp32',
        False,
        True,
        True,
    )
