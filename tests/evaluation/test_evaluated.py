"""``test.py`` on several networks in one go, of every kind of file."""

import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from basicsr.metrics import calculate_psnr
from helpers.students import ARGUMENTS, edsr_pytorch_weights, student, write_onnx
from rich.console import Console

from basicsr_clsd.config import Options
from basicsr_clsd.engine.build import build_dataset
from basicsr_clsd.evaluation.benchmark import Benchmark
from basicsr_clsd.evaluation.evaluated import load_models
from basicsr_clsd.inference.tiles import Tiling
from basicsr_clsd.networks.zoo import ZOO
from basicsr_clsd.runtime.distributed import Processes


@pytest.fixture
def files(tmp_path) -> dict[str, str]:
    """Two students' weights: as this project, BasicSR and EDSR-PyTorch write them."""
    paths = {name: str(tmp_path / f'{name}.pth') for name in ('first', 'second', 'theirs', 'average')}
    torch.save({'params': student(0).state_dict()}, paths['first'])
    torch.save({'params': student(1).state_dict()}, paths['second'])
    torch.save(edsr_pytorch_weights(student(1)), paths['theirs'])
    torch.save({'params': student(0).state_dict(), 'params_ema': student(1).state_dict()}, paths['average'])
    return paths


def networks(files: dict[str, str], **more: Any) -> dict[str, Any]:
    return {name: {'checkpoint': path, **more.get(name, {})} for name, path in files.items()}


def test_every_kind_of_checkpoint_in_one_table(benchmark_options, tested, files, tmp_path):
    pytest.importorskip('onnxruntime')
    write_onnx(student(1), tmp_path / 'second.onnx')
    files['onnx'] = str(tmp_path / 'second.onnx')
    wide = {'type': 'EDSR', **ARGUMENTS, 'num_feat': 12}
    torch.save(student(2, num_feat=12).state_dict(), tmp_path / 'wide.pth')
    files['wide'] = str(tmp_path / 'wide.pth')
    rows = networks(files, wide={'network_g': wide}, average={'param_key': 'params_ema'})
    content = tested({**benchmark_options, 'networks': rows})
    for by_method in content['sets'].values():
        assert list(by_method) == ['bicubic', *files]
        for same in ('theirs', 'average'):
            assert by_method[same] == by_method['second']
        assert by_method['onnx']['mean'] == pytest.approx(by_method['second']['mean'], abs=0.02)
        assert len({by_method[name]['mean']['psnr'] for name in ('bicubic', 'first', 'second', 'wide')}) == 4
    facts = content['networks']
    assert {name: network['checkpoint'] for name, network in facts.items()} == files
    assert [facts[name]['arch'] for name in files] == ['EDSR'] * 4 + ['ONNX', 'EDSR']
    count = sum(value.numel() for value in student(0).parameters())
    assert facts['first']['parameters'] == facts['theirs']['parameters'] == count
    assert facts['onnx']['parameters'] == count + 4  # the mean and the range are in the file
    assert facts['onnx']['macs_1280x720'] == facts['second']['macs_1280x720'] > 0
    assert all(network['run'] is None for network in facts.values())
    # Each row has the numbers that its network has alone.
    alone = tested({**benchmark_options, 'path': {**benchmark_options['path'], 'pretrain_network_g': files['second']}})
    for name, by_method in alone['sets'].items():
        assert by_method['several'] == content['sets'][name]['second']


def test_checkpoints_of_the_command_line(benchmark_options, tested, files, tmp_path):
    folder = tmp_path / 'experiments' / 'small_run' / 'models'
    folder.mkdir(parents=True)
    os.link(files['first'], folder / 'net_g_4.pth')
    (folder.parent / 'small_run.yml').write_text('name: small_run\nmanual_seed: 3\nscale: 2\n', encoding='utf-8')
    benchmark_options['path']['pretrain_network_g'] = 'gone.pth'
    arguments = [f'Second={files["second"]}', files['theirs'], str(folder / 'net_g_4.pth')]
    content = tested(benchmark_options, '--checkpoints', *arguments)
    assert list(content['sets']['Two']) == ['bicubic', 'Second', 'theirs', 'small_run']
    assert content['networks']['small_run']['run'] == {
        'name': 'small_run',
        'manual_seed': 3,
        'iteration': 4,
        'options': {'name': 'small_run', 'manual_seed': 3, 'scale': 2},
    }
    resolved = yaml.safe_load((tmp_path / 'results' / 'several' / 'several.yml').read_text(encoding='utf-8'))
    assert resolved['networks']['Second']['checkpoint'] == files['second']


def test_several_checkpoints_of_one_experiment_are_told_apart(benchmark_options, tested, files, tmp_path):
    folder = tmp_path / 'run' / 'models'
    folder.mkdir(parents=True)
    for name, file in (('net_g_4', 'first'), ('net_g_8', 'second')):
        os.link(files[file], folder / f'{name}.pth')
    (folder.parent / 'run.yml').write_text('name: run\nmanual_seed: 3\nscale: 2\n', encoding='utf-8')
    latest, last = (str(folder / f'net_g_{iteration}.pth') for iteration in (4, 8))
    content = tested(benchmark_options, '--checkpoints', latest, last, f'mine={last}', files['theirs'])
    assert list(content['networks']) == ['run_net_g_4', 'run_net_g_8', 'mine', 'theirs']
    runs = [
        facts['run'] and (facts['run']['name'], facts['run']['iteration']) for facts in content['networks'].values()
    ]
    assert runs == [('run', 4), ('run', 8), ('run', 8), None]
    # A name of one's own leaves the other file the name of the experiment alone.
    assert list(tested(benchmark_options, '--checkpoints', f'mine={latest}', last)['networks']) == ['mine', 'run']


@pytest.mark.parametrize('processes', [2, 3])
def test_shared_out_over_processes(benchmark_options, tested, files, processes):
    benchmark_options['networks'] = networks(files, second={'self_ensemble': True})
    benchmark_options['val'] |= {'tile': 9}
    alone = tested(benchmark_options)
    shared = tested({**benchmark_options, 'name': 'shared'}, processes=processes)
    assert list(shared['networks']) == list(alone['networks'])
    for name, by_method in alone['sets'].items():
        for method, scores in by_method.items():
            assert list(shared['sets'][name][method]['images']) == list(scores['images'])
            for image, values in {**scores['images'], 'mean': scores['mean']}.items():
                other = {**shared['sets'][name][method]['images'], 'mean': shared['sets'][name][method]['mean']}[image]
                assert other == pytest.approx(values, abs=1e-9)


def test_tiles_give_the_numbers_of_the_whole_image(benchmark_options, tested, files):
    benchmark_options['networks'] = networks(files)
    whole = tested(benchmark_options)
    benchmark_options['val']['tile'] = 7
    tiled = tested(benchmark_options)
    assert tiled['networks']['first']['tile'] == 7 and tiled['networks']['first']['tile_overlap'] == 6
    assert {'row': 'first', 'kind': 'tiles', 'text': 'tiles of 7 pixels, overlap 6'} in tiled['notes']
    for name, by_method in whole['sets'].items():
        for method, scores in by_method.items():
            # To the rounding of values between two bytes.
            assert tiled['sets'][name][method]['mean'] == pytest.approx(scores['mean'], abs=1e-2)


def test_tiles_that_no_image_fills_are_not_told_of(benchmark_options, tested, files):
    benchmark_options['networks'] = networks(files)
    whole = tested(benchmark_options)
    benchmark_options['val']['tile'] = 16  # of images of 16x13
    content = tested(benchmark_options)
    assert content['notes'] == [] and content['sets'] == whole['sets']
    assert {facts['tile'] for facts in content['networks'].values()} == {None}


def test_self_ensemble_of_one_row_or_all(benchmark_options, tested, files, tmp_path):
    rows: dict[str, dict[str, Any]] = {name: {'checkpoint': files['first']} for name in ('EDSR', 'EDSR+')}
    rows['EDSR+']['self_ensemble'] = True
    content = tested({**benchmark_options, 'networks': rows})
    assert content['sets']['Two']['EDSR+'] != content['sets']['Two']['EDSR']
    plain, ensemble = (content['networks'][name] for name in ('EDSR', 'EDSR+'))
    assert ensemble['macs_1280x720'] == 8 * plain['macs_1280x720']
    assert (plain['self_ensemble'], ensemble['self_ensemble']) == (False, True)
    text = 'mean of 8 turned and mirrored images (self-ensemble)'
    assert content['notes'] == [{'row': 'EDSR+', 'kind': 'self_ensemble', 'text': text}]
    assert f'EDSR+: {text}.' in (tmp_path / 'results' / 'several' / 'results.md').read_text(encoding='utf-8')
    benchmark_options['val']['self_ensemble'] = True
    rows['EDSR']['self_ensemble'] = False
    del rows['EDSR+']['self_ensemble']
    assert tested({**benchmark_options, 'networks': rows})['sets'] == content['sets']


@pytest.mark.parametrize('suffix', [None, 'v2'])
@pytest.mark.parametrize('rows', [['first', 'second'], ['first']])
def test_images_of_all_rows_are_where_the_results_say(benchmark_options, tested, files, sets, tmp_path, rows, suffix):
    benchmark_options['networks'] = {name: {'checkpoint': files[name]} for name in rows}
    val = {**benchmark_options['val'], 'save_img': True, 'comparison': True, 'suffix': suffix}
    content = tested({**benchmark_options, 'val': val})
    folder = tmp_path / 'results' / 'several'
    ending = {None: '{row}', 'v2': '{row}_v2' if len(rows) > 1 else 'v2'}[suffix]
    written = set()
    for name, by_method in content['sets'].items():
        assert (folder / f'comparison_{name}.png').stat().st_size > 1000
        for row in rows:
            pattern = content['networks'][row]['images']
            assert pattern == f'visualization/{{set}}/{{image}}_{ending.format(row=row)}.png'
            for image, values in by_method[row]['images'].items():
                path = folder / pattern.replace('{set}', name).replace('{image}', image)
                written.add(path)
                hr = cv2.imread(str(sets / name / 'HR' / f'{image}.png'))
                assert calculate_psnr(cv2.imread(str(path)), hr, 2, test_y_channel=True) == values['psnr']
    assert written == set((folder / 'visualization').rglob('*.png'))


def test_images_that_are_not_written_are_nowhere(benchmark_options, tested, files):
    content = tested({**benchmark_options, 'networks': networks(files)})
    assert {facts['images'] for facts in content['networks'].values()} == {None}


def test_latency_and_memory_are_measured(benchmark_options, tested, files, tmp_path):
    benchmark_options['networks'] = {'first': {'checkpoint': files['first']}}
    benchmark_options['datasets'].pop('test_0')
    benchmark_options['val'] = {}
    facts = tested(benchmark_options)['networks']['first']
    assert facts['latency_s'] > 0 and facts['latency_size'] == '1280x720'
    assert facts['latency_device'] == 'CPU, 1 thread' and facts['latency_failure'] is None
    assert 'latency and memory on CPU, 1 thread.' in (tmp_path / 'results' / 'several' / 'results.md').read_text(
        'utf-8'
    )
    image = 4 * 3 * 720 * 1280
    assert facts['peak_bytes'] is None or image < facts['peak_bytes'] < 100 * image


def other_weights(path: Path, seed: int, **arguments: int) -> str:
    torch.save({'params': student(seed, **arguments).state_dict()}, path)
    return str(path)


def test_a_checkpoint_that_does_not_fit_is_one_line(benchmark_options, refused, files, tmp_path):
    wide = other_weights(tmp_path / 'wide.pth', 0, num_feat=12)
    told = refused(benchmark_options, '--checkpoints', files['first'], wide)
    assert told.startswith(f'{wide}: does not fit EDSR: conv_first.weight has another shape ((8, 3, 3, 3) expected')
    for scale in (3, 4):
        path = other_weights(tmp_path / f'x{scale}.pth', 0, upscale=scale)
        assert refused(benchmark_options, '--checkpoints', path).startswith(f'{path}: does not fit EDSR: ')
    benchmark_options['networks'] = {
        'net': {'checkpoint': wide, 'network_g': {'type': 'EDSR', **ARGUMENTS, 'upscale': 4}}
    }
    assert refused(benchmark_options) == 'networks.net.network_g.upscale: 4 does not match scale: 2; leave it out'
    theirs = {**edsr_pytorch_weights(student(0)), 'sub_mean.bias': torch.zeros(3)}
    torch.save(theirs, tmp_path / 'shifted.pt')
    assert 'sub_mean.bias is [0.0, 0.0, 0.0], but EDSR shifts by' in refused(
        benchmark_options | {'networks': {}}, '--checkpoints', str(tmp_path / 'shifted.pt')
    )


@pytest.mark.parametrize(
    ('rows', 'told'),
    [
        ({'bicubic': {'checkpoint': 'a.pth'}}, "networks.bicubic: is the name of the table's first row"),
        ({'a': {}}, 'networks.a.checkpoint: missing'),
        ({'a': {'checkpiont': 'a.pth'}}, "networks.a.checkpiont: unknown key (did you mean 'checkpoint'?)"),
        ({'a': {'checkpoint': 'gone.pth'}}, 'gone.pth: no such file'),
        ({'a': {'checkpoint': 'gone.onnx'}}, 'gone.onnx: no such file'),
        ({'a': {'checkpoint': 'a', 'network_g': {'type': 'EDSRR'}}}, "networks.a.network_g.type: unknown name 'EDSRR'"),
    ],
)
def test_rows_that_cannot_be(benchmark_options, refused, rows, told):
    assert told in refused({**benchmark_options, 'networks': rows})


def test_rows_of_the_command_line_that_cannot_be(benchmark_options, refused, files):
    assert "two are named 'first'" in refused(
        benchmark_options, '--checkpoints', files['first'], f'first={files["second"]}'
    )
    assert 'must be fit to name a folder' in refused(benchmark_options, '--checkpoints', f'..={files["first"]}')


def test_values_that_are_not_finite_are_told(benchmark_options, files, tmp_path, run_command, write_yaml):
    state = student(0).state_dict()
    state['conv_last.bias'][:] = float('nan')
    torch.save({'params': state}, files['first'])
    ended = run_command(
        'test', '-opt', write_yaml(tmp_path / 't.yml', benchmark_options), '--checkpoints', files['first']
    )
    assert (ended.code, ended.err) == (2, f'error: {files["first"]}: its network makes values that are not finite\n')


def test_json_is_for_programs(benchmark_options, tested, files, tmp_path):
    content = tested({**benchmark_options, 'networks': networks(files)})
    assert (content['version'], content['name'], content['protocol_name']) == (2, 'several', 'y_crop_scale')
    assert content['networks']['first']['checkpoint'] == files['first']
    text = (tmp_path / 'results' / 'several' / 'results.json').read_text(encoding='utf-8')
    assert 'NaN' not in text and 'Infinity' not in text
    assert json.loads(text) == content
    assert set(content['networks']['first']) >= {
        'checkpoint', 'arch', 'parameters', 'macs_1280x720', 'latency_s', 'latency_size', 'peak_bytes',
        'latency_device', 'latency_failure', 'images', 'tile', 'tile_overlap', 'self_ensemble', 'run',
    }  # fmt: skip
    assert np.isfinite(content['sets']['Two']['first']['mean']['psnr'])


def test_smallest_tiles_of_any_process_are_told(benchmark_options, files):
    """The memory of another process, which measured other images, may have run out."""

    class Two(Processes):
        def gather(self, value: Any) -> list[Any]:
            tilings = [Tiling(50, 6, False), Tiling(25, 32, True), None]
            return [value, tilings] if isinstance(value, list) else [value]

    options = Options.model_validate({**benchmark_options, 'networks': networks(files)})
    methods = load_models(options)[:3]
    methods[1].tiles.used = Tiling(40, 32, True)
    sets = {'Two': build_dataset(options, options.datasets['test_1'], 'test')}
    results = Benchmark(options, methods, sets, Two()).run(Console(quiet=True))
    assert [(note.row, note.text) for note in results.notes if note.kind == 'tiles'] == [
        ('first', 'tiles of 50 pixels, overlap 6'),
        ('second', 'tiles of 25 pixels, overlap 32, not the result of the whole image'),
    ]
    assert [facts.tile for facts in results.networks.values()] == [50, 25, None]


def test_a_distilled_student_is_tested_without_its_teacher(benchmark_options, tested, files):
    plain = tested(benchmark_options, '--checkpoints', files['first'])
    distilled = {
        **benchmark_options,
        'model_type': 'KDModel',
        'network_teacher': {'type': 'EDSR', **ARGUMENTS, 'num_feat': 16},
        'path': {**benchmark_options['path'], 'pretrain_network_teacher': 'gone.pth'},
    }
    assert tested(distilled, '--checkpoints', files['first'])['sets'] == plain['sets']


@pytest.mark.parametrize('model', ['small_EDSR_x2', 'small_EDSR_x2.pth'])
def test_zoo_names_are_tested_as_their_files_are(model, benchmark_options, tested):
    benchmark_options['network_g'] = {
        'type': 'EDSR', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 32, 'num_block': 16, 'upscale': 2
    }  # fmt: skip
    by_path = tested(benchmark_options, '--checkpoints', f'net={ZOO / "small_EDSR_x2.pth"}')
    assert tested(benchmark_options, '--checkpoints', f'net={model}')['sets'] == by_path['sets']
