"""The shipped options files: what they resolve to, and what holds for all of them."""

from pathlib import Path

import pytest
import torch
import yaml
from basicsr.archs.edsr_arch import EDSR
from helpers.resolved_options import OPTIONS, SNAPSHOT, resolved, shipped

from basicsr_clsd import registry
from basicsr_clsd.archs import ChannelSplittingNetwork
from basicsr_clsd.config import check, load

FILES = shipped()


def test_every_file_is_in_the_snapshot():
    assert list(yaml.safe_load(SNAPSHOT.read_text(encoding='utf-8'))) == FILES


@pytest.mark.parametrize('name', FILES)
def test_resolved_options_are_those_of_the_snapshot(name):
    """An intended change: ``python tests/helpers/resolved_options.py``, and look at the difference."""
    assert resolved(name) == yaml.safe_load(SNAPSHOT.read_text(encoding='utf-8'))[name]


@pytest.mark.parametrize('name', FILES)
def test_every_file_passes_the_check(name):
    options = load(OPTIONS / name)
    testing = options.train is None
    assert testing == Path(name).name.startswith('test_')
    check(options, testing=testing)
    trained = {data.dataroot_gt for _, data in options.sets('train')}
    assert not any(benchmark in root for root in trained for benchmark in ('Set5', 'Set14', 'B100', 'Urban100'))


def test_names_of_runs_are_those_of_their_files_and_distinct():
    names = {name: resolved(name)['name'] for name in FILES}
    assert len(set(names.values())) == len(FILES)
    for name, run in names.items():
        stem = Path(name).stem
        small = f'small_{stem.removeprefix("train_")}'
        assert run == (small if Path(name).parent.as_posix() == 'small' else stem)


@pytest.mark.parametrize('method', ['EDSR', 'CLSD', 'FAKD', 'CLSD_eq6', 'BYOT', 'CSD'])
def test_files_of_two_scales_differ_in_what_depends_on_the_scale(method):
    two, four = (resolved(f'train_{method}_x{scale}.yml') for scale in (2, 4))
    different = {key.split('.')[-1] for key in two | four if two.get(key) != four.get(key)}
    paths = {'dataroot_lq', 'filename_tmpl', 'pretrain_network_teacher'}
    assert different <= {'name', 'scale', 'upscale', 'gt_size', 'crop_border', *paths}


@pytest.mark.parametrize(('scale', 'parameters'), [(2, 40_729_603), (3, 43_680_003), (4, 43_089_923)])
def test_teacher_has_the_parameters_of_the_paper(scale, parameters):
    with torch.device('meta'):
        network = EDSR(**load(OPTIONS / f'teacher/train_EDSR_L_x{scale}.yml').network_g.arguments())
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


@pytest.mark.parametrize(
    ('method', 'scale', 'student', 'teacher', 'file'),
    [
        ('CSD', 2, 2_551_555, 40_729_603, 'EDSR_L'),
        ('CSD', 3, 2_736_195, 43_680_003, 'EDSR_L'),
        ('CSD', 4, 2_699_267, 43_089_923, 'EDSR_L'),
        ('CSD_16', 2, 1_369_859, 21_847_043, 'EDSR_L16'),
        ('CSD_16', 3, 1_554_499, 24_797_443, 'EDSR_L16'),
        ('CSD_16', 4, 1_517_571, 24_207_363, 'EDSR_L16'),
    ],
)
def test_csd_trains_a_slice_of_the_teacher_that_a_file_trains(method, scale, student, teacher, file):
    options = load(OPTIONS / f'train_{method}_x{scale}.yml')
    assert options.network_teacher == load(OPTIONS / f'teacher/train_{file}_x{scale}.yml').network_g
    assert options.path.pretrain_network_teacher == f'experiments/train_{file}_x{scale}/models/net_g_latest.pth'
    with torch.device('meta'):
        whole = ChannelSplittingNetwork(
            *(EDSR(**section.arguments()) for section in (options.network_teacher, options.network_g))
        )
    assert sum(value.numel() for value in whole.slices().values()) == student
    assert sum(value.numel() for value in whole.parameters() if value.requires_grad) == teacher


# Students with heads: taps, what heads add, their width, parameters at x4.
OTHERS: dict[str, tuple[list[str], str, int, int]] = {
    # Its authors count 24 more at x4, of the mean.
    'RCAN': (['body.2', 'body.4', 'body.7'], 'body.0:input', 64, 15_592_355),
    'SwinIR_light': (['layers.0', 'layers.1', 'layers.2'], 'conv_first', 60, 929_628),
    'MSRResNet': (['body.3', 'body.7', 'body.11'], 'body.0:input', 64, 1_517_571),
    'SRVGG': (['body.9', 'body.17', 'body.25'], 'body.2:input', 64, 621_424),
    # In training; without the fixed masks of Sobel and Laplace, which are parameters too.
    'ECBSR': (
        ['backbone.1', 'backbone.2', 'backbone.3'],
        'backbone.1:input',
        16,
        47_120,
    ),
}


@pytest.mark.parametrize('arch', OTHERS)
def test_heads_on_other_students(arch):
    taps, skip, width, parameters = OTHERS[arch]
    network = registry.build('archs', load(OPTIONS / f'train_CLSD_{arch}_x4.yml').network_g, 'network_g')
    assert list(network.heads.taps.taps) == taps
    assert list(network.heads.skip.taps) == [skip]
    assert {head.conv_after_body.in_channels for head in network.heads} == {width}
    assert {len(head.body) for head in network.heads} == {5}
    student = network.student.parameters()
    assert sum(value.numel() for value in student if value.requires_grad) == parameters


def leaves(value):
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from leaves(each)
    else:
        yield value


@pytest.mark.parametrize('path', sorted(OPTIONS.rglob('*.yml')), ids=lambda path: path.relative_to(OPTIONS).as_posix())
def test_files_hold_no_paths_of_one_machine(path):
    values = list(leaves(yaml.safe_load(path.read_text(encoding='utf-8'))))
    assert values
    assert not [value for value in values if isinstance(value, str) and Path(value).expanduser().is_absolute()]
