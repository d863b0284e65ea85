"""Runs with a teacher: the same bits after a kill, the same numbers in two processes, one line for a mistake."""

import signal

import pytest
import torch
from basicsr.archs.edsr_arch import EDSR
from helpers.records import reproducible_rows

STUDENT = {'type': 'EDSR', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 8, 'num_block': 3, 'upscale': 2}
TAPS = {'student_taps': ['body.0', 'upsample:input'], 'teacher_taps': ['body.1', 'upsample:input']}
TERMS = [
    {'type': 'OutputDistillationLoss', 'loss_weight': 0.5},
    {'type': 'SpatialAffinityLoss', 'loss_weight': 10, **TAPS},
    {'type': 'RegressedFeatureLoss', 'kernel_size': 3, **TAPS},
    {'type': 'SelectiveFeatureLoss', 'loss_weight': 0.5, **TAPS},
    {'type': 'VariationalFeatureLoss', 'loss_weight': 0.01, **TAPS},
    {'type': 'OutputDistillationLoss', 'name': 'L_ZI', 'images': 'zoom_in', 'consistency': 0.5},
    {'type': 'GroundTruthLoss', 'images': 'zoom_out'},
]
BATCH, ITERATIONS = 4, 8


@pytest.fixture(scope='module')
def teacher(tmp_path_factory):
    """A file of weights under EDSR-PyTorch's names would do too; these are under BasicSR's."""
    torch.manual_seed(9)
    path = tmp_path_factory.mktemp('teacher') / 'teacher.pth'
    torch.save({'params': EDSR(3, 3, 12, 4, 2, 0.1).state_dict()}, path)
    return path


def changes(teacher, batch=BATCH, terms=TERMS, **train):
    return {
        'model_type': 'KDModel',
        'network_g': {**STUDENT, 'head_taps': None, 'head_num_block': None},
        'network_teacher': {**STUDENT, 'num_feat': 12, 'num_block': 4, 'res_scale': 0.1},
        'path': {'pretrain_network_teacher': str(teacher)},
        'datasets': {'train': {'batch_size_per_gpu': batch}},
        'train': {'distill_opt': terms, 'aux_opt': None, 'contrastive_opt': None, 'total_iter': ITERATIONS, **train},
        'logger': {'save_checkpoint_freq': 2, 'keep_states': 9},
    }


@pytest.fixture
def run_folder(tmp_path, make_pairs, tiny_options, write_yaml, teacher):
    """``run_folder(name, **changes)``: a folder with data and the options of a run; returns it and the options file."""

    def make(name, **how):
        folder = tmp_path / name
        make_pairs(folder / 'train', count=5)
        make_pairs(folder / 'val', count=2, seed=1)
        return folder, write_yaml(folder / 'tiny.yml', tiny_options(folder, changes(teacher, **how)))

    return make


def experiment(folder):
    return folder / 'experiments' / 'tiny'


def state(folder, iteration=ITERATIONS):
    return torch.load(experiment(folder) / 'training_states' / f'{iteration}.state', weights_only=True)


def trained(folder, iteration=ITERATIONS):
    """Weights of the student and of what the terms learn, one after the other."""
    model = state(folder, iteration)['model']
    assert any('regressors' in name for name in model['terms'])
    return torch.cat([value.flatten() for part in ('net_g', 'terms') for value in model[part].values()])


def test_killed_and_resumed_run_has_the_bits_of_the_whole(run_folder, run_command, same):
    whole, opt = run_folder('whole', ema_decay=0.5)
    assert run_command('train', '-opt', opt).code == 0
    folder, opt = run_folder('killed', ema_decay=0.5)
    temporary = str(experiment(folder) / 'training_states' / '.6.state.tmp')
    assert (
        run_command('train', '-opt', opt, accident={'before': 'os.replace', 'path': temporary}).code == -signal.SIGKILL
    )
    assert not (experiment(folder) / 'training_states' / '6.state').exists()
    ended = run_command('train', '-opt', opt, '--auto_resume')
    assert ended.code == 0 and 'iterations 4 to 8' in ended.out, ended.err
    ours, theirs = state(folder), state(whole)
    same(ours['model'], theirs['model'])
    same(ours['random'], theirs['random'])
    assert reproducible_rows(experiment(folder)) == reproducible_rows(experiment(whole))


def test_teacher_and_regressors_are_in_no_weights_of_the_student(run_folder, run_command):
    folder, opt = run_folder('run', ema_decay=0.5)
    ended = run_command('train', '-opt', opt)
    assert ended.code == 0, ended.err
    count = sum(value.numel() for value in EDSR(3, 3, 12, 4, 2).state_dict().values())
    assert f'; teacher EDSR, {count:,} parameters from ' in ended.out and ' in regressors' in ended.out
    for path in (experiment(folder) / 'models').iterdir():
        for weights in torch.load(path, weights_only=True).values():
            EDSR(3, 3, 8, 3, 2).load_state_dict(weights, strict=True)
    teacher_shape = (12, 3, 3, 3)  # of its first convolution
    assert teacher_shape not in {tuple(value.shape) for value in state(folder)['model']['net_g'].values()}


# After one step of SGD with a huge rate the weights are the gradient, to rounding.
GRADIENT = {'optim_g': {'type': 'SGD', 'lr': 1e9, 'betas': None}, 'total_iter': 1, 'scheduler': {'milestones': [9]}}


@pytest.mark.parametrize(('processes', 'parts'), [(2, 1), (1, 2), (2, 2)])
@pytest.mark.parametrize('unused', [False, True])
def test_gradients_are_those_of_one_process(run_folder, run_command, processes, parts, unused):
    one, opt = run_folder('one', **GRADIENT)
    assert run_command('train', '-opt', opt).code == 0
    folder, opt = run_folder('many', batch=BATCH // processes // parts, accum_iter=parts, **GRADIENT)
    ended = run_command(
        'train', '-opt', opt, '--force_yml', f'find_unused_parameters={str(unused).lower()}', processes=processes
    )
    assert [process.code for process in ended] == [0] * processes, ended
    ours, theirs = trained(folder, 1), trained(one, 1)
    assert theirs.norm() > 1e6
    assert (ours - theirs).norm() <= 1e-5 * theirs.norm()


def test_two_processes_train_as_one_does(run_folder, run_command):
    one, opt = run_folder('one')
    assert run_command('train', '-opt', opt).code == 0
    folder, opt = run_folder('two', batch=BATCH // 2)
    ended = run_command('train', '-opt', opt, processes=2)
    assert [process.code for process in ended] == [0, 0], ended
    torch.testing.assert_close(trained(folder), trained(one), rtol=0, atol=1e-5)


@pytest.mark.parametrize('adaptive', ['teacher_better', 'hard'])
def test_contrast_of_features_sees_the_images_of_all_processes(run_folder, run_command, adaptive):
    how = {'adaptive': adaptive, 'loss_weight': 10}
    terms = [{'type': 'ContrastiveFeatureLoss', 'negatives': ['teacher', 'student'], **TAPS, **how}]
    terms += [{'type': 'OutputDistillationLoss', **how}]
    one, opt = run_folder('one', terms=terms, **GRADIENT)
    assert run_command('train', '-opt', opt).code == 0
    folder, opt = run_folder('many', terms=terms, batch=BATCH // 2, **GRADIENT)
    ended = run_command('train', '-opt', opt, processes=2)
    assert [process.code for process in ended] == [0, 0], ended
    ours, theirs = trained(folder, 1), trained(one, 1)
    assert theirs.norm() > 1e6
    assert (ours - theirs).norm() <= 1e-5 * theirs.norm()


def test_terms_with_schedules_train_as_one_process_does_and_learn_only_when_they_are_on(run_folder, run_command):
    terms = [{**term, 'schedule': {'start_iter': 2, 'anneal_start': 4, 'anneal_end': 6}} for term in TERMS]
    one, opt = run_folder('one', terms=terms)
    assert run_command('train', '-opt', opt).code == 0
    folder, opt = run_folder('two', batch=BATCH // 2, terms=terms)
    ended = run_command('train', '-opt', opt, processes=2)
    assert [process.code for process in ended] == [0, 0], ended
    torch.testing.assert_close(trained(folder), trained(one), rtol=0, atol=1e-5)
    learnt = {at: state(one, at)['model']['terms'] for at in (2, 4, 6, 8)}
    changed = [
        any(not torch.equal(learnt[a][name], learnt[b][name]) for name in learnt[a]) for a, b in ((2, 4), (6, 8))
    ]
    assert changed == [True, False]


def refused(run_command, opt, *overrides):
    """The one line that a run ends in which must not have started."""
    ended = run_command('train', '-opt', opt, '--force_yml', *overrides)
    assert ended.code == 2, (ended.out, ended.err)
    (line,) = ended.err.splitlines()
    assert not experiment(opt.parent).exists()
    return line.removeprefix('error: ')


def test_missing_or_unfit_teacher_ends_in_one_line(run_folder, run_command, tmp_path, teacher):
    _, opt = run_folder('run')
    path = tmp_path / 'none.pth'
    key = f'path:pretrain_network_teacher={path}'
    assert refused(run_command, opt, key) == f'path.pretrain_network_teacher: {path}: no such file'
    path.write_bytes(teacher.read_bytes()[:-1000])
    assert refused(run_command, opt, key).startswith(
        f'path.pretrain_network_teacher: {path}: not a readable checkpoint'
    )
    torch.save({'net': EDSR(3, 3, 12, 4, 2).state_dict()}, path)
    assert refused(run_command, opt, key) == (
        f"path.pretrain_network_teacher: {path}: no weights under the key 'params' (path.param_key_teacher); it has net"
    )
    torch.save({'params': EDSR(3, 3, 10, 4, 2).state_dict()}, path)
    text = refused(run_command, opt, key)
    assert text.startswith(f'path.pretrain_network_teacher: {path}: does not fit EDSR: conv_first.weight has another')
    assert '((12, 3, 3, 3) expected, (10, 3, 3, 3) found)' in text
    assert refused(run_command, opt, 'path:pretrain_network_teacher=~').startswith(
        'path.pretrain_network_teacher: missing'
    )


def test_unknown_tap_ends_in_one_line_with_the_nearest(run_folder, run_command):
    _, opt = run_folder('run')
    term = '{type: SpatialAffinityLoss, student_taps: [body.0, upsampel:input], teacher_taps: [body.1, body.2]}'
    text = refused(run_command, opt, f'train:distill_opt=[{term}]')
    assert text.startswith("train.distill_opt: EDSR has no module 'upsampel'; the nearest are upsample")
    text = refused(run_command, opt, f'train:distill_opt=[{term.replace("_taps", "_tap")}]')
    assert text == (
        "train.distill_opt.0.student_tap: SpatialAffinityLoss has no such argument (did you mean 'student_taps'?)"
    )


def test_changed_teacher_or_terms_are_refused_on_resume(run_folder, run_command, tmp_path, teacher):
    _, opt = run_folder('run', total_iter=2)
    assert run_command('train', '-opt', opt).code == 0
    moved = tmp_path / 'moved.pth'
    moved.write_bytes(teacher.read_bytes())
    key = f'path:pretrain_network_teacher={moved}'
    ended = run_command('train', '-opt', opt, '--auto_resume', '--force_yml', key, 'train:total_iter=3')
    assert ended.code == 0, ended.err
    torch.save({'params': EDSR(3, 3, 12, 4, 2).state_dict()}, moved)
    ended = run_command('train', '-opt', opt, '--auto_resume', '--force_yml', key, 'train:total_iter=4')
    assert ended.code == 2
    assert ended.err == f'error: {moved}: not the teacher of the run to resume; its weights are others\n'
    for change in ('network_teacher:res_scale=0.2', 'train:distill_opt=[{type: OutputDistillationLoss}]'):
        ended = run_command('train', '-opt', opt, '--auto_resume', '--force_yml', change)
        assert ended.code == 2
        assert 'error: the run to resume had other options: ' + change.split('=')[0].replace(':', '.') in ended.err
