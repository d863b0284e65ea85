"""L_H in a training with heads: which features, which gradients, what is trained and what is saved."""

import copy
import shutil

import pytest
import torch
from basicsr.archs.edsr_arch import EDSR
from helpers.one_step import descends, step

from basicsr_clsd.errors import UserError

LAMBDA = 0.1
HINT = {'type': 'HintLoss', 'loss_weight': LAMBDA}
BYOT = {
    'aux_opt': {'loss_weight': 0.35},
    'self_distill_opt': {'type': 'L1Loss', 'loss_weight': 0.15},
    'contrastive_opt': None,
    'hint_opt': HINT,
}
EDSR_HEADS = {'num_block': 4, 'head_taps': [1, 2]}
NO_EDSR = dict.fromkeys(('num_feat', 'num_block', 'upscale', 'head_taps', 'head_num_block'))
RGB = {'num_in_ch': 3, 'num_out_ch': 3}
RCAN = {'type': 'RCAN', **RGB, 'num_feat': 8, 'num_group': 3, 'num_block': 1, 'squeeze_factor': 4, 'upscale': 2}
MSR = {'type': 'MSRResNet', 'num_feat': 8, 'num_block': 3, 'upscale': 2}
SWINIR = {'img_size': 8, 'window_size': 4, 'embed_dim': 8, 'depths': [1] * 3, 'num_heads': [2] * 3, 'mlp_ratio': 1}
WITH_HEADS = {
    'RCAN': (RCAN, 'upsample:input'),
    'MSRResNet': (MSR, 'upconv1:input'),
    'SwinIR': ({'type': 'SwinIR', **SWINIR, 'upscale': 2, 'upsampler': 'pixelshuffledirect'}, 'upsample:input'),
}


def options(network=None, sections=None, **train):
    return {'network_g': network or EDSR_HEADS, 'train': {**BYOT, **train}, **(sections or {})}


def around(student, width=4, **head):
    heads = {'taps': {'evenly': 2}, 'head': {'num_block': 1, 'num_feat': width, **head}}
    return {'type': 'WithHeads', **NO_EDSR, 'student': student, **heads}


def features(network, image):
    """What the upsamplers of the heads and of the student are given, and the images, of EDSRHeads layer by layer."""
    student = network.student
    first = trunk = student.conv_first((image - student.mean) * student.img_range)
    tapped = []
    for block in student.body:
        trunk = block(trunk)
        tapped.append(trunk)
    last = student.conv_after_body(trunk) + first
    found = [
        head.conv_after_body(head.body(tapped[tap])) + first for tap, head in zip((0, 1), network.heads, strict=True)
    ]
    sr, *srs = [
        255 * (tail.conv_last(tail.upsample(feature)) / student.img_range + student.mean)
        for tail, feature in zip((student, *network.heads), (last, *found), strict=True)
    ]
    return found, last, sr, srs


def reached(model, term):
    model.net_g.zero_grad()
    terms, _ = model.loss_terms()
    terms[term].backward()
    names = {name for name, value in model.net_g.named_parameters() if value.grad is not None and value.grad.any()}
    return {name.removeprefix('student.') for name in names}


def test_terms_are_those_of_the_formula_and_the_step_descends_them(make_model, make_batch):
    model, batch = make_model(options(optim_g={'type': 'SGD', 'lr': 1e-4, 'betas': None})), make_batch()
    found, target, sr, srs = features(model.net_g, batch['lq'])
    gt = 255 * batch['gt']
    hints = [
        (adapter(feature) - target.detach()).abs().mean()
        for adapter, feature in zip(model.hinted.loss.adapters, found, strict=True)
    ]
    wanted = {
        'L_SR': 0.5 * (sr - gt).abs().mean(),
        'L_ASR': 0.35 * sum((each - gt).abs().mean() for each in srs) / 2,
        'L_SD': 0.15 * sum((each - sr.detach()).abs().mean() for each in srs) / 2,
        'L_H': LAMBDA * sum(hints) / 2,
    }
    descends(model, model.hinted, batch, wanted)
    assert {name.split('.')[0] for name, _ in model.hinted.named_parameters()} == {'network', 'loss'}


def test_hint_and_self_distillation_reach_the_trunk_below_the_taps_alone(make_model, make_batch):
    model = make_model(options())
    model.feed_data(make_batch())
    for term in ('L_H', 'L_SD'):
        parts = {'.'.join(name.split('.')[:2]) for name in reached(model, term)}
        student = {part for part in parts if not part.startswith('heads.')}
        assert {part for part in student if part.startswith('body.')} == {'body.0', 'body.1'}
        assert {part.split('.')[0] for part in student} == {'conv_first', 'body'}
        assert {'heads.0', 'heads.1'} <= parts
    # The hint is of what the heads' upsamplers are given, not of what they make.
    heads = {name.split('.')[2] for name in reached(model, 'L_H') if name.startswith('heads.')}
    assert heads == {'body', 'conv_after_body'}


def test_without_weight_it_is_deep_supervision_to_the_bit(make_model, make_batch):
    nothing = {'aux_opt': {'loss_weight': 0.5}, 'self_distill_opt': {'type': 'L1Loss', 'loss_weight': 0}}
    byot = make_model(options(**nothing, hint_opt={**HINT, 'loss_weight': 0}))
    asr = make_model(options(aux_opt={'loss_weight': 0.5}, self_distill_opt=None, hint_opt=None))
    for iteration in (1, 2, 3):
        ours, theirs = (step(model, make_batch(iteration), iteration) for model in (byot, asr))
        assert ours == {**theirs, 'L_SD': 0, 'L_H': 0}
    for name, value in asr.net_g.state_dict().items():
        assert torch.equal(value, byot.net_g.state_dict()[name]), name


def test_source_next_teaches_each_head_by_the_one_behind_it(make_model, make_batch):
    model, batch = make_model(options(hint_opt={**HINT, 'source': 'next', 'adapter': 'none'})), make_batch()
    (first, second), target, *_ = features(model.net_g, batch['lq'])
    wanted = LAMBDA * ((first - second).abs().mean() + (second - target).abs().mean()) / 2
    assert step(model, batch)['L_H'] == pytest.approx(wanted.item(), rel=1e-5)


def test_adapters_are_trained_and_in_the_state_and_in_nothing_that_is_deployed(make_model, make_batch):
    model, batch = make_model(options(ema_decay=0.5)), make_batch()
    assert model.describe().endswith(' in heads and 144 in adapters')
    before = copy.deepcopy(model.hinted.loss.state_dict())
    for iteration in (1, 2):
        step(model, batch, iteration)
    after = model.training_state()['hint']
    assert after.keys() == before.keys() and not any(torch.equal(after[name], before[name]) for name in before)
    for weights in model.student_weights().values():
        stock = EDSR(3, 3, 8, 4, 2).eval()
        stock.load_state_dict(weights, strict=True)
    assert torch.equal(stock(batch['lq']), model.upscale(batch['lq'])[0])
    assert not any('adapter' in name for name in model.training_state()['net_g'])
    fresh = make_model(options(ema_decay=0.5), seed=1)
    fresh.load_training_state(model.training_state())
    assert step(fresh, batch, 3) == step(model, batch, 3)


def test_hint_with_a_schedule_neither_runs_nor_learns_when_it_is_off(make_model, make_batch):
    model = make_model(options(hint_opt={**HINT, 'schedule': {'start_iter': 1}}))
    before = copy.deepcopy(model.hinted.loss.state_dict())
    assert 'L_H' not in step(model, make_batch(), 1)
    assert all(torch.equal(value, before[name]) for name, value in model.hinted.loss.state_dict().items())
    assert step(model, make_batch(), 2)['L_H'] > 0
    assert not all(torch.equal(value, before[name]) for name, value in model.hinted.loss.state_dict().items())


@pytest.mark.parametrize('student', WITH_HEADS)
def test_any_network_with_heads_takes_a_hint(make_model, make_batch, student):
    section, target = WITH_HEADS[student]
    model = make_model(options(around(section), hint_opt={**HINT, 'target': target}))
    model.feed_data(make_batch())
    terms, _ = model.loss_terms()
    sum(terms.values()).backward()
    assert all(value.grad is not None for value in model.hinted.parameters() if value.requires_grad)
    assert {value.shape for value in model.hinted.loss.adapters[0].parameters()} == {(8, 4, 1, 1), (8,)}
    model.net_g.zero_grad()
    log = step(model, make_batch())
    assert log['L_H'] > 0 and log['done'] == 1


def test_mixed_precision_and_micro_batches(make_model, make_batch):
    whole, parts, half = (make_model(options(precision=kind)) for kind in ('fp32', 'fp32', 'bf16'))
    batch = make_batch(count=4)
    whole.feed_data(batch)
    whole.accumulate_gradients(1)
    for part in range(2):
        parts.feed_data({name: values[2 * part : 2 * part + 2] for name, values in batch.items()})
        parts.accumulate_gradients(1, part, 2)
    for (name, mine), its in zip(parts.hinted.named_parameters(), whole.hinted.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, its.grad, rtol=1e-4, atol=1e-6, msg=name)
    dtypes = []
    half.hinted.loss.register_forward_pre_hook(
        lambda _, given: dtypes.extend(each.dtype for each in (*given[0], given[1]))
    )
    log = step(half, batch)
    assert dtypes == [torch.float32] * 3
    assert log == pytest.approx({name: float(value) for name, value in {**whole.log_dict, 'done': 1}.items()}, rel=0.05)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which('g++') is None, reason='torch.compile needs a C++ compiler on a CPU')
def test_compiled_network_trains_as_the_plain_one(make_model, make_batch):
    plain, compiled = (make_model(options(compile=flag)) for flag in (False, True))
    for iteration in (1, 2):
        batch = make_batch(iteration)
        assert step(compiled, batch, iteration) == pytest.approx(step(plain, batch, iteration), rel=1e-4)


@pytest.mark.parametrize(
    ('network', 'hint', 'told'),
    [
        (
            {**EDSR_HEADS, 'head_share_tail': True},
            {},
            'train.hint_opt: needs heads with upsamplers of their own; these share the tail of the student',
        ),
        (
            None,
            {'target': 'upsampel:input'},
            "train.hint_opt.target: EDSR has no module 'upsampel'; the nearest are upsam",
        ),
        (
            None,
            {'target': 'upsample'},
            "train.hint_opt.target: 'upsample' of EDSR is 64 x 64, the heads' features are 32 x 32; name a feature of",
        ),
        (None, {'target': 'body.0-1'}, 'train.hint_opt.target: must be one feature, not 2'),
        (None, {'skip': [3]}, 'train.hint_opt: HintLoss cannot be built: skip must be a list of numbers from 1 to 2'),
        (None, {'type': 'L1Loss'}, 'train.hint_opt.type: L1Loss is no hint loss; use HintLoss'),
        (
            around(RCAN),
            {'adapter': 'none'},
            'train.hint_opt: HintLoss cannot be built: adapter: none needs features of',
        ),
    ],
)
def test_hint_that_does_not_fit_is_told_in_one_line(make_model, network, hint, told):
    with pytest.raises(UserError) as caught:
        make_model(options(network, hint_opt={**HINT, **hint}))
    assert str(caught.value).startswith(told) and '\n' not in str(caught.value)
