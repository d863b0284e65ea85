"""``test.py`` on tiny sets: its tables, files and pictures, and that no earlier result is lost."""

import csv
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from basicsr.archs.edsr_arch import EDSR
from rich.console import Console

import basicsr_clsd
from basicsr_clsd.config import load
from basicsr_clsd.config.components import Metric
from basicsr_clsd.evaluation.benchmark import left_out_notes
from basicsr_clsd.evaluation.crops import most_detailed
from basicsr_clsd.evaluation.metrics import Scores, bicubic, measure
from basicsr_clsd.evaluation.results import Measured, MetricProtocol, ResultsFile
from basicsr_clsd.evaluation.tables import BenchmarkResult

EDSR_ARGUMENTS = {'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 8, 'num_block': 1, 'upscale': 2}
PROTOCOL = {
    name: Metric.model_validate({'type': f'calculate_{name}', 'crop_border': 2, 'test_y_channel': True})
    for name in ('psnr', 'ssim')
}
SETS = {'Flowers': 3, 'Two': 2}


@pytest.fixture(scope='module')
def student() -> EDSR:
    torch.manual_seed(0)
    return EDSR(**EDSR_ARGUMENTS).eval()


@pytest.fixture(scope='module')
def data(tmp_path_factory, make_pairs, student) -> Path:
    """Two sets at x2 and a checkpoint as BasicSR writes it."""
    folder = tmp_path_factory.mktemp('sets')
    for number, (name, count) in enumerate(SETS.items()):
        make_pairs(folder / name, count=count, height=26, width=32, seed=number)
    torch.save({'params': student.state_dict()}, folder / 'net_g.pth')
    return folder


@pytest.fixture
def options(data, tmp_path) -> dict[str, Any]:
    return {
        'name': 'student',
        'model_type': 'SupervisedModel',
        'scale': 2,
        'num_gpu': 0,
        'network_g': {'type': 'EDSR', **EDSR_ARGUMENTS},
        'path': {'pretrain_network_g': str(data / 'net_g.pth'), 'results_root': str(tmp_path / 'results')},
        'datasets': {
            f'test_{number}': {
                'name': name,
                'type': 'PairedDataset',
                'dataroot_gt': str(data / name / 'HR'),
                'dataroot_lq': str(data / name / 'LR'),
            }
            for number, name in enumerate(SETS)
        },
    }


@pytest.fixture
def run_test(tmp_path, run_command, write_yaml) -> Callable[..., str]:
    """``run_test(options)``: runs ``test.py``, which must succeed; returns what it printed."""

    def run(options: Mapping[str, Any], *arguments: str) -> str:
        options = {**options, 'val': {'latency': False, **options.get('val', {})}}
        ended = run_command('test', '-opt', write_yaml(tmp_path / 'test.yml', options), *arguments)
        assert ended.code == 0, ended.err
        assert ended.err == ''
        return ended.out

    return run


def results(folder: Path) -> dict[str, Any]:
    def no_constants(name: str) -> None:
        raise AssertionError(f'{name} is not JSON')

    return json.loads((folder / 'results.json').read_text(encoding='utf-8'), parse_constant=no_constants)


def read(path: Path) -> np.ndarray:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert image is not None, path
    return image


def upscaled(network: torch.nn.Module, lq: np.ndarray) -> np.ndarray:
    """By hand: BGR bytes in, BGR bytes out."""
    tensor = torch.from_numpy(lq[..., ::-1].astype(np.float32) / 255).permute(2, 0, 1)[None]
    with torch.no_grad():
        output = network(tensor)[0].clamp(0, 1)
    return (output * 255).round().byte().permute(1, 2, 0).numpy()[..., ::-1]


def test_all_that_is_asked_for_is_written_and_agrees(options, run_test, data, student, tmp_path):
    out = run_test({**options, 'val': {'save_img': True, 'comparison': True}})
    folder = tmp_path / 'results' / 'student'
    content = results(folder)
    assert {path.name for path in folder.iterdir()} == {
        'results.json', 'results.csv', 'results.md', 'student.yml', 'visualization',
        'comparison_Flowers.png', 'comparison_Two.png',
    }  # fmt: skip
    assert (content['name'], content['scale']) == ('student', 2)
    assert content['networks']['student']['checkpoint'] == str(data / 'net_g.pth')
    on_y = {'color': 'y', 'border': 2, 'arguments': {}, 'better': 'higher'}
    assert content['metrics'] == {name: {'type': f'calculate_{name}', **on_y} for name in ('psnr', 'ssim')}
    assert {name: section['dataroot_gt'] for name, section in content['data'].items()} == {
        name: str(data / name / 'HR') for name in SETS
    }
    assert list(content['sets']) == list(SETS)
    for name, count in SETS.items():
        assert list(content['sets'][name]) == ['bicubic', 'student']
        for number in range(1, count + 1):
            gt, lq = (read(data / name / kind / f'img{number}.png') for kind in ('HR', 'LR'))
            image = read(folder / 'visualization' / name / f'img{number}_student.png')
            # To the rounding of an output that lies between two bytes.
            assert np.abs(image.astype(int) - upscaled(student, lq)).max() <= 1
            assert (image != upscaled(student, lq)).mean() < 0.01
            for method, output in (('student', image), ('bicubic', bicubic(lq, 2))):
                values = content['sets'][name][method]['images'][f'img{number}']
                assert values == pytest.approx(measure(output, gt, PROTOCOL), abs=1e-9)
        assert len(list((folder / 'visualization' / name).iterdir())) == count
        for scores in content['sets'][name].values():
            for metric in ('psnr', 'ssim'):
                values = [image[metric] for image in scores['images'].values()]
                assert scores['mean'][metric] == pytest.approx(sum(values) / len(values), abs=1e-12)
        picture = read(folder / f'comparison_{name}.png')
        assert picture.shape[0] > 100 * count and picture.shape[1] > 300 and picture.std() > 10
    assert_tables_agree(folder, out)
    assert str(folder) in out.replace('\n', '')
    assert load(folder / 'student.yml').network_g.as_dict() == options['network_g']


def assert_tables_agree(folder: Path, printed: str) -> None:
    """CSV, Markdown and the console show the numbers of the JSON."""
    content = results(folder)
    rows = list(csv.DictReader((folder / 'results.csv').read_text(encoding='utf-8').splitlines()))
    in_csv = {(row['set'], row['method'], row['image'], row['metric']): float(row['value']) for row in rows}
    in_json = {
        (name, method, image, metric): float(value)
        for name, by_method in content['sets'].items()
        for method, scores in by_method.items()
        for image, values in {**scores['images'], 'mean': scores['mean']}.items()
        for metric, value in values.items()
    }
    assert len(rows) == len(in_csv)
    assert in_csv == in_json

    lines = (folder / 'results.md').read_text(encoding='utf-8').splitlines()
    first = lines[: lines.index('')]
    table = [[cell.strip() for cell in line.strip('|').split('|')] for line in first if line.startswith('|')]
    names, methods = list(content['sets']), list(next(iter(content['sets'].values())))
    assert table[0] == [f'x{content["scale"]}', *(f'{name} psnr / ssim' for name in names)]
    assert [row[0] for row in table[2:]] == methods
    for row in table[2:]:
        for name, cell in zip(names, row[1:], strict=True):
            mean = content['sets'][name][row[0]]['mean']
            assert cell == f'{float(mean["psnr"]):.2f} / {float(mean["ssim"]):.4f}'
            assert cell in printed
    how = content['metrics']['psnr']
    channel = 'Y of YCbCr' if how['color'] == 'y' else 'RGB'
    protocol = f'{content["protocol_name"]}: psnr and ssim on {channel}, {how["border"]} pixels of border cut'
    assert f'{protocol}.  ' in lines and protocol in printed
    weights = ', '.join(f'{name}: `{facts["checkpoint"]}`' for name, facts in content['networks'].items())
    assert f'Weights: {weights}.' in lines


def test_nothing_is_written_that_was_not_asked_for(options, run_test, tmp_path):
    run_test(options)
    names = {path.name for path in (tmp_path / 'results' / 'student').iterdir()}
    assert names == {'results.json', 'results.csv', 'results.md', 'student.yml'}


def test_precision_that_is_asked_for_is_taken_and_told(options, run_test, tmp_path):
    folder, found = tmp_path / 'results' / 'student', []
    for arguments in ((), ('--precision', 'fp32'), ('--precision', 'bf16')):
        run_test(options, *arguments)
        found.append(results(folder))
    plain, same, bf16 = found
    assert same['sets'] == plain['sets'] and same['notes'] == plain['notes'] == []
    assert [(note['kind'], note['text']) for note in bf16['notes']] == [('precision', 'computed in bf16')]
    for name in SETS:
        rough, exact = (each['sets'][name]['student']['mean']['psnr'] for each in (bf16, plain))
        assert 0 < abs(rough - exact) < 0.2


def test_suffix_of_images(options, run_test, tmp_path):
    run_test({**options, 'val': {'save_img': True, 'suffix': 'v2'}})
    images = tmp_path / 'results' / 'student' / 'visualization' / 'Two'
    assert sorted(path.name for path in images.iterdir()) == ['img1_v2.png', 'img2_v2.png']


def test_table_of_four_sets_is_not_broken_on_a_narrow_output(options, run_test, tmp_path):
    first = options['datasets']['test_0']
    names = ['Set5', 'Set14', 'B100', 'Urban100']
    sets = {f'test_{number}': {**first, 'name': name, 'names': ['img1']} for number, name in enumerate(names)}
    out = run_test({**options, 'name': 'a_student_with_a_longer_name', 'datasets': sets})
    assert_tables_agree(tmp_path / 'results' / 'a_student_with_a_longer_name', out)
    assert 'a_student_with_a_longer_name' in out


def test_brackets_in_names_and_paths_are_shown(options, run_test, tmp_path):
    root = tmp_path / 'results [old]'
    options['path']['results_root'] = str(root)
    options['datasets']['test_0']['name'] = 'Set [a]'
    out = run_test({**options, 'name': 'run [b]'})
    assert 'run [b]' in out and 'Set [a]' in out and str(root / 'run [b]') in out.replace('\n', '')
    assert_tables_agree(root / 'run [b]', out)


def test_earlier_results_are_kept(options, run_test, tmp_path, data):
    run_test(options)
    folder = tmp_path / 'results' / 'student'
    earlier = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / 'notes.txt').write_text('mine', encoding='utf-8')
    run_test({**options, 'datasets': {'test_0': options['datasets']['test_0']}})
    assert list(results(folder)['sets']) == ['Flowers']
    [archived] = [path for path in (tmp_path / 'results').iterdir() if path != folder]
    assert archived.name.startswith('student_archived_')
    assert {path.name: path.read_bytes() for path in archived.iterdir()} == {**earlier, 'notes.txt': b'mine'}
    run_test(options)
    run_test(options)
    assert len(list((tmp_path / 'results').iterdir())) == 4


@pytest.mark.slow
def test_results_outlive_the_reader_of_a_pipe(options, write_yaml, tmp_path):
    command = Path(basicsr_clsd.__file__).with_name('test.py')
    opt = write_yaml(tmp_path / 'test.yml', {**options, 'val': {'latency': False}})
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run([sys.executable, command, '-opt', opt], stdout=writer, check=False, timeout=300)
    os.close(writer)
    assert ended.returncode == 1
    found = json.loads((tmp_path / 'results' / 'student' / 'results.json').read_text())
    assert list(found['sets']) == list(SETS)


def test_same_command_gives_the_same_files(options, run_test, tmp_path):
    run_test(options)
    first = results(tmp_path / 'results' / 'student')
    run_test(options, '--force_yml', 'name=again')
    second = results(tmp_path / 'results' / 'again')
    for scores in second['sets'].values():
        scores['student'] = scores.pop('again')
    assert second['sets'] == first['sets']


@pytest.mark.parametrize('form', ['bare', 'key', 'parallel', 'with_heads'])
def test_weights_in_every_form(options, run_test, tmp_path, student, form):
    run_test(options)
    expected = results(tmp_path / 'results' / 'student')['sets']
    state = student.state_dict()
    path = {'pretrain_network_g': str(tmp_path / 'weights.pth'), 'results_root': str(tmp_path / 'other')}
    content: dict[str, Any] = {'params': {key: torch.zeros_like(value) for key, value in state.items()}}
    network = options['network_g']
    if form == 'bare':
        content = state
    elif form == 'key':
        content['params_ema'] = state
        path['param_key_g'] = 'params_ema'
    elif form == 'parallel':
        content = {'params': {f'module.{key}': value for key, value in state.items()}}
    else:  # the student of a network with heads, tested as such
        network = {**network, 'type': 'EDSRHeads', 'head_taps': [1], 'head_num_block': 1}
        content = {'params': state}
    torch.save(content, path['pretrain_network_g'])
    run_test({**options, 'path': path, 'network_g': network})
    assert results(tmp_path / 'other' / 'student')['sets'] == expected


def test_options_of_basicsr_test_unchanged(run_test, data, tmp_path):
    stock = f"""
        name: EDSR_stock
        model_type: SRModel
        scale: 2
        num_gpu: 0
        manual_seed: 0

        datasets:
          test_1:  # the 1st test dataset
            name: Flowers
            type: PairedImageDataset
            dataroot_gt: {data}/Flowers/HR
            dataroot_lq: {data}/Flowers/LR
            io_backend:
              type: disk
          test_2:
            name: Two
            type: PairedImageDataset
            dataroot_gt: {data}/Two/HR
            dataroot_lq: {data}/Two/LR
            filename_tmpl: '{{}}'
            io_backend:
              type: disk

        network_g:
          type: EDSR
          num_in_ch: 3
          num_out_ch: 3
          num_feat: 8
          num_block: 1
          upscale: 2
          res_scale: 1
          img_range: 255.
          rgb_mean: [0.4488, 0.4371, 0.4040]

        path:
          pretrain_network_g: {data}/net_g.pth
          strict_load_g: true
          results_root: {tmp_path}/results

        val:
          save_img: true
          suffix: ~  # add suffix to saved images, if None, use exp name
          metrics:
            psnr: # metric name, can be arbitrary
              type: calculate_psnr
              crop_border: 2
              test_y_channel: false
            ssim:
              type: calculate_ssim
              crop_border: 2
              test_y_channel: false
    """
    run_test(yaml.safe_load(stock))
    folder = tmp_path / 'results' / 'EDSR_stock'
    content = results(folder)
    assert [(how['color'], how['border']) for how in content['metrics'].values()] == [('rgb', 2)] * 2
    image = read(folder / 'visualization' / 'Flowers' / 'img1_EDSR_stock.png')
    error = (image.astype(float) - read(data / 'Flowers' / 'HR' / 'img1.png'))[2:-2, 2:-2]
    expected = 10 * math.log10(255**2 / np.mean(error**2))
    assert content['sets']['Flowers']['EDSR_stock']['images']['img1']['psnr'] == pytest.approx(expected, abs=1e-6)


def test_validation_sets_of_a_training_file_are_tested(options, run_test, tmp_path, data):
    sets = {'train': {'dataroot_gt': 'gone', 'gt_size': 8}, 'val_1': options['datasets']['test_1']}
    train = {
        'total_iter': 1,
        'optim_g': {'type': 'Adam'},
        'scheduler': {'type': 'MultiStepLR', 'milestones': [1]},
        'pixel_opt': {'type': 'L1Loss'},
    }
    run_test({**options, 'datasets': sets, 'train': train})
    assert list(results(tmp_path / 'results' / 'student')['sets']) == ['Two']


def test_perfect_images_give_an_infinite_psnr_and_valid_json(options, run_test, tmp_path):
    for kind, side in (('HR', 24), ('LR', 12)):
        (tmp_path / 'flat' / kind).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / 'flat' / kind / 'a.png'), np.full((side, side, 3), 90, np.uint8))
    roots = {'dataroot_gt': str(tmp_path / 'flat' / 'HR'), 'dataroot_lq': str(tmp_path / 'flat' / 'LR')}
    out = run_test({**options, 'datasets': {'test_1': {'name': 'Flat', **roots}}})
    folder = tmp_path / 'results' / 'student'
    bicubic_scores = results(folder)['sets']['Flat']['bicubic']
    assert bicubic_scores['mean']['psnr'] == bicubic_scores['images']['a']['psnr'] == 'Infinity'
    assert bicubic_scores['mean']['ssim'] == pytest.approx(1)
    assert_tables_agree(folder, out)


def test_luma_alone_is_tested_and_pictured(options, run_test, tmp_path, data):
    network = {'type': 'MSRResNet', 'num_in_ch': 1, 'num_out_ch': 1, 'num_feat': 8, 'num_block': 1, 'upscale': 2}
    from basicsr.archs.srresnet_arch import MSRResNet  # noqa: PLC0415

    torch.manual_seed(0)
    arguments = {key: value for key, value in network.items() if key != 'type'}
    torch.save(MSRResNet(**arguments).state_dict(), tmp_path / 'luma.pth')
    options['path']['pretrain_network_g'] = str(tmp_path / 'luma.pth')
    sets = {'test_1': {**options['datasets']['test_1'], 'color': 'y'}}
    run_test({**options, 'network_g': network, 'datasets': sets, 'val': {'save_img': True, 'comparison': True}})
    folder = tmp_path / 'results' / 'student'
    image = read(folder / 'visualization' / 'Two' / 'img1_student.png')
    assert image.shape == (26, 32)
    gt = read(data / 'Two' / 'HR' / 'img1.png').astype(np.float64)
    y = np.round(16 + (24.966 * gt[..., 0] + 128.553 * gt[..., 1] + 65.481 * gt[..., 2]) / 255)
    error = (image.astype(float) - y)[2:-2, 2:-2]
    psnr = results(folder)['sets']['Two']['student']['images']['img1']['psnr']
    assert psnr == pytest.approx(10 * math.log10(255**2 / np.mean(error**2)), abs=0.02)
    assert read(folder / 'comparison_Two.png').std() > 10


def test_tables_without_a_run():
    scores = {
        'A': {
            'bicubic': Scores({'x, "1"': {'psnr': 30.005, 'niqe': math.nan}, 'y': {'psnr': math.inf, 'niqe': 1.0}}),
            'net': Scores({'x, "1"': {'psnr': 31.0, 'niqe': 3.0}, 'y': {'psnr': 32.0, 'niqe': 2.0}}),
        }
    }
    file = ResultsFile(
        version=2,
        name='net',
        scale=3,
        metrics={name: MetricProtocol(type=f'calculate_{name}', border=1) for name in ('psnr', 'niqe')},
        sets={'A': {row: Measured(mean=of_row.mean(), images=of_row.images) for row, of_row in scores['A'].items()}},
        notes=[note for row, of_row in scores['A'].items() for note in left_out_notes('A', row, of_row)],
    )
    report = BenchmarkResult(file)
    grid = report.grid()
    assert grid.head == ['x3', 'A psnr / niqe']
    assert [[entry.text for entry in row] for row in grid.rows] == [
        ['bicubic', '30.00 / 1.00'],
        ['net', '31.50 / 2.50'],
    ]
    assert report.notes() == [
        'custom: psnr and niqe on RGB, 1 pixels of border cut',
        'bicubic: psnr of A is infinite, the image is equal to HR: 1 of 2 (y); is not in the mean',
        'bicubic: niqe of A is undefined, the image too small for it: 1 of 2 (x, "1"); is not in the mean',
    ]
    content = json.loads(file.model_dump_json(), parse_constant=pytest.fail)
    assert content['sets']['A']['bicubic']['images'] == {
        'x, "1"': {'psnr': 30.005, 'niqe': 'NaN'}, 'y': {'psnr': 'Infinity', 'niqe': 1.0}
    }  # fmt: skip
    rows = list(csv.reader(report.csv().splitlines()))
    assert ['A', 'net', 'x, "1"', 'psnr', '31.0'] in rows and ['A', 'net', 'mean', 'niqe', '2.5'] in rows
    console = Console(width=60, record=True, file=open('/dev/null', 'w', encoding='utf-8'))
    report.print(console)
    assert '31.50 / 2.50' in console.export_text()


@pytest.mark.parametrize(('side', 'expected'), [(8, (12, 20, 8, 8)), (64, (0, 0, 30, 40))])
def test_crop_for_the_picture_is_the_one_with_the_most_detail(side, expected):
    image = np.full((30, 40, 3), 128, np.uint8)
    image[14:18, 22:26] = np.random.default_rng(0).integers(0, 2, (4, 4, 1)).astype(np.uint8) * 255
    box = most_detailed(image, side)
    assert box.of(image).shape[:2] == expected[2:]
    assert box.top <= 13 and box.top + box.height >= 19 and box.left <= 21 and box.left + box.width >= 27
