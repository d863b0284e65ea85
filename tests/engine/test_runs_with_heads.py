"""Whole runs of networks with heads other than EDSR: processes, resume, what is deployed, and mistakes in options."""

import signal

import pytest
import torch
from basicsr.archs.rcan_arch import RCAN
from basicsr.archs.swinir_arch import SwinIR
from helpers.records import rows

SIZES = {'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 8, 'num_group': 2, 'num_block': 1, 'squeeze_factor': 4}
STUDENT = {'type': 'RCAN', **SIZES, 'upscale': 2}
HEADS = {'taps': ['body.0', 'body.1'], 'head': {'num_block': 1, 'num_feat': 4}}
NETWORK = {'type': 'WithHeads', 'student': STUDENT, **HEADS}
# After one step of SGD with a huge rate the weights are the gradient, to rounding.
GRADIENT = {
    'optim_g': {'type': 'SGD', 'lr': 1e9},
    'total_iter': 1,
    'scheduler': {'type': 'MultiStepLR', 'milestones': []},
}


def state_of(run, iteration):
    return torch.load(run.states / f'{iteration}.state', weights_only=True)


@pytest.fixture
def run_in(make_run, data, tiny_options, run_command):
    """``run_in(processes, batch of each, train)``: a run that has ended well."""

    def start(processes, batch, train):
        train_set = {**tiny_options(data)['datasets']['train'], 'batch_size_per_gpu': batch}
        val_set = tiny_options(data)['datasets']['val']
        sections = {'train': {**tiny_options(data)['train'], **train}, 'datasets': {'train': train_set, 'val': val_set}}
        run = make_run({'network_g': NETWORK, **sections})
        ended = run_command('train', '-opt', run.opt, processes=processes)
        assert [process.code for process in ended] == [0] * processes, ended
        return run

    return start


def test_two_processes_compute_the_gradient_of_one(run_in):
    one, two = (run_in(processes, 4 // processes, GRADIENT) for processes in (1, 2))
    weights = [state_of(run, 1)['model']['net_g'] for run in (two, one)]
    ours, theirs = (torch.cat([value.flatten() for value in part.values()]) for part in weights)
    assert theirs.norm() > 1e6
    assert (ours - theirs).norm() <= 1e-6 * theirs.norm()


def test_two_processes_train_as_one_does(run_in):
    one, two = (run_in(processes, 4 // processes, {'total_iter': 8}) for processes in (1, 2))
    ours, theirs = (state_of(run, 8)['model']['net_g'] for run in (two, one))
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.allclose(value, theirs[name], rtol=0, atol=1e-5), name


def test_killed_run_resumes_to_the_same_bits_and_deploys_the_stock_arch(make_run, same):
    straight, killed = (make_run({'network_g': NETWORK}) for _ in range(2))
    ended = straight.start()
    assert ended.code == 0, ended.err
    assert 'RCAN with heads at body.0, body.1, which add body.0:input, ' in ended.out
    assert killed.start(before='os.replace', path=str(killed.states / '.6.state.tmp')).code == -signal.SIGKILL
    assert killed.resume().code == 0
    same(killed.outcome(), straight.outcome())
    deployed = torch.load(straight.models / 'net_g_latest.pth', weights_only=True)
    for part in ('params', 'params_ema'):
        RCAN(**SIZES, upscale=2).load_state_dict(deployed[part], strict=True)
    assert {row['metric'] for row in rows(straight.root, 'validation')} == {'psnr', 'psnr/head1', 'psnr/head2'}


def test_network_that_draws_random_numbers_resumes_exactly(make_run, same):
    sizes = {'img_size': 8, 'window_size': 4, 'embed_dim': 8, 'depths': [2, 2], 'num_heads': [2, 2], 'mlp_ratio': 1}
    student = {'type': 'SwinIR', **sizes, 'drop_path_rate': 0.5, 'upscale': 2, 'upsampler': 'pixelshuffledirect'}
    network = {'type': 'WithHeads', 'student': student, 'taps': {'evenly': 2}, 'head': {'num_block': 1, 'num_feat': 4}}
    straight, killed = (make_run({'network_g': network, 'train': {'total_iter': 4}}) for _ in range(2))
    assert straight.start().code == 0
    assert killed.start(before='os.replace', path=str(killed.states / '.4.state.tmp')).code == -signal.SIGKILL
    assert killed.resume().code == 0
    same(killed.outcome(), straight.outcome())
    weights = torch.load(straight.models / 'net_g_latest.pth', weights_only=True)['params']
    SwinIR(**{key: value for key, value in student.items() if key != 'type'}).load_state_dict(weights, strict=True)


def test_other_taps_are_another_run(make_run):
    run = make_run({'network_g': NETWORK, 'train': {'total_iter': 3}})
    assert run.start().code == 0
    ended = run.resume('--force_yml', 'network_g:taps=[body.1]')
    assert ended.code == 2 and "network_g.taps was ['body.0', 'body.1'], is ['body.1']" in ended.err


ODD = {'type': 'SwinIR', 'upscale': 2, 'img_size': 8, 'window_size': 4, 'embed_dim': 8, 'depths': [1], 'num_heads': [2]}


@pytest.mark.parametrize(
    ('change', 'told'),
    [
        ({'taps': ['bdy.1']}, "network_g.taps: RCAN has no module 'bdy.1'; the nearest are body.1"),
        ({'taps': ['body.0-9']}, "network_g.taps: RCAN has no module 'body.2'; the nearest are "),
        ({'taps': ['body.1-0']}, "network_g.taps: 'body.1-0': the range 1-0 ends before it starts"),
        ({'taps': ['body.1', 'body.0-1']}, "network_g.taps: 'body.1' is there twice"),
        ({'taps': []}, 'network_g.taps: must be a list of paths or evenly: a number of taps, not []'),
        (
            {'taps': {'evenly': 0}},
            "network_g.taps: must be a list of paths or evenly: a number of taps, not {'evenly': 0}",
        ),
        (
            {'taps': {'every': 3}},
            "network_g.taps: must be a list of paths or evenly: a number of taps, not {'every': 3}",
        ),
        (
            {'taps': {'evenly': 3}},
            "network_g.taps.evenly: 3 are more than the 2 blocks of 'body'",
        ),
        (
            {'taps': ['upsample']},
            "network_g.taps: 'upsample' of RCAN is 32 x 48 for an LR image of 16 x 24; tap a feature of its size",
        ),
        (
            {'taps': ['body.0.conv', 'body.1.residual_group.0.rcab.3.attention.0']},
            "network_g.taps: 'body.1.residual_group.0.rcab.3.attention.0' of RCAN is 1 x 1 for an LR image",
        ),
        (
            {'global_skip': 'conv_frist'},
            "network_g.global_skip: RCAN has no module 'conv_frist'; the nearest are conv_first",
        ),
        (
            {'global_skip': 'upsample'},
            "network_g.global_skip: 'upsample' of RCAN is 32 x 48 for an LR image of 16 x 24",
        ),
        ({'global_skip': 3}, 'network_g.global_skip: must be trunk, a path or none, not 3'),
        (
            {'head': {'num_blok': 5}},
            "network_g.head.num_blok: no such key (did you mean 'num_block'?); there are num_block",
        ),
        ({'head': {'num_feat': 0}}, 'network_g.head.num_feat: must be a number above 0, not 0'),
        ({'head': {'num_block': 1.5}}, 'network_g.head.num_block: must be a number above 0, not 1.5'),
        ({'head': 5}, 'network_g.head: must be a section of num_block, num_feat, res_scale, not 5'),
        (
            {'student': {**STUDENT, 'num_foot': 3}},
            'network_g.student.num_foot: RCAN has no such argument (did you mean',
        ),
        (
            {'student': {**STUDENT, 'type': 'RCNA'}},
            "network_g.student.type: unknown name 'RCNA' (did you mean 'RCAN'?)",
        ),
        ({'student': {**STUDENT, 'upscale': 4}}, 'network_g.student.upscale: 4 does not match scale: 2'),
        ({'student': {'type': 'RCAN'}}, 'network_g.student.num_in_ch: missing; RCAN needs it'),
        ({'student': 'RCAN'}, "network_g.student: must be a section with the type of a registered arch, not 'RCAN'"),
        ({'student': {'type': 'EDSRHeads', 'upscale': 2}}, 'network_g.student.type: EDSRHeads has heads of its own'),
        ({'student': {**STUDENT, 'num_feat': -1}}, 'network_g: WithHeads cannot be built: '),
        ({'student': {'type': 'SpyNet'}}, 'network_g.student: SpyNet cannot upscale an image: '),
        ({'student': ODD, 'taps': ['layers.0']}, 'network_g: WithHeads makes 3 x 32 x 32 of 3 x 32 x 32'),
        (
            {'student': {**ODD, 'upsampler': 'pixelshuffle'}, 'taps': ['layers.0.residual_group.blocks.0.attn']},
            "network_g.taps: 'layers.0.residual_group.blocks.0.attn' of SwinIR is no feature (N, C, h, w), but (",
        ),
        ({'heads': 3}, "network_g.heads: WithHeads has no such argument (did you mean 'head'?)"),
    ],
)
def test_mistakes_are_told_in_one_line(make_run, change, told):
    run = make_run({'network_g': {**NETWORK, **change}})
    ended = run.start()
    assert ended.code == 2, (ended.out, ended.err)
    (line,) = (line for line in ended.err.splitlines() if line.startswith('error: '))
    assert line.startswith(f'error: {told}'), line
    assert 'Traceback' not in ended.out + ended.err
    assert run.files() == {}
