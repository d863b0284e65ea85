"""The wheel, installed in an environment of its own and used from an empty folder; outputs never go into it."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest
import yaml

REPO = Path(__file__).resolve().parents[1]
PACKAGED = ('basicsr_clsd', 'options', 'pyproject.toml', 'setup.py', 'README.md', 'LICENSE')
TINY = (
    'network_g:num_feat=4',
    'network_g:num_block=3',
    'network_g:head_taps=[1]',
    'network_g:head_num_block=1',
    'num_gpu=0',
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel, which finds everything else where the tests do."""
    source, folder = tmp_path_factory.mktemp('source'), tmp_path_factory.mktemp('installed')
    for name in PACKAGED:
        if (REPO / name).is_dir():
            ignored = shutil.ignore_patterns('__pycache__')
            shutil.copytree(REPO / name, source / name, symlinks=True, ignore=ignored)
        else:
            shutil.copy(REPO / name, source)
    pip = [sys.executable, '-m', 'pip', '--disable-pip-version-check', '-q']
    build = ['wheel', '--no-deps', '--no-build-isolation', '--no-index', '-w', str(folder), str(source)]
    subprocess.run([*pip, *build], check=True, timeout=300)
    (wheel,) = folder.glob('basicsr_clsd-*.whl')
    env = folder / 'env'
    venv.create(env, with_pip=False, symlinks=True)
    install = [
        '--python',
        str(env / 'bin' / 'python'),
        'install',
        '--ignore-installed',
        '--no-deps',
        '--no-index',
        str(wheel),
    ]
    subprocess.run([*pip, *install], check=True, timeout=300)
    (site,) = env.glob('lib/python*/site-packages')
    (site / 'others.pth').write_text(sysconfig.get_path('purelib'))
    return env


@pytest.fixture
def run(environment: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """``run('train', *arguments)``: runs ``clsd-train`` in an empty folder, which it must be in to write anything."""
    inherited = {name: value for name, value in os.environ.items() if name not in ('PYTHONPATH', 'CLSD_DATA')}
    inherited['PYTHONDONTWRITEBYTECODE'] = '1'

    def call(name: str, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        before = files(environment)
        command = [environment / 'bin' / f'clsd-{name}', *map(str, arguments)]
        ended = subprocess.run(
            command, cwd=tmp_path, env=inherited, capture_output=True, text=True, check=False, timeout=300
        )
        assert ended.returncode == code, ended.stderr
        assert files(environment) == before
        return ended

    return call


def files(folder: Path) -> set[Path]:
    return set(folder.rglob('*'))


def sections(folder: Path, *phases: str) -> list[str]:
    """Overrides that read the pairs in a folder, with patches of a few pixels."""
    keys = {'dataroot_gt': folder / 'HR', 'dataroot_lq': folder / 'LR', 'filename_tmpl': 'null', 'names': 'null'}
    train = {**keys, 'gt_size': 16, 'batch_size_per_gpu': 2, 'num_worker_per_gpu': 0}
    del train['names']
    return [
        f'datasets:{phase}:{key}={value}'
        for phase in phases
        for key, value in (train if phase == 'train' else keys).items()
    ]


def test_train_test_export_and_report_from_an_empty_folder(run, tmp_path, make_pairs):
    make_pairs(tmp_path / 'data')
    own = {'base': 'train_CLSD_x2.yml', 'name': 'mine'}  # beside a file of one's own, `base` finds shipped ones too
    (tmp_path / 'mine.yml').write_text(yaml.dump(own))
    run('train', '-opt', 'mine.yml', '--debug', '--force_yml', *TINY, *sections(tmp_path / 'data', 'train', 'val'))
    weights = tmp_path / 'experiments' / 'mine_debug' / 'models' / 'net_g_8.pth'
    assert weights.is_file()

    shipped = 'small/test_x2.yml'
    tested = sections(tmp_path / 'data', 'test_1')
    tested += [
        'datasets:test_1:name=data',
        'datasets:test_2=null',
        'val:latency=false',
        'val:save_img=true',
        *TINY[:2],
        'num_gpu=0',
    ]
    run('test', '-opt', shipped, '--checkpoints', f'EDSR={weights}', '--force_yml', *tested)
    (results,) = (tmp_path / 'results').iterdir()
    assert (results / 'results.json').is_file()

    run('export', 'safetensors', '-m', weights)
    assert list(tmp_path.glob('*.safetensors'))
    run('compare', results, '-o', 'comparison')
    assert (tmp_path / 'comparison' / 'comparison.md').is_file()
    run('report', results, '-o', 'report.html')
    assert '<html' in (tmp_path / 'report.html').read_text(encoding='utf-8')
    run('figures', 'curves', 'experiments/mine_debug', '--losses', '-o', 'curves')
    assert (tmp_path / 'curves.png').is_file()


def test_upscale_with_a_shipped_model(run, tmp_path, make_images):
    photos = make_images(tmp_path / 'photos', count=1)
    run('infer', '-i', photos, '-o', 'large', '-m', 'small_EDSR_x2', '--cpu')
    upscaled = cv2.imread(str(tmp_path / 'large' / 'img1_x2.png'))
    assert upscaled is not None
    assert upscaled.shape == (96, 96, 3)


def test_measure_shipped_models_by_shipped_options(run, tmp_path, make_pairs):
    make_pairs(tmp_path / 'data')
    tested = [*sections(tmp_path / 'data', 'test_1'), 'datasets:test_2=null', 'val:latency=false', 'num_gpu=0']
    run('test', '-opt', 'small/test_students_x2.yml', '--force_yml', *tested)
    assert (tmp_path / 'results' / 'small_test_students_x2' / 'results.json').is_file()


@pytest.mark.parametrize(
    ('given', 'nearest'),
    [
        ('train_CLDS_x2.yml', 'train_CLSD_x2.yml'),
        ('options/train_CLDS_x2.yml', 'train_CLSD_x2.yml'),
        ('train_teacher_x2.yml', 'small/train_teacher_x2.yml'),
    ],
)
def test_unknown_options_file_gets_one_line_with_the_nearest(run, given, nearest):
    refused = run('train', '-opt', given, code=2)
    told = f"{given}: cannot be read as an options file: No such file or directory (did you mean '{nearest}'?)"
    assert refused.stderr.strip() == f'error: {told}'


def test_own_photos_get_a_command_that_trains_on_them(run, tmp_path, make_images):
    photos = make_images(tmp_path / 'photos')
    sizes = ['--scales', '2', '--min-size', '8', '--val', '1', '--storage', 'folder']
    printed = run('prepare', 'folder', photos, '-o', 'set', *sizes).stdout
    assert re.search(r'^clsd-train -opt train_CLSD_x2\.yml --force_yml ', printed, re.MULTILINE)


def test_ablation_finds_the_shipped_sets(run):
    listed = run('ablate', 'ablation/table5.yml', '--dry-run').stdout
    assert 'train_CLSD_x2_seed0: training and test to do' in listed
