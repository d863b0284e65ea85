import copy
import math

import pytest
import torch
from basicsr.archs.edsr_arch import EDSR
from helpers.one_step import step

from basicsr_clsd.errors import UserError

ALPHA, BETA = 10, 10


def eq_6(*attached, **train):
    """A change of the options to two heads and all terms of Eq. 6; ``attached`` sections let the gradient through."""
    sections = {'self_distill_opt': {'type': 'L1Loss', 'loss_weight': ALPHA / 2}, **train}
    for name in attached:
        sections[name] = {**sections.get(name, {}), 'detach_teacher': False}
    return {'network_g': {'num_block': 3, 'head_taps': [1, 2]}, 'train': sections}


def rho(first, second):
    """The distance between two images in [0, 1]: mean absolute difference in 8-bit units."""
    return 255 * (first.double() - second.double()).abs().mean().item()


def by_hand(sr, heads, gt):
    """Eq. 1 to 6, image by image."""
    number = range(len(sr))
    mean_over = [(head, i) for head in heads for i in number]
    positive, negative = [], []
    for head in heads:
        for i in number:
            positive.append(rho(sr[i], head[i]))
            negative.append(sum(rho(sr[i], head[k]) + rho(head[i], head[k]) for k in number if k != i))
    terms = {
        'L_SR': sum(rho(sr[i], gt[i]) for i in number) / len(sr) / 2,
        'L_ASR': sum(rho(head[i], gt[i]) for head, i in mean_over) / len(mean_over) / 2,
        'L_SD': ALPHA * sum(rho(head[i], sr[i]) for head, i in mean_over) / len(mean_over) / 2,
        'L_CS': BETA * sum(d / (below + 1e-7) for d, below in zip(positive, negative, strict=True)),
    }
    distances = {'d_pos': sum(positive) / len(mean_over), 'd_neg': sum(negative) / len(mean_over)}
    return {**terms, **distances, 'L_total': sum(terms.values()), 'done': 1}


def reached(model, term):
    """Which parts of the network a term's gradient reaches."""
    model.net_g.zero_grad()
    terms, _ = model.loss_terms()
    terms[term].backward()
    names = {name for name, value in model.net_g.named_parameters() if value.grad is not None and value.grad.any()}
    return {name.removeprefix('student.').split('.')[0] for name in names}


def test_terms_and_total_are_eq_1_to_6(make_model, make_batch):
    model, batch = make_model(eq_6()), make_batch()
    with torch.no_grad():
        sr, heads = model.net_g(batch['lq'])
    assert len(heads) == 2
    log = step(model, batch)
    wanted = by_hand(sr, heads, batch['gt'])
    assert log == pytest.approx(wanted, rel=1e-5)
    assert all(value > 0 for value in log.values())


@pytest.mark.parametrize(
    ('left_out', 'terms'),
    [
        (['contrastive_opt', 'self_distill_opt', 'aux_opt'], {'L_SR'}),
        (['contrastive_opt', 'self_distill_opt'], {'L_SR', 'L_ASR'}),
        (['contrastive_opt'], {'L_SR', 'L_ASR', 'L_SD'}),
        (['self_distill_opt'], {'L_SR', 'L_ASR', 'L_CS'}),
    ],
)
def test_terms_are_those_asked_for(make_model, make_batch, left_out, terms):
    model = make_model(eq_6(**dict.fromkeys(left_out)))
    log = step(model, make_batch())
    assert {name for name in log if name.startswith('L_')} == {*terms, 'L_total'}
    assert log['L_total'] == pytest.approx(sum(log[name] for name in terms), rel=1e-6)


def test_step_descends_the_gradient_of_the_total(make_model, make_batch):
    sgd = {'type': 'SGD', 'lr': 1e-4, 'betas': None}
    model, batch = make_model(eq_6(optim_g=sgd)), make_batch()
    before = copy.deepcopy(model.net_g)
    step(model, batch)
    model.feed_data(batch)
    model.net_g, trained = before, model.net_g
    terms, _ = model.loss_terms()
    sum(terms.values()).backward()
    for old, new in zip(before.parameters(), trained.parameters(), strict=True):
        torch.testing.assert_close(new.data, old.data - 1e-4 * old.grad)


@pytest.mark.parametrize('term', ['L_SD', 'L_CS'])
def test_detached_teacher_gets_no_gradient_beyond_the_trunk(make_model, make_batch, term):
    model = make_model(eq_6())
    model.feed_data(make_batch())
    assert reached(model, term) == {'conv_first', 'body', 'heads'}
    assert reached(model, 'L_SR') == {'conv_first', 'body', 'conv_after_body', 'upsample', 'conv_last'}
    assert reached(model, 'L_ASR') == {'conv_first', 'body', 'heads'}


@pytest.mark.parametrize(('term', 'section'), [('L_SD', 'self_distill_opt'), ('L_CS', 'contrastive_opt')])
def test_attached_teacher_gets_the_terms_gradient(make_model, make_batch, term, section):
    model = make_model(eq_6(section))
    model.feed_data(make_batch())
    assert {'conv_after_body', 'upsample', 'conv_last'} <= reached(model, term)
    (other,) = {'L_SD', 'L_CS'} - {term}
    assert reached(model, other) == {'conv_first', 'body', 'heads'}


def test_attached_terms_have_the_same_values(make_model, make_batch):
    log = step(make_model(eq_6()), make_batch())
    assert step(make_model(eq_6('self_distill_opt', 'contrastive_opt')), make_batch()) == log


def test_pixel_range_scales_the_pixel_terms_alone(make_model, make_batch):
    log = step(make_model(eq_6()), make_batch())
    unit = step(make_model(eq_6(pixel_range=1)), make_batch())
    for term in ('L_SR', 'L_ASR', 'L_SD', 'd_pos', 'd_neg'):
        assert unit[term] == pytest.approx(log[term] / 255, rel=1e-5)
    assert unit['L_CS'] == pytest.approx(log['L_CS'], rel=1e-5)


def test_moving_average_covers_the_heads(make_model, make_batch):
    model = make_model(eq_6(ema_decay=0.75))
    start = copy.deepcopy(model.net_g.state_dict())
    step(model, make_batch())
    average = model.net_g_ema.state_dict()
    assert any(name.startswith('heads.') for name in average)
    for key, value in model.net_g.state_dict().items():
        torch.testing.assert_close(average[key], 0.75 * start[key] + 0.25 * value)


@pytest.mark.parametrize('ema', [0, 0.5])
def test_trained_student_loads_strictly_into_stock_edsr_with_equal_outputs(make_model, make_batch, ema):
    model, batch = make_model(eq_6(ema_decay=ema)), make_batch()
    for iteration in (1, 2):
        step(model, batch, iteration)
    stock = EDSR(3, 3, 8, 3, 2).eval()
    stock.load_state_dict(model.student_weights()['params_ema' if ema else 'params'], strict=True)
    assert torch.equal(stock(batch['lq']), model.upscale(batch['lq'])[0])
    stock.load_state_dict(model.student_weights()['params'], strict=True)
    assert torch.equal(stock(batch['lq']), model.net_g(batch['lq'])[0])


def test_heads_are_upscaled_behind_the_student_for_validation(make_model, make_batch):
    model, batch = make_model({**eq_6(), 'val': {'heads': True}}), make_batch()
    with torch.no_grad():
        sr, heads = model.net_g(batch['lq'])
    outputs = model.upscale(batch['lq'], heads=True)
    assert len(outputs) == 3
    assert all(torch.equal(a, b) for a, b in zip(outputs, [sr, *heads], strict=True))
    assert len(model.upscale(batch['lq'])) == 1
    assert model.net_g.training


def test_non_finite_term_is_named_and_nothing_changes(make_model, make_batch):
    # Without eps, equal images in a batch have no distance to the negatives.
    contrastive = {'negatives': ['intra'], 'eps': 0}
    model, batch = make_model(eq_6(contrastive_opt=contrastive, ema_decay=0.5)), make_batch(count=2)
    step(model, batch)
    before = copy.deepcopy(model.training_state())
    batch['lq'] = batch['lq'][:1].expand(2, -1, -1, -1)
    log = step(model, batch, 2)
    assert log['done'] == 0
    assert math.isinf(log['L_CS']) and math.isfinite(log['L_SR'])
    after = model.training_state()
    for part in ('net_g', 'net_g_ema'):
        assert all(torch.equal(value, after[part][key]) for key, value in before[part].items())
    for old, new in zip(before['optimizer']['state'].values(), after['optimizer']['state'].values(), strict=True):
        assert all(torch.equal(value, new[key]) for key, value in old.items())


def test_gradient_norms_are_those_of_the_trunk_and_change_nothing(make_model, make_batch):
    model = make_model({**eq_6(), 'logger': {'grad_norm_freq': 2}})
    silent, batch = make_model(eq_6()), make_batch()
    assert not any(name.startswith('grad_') for name in step(model, batch))
    step(silent, batch)
    wanted = {}
    for term in ('L_SR', 'L_ASR', 'L_SD', 'L_CS'):
        network = copy.deepcopy(model.net_g)
        model.net_g, kept = network, model.net_g
        terms, _ = model.loss_terms()
        terms[term].backward()
        student = network.student
        trunk = [student.conv_first, student.body, student.conv_after_body]
        grads = [value.grad for part in trunk for value in part.parameters() if value.grad is not None]
        wanted[f'grad_{term}'] = torch.cat([grad.double().flatten() for grad in grads]).norm().item()
        model.net_g = kept
    log = step(model, batch, 2)
    assert {name: value for name, value in log.items() if name.startswith('grad_')} == pytest.approx(wanted, rel=1e-5)
    step(silent, batch, 2)
    for value, same in zip(model.net_g.parameters(), silent.net_g.parameters(), strict=True):
        assert torch.equal(value, same)


def test_student_weights_start_a_network_with_heads(make_model, make_batch, tmp_path):
    trained = make_model(eq_6())
    step(trained, make_batch())
    torch.save(trained.student_weights(), tmp_path / 'student.pth')
    path = {'pretrain_network_g': str(tmp_path / 'student.pth')}
    started, fresh = make_model({**eq_6(), 'path': path}, seed=1), make_model(eq_6(), seed=1)
    for key, value in started.net_g.state_dict().items():
        source = fresh if key.startswith('heads.') else trained
        assert torch.equal(value, source.net_g.state_dict()[key])


@pytest.mark.parametrize(
    ('network', 'told'),
    [
        (
            {'type': 'EDSR', 'num_in_ch': 3, 'num_out_ch': 3, 'head_taps': None, 'head_num_block': None},
            'CLSDModel needs a network with heads',
        ),
        ({'head_taps': []}, 'head_taps: must be a list of paths or evenly: a number of taps'),
    ],
)
def test_network_must_have_heads(make_model, network, told):
    with pytest.raises(UserError, match=told):
        make_model({'network_g': network})
