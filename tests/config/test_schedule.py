"""The factor of a schedule at every turn of it, and schedules that cannot be meant."""

import math

import pytest

from basicsr_clsd.config import Options, check, load
from basicsr_clsd.config.schedule import Schedule
from basicsr_clsd.errors import UserError

WHOLE = {'start_iter': 10, 'warmup_iter': 20, 'anneal_start': 50, 'anneal_end': 90, 'final': 0.2}


@pytest.mark.parametrize(
    ('changes', 'factors'),
    [
        ({}, {0: 0, 10: 0, 11: 0.05, 20: 0.5, 30: 1, 50: 1, 51: 0.98, 70: 0.6, 90: 0.2, 100: 0.2}),
        ({'anneal_shape': 'cosine'}, {50: 1, 60: 0.6 + 0.4 * math.cos(math.pi / 4), 70: 0.6, 90: 0.2, 100: 0.2}),
        ({'shape': 'sigmoid'}, {10: 0, 11: math.exp(-5 * 0.95**2), 20: math.exp(-5 / 4), 30: 1, 90: 0.2}),
        ({'final': 0}, {70: 0.5, 89: 1 / 40, 90: 0, 100: 0}),
        ({'warmup_iter': 0}, {10: 0, 11: 1}),
        ({'start_iter': 0}, {0: 0, 1: 0.05, 20: 1}),
        ({'start_iter': 0, 'warmup_iter': 0, 'anneal_start': None, 'anneal_end': None}, {1: 1, 100: 1}),
    ],
)
def test_factor_at_every_turn(changes, factors):
    schedule = Schedule(**{**WHOLE, **changes})
    assert {iteration: schedule.factor(iteration) for iteration in factors} == pytest.approx(factors, abs=1e-12)


def test_gate_moves_the_start_and_the_warm_up_but_not_the_fall():
    schedule = Schedule(**WHOLE, gate='student_above_base')
    assert all(schedule.factor(iteration, None) == 0 for iteration in (1, 40, 100))
    later = {iteration: schedule.factor(iteration, 25) for iteration in (25, 35, 36, 45, 55, 70, 90)}
    assert later == pytest.approx({25: 0, 35: 0, 36: 0.05, 45: 0.5, 55: 0.9, 70: 0.6, 90: 0.2})


def test_short_training_has_all_of_a_schedule():
    schedule = Schedule(**WHOLE)
    schedule.shorten(0.1)
    assert (schedule.start_iter, schedule.warmup_iter, schedule.anneal_start, schedule.anneal_end) == (1, 2, 5, 9)
    schedule.shorten(1e-3)
    assert (schedule.start_iter, schedule.anneal_start, schedule.anneal_end) == (0, 0, 1)


@pytest.mark.parametrize(
    ('section', 'schedule', 'message'),
    [
        ('aux_opt', {'start_iter': -1}, r'train\.aux_opt\.schedule\.start_iter: .*greater than or equal to 0, not -1'),
        ('aux_opt', {'warmup_iter': -5}, r'train\.aux_opt\.schedule\.warmup_iter: .*, not -5'),
        ('aux_opt', {'final': 1.5}, r'train\.aux_opt\.schedule\.final: .*less than or equal to 1, not 1\.5'),
        ('aux_opt', {'final': -0.5}, r'train\.aux_opt\.schedule\.final: .*, not -0\.5'),
        ('aux_opt', {'shape': 'step'}, r"train\.aux_opt\.schedule\.shape: .*'linear' or 'sigmoid'"),
        ('aux_opt', {'warm_up_iter': 3}, r'train\.aux_opt\.schedule\.warm_up_iter: unknown key.*warmup_iter'),
        ('aux_opt', {'anneal_start': 5}, r'train\.aux_opt\.schedule\.anneal_end: missing'),
        ('aux_opt', {'anneal_end': 5}, r'train\.aux_opt\.schedule\.anneal_start: missing'),
        (
            'contrastive_opt',
            {'anneal_start': 5, 'anneal_end': 5},
            r'train\.contrastive_opt\.schedule\.anneal_end: 5 is not after anneal_start, 5',
        ),
        (
            'contrastive_opt',
            {'start_iter': 3, 'warmup_iter': 3, 'anneal_start': 5, 'anneal_end': 7},
            r'train\.contrastive_opt\.schedule\.anneal_start: 5 is before the warm-up ends, at 6',
        ),
        (
            'contrastive_opt',
            {'anneal_start': 5, 'anneal_end': 9},
            r'train\.contrastive_opt\.schedule\.anneal_end: 9 is after train\.total_iter, 8',
        ),
        (
            'aux_opt',
            {'gate': 'student_above_base'},
            r'train\.aux_opt\.schedule\.gate: only train\.contrastive_opt and train\.self_distill_opt can have one',
        ),
    ],
)
def test_mistake_is_one_line_with_its_key(tmp_path, tiny_options, write_yaml, section, schedule, message):
    options = tiny_options(tmp_path, {'train': {section: {'schedule': schedule}}})
    with pytest.raises(UserError, match=message) as error:
        check(load(write_yaml(tmp_path / 'tiny.yml', options)))
    assert '\n' not in str(error.value)


FIRST = {'anneal_start': 2, 'anneal_end': 4}


@pytest.mark.parametrize(
    ('pixel', 'aux', 'iteration'),
    [
        ({'start_iter': 2}, {'start_iter': 3}, 1),
        (FIRST, {'start_iter': 4}, 4),
        (FIRST, {'start_iter': 5}, 4),
        (FIRST, FIRST, 4),
        ({**FIRST, 'final': 0.1}, {'start_iter': 4}, None),
        (FIRST, {'start_iter': 3}, None),
        (FIRST, None, None),
    ],
)
def test_every_iteration_must_have_a_loss(tmp_path, tiny_options, pixel, aux, iteration):
    contrastive = {'schedule': {'gate': 'student_above_base'}}
    train = {'pixel_opt': {'schedule': pixel}, 'aux_opt': {'schedule': aux}, 'contrastive_opt': contrastive}
    options = Options.model_validate(tiny_options(tmp_path, {'train': train}))
    if iteration is None:
        check(options)
    else:
        with pytest.raises(UserError, match=f'train: no loss at iteration {iteration}:'):
            check(options)
