"""Whole runs of each method: the same bits after a kill, the same numbers in two processes, a stock arch deployed."""

import signal

import pytest
import torch
import yaml
from basicsr.archs.edsr_arch import EDSR
from basicsr.archs.rcan_arch import RCAN

from basicsr_clsd.archs import PrivilegedTeacher

NO_EDSR = dict.fromkeys(('num_feat', 'num_block', 'upscale', 'head_taps', 'head_num_block'))
SIZES = {'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 8, 'num_group': 2, 'num_block': 1, 'squeeze_factor': 4}
AROUND_RCAN = {
    'type': 'WithHeads',
    'student': {'type': 'RCAN', **SIZES, 'upscale': 2},
    'taps': ['body.0', 'body.1'],
    'head': {'num_block': 1, 'num_feat': 4},
}
BYOT = {
    'aux_opt': {'type': 'L1Loss', 'loss_weight': 0.35},
    'self_distill_opt': {'type': 'LaplaceKLLoss', 'loss_weight': 0.15, 'scale': 2.0},
    'contrastive_opt': None,
    'hint_opt': {'type': 'HintLoss', 'loss_weight': 0.1},
}
L1 = {'type': 'L1Loss', 'loss_weight': 1}
# More negatives than one of two processes has images; with processes of their own they would be others.
CSD = {
    'aux_opt': None,
    'contrastive_opt': None,
    'pixel_opt': L1,
    'teacher_opt': L1,
    'contrast_opt': {'type': 'RatioOfFeaturesLoss', 'loss_weight': 20, 'num_negative': 3, 'vgg_weights': 'random'},
}
EDSR_SECTION = {'type': 'EDSR', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 8, 'num_block': 2}
PLAIN_EDSR = {**NO_EDSR, **EDSR_SECTION}
RCAN_STUDENT = {**NO_EDSR, 'type': 'RCAN', **SIZES, 'upscale': 2}


def csd(student):
    return {
        'model_type': 'CSDModel',
        'network_g': student,
        'network_teacher': {key: value for key, value in {**student, 'num_feat': 16}.items() if value is not None},
        'train': CSD,
    }


PISR_TEACHER = {
    'aux_opt': None,
    'contrastive_opt': None,
    'pixel_opt': L1,
    'imitation_opt': {**L1, 'loss_weight': 0.01},
}


def privileged(student):
    decoder = {key: value for key, value in student.items() if value is not None and key != 'upscale'}
    network = {**dict.fromkeys(student), 'type': 'PrivilegedTeacher', 'decoder': decoder}
    return {'model_type': 'PrivilegedModel', 'network_g': network, 'train': PISR_TEACHER}


STOCK_EDSR, STOCK_RCAN = (lambda: EDSR(3, 3, 8, 2, 2)), (lambda: RCAN(**SIZES, upscale=2))
# Options, what is deployed, and where in the training state that is which the loss trains beside the network.
METHODS = {
    'BYOT': ({'train': BYOT}, STOCK_EDSR, 'hint'),
    'BYOT on RCAN': ({'network_g': {**NO_EDSR, **AROUND_RCAN}, 'train': BYOT}, STOCK_RCAN, 'hint'),
    'CSD': (csd(PLAIN_EDSR), STOCK_EDSR, None),
    'CSD on RCAN': (csd(RCAN_STUDENT), STOCK_RCAN, None),
    'PISR teacher': (privileged(PLAIN_EDSR), lambda: PrivilegedTeacher({**EDSR_SECTION, 'upscale': 2}, 2), None),
    'PISR teacher of RCAN': (
        privileged(RCAN_STUDENT),
        lambda: PrivilegedTeacher({'type': 'RCAN', **SIZES, 'upscale': 2}, 2),
        None,
    ),
}
BATCH, ITERATIONS = 4, 8
# After one step of SGD with a huge rate the weights are the gradient, to rounding.
GRADIENT = {'optim_g': {'type': 'SGD', 'lr': 1e9, 'betas': None}, 'total_iter': 1, 'scheduler': {'milestones': [9]}}
every_method = pytest.mark.parametrize(
    'method', [pytest.param(name, marks=pytest.mark.slow) if 'RCAN' in name else name for name in METHODS]
)


@pytest.fixture
def run_folder(tmp_path, make_pairs, tiny_options, write_yaml):
    """``run_folder(name, method, batch, **train)``: data and options in a folder; returns the run's and the file."""

    def make(name, method, batch=BATCH, **train):
        changes = METHODS[method][0]
        folder = tmp_path / name
        make_pairs(folder / 'train', count=5)
        make_pairs(folder / 'val', count=2, seed=1)
        options = {
            **changes,
            'datasets': {'train': {'batch_size_per_gpu': batch}},
            'train': {**changes['train'], 'total_iter': ITERATIONS, **train},
            'logger': {'save_checkpoint_freq': 2, 'keep_states': 9},
        }
        return folder / 'experiments' / 'tiny', write_yaml(folder / 'tiny.yml', tiny_options(folder, options))

    return make


def state(root, iteration=ITERATIONS):
    return torch.load(root / 'training_states' / f'{iteration}.state', weights_only=True)


def trained(root, method, iteration):
    """All that is trained, one after the other."""
    model = state(root, iteration)['model']
    parts = [part for part in ('net_g', METHODS[method][2]) if part is not None]
    return torch.cat([value.flatten() for part in parts for value in model[part].values()])


def end_well(run_command, opt, *arguments, processes=None):
    ended = run_command('train', '-opt', opt, *arguments, processes=processes)
    assert all(each.code == 0 for each in (ended if processes else [ended])), ended


@every_method
def test_killed_and_resumed_run_has_the_bits_of_the_whole_and_deploys_the_stock_arch(
    run_folder, run_command, same, method
):
    whole, opt = run_folder('whole', method, ema_decay=0.5)
    end_well(run_command, opt)
    root, opt = run_folder('killed', method, ema_decay=0.5)
    accident = {'before': 'os.replace', 'path': str(root / 'training_states' / '.6.state.tmp')}
    assert run_command('train', '-opt', opt, accident=accident).code == -signal.SIGKILL
    end_well(run_command, opt, '--auto_resume')
    for part in ('model', 'random'):
        same(state(root)[part], state(whole)[part])
    saved = {path.name: torch.load(path, weights_only=True) for path in (root / 'models').iterdir()}
    same(saved, {name: torch.load(whole / 'models' / name, weights_only=True) for name in saved})
    for name, weights in saved.items():
        assert weights.keys() == {'params', 'params_ema'}
        if name.startswith('net_g_'):
            for each in weights.values():
                METHODS[method][1]().load_state_dict(each, strict=True)


@every_method
@pytest.mark.parametrize('unused', [False, True])
def test_two_processes_compute_the_gradient_of_one(run_folder, run_command, method, unused):
    one, opt = run_folder('one', method, **GRADIENT)
    end_well(run_command, opt)
    two, opt = run_folder('two', method, batch=BATCH // 2, **GRADIENT)
    end_well(run_command, opt, '--force_yml', f'find_unused_parameters={str(unused).lower()}', processes=2)
    ours, theirs = trained(two, method, 1), trained(one, method, 1)
    assert theirs.norm() > 1e6
    assert (ours - theirs).norm() <= 1e-5 * theirs.norm()


@every_method
def test_two_processes_train_as_one_does(run_folder, run_command, method):
    one, opt = run_folder('one', method)
    end_well(run_command, opt)
    two, opt = run_folder('two', method, batch=BATCH // 2)
    end_well(run_command, opt, processes=2)
    torch.testing.assert_close(trained(two, method, ITERATIONS), trained(one, method, ITERATIONS), rtol=0, atol=1e-5)


def test_hint_that_comes_and_goes_trains_in_two_processes_as_in_one(run_folder, run_command):
    hint = {**BYOT['hint_opt'], 'schedule': {'start_iter': 2, 'anneal_start': 4, 'anneal_end': 6}}
    one, opt = run_folder('one', 'BYOT', hint_opt=hint)
    end_well(run_command, opt)
    two, opt = run_folder('two', 'BYOT', batch=BATCH // 2, hint_opt=hint)
    end_well(run_command, opt, processes=2)
    torch.testing.assert_close(trained(two, 'BYOT', ITERATIONS), trained(one, 'BYOT', ITERATIONS), rtol=0, atol=1e-5)
    learnt = [state(one, iteration)['model']['hint'] for iteration in (2, 4, 6, 8)]
    changed = [any(not torch.equal(a[name], b[name]) for name in a) for a, b in (learnt[:2], learnt[2:])]
    assert changed == [True, False]


@pytest.mark.parametrize(
    ('method', 'change', 'told'),
    [
        (
            'BYOT',
            {'network_g:head_share_tail': 'true'},
            'train.hint_opt: needs heads with upsamplers of their own; these',
        ),
        (
            'BYOT',
            {'train:hint_opt:sourse': 'next'},
            'train.hint_opt.sourse: HintLoss has no such argument (did you mean',
        ),
        (
            'CSD',
            {'train:contrast_opt:num_negative': BATCH + 1},
            'train.contrast_opt.num_negative: 5 are more than the 4',
        ),
        (
            'CSD',
            {'train:contrast_opt:vgg_weights': 'none.pth'},
            'train.contrast_opt.vgg_weights: none.pth: no such file',
        ),
        (
            'CSD',
            {'train:contrast_opt:vgg_weights': 'null'},
            'train.contrast_opt.vgg_weights: missing; extractor: vgg19',
        ),
        ('CSD', {'network_teacher:num_feat': 4}, 'network_g: conv_first.weight is (8, 3, 3, 3), and (4, 3, 3, 3) in'),
        ('CSD', {'network_teacher': 'null'}, 'network_teacher: missing; CSDModel needs it'),
    ],
)
def test_mistakes_are_told_in_one_line_before_training(run_folder, run_command, method, change, told):
    root, opt = run_folder('run', method)
    overrides = [f'{key}={value}' for key, value in change.items()]
    ended = run_command('train', '-opt', opt, '--force_yml', *overrides)
    assert ended.code == 2, (ended.out, ended.err)
    (line,) = ended.err.splitlines()
    assert line.startswith(f'error: {told}')
    assert not root.exists()


def test_more_negatives_than_two_processes_have_images_are_told_once(run_folder, run_command):
    root, opt = run_folder('run', 'CSD', batch=1)
    ended = run_command('train', '-opt', opt, processes=2)
    assert [each.code for each in ended] == [2, 2]
    (line,) = ''.join(each.err for each in ended).splitlines()
    assert line == 'error: train.contrast_opt.num_negative: 3 are more than the 2 images of a batch'
    assert not root.exists()


def test_student_of_pisr_follows_its_teacher_by_commands(run_folder, run_command, write_yaml, tmp_path, make_images):
    root, opt = run_folder('teacher', 'PISR teacher')
    end_well(run_command, opt)
    rows = (root / 'metrics.jsonl').read_text(encoding='utf-8')
    assert '"psnr/privileged"' in rows and '"psnr"' not in rows
    models = root / 'models'
    assert {path.name.rsplit('_', 1)[0] for path in models.iterdir()} == {'net_g', 'net_decoder'}
    photos = make_images(tmp_path / 'photos', count=1)
    ended = run_command('infer', '-i', photos, '-o', tmp_path / 'out', '-m', models / 'net_g_latest.pth')
    assert ended.code == 2 and len(ended.err.splitlines()) == 1
    assert 'network_g: PrivilegedTeacher is given HR images and upscales none' in ended.err
    ended = run_command('infer', '-i', photos, '-o', tmp_path / 'out', '-m', models / 'net_decoder_latest.pth')
    assert ended.code == 0, ended.err

    _, opt = run_folder('student', 'CSD')
    options = yaml.safe_load(opt.read_text(encoding='utf-8'))
    term = {'type': 'VariationalFeatureLoss', 'student_taps': ['upsample:input']}
    options |= {
        'model_type': 'KDModel',
        'network_teacher': {'type': 'PrivilegedTeacher', 'decoder': EDSR_SECTION},
        'path': {
            **options['path'],
            'pretrain_network_g': str(models / 'net_decoder_latest.pth'),
            'pretrain_network_teacher': str(models / 'net_g_latest.pth'),
        },
    }
    for name in ('teacher_opt', 'contrast_opt'):
        del options['train'][name]
    options['train']['distill_opt'] = [{**term, 'teacher_taps': ['decoder.upsample:input']}]
    end_well(run_command, write_yaml(opt, options))
    term = {**term, 'teacher_taps': ['encoder.0']}
    options['train']['distill_opt'], options['name'] = [term], 'wrong'
    ended = run_command('train', '-opt', write_yaml(opt, options))
    assert ended.code == 2 and len(ended.err.splitlines()) == 1
    assert ended.err.startswith("error: train.distill_opt.0.teacher_taps: 'encoder.0' of PrivilegedTeacher is 64 x 64")
    assert not (opt.parent / 'experiments' / 'wrong').exists()
