"""``scripts/compare.py``: means, deviations, differences and the paper's numbers, and how results must go together."""

import csv
import itertools
import json
import math
from fnmatch import fnmatch

import numpy as np
import pytest
from helpers.benchmarks import PSNR
from helpers.resolved_options import shipped

from basicsr_clsd.errors import UserError
from basicsr_clsd.evaluation.results import method_label, read_all, read_results
from basicsr_clsd.reporting.comparison import compare
from basicsr_clsd.reporting.paper import load_paper
from basicsr_clsd.reporting.statistics import mean_and_deviation, paired_difference
from basicsr_clsd.reporting.tables import as_csv, grids, latex, markdown


def tables_of(*paths, **how):
    return compare(read_all(list(map(str, paths))), **how)


def row_of(table, name):
    return next(row for row in table.rows if row.name == name)


def test_mean_and_deviation_over_seeds(write_results, trained):
    paths = []
    for seed, values in ((0, [30.0, 34.0]), (1, [31.0, 35.0]), (2, [32.0, 36.0])):
        row = f'train_CLSD_x2_seed{seed}'
        paths.append(write_results(row, {'Set5': {row: values}}, networks=trained(row, seed)))
    (table,) = tables_of(*paths)
    (row,) = table.rows
    assert (row.name, row.group.seeds) == ('CLSD', [0, 1, 2])
    # Means 32, 33, 34: their mean, and the square root of (1 + 0 + 1) / 2.
    assert (row.cells['Set5'].mean, row.cells['Set5'].deviation) == (33.0, 1.0)
    assert '33.000 ± 1.000' in markdown([table])


def test_differences_are_of_the_seeds_that_both_have(write_results, trained):
    paths = []
    for row, seed, values in (
        ('train_EDSR_x2_seed0', 0, [30.0, 34.0]),
        ('train_EDSR_x2_seed1', 1, [40.0, 44.0]),
        ('train_DS_x2_seed1', 1, [41.0, 44.0]),
        ('train_CLSD_x2_seed0', 0, [30.0, 33.0]),
        ('train_CLSD_x2_seed1', 1, [41.0, 44.0]),
        ('train_ASR_x2_seed7', 7, [35.0, 39.0]),
    ):
        paths.append(write_results(row, {'Set5': {row: values}}, networks=trained(row, seed)))
    (table,) = tables_of(*paths)
    differences = {row.name: row.cells['Set5'].difference for row in table.rows}
    means = {name: found.mean for name, found in differences.items() if found is not None}
    assert means == {'DS': 0.5, 'CLSD': 0.0, 'ASR': 0.0}
    assert (differences['DS'].low, differences['DS'].high) == (0.0, 1.0)
    assert (differences['CLSD'].low, differences['CLSD'].high) == (-1.0, 1.0)  # each seed beside its like
    assert differences['ASR'].low < -4  # the seeds of EDSR differ, and none is its own
    assert 'differences of DS are of seed 1 alone' in table.notes


def test_a_single_value_has_no_deviation():
    assert mean_and_deviation(np.array([3.0])) == (3.0, None)


def test_bootstrap_interval_is_that_of_all_resamples():
    values = [0.0, 1.0, 2.0, 3.5, 6.0]
    found = paired_difference(np.array([values]), np.zeros((1, 5)), same_seeds=True)
    assert found is not None
    exact = np.quantile([np.mean(drawn) for drawn in itertools.product(values, repeat=5)], [0.025, 0.975])
    assert found.mean == pytest.approx(2.5)
    np.testing.assert_allclose([found.low, found.high], exact, atol=0.1)


def test_bootstrap_interval_covers_seeds():
    method = np.array([[0.0] * 50, [1.0] * 50])  # seeds differ, images do not
    found = paired_difference(method, np.zeros((2, 50)), same_seeds=True)
    assert found is not None and (found.mean, found.low, found.high) == (0.5, 0.0, 1.0)
    paired = paired_difference(method, method - 0.25, same_seeds=True)
    assert paired is not None and (paired.low, paired.high) == (pytest.approx(0.25), pytest.approx(0.25))
    apart = paired_difference(method, method - 0.25, same_seeds=False)
    assert apart is not None and apart.low < 0 and apart.high > 0.25


def test_bootstrap_interval_has_its_level():
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(100):
        found = paired_difference(rng.normal(0.3, 1, (1, 40)), np.zeros((1, 40)), same_seeds=True)
        assert found is not None
        inside += found.low <= 0.3 <= found.high
    assert 88 <= inside <= 99  # 95 % of 100, with a standard deviation of 2


def test_the_same_results_give_the_same_bits():
    rng = np.random.default_rng(1)
    values = rng.normal(size=(3, 10))
    assert paired_difference(values, -values, True) == paired_difference(values, -values, True)


def test_values_that_are_not_finite_are_left_out_and_told(write_results):
    sets = {'Flat': {'EDSR': [30.0, math.inf], 'CLSD': [31.0, math.inf]}, 'Tiny': {'EDSR': [math.nan], 'CLSD': [9.0]}}
    (table,) = tables_of(write_results('both', sets))
    cell = row_of(table, 'CLSD').cells['Flat']
    assert cell.mean == 31.0
    assert cell.difference is not None and (cell.difference.mean, cell.difference.left_out) == (1.0, 1)
    assert '1 of 2 images of Flat are not in the mean of EDSR, CLSD: not finite' in table.notes
    assert '1 image(s) of Flat with values that are not finite are in no difference' in table.notes
    values, differences = grids(table)
    assert [entry.text for entry in values.rows[0]] == ['EDSR', '30.000', '–']
    assert differences.rows[0][2].text == '–'


def test_best_and_second_best_are_those_that_look_so(write_results):
    sets = {'Set5': {'bicubic': [30.0], 'EDSR': [33.00001], 'DS': [33.00002], 'CLSD': [32.0]}}
    (table,) = tables_of(write_results('all', sets))
    assert {row.name: row.cells['Set5'].rank for row in table.rows} == {'bicubic': 0, 'EDSR': 1, 'DS': 1, 'CLSD': 2}
    assert '**33.000**' in markdown([table]) and '*32.000*' in markdown([table])
    assert r'\textbf{33.000}' in latex([table]) and r'\underline{32.000}' in latex([table])


def test_lower_is_better_for_distances(write_results):
    path = write_results(
        'all',
        {'Set5': {'EDSR': [0.3], 'CLSD': [0.2]}},
        metrics={'lpips': {'type': 'calculate_pyiqa', 'better': 'lower'}},
    )
    file = path / 'results.json'
    file.write_text(file.read_text(encoding='utf-8').replace('psnr"', 'lpips"'), encoding='utf-8')
    (table,) = tables_of(path)
    assert [row.cells['Set5'].rank for row in table.rows] == [2, 1]


def test_every_shipped_method_has_its_place_in_tables(write_results):
    files = [name for name in shipped() if fnmatch(name, 'train_*_x4.yml')]
    students = {name.removeprefix('train_').removesuffix('_x4.yml') for name in files}
    methods = {name for name in students if not name.startswith('CLSD_') or name == 'CLSD_eq6'}  # the rest are archs
    assert methods == set(load_paper().order)
    rows = {f'train_{method}_x2': [31.0] for method in sorted(methods)}
    table = tables_of(write_results('all', {'Set5': rows}))[0]
    assert [row.name for row in table.rows] == load_paper().order


def test_the_papers_numbers_stand_beside(write_results):
    sets = {'Set14': {'small_EDSR_x2': [33.0], 'small_CLSD_x2': [33.1]}, 'Mine': {'small_EDSR_x2': [1.0]}}
    (table,) = tables_of(write_results('all', sets), paper=True)
    cell = row_of(table, 'small_CLSD').cells['Set14']
    assert cell.paper == 33.602
    assert cell.paper_difference == pytest.approx(33.602 - 33.439)
    values, differences = grids(table)
    assert values.head == ['x2, PSNR (dB)', 'Set14', 'paper', 'Mine', 'paper']
    assert [entry.text for entry in values.rows[1]] == ['small_CLSD', '33.100', '33.602', '–', '–']
    assert [entry.text for entry in differences.rows[0]][:3] == ['small_CLSD', '+0.100 [+0.100, +0.100]', '+0.163']
    assert any('is not known' in note for note in table.notes)


def test_table_5_is_there_when_all_its_rows_are(write_results):
    rows = {f'train_{name}_x2': [31.0] for name in ('EDSR', 'DS', 'CLSD')}
    assert len(tables_of(write_results('three', {'B100': rows}), paper=True)) == 1
    tables = tables_of(write_results('four', {'B100': {**rows, 'train_ASR_x2': [31.2]}}), paper=True)
    assert [row.name for row in tables[1].rows] == [
        'L_SR',
        'L_SR + L_ASR',
        'L_SR + L_ASR + L_SD',
        'L_SR + L_ASR + L_CS',
    ]
    assert [row.cells['B100'].paper for row in tables[1].rows] == [32.102, 32.145, 32.150, 32.174]


def test_table_5_repeats_numbers_of_tables_2_to_4():
    main, table_5 = load_paper().tables
    for method in ('EDSR', 'DS', 'CLSD'):
        for dataset in table_5.sets:
            assert table_5.value(2, method, dataset) == main.value(2, method, dataset)
    gains = [main.value(scale, 'CLSD', 'Urban100') - main.value(scale, 'EDSR', 'Urban100') for scale in (2, 3, 4)]
    assert np.round(gains, 3).tolist() == [0.300, 0.119, 0.086]


def test_csv_has_all_digits(write_results):
    tables = tables_of(write_results('all', {'Set5': {'EDSR': [1 / 3], 'CLSD': [2 / 3]}}))
    rows = list(csv.DictReader(as_csv(tables).splitlines()))
    assert float(rows[1]['mean']) == 2 / 3 and float(rows[1]['difference']) == 1 / 3


def test_latex_escapes_names(write_results):
    tables = tables_of(write_results('all', {'Set_5': {'a&b%': [1.0], 'c_d': [2.0]}}))
    text = latex(tables)
    assert r'a\&b\%' in text and r'c\_d' in text and r'Set\_5' in text


@pytest.mark.parametrize(
    ('name', 'seed', 'label'),
    [
        ('train_CLSD_x2', 0, 'CLSD'),
        ('train_CLSD_x2_seed12', 12, 'CLSD'),
        ('train_CLSD_x2_seed12', 1, 'CLSD_seed12'),
        ('train_CLSD_x2_seed12', None, 'CLSD_seed12'),
        ('small_DS_x2_s3', 3, 'small_DS'),
        ('train_CLSD_x2_head_blocks_3_seed0', 0, 'CLSD_head_blocks_3'),
        ('mine', None, 'mine'),
        ('CLSD_x20', None, 'CLSD_x20'),
    ],
)
def test_label_is_the_name_without_the_scale_and_seed_of_the_training(name, seed, label):
    assert method_label(name, 2, seed) == label


def test_options_that_differ_between_seeds_are_told(write_results, trained):
    paths = [
        write_results(
            f'CLSD_seed{seed}',
            {'Set5': {f'CLSD_seed{seed}': [30.0]}},
            networks=trained(f'CLSD_seed{seed}', seed, train={'total_iter': 10 + seed}),
        )
        for seed in (0, 1)
    ]
    (table,) = tables_of(*paths)
    assert 'the trainings of CLSD differ in train.total_iter, too' in table.notes


def test_options_of_an_earlier_version_differ_in_nothing_that_is_new_since(write_results, trained):
    schedule = {'total_iter': 10, 'optim_g': {'type': 'Adam'}, 'scheduler': {'type': 'MultiStepLR', 'milestones': [5]}}
    paths = []
    for seed, train in ((0, {'skip_limit': 7}), (1, {'max_skipped_steps': 7, 'deterministic': True}), (2, {})):
        row = f'CLSD_seed{seed}'
        network = {'type': 'EDSR', 'num_feat': 8}
        networks = trained(row, seed, name=row, scale=2, manual_seed=seed, network_g=network, train=train | schedule)
        paths.append(write_results(row, {'Set5': {row: [30.0]}}, networks=networks))
    (table,) = tables_of(*paths[:2])
    assert not any('differ in' in note for note in table.notes)
    (table,) = tables_of(*paths)
    assert 'the trainings of CLSD differ in train.max_skipped_steps, too' in table.notes


def test_the_only_row_of_a_test_is_known_by_its_training(write_results, trained):
    networks = {'any': trained('train_DS_x2', 3)['train_DS_x2']}
    (tested,) = read_results(write_results('any', {'Set5': {'any': [30.0]}}, networks=networks))
    assert (tested.label, tested.seed, tested.network.parameters) == ('DS', 3, 4000)
    networks['any']['self_ensemble'] = True
    (tested,) = read_results(write_results('plus', {'Set5': {'plus': [30.0]}}, networks={'plus': networks['any']}))
    assert (tested.label, tested.seed) == ('DS+', 3)


def test_rows_of_one_training_stay_apart(write_results, trained):
    entry = trained('train_EDSR_x2', 3)['train_EDSR_x2']
    networks = {'EDSR': entry, 'EDSR+': {**entry, 'self_ensemble': True}, 'early': entry}
    rows = {'EDSR': [30.0], 'EDSR+': [31.0], 'early': [29.0]}
    notes = [
        {'row': 'EDSR+', 'kind': 'self_ensemble', 'text': 'mean of eight'},
        {'row': 'EDSR', 'kind': 'left_out', 'text': 'psnr of another kind'},
    ]
    (table,) = tables_of(write_results('several', {'Set5': rows}, networks=networks, notes=notes))
    assert {row.name: row.cells['Set5'].mean for row in table.rows} == {'EDSR': 30.0, 'EDSR+': 31.0, 'early': 29.0}
    assert [row.group.seeds for row in table.rows] == [[3]] * 3
    assert 'EDSR+: mean of eight' in table.notes and not any('another kind' in note for note in table.notes)


def test_seeds_that_differ_in_their_iteration_are_told(write_results, trained):
    paths = []
    for seed in (0, 1):
        row = f'CLSD_seed{seed}'
        networks = trained(row, seed)
        networks[row]['run']['iteration'] += seed
        paths.append(write_results(row, {'Set5': {row: [30.0]}}, networks=networks))
    (table,) = tables_of(*paths)
    assert 'the trainings of CLSD differ in iteration, too' in table.notes


def test_a_method_can_be_called_otherwise(write_results):
    first, second = (write_results(name, {'Set5': {name: [30.0]}}) for name in ('one', 'two'))
    (table,) = tables_of(f'CLSD={first}', f'EDSR={second}', paper=True)
    assert [row.name for row in table.rows] == ['EDSR', 'CLSD']  # the paper's order


def test_the_command_writes_and_refuses(write_results, tmp_path, run_command):
    path = write_results('all', {'Set5': {'EDSR': [30.0], 'CLSD': [31.0]}})
    ended = run_command('scripts/compare', path, '--paper', '-o', tmp_path / 'out')
    assert ended.code == 0, ended.err
    assert '+1.000 [+1.000, +1.000]' in ended.out
    names = ['comparison.csv', 'comparison.md', 'comparison.tex']
    assert sorted(file.name for file in (tmp_path / 'out').iterdir()) == names
    ended = run_command('scripts/compare', path, tmp_path / 'out')  # as results/* names them
    assert ended.code == 0, ended.err
    ended = run_command('scripts/compare', tmp_path / 'out')
    assert ended.code == 2 and 'the tables of a comparison' in ended.err
    for arguments, message in (
        (['--baseline', 'CLDS'], "--baseline: no method 'CLDS' in these results (did you mean 'CLSD'?)"),
        (['-o', path / 'results.json' / 'out'], 'cannot be written'),
        ([tmp_path / 'missing'], 'missing: cannot be read'),
    ):
        ended = run_command('scripts/compare', path, *arguments)
        assert ended.code == 2
        assert message in ended.err and ended.err.count('\n') == 1


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'metrics': {'psnr': {'type': 'calculate_psnr', 'border': 2}}}, r'measured otherwise \(on RGB'),
        ({'metrics': {'psnr': {**PSNR, 'border': 3}}}, 'measured otherwise .*3 pixels'),
        ({'sets': {'Set5': {'bicubic': [29.0, 30.0], 'CLSD': [31.0, 32.0]}}}, 'of bicubic upscaling differs'),
        ({'sets': {'Set5': {'CLSD': [31.0]}}}, 'Set5 is not the same images'),
        ({'sets': {'Set5': {'EDSR': [31.0, 32.0]}}, 'seed': 0}, 'a second test of EDSR x2, seed 0'),
    ],
)
def test_results_that_do_not_go_together(write_results, trained, change, message):
    first = write_results(
        'first', {'Set5': {'bicubic': [30.0, 30.0], 'EDSR': [33.0, 33.0]}}, networks=trained('EDSR', 0)
    )
    sets = change.get('sets', {'Set5': {'CLSD': [31.0, 32.0]}})
    keys = {'metrics': change['metrics']} if 'metrics' in change else {}
    second = write_results('second', sets, networks=trained('EDSR', 0), **keys)
    with pytest.raises(UserError, match=message):
        tables_of(first, second)


def test_further_metrics_do_not_make_another_protocol(write_results):
    first = write_results('first', {'Set5': {'EDSR': [30.0]}})
    metrics = {'psnr': PSNR, 'lpips': {'type': 'calculate_pyiqa', 'better': 'lower'}}
    second = write_results('second', {'Set5': {'CLSD': [31.0]}}, metrics=metrics)
    (table,) = tables_of(first, second)
    assert [row.name for row in table.rows] == ['EDSR', 'CLSD']


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('', 'not the results of a test'),
        ('{"version": 2, "name": "a"}', 'results.json: not the results of a test: scale: '),
        ('{"version": 2, "name": "a", "scale": 2, "metrics": {}, "sets": {}}', 'sets: '),
        (
            '{"version": 2, "name": "a", "scale": 2, "metrics": {}, "sets": {"S": {"a": {"mean": {"psnr": "high"}}}}}',
            'psnr: ',
        ),
        ('{"version": 9, "name": "a", "scale": 2, "metrics": {}, "sets": {"S": {}}}', 'results of format 9'),
        ('{"version": 2, "name": "a", "scale": 2, "metrics": {}, "sets": {"S": {}}}', 'sets.S: '),
        (
            '{"version": 2, "name": "a", "scale": 2, "metrics": {}, '
            '"sets": {"S": {"a": {"mean": {"psnr": 1}, "images": {"i": {}}}}}}',
            'sets.S.a: images.i has no psnr',
        ),
    ],
)
def test_damaged_results_are_one_line(tmp_path, text, message):
    (tmp_path / 'results.json').write_text(text, encoding='utf-8')
    with pytest.raises(UserError, match=message) as error:
        read_results(tmp_path)
    assert '\n' not in str(error.value) and str(tmp_path) in str(error.value)


def test_missing_results_are_named(tmp_path):
    with pytest.raises(UserError, match=r'results\.json: cannot be read'):
        read_results(tmp_path)


def test_results_of_version_1_are_read_where_their_protocol_has_a_name(tmp_path):
    measured = {'mean': {'psnr': 1.0, 'lpips': 0.5}, 'images': {'i': {'psnr': 'inf', 'lpips': 0.5}}}
    content = {'version': 1, 'name': 'a', 'scale': 3, 'protocol': 'psnr and ssim on Y', 'sets': {'S': {'a': measured}}}
    content |= {'notes': ['a: tiles'], 'protocol_name': 'y_crop_scale'}
    (tmp_path / 'results.json').write_text(json.dumps(content), encoding='utf-8')
    (row,) = read_results(tmp_path)
    assert {name: (how.color, how.border) for name, how in row.metrics.items()} == {'psnr': ('y', 3), 'ssim': ('y', 3)}
    (tmp_path / 'results.json').write_text(json.dumps({**content, 'protocol_name': 'custom'}), encoding='utf-8')
    with pytest.raises(UserError, match='results of format 1, by a protocol without a name; test again'):
        read_results(tmp_path)
