"""``scripts/ablate.py``: Table 5 and Fig. 3 at a tiny setting, from the shipped sets to a report."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from basicsr_clsd.ablation.plan import plan
from basicsr_clsd.errors import UserError

pytestmark = pytest.mark.slow

REPO = Path(__file__).resolve().parents[2]
TABLE_5 = REPO / 'options' / 'small' / 'ablation' / 'table5.yml'
METHODS = ['EDSR', 'ASR', 'DS', 'CLSD']


ABLATE = REPO / 'scripts' / 'ablate.py'


@pytest.fixture(scope='module')
def folder(tmp_path_factory, make_pairs) -> Path:
    folder = tmp_path_factory.mktemp('ablation')
    make_pairs(folder / 'train', count=2, height=32, width=32)
    make_pairs(folder / 'test', count=2, height=32, width=36, seed=1)
    return folder


@pytest.fixture(scope='module')
def tiny(folder) -> list[str]:
    """Overrides that make the shipped options a matter of seconds."""
    trainings = [
        'num_gpu=0',
        'network_g:num_feat=4',
        'train:total_iter=2',
        'train:scheduler:milestones=[1]',
        f'datasets:train:dataroot_gt={folder / "train" / "HR"}',
        f'datasets:train:dataroot_lq={folder / "train" / "LR"}',
        'datasets:train:gt_size=16',
        'datasets:train:batch_size_per_gpu=2',
        f'datasets:val_1:dataroot_gt={folder / "test" / "HR"}',
        f'datasets:val_1:dataroot_lq={folder / "test" / "LR"}',
        'datasets:val_2=~',
        'logger:print_freq=1',
        'logger:use_tb_logger=false',
        f'path:experiments_root={folder / "experiments"}',
    ]
    tests = [
        'num_gpu=0',
        'network_g:num_feat=4',
        f'datasets:test_1:dataroot_gt={folder / "test" / "HR"}',
        f'datasets:test_1:dataroot_lq={folder / "test" / "LR"}',
        'datasets:test_2=~',
        'val:latency=false',
        f'path:results_root={folder / "results"}',
    ]
    return ['--force_yml', *trainings, '--force_test', *tests]


@pytest.fixture
def fig3(folder) -> Path:
    """The shipped Fig. 3 at x2 with 1 and 2 blocks alone."""
    shipped = REPO / 'options' / 'small' / 'ablation' / 'fig3.yml'
    content = yaml.safe_load(shipped.read_text(encoding='utf-8'))
    content['runs'] = [{**run, 'opt': str(shipped.parent / run['opt'])} for run in content['runs'][:2]]
    content |= {'test': str(shipped.parent / content['test']), 'baseline': 'small_CLSD_head_blocks_1'}
    file = folder / 'fig3.yml'
    file.write_text(yaml.safe_dump(content), encoding='utf-8')
    return file


@pytest.fixture(scope='module')
def table5(tiny):
    """The whole way, as a user goes it."""
    command = [sys.executable, str(ABLATE), str(TABLE_5), '--devices', 'cpu', 'cpu', *tiny]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize('name', ['ablation', 'small/ablation'])
def test_shipped_sets_are_the_papers(name):
    sets = REPO / 'options' / name
    table = plan(sets / 'table5.yml', [0, 1])
    names = [job.name for job in table]
    prefix = 'small' if 'small' in name else 'train'
    assert names == [f'{prefix}_{method}_x2_seed{seed}' for seed in (0, 1) for method in METHODS]
    assert [job.options.manual_seed for job in table] == [0] * 4 + [1] * 4
    blocks = [job.options.network_g.arguments()['head_num_block'] for job in plan(sets / 'fig3.yml', [0])]
    assert blocks == list(range(1, 9))


def test_table_5_ends_in_tables_and_a_report(folder, table5):
    results = folder / 'results' / 'small_table5'
    rows = list(csv.DictReader((results / 'comparison.csv').read_text(encoding='utf-8').splitlines()))
    table = [row for row in rows if row['table'].endswith('Table 5')]
    assert [row['method'] for row in table] == [f'small_{method}' for method in METHODS]
    own = json.loads((folder / 'results' / 'small_CLSD_x2_seed0' / 'results.json').read_text(encoding='utf-8'))
    (method,) = own['sets']['Set5'].keys() - {'bicubic'}
    assert float(table[3]['mean']) == own['sets']['Set5'][method]['mean']['psnr']
    text = (results / 'comparison.md').read_text(encoding='utf-8')
    assert '| L_SR + L_ASR + L_CS |' in text
    assert "not the paper's settings: num_feat 4 instead of 64, total_iter 2 instead of 600000" in text
    page = (results / 'report.html').read_text(encoding='utf-8')
    assert 'train.contrastive_opt.loss_weight' in page and '"versions"' in page and '<svg' in page


def test_what_is_done_is_not_done_again(folder, table5, tiny, run_command):
    files = {path: path.stat().st_mtime_ns for path in folder.rglob('net_g_*.pth')}
    files |= {path: path.stat().st_mtime_ns for path in folder.rglob('results.json')}
    dry = run_command('scripts/ablate', TABLE_5, '--dry-run', '--seeds', 0, 1, *tiny)
    assert dry.code == 0, dry.err
    assert [line.split(': ')[1] for line in dry.out.splitlines()] == ['nothing to do'] * 4 + [
        'training and test to do'
    ] * 4
    (folder / 'results' / 'small_DS_x2_seed0' / 'results.json').unlink()
    again = run_command('scripts/ablate', TABLE_5, '--devices', 'cpu', 'cpu', *tiny)
    assert again.code == 0, again.err
    assert again.out.count('is done already') == 3 and 'small_DS_x2_seed0: test done' in again.out
    after = {path: path.stat().st_mtime_ns for path in files}
    changed = [path.parent.name for path in files if after[path] != files[path]]
    assert changed == ['small_DS_x2_seed0']


def test_fig_3_draws_psnr_against_blocks_though_a_run_fails(folder, fig3, tiny, run_command):
    content = yaml.safe_load(fig3.read_text(encoding='utf-8'))
    broken = {**content['runs'][0], 'name': 'broken', 'force_yml': ['path:pretrain_network_g=/nowhere.pth']}
    content['runs'].insert(0, broken)
    fig3.write_text(yaml.safe_dump(content), encoding='utf-8')
    ended = run_command('scripts/ablate', fig3, '--devices', 'cpu', 'cpu', *tiny)
    assert ended.code == 1
    assert ended.err.startswith('error: broken_seed0: training: error: ') and '/nowhere.pth' in ended.err
    assert ended.err.count('\n') == 1
    results = folder / 'results' / 'small_fig3'
    assert {path.name for path in results.iterdir() if path.suffix in ('.png', '.svg', '.html')} == {
        'head_blocks.png',
        'head_blocks.svg',
        'report.html',
    }
    assert 'residual blocks per head' in (results / 'head_blocks.svg').read_text(encoding='utf-8')
    assert 'residual blocks per head' in (results / 'report.html').read_text(encoding='utf-8')


def test_a_signal_is_passed_on_and_the_same_command_goes_on(folder, fig3, tiny, run_command):
    long = [*tiny, '--seeds', '7']
    long[1:1] = ['train:total_iter=100000', 'train:scheduler:milestones=[50000]', 'logger:save_checkpoint_freq=100000']
    long = [text for text in long if text not in ('train:total_iter=2', 'train:scheduler:milestones=[1]')]
    command = [sys.executable, str(ABLATE), str(fig3), *map(str, long)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    log = folder / 'experiments' / 'small_CLSD_x2_head_blocks_1_seed7' / 'train_small_CLSD_x2_head_blocks_1_seed7.log'
    deadline = time.monotonic() + 120
    while 'iter 3/' not in (log.read_text(encoding='utf-8') if log.exists() else '') and time.monotonic() < deadline:
        time.sleep(0.1)
    twice = run_command('scripts/ablate', fig3, *long)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert twice.code == 2 and 'is at work on this' in twice.err
    assert len(list((log.parent / 'training_states').glob('*.state'))) == 1


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'rum': []}, r'set.yml: rum: Extra inputs are not permitted'),
        ({'runs': []}, r'set.yml: runs: List should have at least 1 item'),
        ({'name': '..'}, r'set.yml: name: must be fit to name a folder'),
        ({'runs': [{'opt': 'nowhere.yml'}]}, r'nowhere.yml: cannot be read as an options file'),
        ({'name': 'small_EDSR_x2_seed0'}, r'called small_EDSR_x2_seed0'),
    ],
)
def test_a_wrong_set_is_one_line(tmp_path, changes, message):
    small = REPO / 'options' / 'small'
    content = {
        'name': 'set',
        'test': str(small / 'test_x2.yml'),
        'runs': [{'opt': str(small / 'train_EDSR_x2.yml')}],
        **changes,
    }
    file = tmp_path / 'set.yml'
    file.write_text(yaml.safe_dump(content), encoding='utf-8')
    with pytest.raises(UserError, match=message) as error:
        plan(file, [0])
    assert '\n' not in str(error.value)
    assert os.listdir(tmp_path) == ['set.yml']
