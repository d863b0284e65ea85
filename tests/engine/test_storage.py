"""A run is the same to the bit whatever holds its images."""

import signal

import pytest

from basicsr_clsd.data.stores import FolderStore
from basicsr_clsd.prepare.lmdb_build import build_png_lmdb, build_raw_lmdb

WORKERS = 'datasets:train:num_worker_per_gpu=2'


@pytest.fixture
def run_from(data, tmp_path, make_run):
    """``run_from(build)``: a run whose training images are in LMDBs."""

    def make(build):
        roots = {key: tmp_path / f'{name}.lmdb' for key, name in (('dataroot_gt', 'HR'), ('dataroot_lq', 'LR'))}
        for root in roots.values():
            build(FolderStore(data / 'train' / root.stem), root)
        run = make_run()
        text = run.opt.read_text(encoding='utf-8')
        for root in roots.values():
            text = text.replace(str(data / 'train' / root.stem), str(root))
        run.opt.write_text(text, encoding='utf-8')
        assert text.count('.lmdb') == 2
        return run

    return make


@pytest.mark.parametrize('build', [build_png_lmdb, build_raw_lmdb])
@pytest.mark.parametrize('arguments', [(), ('--force_yml', WORKERS)])
def test_run_from_an_lmdb_is_that_from_the_folder(run_from, reference, same, build, arguments):
    run = run_from(build)
    ended = run.start(*arguments)
    assert ended.code == 0, ended.err
    same(run.outcome(), reference.outcome())


def test_killed_run_goes_on_from_another_storage(run_from, reference, same, data):
    run = run_from(build_raw_lmdb)
    unwritten = run.states / '.6.state.tmp'
    killed = run.start('--force_yml', WORKERS, before='os.replace', path=str(unwritten))
    assert killed.code == -signal.SIGKILL and unwritten.exists()
    folders = [f'datasets:train:dataroot_{key}={data / "train" / name}' for key, name in (('gt', 'HR'), ('lq', 'LR'))]
    ended = run.resume('--force_yml', *folders)
    assert ended.code == 0, ended.err
    same(run.outcome(), reference.outcome())
