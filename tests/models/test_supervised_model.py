import copy
import io
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from basicsr.archs.edsr_arch import EDSR
from basicsr.models.sr_model import SRModel

from basicsr_clsd.errors import UserError

# What the tests' options have beyond a stock network and its loss.
NO_HEADS = {'head_taps': None, 'head_num_block': None}
NO_HEAD_LOSSES = {'aux_opt': None, 'contrastive_opt': None}
TINY = {'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 8, 'num_block': 2, 'upscale': 2}


def baseline(**train):
    """A change of the options to EDSR trained by L_SR alone."""
    network = {'type': 'EDSR', 'num_in_ch': 3, 'num_out_ch': 3, **NO_HEADS}
    return {'model_type': 'SupervisedModel', 'network_g': network, 'train': {**NO_HEAD_LOSSES, **train}}


def train(model, batches, warmup=-1, first=1):
    """Train as the engine does; return the log of every iteration."""
    logs = []
    for iteration, batch in enumerate(batches, first):
        model.update_learning_rate(iteration, warmup)
        model.feed_data(batch)
        model.optimize_parameters(iteration)
        logs.append({name: float(value) for name, value in model.log_dict.items() if name != 'done'})
    return logs


def assert_equal(first, second):
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert torch.equal(value, second[key]), key


def everything(model):
    """A copy of all that training changes."""
    return copy.deepcopy(model.training_state())


def test_loss_is_eq_1_in_8_bit_units(make_model, make_batch):
    model, batch = make_model(baseline()), make_batch()
    with torch.no_grad():
        sr = model.net_g(batch['lq'])
    (log,) = train(model, [batch])
    assert log.keys() == {'L_SR', 'L_total'}
    assert log['L_SR'] == pytest.approx(0.5 * 255 * (sr - batch['gt']).abs().mean().item(), rel=1e-6)
    assert log['L_total'] == log['L_SR']


@pytest.mark.parametrize('stored_channels_last', [False, True])
@pytest.mark.parametrize('channels_last', [False, True])
@pytest.mark.parametrize('device', ['cpu', 'cuda'])
def test_bytes_become_on_the_device_the_floats_that_the_loader_made(
    make_model, device, channels_last, stored_channels_last
):
    if device == 'cuda' and not torch.cuda.is_available():
        pytest.skip('needs a GPU')
    model = make_model({**baseline(channels_last=channels_last), 'num_gpu': int(device == 'cuda')})
    levels = torch.arange(256, dtype=torch.uint8).repeat(3).view(1, 3, 16, 16).repeat(2, 1, 1, 1)
    if stored_channels_last:
        levels = levels.to(memory_format=torch.channels_last)
    batch = {'lq': levels[..., :8, :8], 'gt': levels.pin_memory() if device == 'cuda' else levels}
    model.feed_data(batch)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    for image, stored in ((model.lq, batch['lq']), (model.gt, batch['gt'])):
        assert image.device.type == device and image.dtype == torch.float32
        assert image.is_contiguous(memory_format=layout)
        np.testing.assert_array_equal(image.cpu().numpy(), stored.numpy().astype(np.float32) / 255)
    assert levels.dtype == torch.uint8 and levels[0, 0].flatten().tolist() == list(range(256))


@pytest.mark.parametrize('arch', ['EDSR', 'MSRResNet'])
@pytest.mark.parametrize(
    ('scheduler', 'warmup'),
    [
        ({'type': 'MultiStepLR', 'milestones': [3, 5], 'gamma': 0.5}, 3),
        ({'type': 'CosineAnnealingRestartLR', 'periods': [3, 5], 'restart_weights': [1, 0.5], 'eta_min': 1e-7}, -1),
    ],
    ids=['steps', 'cosine'],
)
def test_options_of_srmodel_train_as_basicsr_does(make_model, make_batch, arch, scheduler, warmup):
    network = {'type': arch, **TINY}
    section = {
        'ema_decay': 0.9,
        'optim_g': {'type': 'Adam', 'lr': 1e-3, 'weight_decay': 1e-4, 'betas': [0.9, 0.99], 'fused': False},
        'scheduler': {'milestones': None, 'gamma': None, **scheduler},
        'pixel_opt': {'type': 'L1Loss', 'loss_weight': 1.0, 'reduction': 'mean'},
    }
    changes = {'network_g': {**network, **NO_HEADS}, 'train': {**section, **NO_HEAD_LOSSES, 'warmup_iter': warmup}}
    ours = make_model({'model_type': 'SRModel', **changes})
    torch.manual_seed(0)
    opt = {'num_gpu': 0, 'dist': False, 'is_train': True, 'path': {}, 'network_g': network}
    theirs = SRModel(copy.deepcopy({**opt, 'train': {**section, 'scheduler': scheduler}}))
    batches = [make_batch(seed) for seed in range(7)]
    our_losses = [log['L_SR'] for log in train(ours, batches, warmup)]
    assert our_losses == [log['l_pix'] for log in train(theirs, batches, warmup)]
    assert ours.get_current_learning_rate() == theirs.get_current_learning_rate() != [1e-3]
    assert_equal(ours.net_g.state_dict(), theirs.net_g.state_dict())
    assert_equal(ours.net_g_ema.state_dict(), theirs.net_g_ema.state_dict())
    theirs.feed_data(batches[0])
    theirs.test()
    assert torch.equal(ours.upscale(batches[0]['lq'])[0], theirs.output)


def test_moving_average_against_its_definition(make_model, make_batch):
    model = make_model(baseline(ema_decay=0.75))
    average = copy.deepcopy(model.net_g.state_dict())
    for seed in range(4):
        train(model, [make_batch(seed)])
        for key, value in model.net_g.state_dict().items():
            average[key] = 0.75 * average[key] + 0.25 * value
    for key, value in model.net_g_ema.state_dict().items():
        torch.testing.assert_close(value, average[key])
        assert not torch.equal(value, model.net_g.state_dict()[key])


def test_long_gradients_are_shortened_as_torch_does(make_model, make_batch):
    sgd = {'optim_g': {'type': 'SGD', 'lr': 1.0, 'betas': None}}
    batch, model = make_batch(), make_model(baseline(**sgd))
    theirs = copy.deepcopy(model.net_g)
    loss = 0.5 * 255 * (theirs(batch['lq']) - batch['gt']).abs().mean()
    loss.backward()
    whole = {name: value.grad.clone() for name, value in theirs.named_parameters()}
    norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
    assert norm > 1
    for limit, gradients in (
        (0.5, {name: value.grad for name, value in theirs.named_parameters()}),
        (2 * norm.item(), whole),
        (None, whole),
    ):
        ours = make_model(baseline(**sgd, max_grad_norm=limit))
        before = copy.deepcopy(ours.net_g.state_dict())
        train(ours, [batch])
        for name, value in ours.net_g.state_dict().items():
            torch.testing.assert_close(before[name] - value, gradients[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('ema', [0, 0.5])
def test_upscaling_uses_the_deployed_weights_and_leaves_training_as_it_was(make_model, make_batch, ema):
    model, batch = make_model(baseline(ema_decay=ema)), make_batch()
    train(model, [batch] * 2)
    before = everything(model)
    stock = EDSR(3, 3, 8, 2, 2)
    weights = model.student_weights()
    assert set(weights) == ({'params', 'params_ema'} if ema else {'params'})
    stock.load_state_dict(weights['params_ema' if ema else 'params'], strict=True)
    (sr,) = model.upscale(batch['lq'])
    assert torch.equal(sr, stock(batch['lq']))
    assert model.net_g.training and not sr.requires_grad
    assert_equal(before['net_g'], model.training_state()['net_g'])


def test_training_goes_on_from_a_saved_state_to_the_bit(make_model, make_batch):
    changes = baseline(ema_decay=0.5)
    batches = [make_batch(seed) for seed in range(8)]
    whole, part, resumed = make_model(changes), make_model(changes), make_model(changes, seed=1)
    logs = train(whole, batches)
    train(part, batches[:5])
    file = io.BytesIO()
    torch.save(part.training_state(), file)
    file.seek(0)
    resumed.load_training_state(torch.load(file, weights_only=True))
    assert train(resumed, batches[5:], first=6) == logs[5:]
    assert_equal(whole.net_g.state_dict(), resumed.net_g.state_dict())
    assert_equal(whole.net_g_ema.state_dict(), resumed.net_g_ema.state_dict())


def test_state_of_another_network_is_refused(make_model):
    changes = baseline()
    other = make_model({**changes, 'network_g': {**changes['network_g'], 'num_block': 1}})
    with pytest.raises(UserError, match='state is of another network'):
        make_model(baseline()).load_training_state(other.training_state())


def assert_skips(model, batch, bad):
    """The next step must be skipped, and change neither weights, average nor optimizer."""
    before = everything(model)
    model.feed_data(batch)
    model.optimize_parameters(2)
    assert model.log_dict.pop('done') == 0
    assert {name for name, value in model.log_dict.items() if not value.isfinite()} == bad
    after = everything(model)
    assert_equal(before['net_g'], after['net_g'])
    assert_equal(before['net_g_ema'], after['net_g_ema'])
    for state, now in zip(before['optimizer']['state'].values(), after['optimizer']['state'].values(), strict=True):
        assert_equal(state, now)


def test_non_finite_loss_names_the_term_and_the_files_and_changes_nothing(make_model, make_batch):
    model, batch = make_model(baseline(ema_decay=0.5)), make_batch(count=2)
    train(model, [batch])
    batch['gt'][1, 0, 0, 0] = torch.inf
    assert_skips(model, batch, {'L_SR', 'L_total'})


@pytest.mark.parametrize('limit', [None, 0.5])
def test_non_finite_gradient_of_a_finite_loss_changes_nothing(make_model, make_batch, limit):
    # The square root's slope is infinite where the output is exact.
    charbonnier = {'type': 'CharbonnierLoss', 'eps': 0}
    model = make_model(baseline(ema_decay=0.5, pixel_opt=charbonnier, max_grad_norm=limit))
    batch = make_batch(count=2)
    train(model, [batch])
    with torch.no_grad():
        batch['gt'] = model.net_g(batch['lq'])
    assert_skips(model, batch, set())
    assert model.log_dict['L_SR'] == 0


def test_heads_to_validate_must_be_there(make_model):
    with pytest.raises(UserError, match='val.heads: EDSR has no heads'):
        make_model({**baseline(), 'val': {'heads': True}})


@pytest.mark.parametrize(
    ('network', 'key'),
    [({'num_feat': -1}, 'network_g'), ({'rgb_mean': [0.5, 0.5]}, 'network_g')],
)
def test_arguments_that_no_network_can_have_are_told_in_one_line(make_model, network, key):
    changes = baseline()
    changes['network_g'] |= network
    with pytest.raises(UserError, match=f'^{key}: EDSR cannot be built: ') as told:
        make_model(changes)
    assert '\n' not in str(told.value)


@pytest.mark.parametrize(
    ('changes', 'reason'),
    [
        ({'network_g': {'num_feat': 0}}, 'cannot upscale 3 channels'),
        (
            {'network_g': {'type': 'RRDBNet', 'upscale': None, 'scale': 2, 'num_out_ch': 2}},
            'makes 2 x 64 x 64 of 3 x 32 x 32',
        ),
        ({'network_g': {'type': 'MSRResNet'}, 'datasets': {'val': {'color': 'y'}}}, 'cannot upscale 1 channels'),
    ],
)
def test_network_that_does_not_work_is_told_in_one_line(make_model, changes, reason):
    whole = baseline()
    for section, values in changes.items():
        whole[section] = {**whole.get(section, {}), **values}
    with pytest.raises(UserError, match=f'^network_g: [A-Za-z]+ .*{reason}') as told:
        make_model(whole)
    assert '\n' not in str(told.value)


def test_optimizer_arguments_are_told_in_one_line(make_model):
    with pytest.raises(UserError, match='^train.optim_g: '):
        make_model(baseline(optim_g={'type': 'Adam', 'lr': 1e-3, 'betas': [0.9]}))


@pytest.mark.parametrize('name', ['CLSDModel', 'KDModel', 'SupervisedModel'])
def test_basicsr_own_pipeline_ends_in_one_clear_line(name, make_images, tmp_path):
    images = str(make_images(tmp_path / 'images'))
    data = {'name': 'T', 'type': 'PairedImageDataset', 'dataroot_gt': images, 'dataroot_lq': images, 'gt_size': 8}
    loading = {'use_shuffle': False, 'num_worker_per_gpu': 0, 'batch_size_per_gpu': 1, 'io_backend': {'type': 'disk'}}
    options = {
        'name': 'theirs',
        'model_type': name,
        'scale': 1,
        'num_gpu': 0,
        'manual_seed': 0,
        'datasets': {'train': {**data, **loading}},
        'network_g': {'type': 'EDSR', 'num_in_ch': 3, 'num_out_ch': 3},
        'path': {},
        'train': {'total_iter': 1},
        'logger': {'use_tb_logger': False},
    }
    (tmp_path / 'theirs.yml').write_text(yaml.safe_dump(options), encoding='utf-8')
    (tmp_path / 'theirs.py').write_text(
        'import sys, basicsr_clsd.models\nfrom basicsr.train import train_pipeline\ntrain_pipeline(sys.argv.pop())\n'
    )
    command = [sys.executable, 'theirs.py', '-opt', 'theirs.yml', str(tmp_path)]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 2, ended.stderr
    line = f"ERROR: {name} trains by basicsr_clsd/train.py, not by BasicSR's train_pipeline"
    assert ended.stderr.splitlines()[-1].endswith(line)
    assert 'Traceback' not in ended.stderr
