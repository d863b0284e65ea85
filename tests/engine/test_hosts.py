"""torchrun over two hosts, one of which dies and comes back."""

import os
import sys
import time
from pathlib import Path

import pytest
from helpers.process_runs import REPO, assert_all_ended_well, assert_same_state, options, state, states

pytestmark = pytest.mark.slow

LAST = 300


@pytest.mark.parametrize('way', ['script', 'by hand', 'unheard'])
def test_host_that_dies_and_comes_back_leaves_the_same_bits(run_folder, run_command, two_hosts, way):
    whole, opt = run_folder('whole', options(3, total_iter=LAST))
    assert_all_ended_well(run_command('train', '-opt', opt, processes=2))
    folder, opt = run_folder('two_hosts', options(3, total_iter=LAST))
    first, second = two_hosts
    if way == 'by hand':  # without --auto_resume: that a process was started again is what tells all of them to resume
        where = ['--nnodes=2', '--rdzv-backend=c10d', f'--rdzv-endpoint={first.name}:29400', '--max-restarts=3']
        command = ['torchrun', *where, str(REPO / 'basicsr_clsd' / 'train.py'), '-opt', str(opt)]
        env = {**os.environ, 'TORCH_DISABLE_SHARE_RDZV_TCP_STORE': '1'}
    else:
        command = ['bash', str(REPO / 'scripts' / 'train_torchrun.sh'), '1', '-opt', str(opt)]
        env = {**os.environ, 'NNODES': '2', 'RDZV': f'{first.name}:29400'}
    env['PATH'] = f'{Path(sys.executable).parent}:{env["PATH"]}'
    outs = [folder / 'first', folder / 'second']
    training, dying = (host.start(command, out, env) for host, out in zip(two_hosts, outs, strict=True))

    def texts():
        return '\n\n'.join(out.read_text() for out in outs)

    end = time.monotonic() + 240
    while not (states(folder) / '10.state').exists():
        assert training.poll() is None and time.monotonic() < end, texts()
        time.sleep(0.05)
    if way == 'unheard':
        second.pull_the_cable()
    second.kill()
    dying.wait()
    if way == 'unheard':
        second.plug_in()
    back = second.start(command, outs[1], env)
    assert training.wait(timeout=240) == 0, texts()
    assert back.wait(timeout=60) == 0, texts()
    assert 'Resumed from iteration' in outs[0].read_text()
    assert_same_state(state(folder, LAST), state(whole, LAST))
