"""CSD in a training: terms, gradients, what is saved, and options that do not fit."""

import copy
import shutil

import pytest
import torch
import torch.nn.functional as F
from basicsr.archs.edsr_arch import EDSR
from basicsr.archs.rcan_arch import RCAN
from helpers.one_step import step

from basicsr_clsd.errors import UserError

RGB = {'num_in_ch': 3, 'num_out_ch': 3, 'upscale': 2}
STUDENT = {'type': 'EDSR', **RGB, 'num_feat': 8, 'num_block': 2, 'res_scale': 0.1}
NO_HEADS = dict.fromkeys(('head_taps', 'head_num_block'))
RCAN_SIZES = {**RGB, 'num_group': 2, 'num_block': 1, 'squeeze_factor': 4}
NO_EDSR = dict.fromkeys(('num_feat', 'num_block', 'upscale', 'head_taps', 'head_num_block'))
CONTRAST = {'type': 'RatioOfFeaturesLoss', 'loss_weight': 200, 'num_negative': 2, 'extractor': 'pixels'}
VGG = {**CONTRAST, 'extractor': 'vgg19', 'vgg_weights': 'random'}
L1 = {'type': 'L1Loss', 'loss_weight': 1}


def options(contrast=CONTRAST, sections=None, **train):
    sections = sections or {}
    return {
        'model_type': 'CSDModel',
        'network_g': {**STUDENT, **NO_HEADS},
        'network_teacher': {**STUDENT, 'num_feat': 32},
        'datasets': {'train': {'batch_size_per_gpu': 4}},
        'train': {
            'pixel_opt': {'loss_weight': 1},
            'aux_opt': None,
            'contrastive_opt': None,
            'contrast_opt': contrast,
            'teacher_opt': L1,
            **train,
        },
        **sections,
    }


def rcan(width):
    return {'type': 'RCAN', **RCAN_SIZES, 'num_feat': width}


def test_terms_are_those_of_the_formula_and_the_step_descends_them(make_model, make_batch):
    model, batch = make_model(options(optim_g={'type': 'SGD', 'lr': 1e-4, 'betas': None})), make_batch()
    network = copy.deepcopy(model.net_g)
    sr, teacher_sr = network(batch['lq'])
    negatives = F.interpolate(batch['lq'][:2], scale_factor=2.0, mode='bicubic', align_corners=False)
    above = (sr - teacher_sr.detach()).abs().mean()
    below = sum((negative - sr).abs().mean() for negative in negatives)
    wanted = {
        'L_SR': 255 * (sr - batch['gt']).abs().mean(),
        'L_C': 200 * above / (below + 1e-7),
        'L_T': 255 * (teacher_sr - batch['gt']).abs().mean(),
    }
    trained = {name: value for name, value in network.named_parameters() if value.requires_grad}
    gradients = torch.autograd.grad(sum(wanted.values()), list(trained.values()))
    log = step(model, batch)
    found = {**wanted, 'A_1': above, 'B_1': below, 'L_total': sum(wanted.values())}
    assert log == pytest.approx({**{name: value.item() for name, value in found.items()}, 'done': 1}, rel=1e-4)
    after = dict(model.net_g.named_parameters())
    for (name, value), gradient in zip(trained.items(), gradients, strict=True):
        torch.testing.assert_close(after[name].data, value.data - 1e-4 * gradient, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize('contrast', [CONTRAST, VGG], ids=['pixels', 'vgg19'])
def test_student_and_detached_ratio_reach_the_slice_alone_and_the_teachers_term_the_rest(
    make_model, make_batch, contrast
):
    model = make_model(options(contrast))
    model.feed_data(make_batch())
    narrow = dict(model.net_g.template.named_parameters())

    def outside(term):
        """Whether a term's gradient leaves the slice."""
        model.net_g.zero_grad()
        model.loss_terms()[0][term].backward()
        left = []
        for name, value in model.net_g.wide.named_parameters():
            assert value.grad is not None and value.grad.any()
            gradient = value.grad.clone()
            gradient[tuple(slice(size) for size in narrow[name].shape)] = 0
            left.append(bool(gradient.any()))
        return any(left)

    assert [outside(term) for term in ('L_SR', 'L_C', 'L_T')] == [False, False, True]
    attached = make_model(options({**contrast, 'detach_teacher': False}))
    model = attached
    model.feed_data(make_batch())
    assert outside('L_C')


def test_full_width_has_no_contrast(make_model, make_batch):
    same = {'network_teacher': {**STUDENT}}
    log = step(make_model(options(sections=same)), make_batch())
    assert log['L_C'] == 0 and log['L_T'] == log['L_SR'] > 0


def test_vgg_is_frozen_and_in_no_file_and_no_state(make_model, make_batch):
    model = make_model(options(VGG, ema_decay=0.5))
    before = copy.deepcopy(model.extractor.state_dict())
    for iteration in (1, 2):
        log = step(model, make_batch(iteration), iteration)
    assert log['done'] == 1 and all(log[f'{name}_{layer}'] > 0 for name in 'AB' for layer in range(1, 6))
    assert all(value.grad is None for value in model.extractor.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.extractor.state_dict().items())
    keys = EDSR(3, 3, 8, 2, 2).state_dict().keys()
    assert model.training_state()['net_g'].keys() == keys
    assert all(part.keys() == keys for file in model.weights().values() for part in file.values())


@pytest.mark.parametrize('arch', ['EDSR', 'RCAN'])
def test_saved_student_is_the_slice_in_the_stock_arch(make_model, make_batch, arch):
    sections = None
    stocks = [EDSR(3, 3, width, 2, 2, 0.1) for width in (8, 32)]
    if arch == 'RCAN':
        sections = {'network_g': {**NO_EDSR, **rcan(8)}, 'network_teacher': rcan(32)}
        stocks = [RCAN(**RCAN_SIZES, num_feat=width) for width in (8, 32)]
    model, batch = make_model(options(sections=sections, ema_decay=0.5)), make_batch()
    for iteration in (1, 2):
        assert step(model, batch, iteration)['done'] == 1
    files = model.weights()
    assert files.keys() == {'net_g', 'net_teacher'}
    for key, network in (('params', model.net_g), ('params_ema', model.net_g_ema)):
        for stock, file in zip(stocks, ('net_g', 'net_teacher'), strict=True):
            stock.load_state_dict(files[file][key], strict=True)
        with torch.no_grad():
            sr, teacher_sr = network(batch['lq'], with_teacher=True)
            assert torch.equal(stocks[0].eval()(batch['lq']), sr)
            assert torch.equal(stocks[1].eval()(batch['lq']), teacher_sr)
    assert torch.equal(model.upscale(batch['lq'])[0], sr)
    assert model.net_g.training


def test_moving_average_is_that_of_the_wide_network(make_model, make_batch):
    model = make_model(options(ema_decay=0.75))
    start = copy.deepcopy(model.net_g.state_dict())
    step(model, make_batch())
    for key, value in model.net_g.state_dict().items():
        torch.testing.assert_close(model.net_g_ema.state_dict()[key], 0.75 * start[key] + 0.25 * value)


def test_it_starts_from_a_trained_teacher_or_from_scratch(make_model, tmp_path):
    torch.manual_seed(3)
    teacher = EDSR(3, 3, 32, 2, 2, 0.1)
    torch.save({'params': teacher.state_dict()}, tmp_path / 'teacher.pth')
    model = make_model(options(sections={'path': {'pretrain_network_teacher': str(tmp_path / 'teacher.pth')}}))
    assert all(torch.equal(value, teacher.state_dict()[name]) for name, value in model.net_g.state_dict().items())
    assert model.loaded == [f'Weights from {tmp_path / "teacher.pth"}, params: 16 of 16 tensors taken']
    count = [sum(value.numel() for value in EDSR(3, 3, width, 2, 2).parameters()) for width in (8, 32)]
    assert model.describe() == f'EDSR, {count[0]:,} parameters, a slice of EDSR, {count[1]:,}'
    assert make_model(options()).loaded == []


def test_without_training_it_is_the_student(make_model, tmp_path):
    torch.manual_seed(3)
    student = EDSR(3, 3, 8, 2, 2, 0.1).eval()
    torch.save({'params': student.state_dict()}, tmp_path / 'student.pth')
    path = {'pretrain_network_g': str(tmp_path / 'student.pth')}
    model = make_model({**options(), 'train': None, 'path': path})
    lq = torch.rand(1, 3, 6, 6)
    with torch.no_grad():
        assert torch.equal(model.upscale(lq)[0], student(lq))


def test_terms_can_end_and_the_teacher_then_rests(make_model, make_batch):
    off = {'start_iter': 0, 'anneal_start': 1, 'anneal_end': 2}
    model = make_model(options({**CONTRAST, 'schedule': off}, teacher_opt={**L1, 'schedule': off}))
    runs = []
    model.net_g.wide.register_forward_hook(lambda *_: runs.append(1))
    log = step(model, make_batch(), 1)
    assert {'L_C', 'L_T'} <= log.keys() and len(runs) == 1
    log = step(model, make_batch(), 2)
    assert log.keys().isdisjoint({'L_C', 'L_T'}) and len(runs) == 1 and log['done'] == 1


def test_gradient_norms_are_those_of_the_wide_networks_trunk(make_model, make_batch):
    model, batch = make_model({**options(), 'logger': {'grad_norm_freq': 1}}), make_batch()
    model.feed_data(batch)
    wanted = {}
    for term in ('L_SR', 'L_C', 'L_T'):
        model.net_g.zero_grad()
        model.loss_terms()[0][term].backward()
        wide = model.net_g.wide
        trunk = [value for part in (wide.conv_first, wide.body, wide.conv_after_body) for value in part.parameters()]
        wanted[f'grad_{term}'] = torch.cat([value.grad.double().flatten() for value in trunk]).norm().item()
    model.net_g.zero_grad()
    log = step(model, batch)
    assert {name: value for name, value in log.items() if name.startswith('grad_')} == pytest.approx(wanted, rel=1e-5)


def test_mixed_precision_keeps_losses_features_and_both_ends_in_fp32(make_model, make_batch):
    full, half = (make_model(options(VGG, precision=kind)) for kind in ('fp32', 'bf16'))
    dtypes = {}
    for name in ('conv_first', 'body.0.conv1', 'conv_last'):
        for where, network in (('student', half.net_g.template), ('teacher', half.net_g.wide)):
            key = f'{where}.{name}'
            hook = lambda _, __, output, key=key: dtypes.__setitem__(key, output.dtype)  # noqa: E731
            network.get_submodule(name).register_forward_hook(hook)
    half.extractor.register_forward_pre_hook(lambda _, given: dtypes.__setitem__('extractor', given[0].dtype))
    ours, theirs = (step(model, make_batch()) for model in (half, full))
    assert {key for key, dtype in dtypes.items() if dtype == torch.bfloat16} == {
        'student.body.0.conv1',
        'teacher.body.0.conv1',
    }
    assert dtypes['extractor'] == torch.float32 and len(dtypes) == 7
    assert ours != theirs and ours == pytest.approx(theirs, rel=0.05)


def test_micro_batches_average_the_gradients_of_their_own_ratios(make_model, make_batch):
    whole, parts = (make_model(options()) for _ in range(2))
    batch = make_batch(count=4)
    halves = [{name: values[part : part + 2] for name, values in batch.items()} for part in (0, 2)]
    gradients = []
    for half in halves:
        whole.net_g.zero_grad()
        whole.feed_data(half)
        whole.accumulate_gradients(1)
        gradients.append([value.grad.clone() for value in whole.net_g.wide.parameters()])
    for part, half in enumerate(halves):
        parts.feed_data(half)
        parts.accumulate_gradients(1, part, 2)
    for mine, *its in zip(parts.net_g.wide.parameters(), *gradients, strict=True):
        torch.testing.assert_close(mine.grad, sum(its) / 2, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('contrast', [CONTRAST, VGG], ids=['pixels', 'vgg19'])
def test_memory_format_changes_no_more_than_rounding(make_model, make_batch, contrast):
    plain, changed = (make_model(options(contrast, channels_last=flag)) for flag in (False, True))
    for iteration in (1, 2, 3):
        batch = make_batch(iteration)
        assert step(changed, batch, iteration) == pytest.approx(step(plain, batch, iteration), rel=1e-4)
    weight = changed.net_g.wide.body[0].conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    weights = changed.weights()
    stock = EDSR(3, 3, 8, 2, 2, 0.1).eval()
    stock.load_state_dict(weights['net_g']['params'], strict=True)
    with torch.no_grad():
        torch.testing.assert_close(stock(batch['lq']), changed.upscale(batch['lq'])[0], rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which('g++') is None, reason='torch.compile needs a C++ compiler on a CPU')
def test_compiled_network_trains_as_the_plain_one(make_model, make_batch):
    plain, compiled = (make_model(options(compile=flag, ema_decay=0.5)) for flag in (False, True))
    for iteration in (1, 2, 3):
        batch = make_batch(iteration)
        assert step(compiled, batch, iteration) == pytest.approx(step(plain, batch, iteration), rel=1e-4)
        compiled.upscale(batch['lq'][:1])


@pytest.mark.parametrize(
    ('changes', 'told'),
    [
        (
            {'contrast': {**CONTRAST, 'num_negative': 5}},
            'train.contrast_opt.num_negative: 5 are more than the 4 images',
        ),
        (
            {'contrast': {**CONTRAST, 'num_negative': 0}},
            'train.contrast_opt: RatioOfFeaturesLoss cannot be built: num_n',
        ),
        (
            {'contrast': {**CONTRAST, 'layer_weights': [1, 2]}},
            'train.contrast_opt: pixels: layer_weights: 2 for 1 feat',
        ),
        ({'contrast': {**L1, 'extractor': 'pixels'}}, 'train.contrast_opt.type: L1Loss is no ratio of features; use'),
        ({'contrast': {**CONTRAST, 'extractor': 'vgg19'}}, 'train.contrast_opt.vgg_weights: missing; extractor: vgg19'),
        (
            {'sections': {'network_g': {**STUDENT, **NO_HEADS, 'num_feat': 64}}},
            'network_g: conv_first.weight is (64, 3, 3, 3), and (32, 3, 3, 3) in network_teacher; the student must be',
        ),
        (
            {'sections': {'network_g': {'num_feat': 8}}},
            'network_g: a slice of network_teacher is trained without heads, of both',
        ),
        (
            {'sections': {'path': {'pretrain_network_g': 'small_EDSR_x2'}}},
            'path.pretrain_network_g: the student is a slice of network_teacher; give path.pretrain_network_teacher',
        ),
        (
            {'sections': {'path': {'pretrain_network_teacher': 'none.pth'}}},
            'path.pretrain_network_teacher: none.pth: no such file',
        ),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(make_model, changes, told):
    with pytest.raises(UserError) as caught:
        make_model(options(**changes))
    assert str(caught.value).startswith(told) and '\n' not in str(caught.value)
