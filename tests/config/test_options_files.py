"""The options files of the repository, against the paper's settings."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from basicsr.archs.edsr_arch import EDSR

from basicsr_clsd import registry
from basicsr_clsd.config import Options, check, load
from basicsr_clsd.config.schedule import Schedule

OPTIONS = Path(__file__).resolve().parents[2] / 'options'
SETS = ('table5', 'fig3', 'study_S16', 'study_SRVGG')  # sets of trainings for scripts/ablate.py
FILES = sorted(
    path.relative_to(OPTIONS).as_posix()
    for path in OPTIONS.rglob('*.yml')
    if path.stem not in SETS and not any(part.startswith('_') for part in path.relative_to(OPTIONS).parts)
)
L_SR, L_ASR = {'type': 'L1Loss', 'loss_weight': 0.5}, {'type': 'L1Loss', 'loss_weight': 0.5}
L_SD = {'type': 'L1Loss', 'loss_weight': 5, 'detach_teacher': True}  # alpha = 10 times 1/2
# beta = 10
L_CS = {'type': 'ContrastiveLoss', 'loss_weight': 10, 'negatives': ['cross', 'intra']}
METHODS = {
    'EDSR': {'pixel_opt': L_SR},
    'ASR': {'pixel_opt': L_SR, 'aux_opt': L_ASR},
    'DS': {'pixel_opt': L_SR, 'aux_opt': L_ASR, 'self_distill_opt': L_SD},
    'CLSD': {'pixel_opt': L_SR, 'aux_opt': L_ASR, 'contrastive_opt': L_CS},
    'CLSD_eq6': {'pixel_opt': L_SR, 'aux_opt': L_ASR, 'self_distill_opt': L_SD, 'contrastive_opt': L_CS},
}
TAPS = {
    'student_taps': ['body.4', 'body.9', 'upsample:input'],
    'teacher_taps': ['body.9', 'body.20', 'upsample:input'],
}
NO_TAPS = {'student_taps': [], 'teacher_taps': []}
RHO = {'type': 'L1Loss', 'loss_weight': 1}
REGRESSED = {'type': 'RegressedFeatureLoss', 'loss_weight': 1, **TAPS}
DISTILLED = {
    'FAKD': {
        'pixel_opt': {'type': 'L1Loss', 'loss_weight': 0.5},
        'distill_opt': [
            {'type': 'OutputDistillationLoss', 'loss_weight': 0.5, **NO_TAPS},
            {'type': 'SpatialAffinityLoss', 'loss_weight': 10, **TAPS},
        ],
    },
    'FitNet': {'pixel_opt': RHO, 'distill_opt': [{**REGRESSED, 'num_layer': 1}]},
    'LFD': {'pixel_opt': RHO, 'distill_opt': [{**REGRESSED, 'num_layer': 2, 'kernel_size': 1}]},
    'LSFD': {
        'pixel_opt': RHO,
        'distill_opt': [
            {**REGRESSED, 'type': 'SelectiveFeatureLoss', 'num_layer': 2, 'kernel_size': 1, 'temperature': 1}
        ],
    },
}
STUDENT = {'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 64, 'num_block': 16}
HEADS = {'head_taps': [4, 8, 12], 'head_num_block': 5}
ABLATION = 'ablation/train_CLSD_x2_'
ABLATIONS: dict[str, dict[str, Any]] = {
    'attached_teacher': {'train.contrastive_opt.detach_teacher': False},
    'cosine': {'train.contrastive_opt.distance': 'cosine'},
    'negatives_cross': {'train.contrastive_opt.negatives': ['cross']},
    'negatives_simclr': {'train.contrastive_opt.negatives': ['simclr']},
    'negatives_global': {'train.contrastive_opt.negatives': ['global']},
    'pixel_range_1': {'train.pixel_range': 1},
    'shared_tail': {'network_g.head_share_tail': True},
    'taps_5_10_16': {'network_g.head_taps': [5, 10, 16]},
    **{f'head_blocks_{count}': {'network_g.head_num_block': count} for count in range(1, 9)},
}


TEACHER = {**STUDENT, 'num_feat': 256, 'num_block': 32, 'res_scale': 0.1}
WEIGHTS = 'experiments/train_EDSR_L_x{}/models/net_g_latest.pth'


def opened(name: str) -> Options:
    return load(OPTIONS / name)


def losses(options: Options) -> dict[str, Any]:
    assert options.train is not None
    return {key: value for key, value in options.train.as_dict().items() if key.endswith('_opt')}


def flat(values: dict[str, Any], above: str = '') -> dict[str, Any]:
    found = {}
    for key, value in values.items():
        found |= flat(value, f'{above}{key}.') if isinstance(value, dict) else {f'{above}{key}': value}
    return found


@pytest.mark.parametrize('name', FILES)
def test_every_file_loads_and_passes_the_check(name):
    options = opened(name)
    testing = options.train is None
    assert testing == Path(name).name.startswith('test_')
    check(options, testing=testing)


@pytest.mark.parametrize('name', FILES)
def test_name_of_the_run_is_that_of_the_file(name):
    stem = Path(name).stem
    small = {'train': f'small_{stem.removeprefix("train_")}', 'test': f'small_{stem}'}
    is_small = name.startswith('small/') and not name.startswith('small/study/')
    assert opened(name).name == (small[stem.split('_')[0]] if is_small else stem)


def test_names_of_runs_are_distinct():
    names = [opened(name).name for name in FILES]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('scale', [2, 3, 4])
def test_training_of_the_paper(method, scale):
    options = opened(f'train_{method}_x{scale}.yml')
    heads = method != 'EDSR'
    assert options.scale == scale
    assert options.model_type == ('CLSDModel' if heads else 'SupervisedModel')
    network = {**STUDENT, 'upscale': scale, **(HEADS if heads else {})}
    assert options.network_g.arguments() == network
    assert options.network_g.type == ('EDSRHeads' if heads else 'EDSR')

    assert options.train is not None
    assert losses(options) == METHODS[method]
    assert options.train.pixel_range == 255
    assert options.train.total_iter == 600_000
    assert options.train.optim_g.as_dict() == {'type': 'Adam', 'lr': 2e-4, 'betas': [0.9, 0.999]}
    milestones = [150_000, 300_000, 450_000]
    assert options.train.scheduler.as_dict() == {'type': 'MultiStepLR', 'milestones': milestones, 'gamma': 0.5}
    assert options.train.ema_decay == 0 and options.train.warmup_iter == -1
    assert options.manual_seed is not None

    data = options.datasets['train']
    assert data.dataroot_gt == 'datasets/DIV2K/DIV2K_train_HR'
    assert data.dataroot_lq == f'datasets/DIV2K/DIV2K_train_LR_bicubic/X{scale}'
    assert data.filename_tmpl == f'{{}}x{scale}'
    assert data.gt_size == 48 * scale
    assert (data.batch_size_per_gpu, data.use_hflip, data.use_rot) == (16, True, True)
    assert (data.dataset_enlarge_ratio, data.color, data.mean, data.std) == (1, None, None, None)


def rest(options: Options) -> dict[str, Any]:
    """The options without networks, losses, names and paths of weights."""
    values = options.as_dict()
    for key in ('name', 'model_type', 'network_g', 'network_teacher', 'path'):
        values.pop(key, None)
    values['train'] = {key: value for key, value in values['train'].items() if not key.endswith('_opt')}
    del values['train']['teacher']
    return values


@pytest.mark.parametrize('method', DISTILLED)
@pytest.mark.parametrize('scale', [2, 3, 4])
def test_methods_with_a_teacher(method, scale):
    options, baseline = opened(f'train_{method}_x{scale}.yml'), opened(f'train_EDSR_x{scale}.yml')
    assert options.model_type == 'KDModel'
    assert options.network_g == baseline.network_g
    assert options.network_teacher is not None
    assert options.network_teacher.as_dict() == {'type': 'EDSR', **TEACHER, 'upscale': scale}
    assert options.path.pretrain_network_teacher == WEIGHTS.format(scale)
    assert losses(options) == DISTILLED[method]
    assert rest(options) == rest(baseline)


@pytest.mark.parametrize(('scale', 'parameters'), [(2, 40_729_603), (3, 43_680_003), (4, 43_089_923)])
def test_teacher_of_the_paper(scale, parameters):
    options, baseline = opened(f'teacher/train_EDSR_L_x{scale}.yml'), opened(f'train_EDSR_x{scale}.yml')
    assert options.network_g.as_dict() == {'type': 'EDSR', **TEACHER, 'upscale': scale}
    assert options.model_type == 'SupervisedModel'
    assert losses(options) == losses(baseline)
    assert rest(options) == rest(baseline)
    with torch.device('meta'):
        network = EDSR(**options.network_g.arguments())
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    assert WEIGHTS.format(scale) == f'experiments/{options.name}/models/net_g_latest.pth'


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('scale', [2, 3, 4])
def test_validation_of_the_paper(method, scale):
    options = opened(f'train_{method}_x{scale}.yml')
    [(_, data)] = options.sets('val')
    assert data.dataroot_gt == 'datasets/DIV2K/DIV2K_valid_HR'
    assert data.dataroot_lq == f'datasets/DIV2K/DIV2K_valid_LR_bicubic/X{scale}'
    assert data.filename_tmpl == f'{{}}x{scale}'
    assert data.names == [f'08{number:02}' for number in range(1, 11)]
    for metric in options.val.metrics.values():
        assert metric.arguments() == {'crop_border': scale, 'test_y_channel': True}
    assert {name: metric.type for name, metric in options.val.metrics.items()} == {
        'psnr': 'calculate_psnr',
        'ssim': 'calculate_ssim',
    }


@pytest.mark.parametrize('ablation', ABLATIONS)
def test_ablation_changes_one_thing(ablation):
    base, changed = (flat(opened(name).as_dict()) for name in ('train_CLSD_x2.yml', f'{ABLATION}{ablation}.yml'))
    difference = {key: value for key, value in changed.items() if base.get(key) != value and key != 'name'}
    assert base.keys() - changed.keys() == set()
    # Five blocks are the paper's own.
    assert difference == ({} if ablation == 'head_blocks_5' else ABLATIONS[ablation])


def test_every_ablation_is_known():
    assert {name for name in FILES if name.startswith('ablation/')} == {f'{ABLATION}{name}.yml' for name in ABLATIONS}


@pytest.mark.parametrize('method', ['EDSR', 'ASR', 'DS', 'CLSD'])
def test_small_training_is_the_same_method_on_a_small_scale(method):
    options, large = opened(f'small/train_{method}_x2.yml'), opened(f'train_{method}_x2.yml')
    assert losses(options) == losses(large)
    assert options.network_g.as_dict() == {**large.network_g.as_dict(), 'num_feat': 32}
    assert options.train is not None and large.train is not None
    assert options.train.optim_g == large.train.optim_g
    total, milestones = options.train.total_iter, options.train.scheduler.arguments()['milestones']
    assert [milestone / total for milestone in milestones] == [0.25, 0.5, 0.75]
    assert options.datasets['train'].dataroot_gt == 'datasets/BSDS400'


@pytest.mark.parametrize('method', DISTILLED)
def test_small_training_with_a_teacher_is_the_same_method_on_a_small_scale(method):
    options, baseline = opened(f'small/train_{method}_x2.yml'), opened('small/train_EDSR_x2.yml')
    teacher = opened('small/train_teacher_x2.yml')
    assert rest(options) == rest(baseline)
    assert options.network_g == baseline.network_g
    assert options.network_teacher is not None
    trained = options.network_teacher.as_dict()
    assert trained.pop('res_scale') == 1  # EDSR's own default
    assert trained == teacher.network_g.as_dict()
    assert options.path.pretrain_network_teacher == teacher.name
    taps = {'teacher_taps': TAPS['student_taps']}  # the small teacher has as many blocks as the student
    small = [{**term, **(taps if term['teacher_taps'] else {})} for term in DISTILLED[method]['distill_opt']]
    assert losses(options) == {**DISTILLED[method], 'distill_opt': small}


# Students with heads: taps, what heads add, their width, parameters at x4, LR patch, batch, rate, iterations.
OTHERS: dict[str, tuple[list[str], str, int, int, tuple[Any, ...]]] = {
    # Its authors count 24 more at x4, of the mean.
    'RCAN': (['body.2', 'body.4', 'body.7'], 'body.0:input', 64, 15_592_355, (48, 16, 1e-4, 300_000)),
    'SwinIR_light': (['layers.0', 'layers.1', 'layers.2'], 'conv_first', 60, 929_628, (64, 64, 2e-4, 500_000)),
    'MSRResNet': (['body.3', 'body.7', 'body.11'], 'body.0:input', 64, 1_517_571, (32, 16, 2e-4, 1_000_000)),
    'SRVGG': (['body.9', 'body.17', 'body.25'], 'body.2:input', 64, 621_424, (64, 12, 2e-4, 1_000_000)),
    # In training; without the fixed masks of Sobel and Laplace, which are parameters too.
    'ECBSR': (
        ['backbone.1', 'backbone.2', 'backbone.3'],
        'backbone.1:input',
        16,
        47_120,
        (64, 32, 5e-4, 1_600_000),
    ),
}


GATED = ('SRVGG', 'ECBSR')  # they add the interpolated image, which their students begin at


def gated(warmup: int) -> dict[str, Any]:
    schedule = Schedule(gate='student_above_base', warmup_iter=warmup).as_dict()
    return {**METHODS['CLSD'], 'contrastive_opt': {**L_CS, 'schedule': schedule}}


@pytest.mark.parametrize('arch', OTHERS)
@pytest.mark.parametrize('scale', [2, 4])
def test_training_of_other_students_with_heads(arch, scale):
    options = opened(f'train_CLSD_{arch}_x{scale}.yml')
    assert options.model_type == 'CLSDModel' and options.scale == scale
    assert losses(options) == (gated(10_000) if arch in GATED else METHODS['CLSD'])
    assert options.train is not None and options.train.pixel_range == 255
    data = options.datasets['train']
    patch, batch, rate, iterations = OTHERS[arch][-1]
    patch = 128 if (arch, scale) == ('SRVGG', 2) else patch  # Real-ESRGAN's HR patches are of 256 at any scale
    assert (data.gt_size, data.batch_size_per_gpu) == (patch * scale, batch)
    assert (options.train.optim_g.arguments()['lr'], options.train.total_iter) == (rate, iterations)
    assert {section.color for section in options.datasets.values()} == {'y' if arch == 'ECBSR' else None}


@pytest.mark.parametrize('arch', OTHERS)
def test_heads_on_other_students(arch):
    taps, skip, width, parameters, _ = OTHERS[arch]
    network = registry.build('archs', opened(f'train_CLSD_{arch}_x4.yml').network_g, 'network_g')
    assert list(network.heads.taps.taps) == taps
    assert list(network.heads.skip.taps) == [skip]
    assert {head.conv_after_body.in_channels for head in network.heads} == {width}
    assert {len(head.body) for head in network.heads} == {5}
    student = [value for name, value in network.named_parameters() if not name.startswith('heads.')]
    assert sum(value.numel() for value in student if value.requires_grad) == parameters


@pytest.mark.parametrize('arch', ['RCAN', 'SwinIR', 'SRVGG'])
def test_small_training_of_other_students_with_and_without_heads(arch):
    plain, heads = opened(f'small/train_{arch}_x2.yml'), opened(f'small/train_CLSD_{arch}_x2.yml')
    assert losses(plain) == METHODS['EDSR']
    assert losses(heads) == (gated(300) if arch in GATED else METHODS['CLSD'])
    assert heads.network_g.arguments()['student'] == plain.network_g.as_dict()
    assert rest(plain) == rest(heads)
    assert plain.train is not None
    total, milestones = plain.train.total_iter, plain.train.scheduler.arguments()['milestones']
    assert total == 3000 and [milestone / total for milestone in milestones] == [0.25, 0.5, 0.75]
    assert plain.manual_seed == heads.manual_seed == 0


@pytest.mark.parametrize('scale', [2, 3, 4])
def test_testing_on_the_four_benchmarks(scale):
    options = opened(f'test_x{scale}.yml')
    assert options.network_g.as_dict() == {'type': 'EDSR', **STUDENT, 'upscale': scale}
    assert [data.name for _, data in options.sets('test')] == ['Set5', 'Set14', 'B100', 'Urban100']
    for _, data in options.sets('test'):
        assert data.dataroot_gt == f'datasets/{data.name}/HR/x{scale}'
        assert data.dataroot_lq == f'datasets/{data.name}/LRbicx{scale}'
    for metric in options.val.metrics.values():
        assert metric.arguments() == {'crop_border': scale, 'test_y_channel': True}


def test_small_testing_is_of_the_small_student():
    options, trained = opened('small/test_x2.yml'), opened('small/train_EDSR_x2.yml')
    assert options.network_g == trained.network_g


@pytest.mark.parametrize('name', FILES)
def test_no_training_on_what_it_is_tested_on(name):
    trained = {data.dataroot_gt for _, data in opened(name).sets('train')}
    assert not any(benchmark in root for root in trained for benchmark in ('Set5', 'Set14', 'B100', 'Urban100'))


@pytest.mark.parametrize('path', sorted(OPTIONS.rglob('*.yml')), ids=lambda path: path.relative_to(OPTIONS).as_posix())
def test_files_hold_no_paths_of_one_machine(path):
    values = flat(yaml.safe_load(path.read_text(encoding='utf-8')))
    assert not [value for value in values.values() if isinstance(value, str) and Path(value).is_absolute()]
