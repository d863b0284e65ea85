"""Precision `auto` on processors with and without instructions for bfloat16."""

import pytest
import torch

from basicsr_clsd.config import Options, load
from basicsr_clsd.config.load import write_resolved
from basicsr_clsd.runtime import hardware

XEON = 'processor\t: 0\nflags\t\t: fpu avx2 avx512f avx512_bf16 amx_bf16 amx_tile\n'
OLD = 'processor\t: 0\nflags\t\t: fpu sse2 avx2 avx512f\n'


@pytest.fixture
def cpu(tmp_path, monkeypatch):
    """``cpu(text)``: the machine has a CPU that Linux describes so."""

    def use(text):
        path = tmp_path / 'cpuinfo'
        path.write_text(text)
        monkeypatch.setattr(hardware, 'CPUINFO', path)

    return use


@pytest.fixture
def gpu(monkeypatch):
    """``gpu(capability)``: the machine has such a GPU."""

    def use(capability):
        monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
        monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda: capability)

    return use


def resolved(tiny_options, tmp_path, **train):
    train = {'precision': 'auto', **train}
    options = Options.model_validate(tiny_options(tmp_path, {'num_gpu': 'auto', 'train': train}))
    assert options.train is not None
    return options.train.precision, options.train.channels_last


@pytest.mark.parametrize(('text', 'wanted'), [(XEON, ('bf16', True)), (OLD, ('fp32', False)), ('', ('fp32', False))])
def test_cpu_decides(tiny_options, tmp_path, cpu, monkeypatch, text, wanted):
    cpu(text)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    if not text:  # an ARM; torch knows no better
        for function in hardware.BF16_PROBES:
            monkeypatch.setattr(torch.cpu, function, lambda: False, raising=False)
    assert resolved(tiny_options, tmp_path) == wanted


def test_torch_is_asked_where_linux_says_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(hardware, 'CPUINFO', tmp_path / 'none')
    monkeypatch.setattr(torch.cpu, '_is_amx_tile_supported', lambda: True, raising=False)
    monkeypatch.setattr(torch.cpu, '_is_avx512_bf16_supported', lambda: False, raising=False)
    assert hardware.cpu_bf16() == ['AMX']
    monkeypatch.delattr(torch.cpu, '_is_amx_tile_supported')
    assert hardware.cpu_bf16() == []


@pytest.mark.parametrize(
    ('capability', 'wanted'), [((9, 0), ('bf16', True)), ((8, 0), ('bf16', True)), ((7, 5), ('fp32', False))]
)
def test_gpu_decides_where_there_is_one(tiny_options, tmp_path, cpu, gpu, capability, wanted):
    cpu(XEON)
    gpu(capability)
    assert resolved(tiny_options, tmp_path) == wanted


def test_memory_format_of_the_user_stays(tiny_options, tmp_path, cpu):
    cpu(XEON)
    assert resolved(tiny_options, tmp_path, channels_last=False) == ('bf16', False)
    assert resolved(tiny_options, tmp_path, precision='fp32') == ('fp32', False)


def test_resolved_file_says_what_was_used_and_goes_to_the_teacher(tiny_options, tmp_path, cpu):
    cpu(XEON)
    changes = {'num_gpu': 0, 'train': {'precision': 'auto'}, 'network_teacher': {'type': 'EDSR', 'upscale': 2}}
    options = Options.model_validate(tiny_options(tmp_path, changes))
    write_resolved(options, tmp_path / 'resolved.yml')
    cpu(OLD)
    again = load(tmp_path / 'resolved.yml')
    assert again == options and again.train is not None
    assert (again.train.precision, again.train.channels_last, again.train.teacher.precision) == ('bf16', True, 'bf16')


def test_log_says_precision_and_cpu(tiny_options, tmp_path, make_pairs, write_yaml, run_command):
    for name in ('train', 'val'):
        make_pairs(tmp_path / name)
    opt = write_yaml(tmp_path / 'tiny.yml', tiny_options(tmp_path, {'train': {'precision': 'auto'}}))
    ended = run_command('train', '-opt', opt, '--debug')
    assert ended.code == 0, ended.err
    found = hardware.cpu_bf16()
    wanted = f'bf16 (auto: a CPU with {" and ".join(found)}), channels_last true'
    assert f'precision {wanted if found else "fp32 (auto: a CPU without instructions for bf16)"}' in ended.out
    assert ', '.join(['CPU', *found, '']).rstrip(', ') + ';' in ended.out
