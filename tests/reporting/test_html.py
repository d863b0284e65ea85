"""The report: what is in the page."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.report_sources import LIMIT, page_of, write_report_sources
from helpers.students import student

from basicsr_clsd.config.components import Metric
from basicsr_clsd.errors import UserError
from basicsr_clsd.evaluation.metrics import measure
from basicsr_clsd.reporting.html import read_sources, report_page
from basicsr_clsd.reporting.viewer import scenes


@pytest.fixture(scope='module')
def folder(tmp_path_factory, make_pairs) -> Path:
    return write_report_sources(tmp_path_factory.mktemp('report'), make_pairs)


def viewer_of(page: str) -> list[dict[str, Any]]:
    found = re.search(r'<script type="application/json" id="viewer-data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])['scenes']


def test_page_has_tables_curves_options_and_environment(folder):
    page = page_of(folder)
    assert page.count('<svg') == 2  # validations and loss terms
    assert '<code>train.weight</code></td><td>4</td><td>8</td>' in page
    assert 'basicsr-clsd 0.1.0, torch 2.15.0, threads 2, device x86_64 CPU; basicsr_clsd/train.py -opt a.yml' in page


def test_page_needs_no_network(folder):
    page = page_of(folder)
    for address in re.findall(r"""(?:src|href)\s*=\s*["']([^"']*)""", page):
        assert address.startswith(('#', 'data:')), address
    addresses = set(re.findall(r'https?://[^\s"\'<)]*', page))
    assert all('w3.org' in address for address in addresses), addresses  # names of SVG's namespaces
    assert 'url(#' in page and '@import' not in page


def test_identifiers_of_figures_are_distinct(folder):
    page = page_of(folder)
    identifiers = re.findall(r'\bid="([^"]+)"', page)
    assert len(set(identifiers)) == len(identifiers)
    for name in re.findall(r'url\(#([^)]+)\)', page) + re.findall(r'xlink:href="#([^"]+)"', page):
        assert name in identifiers


def test_pictures_are_those_of_the_tests(folder):
    first, second = viewer_of(page_of(folder))
    assert (first['width'], first['height'], second['height']) == (96, 64, 48)
    assert (first['channel'], first['border'], first['scale']) == ('y', 2, 2)
    names = [version['name'] for version in first['versions']]
    assert names == ['HR', 'LR', 'bicubic', 'CLSD', 'EDSR']
    content = base64.b64decode(first['versions'][3]['src'].removeprefix('data:image/png;base64,'))
    file = folder / 'results' / 'train_CLSD_x2_seed0' / 'visualization' / 'Set' / 'img1_train_CLSD_x2_seed0.png'
    assert content == file.read_bytes()


def test_beyond_the_limit_pictures_are_linked(folder):
    sizes = [sum(len(version['src']) for version in scene['versions']) for scene in viewer_of(page_of(folder))]
    page = page_of(folder, limit=sizes[0])
    first, second = viewer_of(page)
    assert (first['linked'], second['linked']) == (False, True)
    assert [version['name'] for version in second['versions']] == ['HR', 'LR', 'CLSD', 'EDSR']
    assert all((folder / version['src']).is_file() for version in second['versions'])
    assert 'Of 1 image(s) the pictures are linked' in page


def test_without_the_data_there_is_no_hr_and_the_page_says_so(folder):
    (folder / 'Set').rename(folder / 'away')
    try:
        page = page_of(folder)
    finally:
        (folder / 'away').rename(folder / 'Set')
    assert [version['name'] for version in viewer_of(page)[0]['versions']] == ['CLSD', 'EDSR']
    assert 'HR is not there' in page


def test_names_cannot_become_markup(folder):
    page = page_of(folder, title='</title><script>alert(1)</script>')
    assert '<script>alert' not in page
    sources = read_sources([f'<b>{number}=' + str(path) for number, path in enumerate((folder / 'results').iterdir())])
    page = report_page(sources, 'Test', folder, LIMIT, paper=False, baseline=None)
    assert '<b>' not in page


def test_a_training_alone_makes_a_report(folder):
    sources = read_sources([str(folder / 'experiments' / 'train_EDSR_x2_seed0')])
    page = report_page(sources, 'Test', folder, LIMIT, paper=False, baseline=None)
    assert '<svg' in page and 'id="viewer-data"' not in page
    (run,) = sources.runs
    assert run.validations == {'Set': {'psnr': [(1000, 31.0), (2000, 32.0)]}}
    assert run.terms['L_SR'] == [(1000, 4.5), (2000, 3.5)] and run.terms['L_CS'][0] == (1000, 1e-5)


def test_what_a_test_writes_is_found(benchmark_options, tested, tmp_path):
    """Two rows of one training, their images under names of their own, and which way a metric is better."""
    weights = tmp_path / 'train_EDSR_x2' / 'models' / 'net_g_8.pth'
    weights.parent.mkdir(parents=True)
    torch.save({'params': student(0).state_dict()}, weights)
    (tmp_path / 'train_EDSR_x2' / 'train_EDSR_x2.yml').write_text('{name: train_EDSR_x2, manual_seed: 3}')
    benchmark_options['networks'] = {
        'EDSR': {'checkpoint': str(weights)},
        'EDSR+': {'checkpoint': str(weights), 'self_ensemble': True},
    }
    odd = {'type': 'calculate_psnr', 'crop_border': 5, 'better': 'lower'}
    benchmark_options['val'] |= {
        'save_img': True,
        'suffix': 'out',
        'protocol': 'edsr_div2k_rgb',
        'metrics': {'odd': odd},
    }
    tested(benchmark_options)
    rows = read_sources([str(tmp_path / 'results' / 'several')]).tested
    assert [(row.label, row.seed, row.metrics['odd'].better) for row in rows] == [
        ('bicubic', None, 'lower'),
        ('EDSR', 3, 'lower'),
        ('EDSR+', 3, 'lower'),
    ]
    assert [bool(row.conditions) for row in rows] == [False, False, True]
    found = scenes((row.label, row) for row in rows)
    assert [(scene.dataset, scene.name) for scene in found] == [
        *(('Flowers', f'img{number}') for number in (1, 2, 3)),
        *(('Two', f'img{number}') for number in (1, 2)),
    ]
    assert {(scene.psnr.color, scene.psnr.border) for scene in found if scene.psnr} == {('rgb', 8)}
    for scene in found:
        assert scene.names() == ['HR', 'LR', 'bicubic', 'EDSR', 'EDSR+']
        values = []
        for row in rows[1:]:
            values.append(measure(scene.read(row.label), scene.read('HR'), {'odd': Metric.model_validate(odd)}))
            assert values[-1]['odd'] == row.sets[scene.dataset].images[scene.name]['odd']
        assert values[0] != values[1]


def test_a_folder_that_is_neither_is_named(tmp_path):
    with pytest.raises(UserError, match='neither the folder of a test'):
        read_sources([str(tmp_path)])


def test_the_command_writes_and_refuses(folder, run_command, tmp_path):
    test = folder / 'results' / 'train_CLSD_x2_seed0'
    before = (test / 'results.json').read_bytes()
    for arguments, message in (
        ([test, '-o', test / 'results.json'], 'not the name of an .html file'),
        ([tmp_path, '-o', tmp_path / 'a.html'], 'neither the folder of a test'),
        ([test, '-o', test / 'results.json' / 'a.html'], 'cannot be written'),
    ):
        ended = run_command('scripts/report', *arguments)
        assert ended.code == 2
        assert message in ended.err and ended.err.count('\n') == 1
    assert (test / 'results.json').read_bytes() == before and not list(tmp_path.iterdir())
    ended = run_command('scripts/report', test, '-o', tmp_path / 'new' / 'a.html')
    assert ended.code == 0, ended.err
    assert len(viewer_of((tmp_path / 'new' / 'a.html').read_text(encoding='utf-8'))) == 2
