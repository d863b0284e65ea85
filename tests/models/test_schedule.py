"""Schedules in a model: what is computed, what it weighs, and what opens the gate."""

import math

import pytest
import torch
from helpers.one_step import step

from basicsr_clsd.models.schedule import Gate

HEADS = {'L_ASR': 'aux_opt', 'L_SD': 'self_distill_opt', 'L_CS': 'contrastive_opt'}
BASE = {'self_distill_opt': {'type': 'L1Loss', 'loss_weight': 5}}


def scheduled(*terms, **schedule):
    """A change of the options to all terms of Eq. 6, with a schedule for these."""
    return {'train': {**BASE, **{HEADS[term]: {**BASE.get(HEADS[term], {}), 'schedule': schedule} for term in terms}}}


def forwards(model):
    """How often the heads run from now on."""
    calls = []
    model.net_g.heads[0].register_forward_hook(lambda *_: calls.append(1))
    return calls


def weights(model):
    return {name: value.clone() for name, value in model.net_g.state_dict().items()}


def assert_equal(first, second):
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize('term', HEADS)
def test_constant_schedule_is_none(make_model, make_batch, term):
    plain, constant = make_model({'train': BASE}), make_model(scheduled(term, warmup_iter=0, final=1))
    for iteration in (1, 2, 3):
        log, other = (step(model, make_batch(iteration), iteration) for model in (plain, constant))
    assert other == {**log, f'factor_{term}': 1, f'bare_{term}': log[term]}
    assert_equal(weights(plain), weights(constant))


@pytest.mark.parametrize('term', HEADS)
def test_factor_weighs_the_term(make_model, make_batch, term):
    plain, ramped = make_model({'train': BASE}), make_model(scheduled(term, warmup_iter=4))
    log, other = (step(model, make_batch()) for model in (plain, ramped))
    assert other[f'factor_{term}'] == 0.25 and other[f'bare_{term}'] == log[term]
    assert other[term] == pytest.approx(log[term] / 4)
    assert other['L_total'] == pytest.approx(log['L_total'] - 0.75 * log[term], rel=1e-6)


@pytest.mark.parametrize('term', HEADS)
def test_term_of_factor_0_is_not_computed_and_has_no_gradient(make_model, make_batch, term, monkeypatch):
    off = make_model(scheduled(term, start_iter=5))
    without = make_model({'train': {**BASE, HEADS[term]: None}})
    names = {'L_ASR': 'aux_loss', 'L_SD': 'self_distill_loss', 'L_CS': 'contrastive_loss'}
    loss = getattr(off, names[term])
    monkeypatch.setattr(type(loss), 'measure' if term == 'L_CS' else 'forward', _refuse(loss))
    log, other = (step(model, make_batch()) for model in (off, without))
    assert {name: value for name, value in log.items() if name != f'factor_{term}'} == other
    assert log[f'factor_{term}'] == 0
    assert_equal(weights(off), weights(without))


def _refuse(loss):
    """The loss's function, but an error when this loss is called."""
    function = type(loss).measure if hasattr(type(loss), 'measure') else type(loss).forward

    def refusing(self, *arguments):
        assert self is not loss
        return function(self, *arguments)

    return refusing


def test_student_runs_alone_while_no_term_needs_the_heads(make_model, make_batch):
    model = make_model(scheduled(*HEADS, start_iter=1, anneal_start=3, anneal_end=4))
    plain = make_model({'train': dict.fromkeys(HEADS.values())})
    initial, calls = weights(model), forwards(model)
    log, other = (step(each, make_batch()) for each in (model, plain))
    assert log == {**other, **dict.fromkeys((f'factor_{term}' for term in HEADS), 0)}
    assert not calls
    for name, value in weights(model).items():
        assert torch.equal(value, initial[name] if name.startswith('heads.') else plain.net_g.state_dict()[name])
    for iteration, ran in ((2, 1), (3, 2), (4, 2), (5, 2)):
        before = weights(model)
        step(model, make_batch(), iteration)
        assert len(calls) == ran, iteration
        moved = any(not torch.equal(value, before[name]) for name, value in weights(model).items() if 'heads' in name)
        assert moved == (iteration in (2, 3))


def test_heads_learn_without_the_student(make_model, make_batch):
    train = {'pixel_opt': {'schedule': {'start_iter': 1}}, 'contrastive_opt': None}
    model = make_model({'train': train})
    states = [weights(model)]
    for iteration in (1, 2):
        assert ('L_SR' in step(model, make_batch(), iteration)) == (iteration == 2)
        states.append(weights(model))
    for name, wanted in (('conv_first.weight', [True, True]), ('conv_last.weight', [False, True])):
        assert [not torch.equal(states[n][name], states[n + 1][name]) for n in (0, 1)] == wanted


@pytest.mark.parametrize('factor', [0, 0.25, 1])
def test_head_gradient_scales_what_heads_send_into_the_trunk(make_model, make_batch, factor):
    sgd = {'optim_g': {'type': 'SGD', 'lr': 1e-3, 'betas': None}, 'pixel_opt': {'loss_weight': 0}}
    plain, scaled = (make_model({'train': {**sgd, 'head_gradient': each}}) for each in (1, factor))
    initial = weights(plain)
    log, other = (step(model, make_batch()) for model in (plain, scaled))
    assert log == other
    for name, value in weights(plain).items():
        share = 1 if name.startswith('heads.') else factor
        moved, wanted = scaled.net_g.state_dict()[name] - initial[name], share * (value - initial[name])
        torch.testing.assert_close(moved, wanted, rtol=1e-3, atol=1e-8)


def test_moving_average_warms_up(make_model, make_batch):
    model = make_model({'train': {'ema_decay': 0.9, 'ema_warmup': True}})
    average = weights(model)
    for iteration, decay in ((1, 1 / 10), (2, 2 / 11), (81, 0.9)):
        step(model, make_batch(), iteration)
        average = {name: decay * average[name] + (1 - decay) * value for name, value in weights(model).items()}
        for name, value in model.net_g_ema.state_dict().items():
            torch.testing.assert_close(value, average[name])


def watched(gate, gains):
    """Whether the gate was open after each iteration, whose student is so many dB above the bicubic image."""
    lq, opened = torch.full((2, 3, 4, 4), 0.5), []
    for iteration, gain in enumerate(gains, start=1):
        gt = torch.full((2, 3, 8, 8), 0.6)  # the image is wrong by 0.1 everywhere
        gate.look(lq, gt - 0.1 * 10 ** (-gain / 20), gt)
        gate.end_iteration(iteration)
        opened.append(gate.opened)
    return opened


def make_gate():
    return Gate('bicubic', 2, torch.device('cpu'))


@pytest.mark.parametrize(
    ('gains', 'opened'),
    [
        ([0.6] * 100, 100),
        ([0.4] * 100, None),
        ([0.4] * 100 + [0.6] * 100, 200),
        ([0.0] * 50 + [1.1] * 50, 100),
        ([0.0] * 99 + [90.0], 100),  # the mean of dB, not of errors
        ([9.0] + [-3.0] * 99 + [0.6] * 99, None),
        ([0.6] * 99, None),
        ([0.6] * 100 + [-9.0] * 200, 100),  # it stays open
    ],
)
def test_gate_opens_on_the_mean_gain_of_100_iterations(gains, opened):
    assert watched(make_gate(), gains)[-1] == opened


def test_batch_that_is_not_finite_opens_nothing():
    assert watched(make_gate(), [0.6] * 50 + [math.nan] + [9.0] * 49 + [0.6] * 100)[99::100] == [None, 200]


def test_gate_looks_at_the_whole_batch_of_micro_batches():
    whole, parts = make_gate(), make_gate()
    generator = torch.Generator().manual_seed(0)
    for iteration in range(1, 101):
        lq, gt = torch.rand(4, 3, 4, 4, generator=generator), torch.rand(4, 3, 8, 8, generator=generator)
        sr = gt + 0.3 * torch.rand(4, 1, 1, 1, generator=generator)
        whole.look(lq, sr, gt)
        for part in range(0, 4, 2):
            parts.look(lq[part : part + 2], sr[part : part + 2], gt[part : part + 2])
        whole.end_iteration(iteration)
        parts.end_iteration(iteration)
        if iteration == 50:
            assert float(whole.state_dict()['gain']) > 1
            torch.testing.assert_close(whole.state_dict(), parts.state_dict())
    assert whole.opened == parts.opened == 100


STUDENT = {'type': 'SRVGGNetCompact', 'num_feat': 8, 'num_conv': 2, 'upscale': 2}


@pytest.mark.parametrize(
    ('network', 'image'),
    [
        ({}, 'bicubic'),
        ({'type': 'WithHeads', 'student': STUDENT, 'taps': {'evenly': 1}, 'head': {'num_feat': 8}}, 'nearest'),
    ],
)
def test_gate_compares_with_the_image_that_the_student_adds(make_model, tiny_options, tmp_path, network, image):
    drop = dict.fromkeys(tiny_options(tmp_path)['network_g']) if network else {}
    model = make_model({'network_g': {**drop, **network}, **scheduled('L_CS', gate='student_above_base')})
    assert model.factors.gate.interpolation == image


def test_gated_term_waits_for_the_student(make_model, make_batch):
    model = make_model(scheduled('L_CS', gate='student_above_base', warmup_iter=4))
    assert 'L_CS' not in step(model, make_batch(), 5)
    model.factors.gate.opened = 5
    log = step(model, make_batch(), 6)
    assert log['factor_L_CS'] == 0.25 and log['L_CS'] > 0
