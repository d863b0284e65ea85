"""TensorBoard is needed where curves are drawn, and nowhere else."""

import os

import pytest


@pytest.fixture
def without_tensorboard(tmp_path):
    """The environment of a machine that has no TensorBoard."""
    (tmp_path / 'tensorboard.py').write_text(
        "raise ModuleNotFoundError(\"No module named 'tensorboard'\", name='tensorboard')", encoding='utf-8'
    )
    return {**os.environ, 'PYTHONPATH': str(tmp_path)}


@pytest.mark.slow
def test_curves_without_tensorboard_are_refused_in_one_line(make_run, run_command, without_tensorboard):
    run = make_run({'logger': {'use_tb_logger': True}})
    before = run.files()
    ended = run_command('train', '-opt', run.opt, env=without_tensorboard, fresh=True)
    assert ended.code == 2, ended.err
    assert ended.err == (
        "error: logger.use_tb_logger: TensorBoard cannot be imported (No module named 'tensorboard'); "
        'pip install tensorboard, or set it to false\n'
    )
    assert run.files() == before


@pytest.mark.slow
def test_other_work_does_without_tensorboard(make_run, run_command, without_tensorboard, make_images, tmp_path):
    run = make_run({'logger': {'use_tb_logger': False}})
    ended = run_command('train', '-opt', run.opt, env=without_tensorboard, fresh=True)
    assert (ended.code, ended.err) == (0, '')
    photos = make_images(tmp_path / 'photos', count=1, height=16, width=16)
    arguments = ['-i', photos, '-o', tmp_path / 'out', '-m', run.models / 'net_g_latest.pth']
    ended = run_command('infer', *arguments, env=without_tensorboard, fresh=True)
    assert (ended.code, ended.err) == (0, '')
