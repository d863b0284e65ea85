"""Figures: where crops are taken, what stands under them, and which points are drawn."""

import json
from pathlib import Path

import numpy as np
import pytest

from basicsr_clsd.errors import UserError
from basicsr_clsd.evaluation.crops import Box, crop_psnr, most_different
from basicsr_clsd.evaluation.results import read_all
from basicsr_clsd.reporting.crops import crop_figure
from basicsr_clsd.reporting.figures import cost, head_blocks, save_figure
from basicsr_clsd.reporting.groups import group
from basicsr_clsd.reporting.runs import read_training
from basicsr_clsd.reporting.training_curves import difference_curves


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)


def test_box_is_where_two_images_differ_most(image):
    other = image.copy()
    other[3, 5] ^= 128  # one pixel here, and more there
    other[20:24, 30:34] ^= 128
    box = most_different(image, other, 8, 8)
    assert box.of(image).shape == (8, 8, 3)
    assert (box.of(image) != box.of(other)).any(2).sum() == 16
    assert most_different(image, other, 100, 8) == Box(0, box.top, 60, 8)


def test_psnr_of_a_crop_is_its_own(image):
    other = image.astype(int)
    other[10:20, 10:20] += np.where(other[10:20, 10:20] > 100, -1, 1)
    box = Box(10, 10, 10, 10)
    y = [65.481 * part[..., 2] + 128.553 * part[..., 1] + 24.966 * part[..., 0] for part in (image, other)]
    error = (((y[0] - y[1]) / 255)[10:20, 10:20] ** 2).mean()
    assert crop_psnr(box.of(other.astype(np.uint8)), box.of(image)) == pytest.approx(
        10 * np.log10(255**2 / error), abs=1e-4
    )


def test_best_crop_is_bold(image):
    outputs = {'near': np.clip(image.astype(int) + 1, 0, 255).astype(np.uint8), 'far': image // 2}
    figure = crop_figure('name', image, outputs, Box(0, 0, 16, 16))
    weights = {axis.get_xlabel().split('\n')[0]: axis.xaxis.label.get_weight() for axis in figure.axes}
    assert weights == {'name': 'normal', 'near': 'bold', 'far': 'normal', 'HR': 'normal'}


@pytest.mark.parametrize('box', [Box(-1, 0, 8, 8), Box(0, 33, 8, 8), Box(0, 0, 0, 8)])
def test_a_box_outside_is_refused(image, box):
    with pytest.raises(UserError, match='not within name, which is 60x40'):
        crop_figure('name', image, {'other': image}, box)


@pytest.mark.parametrize(
    'heads', [lambda blocks: {'head_num_block': blocks}, lambda blocks: {'head': {'num_block': blocks}}]
)
def test_head_blocks_are_drawn_where_all_else_is_equal(write_results, trained, heads):
    paths = []
    for blocks, seed, value, lr in ((1, 0, 30.0, 1), (1, 1, 31.0, 1), (5, 0, 33.0, 1), (3, 0, 20.0, 2)):
        row = f'CLSD_head_blocks_{blocks}_seed{seed}'
        options = {'network_g': heads(blocks), 'train': {'lr': lr}, 'scale': 2}
        paths.append(str(write_results(row, {'Set14': {row: [value]}}, networks=trained(row, seed, **options))))
    figure = head_blocks(group(read_all(paths)))
    assert figure is not None
    points = figure.axes[0].lines[0].get_xydata()
    assert np.asarray(points).tolist() == [[1.0, 30.5], [5.0, 33.0]]
    assert head_blocks(group(read_all(paths[:2]))) is None


def test_cost_is_drawn_of_networks_whose_cost_is_known(write_results, trained, tmp_path):
    row = 'CLSD_seed0'
    sets = {'Set5': {'bicubic': [30.0], row: [33.0]}}
    groups = group(read_all([str(write_results('a', sets, networks=trained(row, 0)))]))
    figure = cost(groups, 'parameters', 'Set5')
    assert figure is not None
    assert np.asarray(figure.axes[0].lines[0].get_xydata()).tolist() == [[1.0, 33.0]]  # thousands
    assert cost(groups, 'latency_s', 'Set5') is None
    first, second = (
        [path.read_bytes() for path in save_figure(figure, tmp_path / name / 'cost')] for name in ('x', 'y')
    )
    assert first == second and first[0].startswith(b'\x89PNG') and b'<svg' in first[1]


def test_the_command_chooses_and_refuses(write_results, trained, tmp_path, run_command):
    for scale in (2, 3):
        row = f'CLSD_x{scale}'
        write_results(row, {'Set5': {row: [30.0 + scale]}}, networks=trained(row, 0), scale=scale)
    tests = [tmp_path / 'CLSD_x2', tmp_path / 'CLSD_x3']
    ended = run_command('scripts/figures', 'cost', *tests, '--scale', 3, '-o', tmp_path / 'figures' / 'cost.v1')
    assert ended.code == 0, ended.err
    assert sorted(path.name for path in (tmp_path / 'figures').iterdir()) == ['cost.v1.png', 'cost.v1.svg']
    for arguments, message in (
        (['cost', *tests], '--scale: choose one of 2, 3'),
        (['cost', *tests, '--scale', 4], '--scale: choose one of 2, 3'),
        (['head-blocks', *tests, '--set', 'Set'], "--set: no 'Set' in these results (did you mean 'Set5'?)"),
        (['head-blocks', *tests], 'no two numbers of blocks per head'),
        (['crops', *tests, '--image', 'Set5/a'], 'no images; test with'),
        (['curves', tmp_path], 'not the folder of a training'),
    ):
        ended = run_command('scripts/figures', *arguments, '-o', tmp_path / 'no')
        assert ended.code == 2
        assert message in ended.err and ended.err.count('\n') == 1
    assert not list(tmp_path.glob('no*'))


def write_training(folder: Path, seed: int, values: list[float], dataset: str = 'Set14', scale: int = 2) -> Path:
    """A training's folder, with a validation at every tenth iteration."""
    folder.mkdir()
    (folder / f'{folder.name}.yml').write_text(f'name: {folder.name}\nscale: {scale}\nmanual_seed: {seed}\n')
    rows = ({'dataset': dataset, 'metric': 'psnr', 'iter': 10 * n, 'value': v} for n, v in enumerate(values, start=1))
    (folder / 'metrics.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
    return folder


@pytest.fixture
def trainings(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    return [
        write_training(tmp_path / f'{method}_x2_seed{seed}', seed, list(rng.uniform(30, 31, length)))
        for method, seed, length in (
            ('EDSR', 0, 4), ('EDSR', 1, 4), ('CLSD', 0, 3), ('CLSD', 1, 4), ('CLSD', 2, 4), ('ASR', 1, 4), ('DS', 3, 4)
        )
    ]  # fmt: skip


def test_differences_are_of_the_same_seed_and_iteration(trainings):
    runs = {run.name: run for run in map(read_training, trainings)}
    (panel,) = difference_curves(list(runs.values()), 'EDSR').axes
    values = {name: np.array(run.curve('Set14', 'psnr'))[:, 1] for name, run in runs.items()}
    clsd = np.stack([values[f'CLSD_x2_seed{seed}'][:3] - values[f'EDSR_x2_seed{seed}'][:3] for seed in (0, 1)])
    asr = values['ASR_x2_seed1'] - values['EDSR_x2_seed1']
    drawn, single, _ = panel.lines  # the last is the line at 0; nothing of DS, whose seed EDSR was not trained with
    np.testing.assert_allclose(np.asarray(drawn.get_xydata()), np.stack([[10, 20, 30], clsd.mean(0)], 1))
    np.testing.assert_allclose(np.asarray(single.get_xydata()), np.stack([[10, 20, 30, 40], asr], 1))
    band = np.asarray(panel.collections[0].get_paths()[0].vertices)
    edges = [[low, high] for at in (10, 20, 30) for low, high in [np.sort(band[band[:, 0] == at, 1])[[0, -1]]]]
    spread = np.abs(clsd[0] - clsd[1]) / np.sqrt(2)
    np.testing.assert_allclose(edges, np.stack([clsd.mean(0) - spread, clsd.mean(0) + spread], 1))


def test_differences_to_what_is_not_there_are_refused(trainings, tmp_path, run_command):
    twin = write_training(tmp_path / 'CLSD_seed0', 0, [30.0])
    elsewhere = write_training(tmp_path / 'FAKD_seed0', 0, [30.0], dataset='Set5')
    larger = write_training(tmp_path / 'CLSD_x3_seed0', 0, [30.0], scale=3)
    nothing_shared = '--baseline: no other training shares a seed, a set and an iteration with EDSR'
    for given, arguments, message in (
        (trainings, ['--baseline', 'EDSSR'], "--baseline: no method 'EDSSR' in these trainings (did you mean 'EDSR'?)"),
        ([trainings[0], trainings[-1]], ['--baseline', 'EDSR'], nothing_shared),
        ([trainings[0], elsewhere], ['--baseline', 'EDSR'], nothing_shared),
        ([*trainings, larger], ['--baseline', 'EDSR'], '--baseline: trainings of scales 2, 3; give those of one'),
        ([*trainings, twin], ['--baseline', 'EDSR'], f'{twin}: a second training of CLSD, seed 0'),
        (trainings, ['--baseline', 'EDSR', '--metric', 'lpips'], "no validation with the metric 'lpips'"),
    ):
        ended = run_command('scripts/figures', 'curves', *given, *arguments, '-o', tmp_path / 'no')
        assert ended.code == 2
        assert message in ended.err and ended.err.count('\n') == 1
    assert not list(tmp_path.glob('no*'))
    for given in (trainings, [elsewhere, *trainings]):
        ended = run_command('scripts/figures', 'curves', *given, '--baseline', 'EDSR', '-o', tmp_path / 'yes')
        assert ended.code == 0, ended.err
        drawn = (tmp_path / 'yes.svg').read_text()
        assert 'CLSD (2 seeds)' in drawn and 'Set14' in drawn and 'Set5' not in drawn and 'FAKD' not in drawn
