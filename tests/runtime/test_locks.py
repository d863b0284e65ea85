import errno
import fcntl
import json
import multiprocessing
import os
import platform
import signal
import subprocess
import sys

import pytest

from basicsr_clsd.errors import UserError
from basicsr_clsd.runtime.locks import exclusive, lock_path

# Holds the lock; a process that it has forked, as loaders are, says when it runs and outlives it.
HOLDER = """
import os, sys, time
from pathlib import Path
from basicsr_clsd.runtime.locks import exclusive
with exclusive(Path(sys.argv[1]), 'it'):
    if not os.fork():
        print('held', flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, '-c', HOLDER, tmp_path / 'lock'], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None and process.stdout.readline() == 'held\n'
    yield process
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()


def test_the_second_process_is_told_who_has_the_lock(holder, tmp_path):
    content = (tmp_path / 'lock').read_bytes()
    message = f'^it: process {holder.pid} on {platform.node()} is at work$'
    for _ in range(2):
        with pytest.raises(UserError, match=message), exclusive(tmp_path / 'lock', 'it', 'is at work'):
            pass
    assert (tmp_path / 'lock').read_bytes() == content
    assert json.loads(content).keys() == {'host', 'boot_id', 'pid'}


def test_a_killed_process_leaves_no_lock_even_if_its_loaders_still_run(holder, tmp_path, caplog):
    os.kill(holder.pid, signal.SIGKILL)
    os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)
    assert (tmp_path / 'lock').exists()
    with exclusive(tmp_path / 'lock', 'it', 'is at work'):
        assert json.loads((tmp_path / 'lock').read_bytes())['pid'] == os.getpid()
    assert list(tmp_path.iterdir()) == []
    assert caplog.text == ''


def count(folder, times):
    for _ in range(times):
        with exclusive(folder / 'lock', 'it'):
            number = int((folder / 'number').read_text())
            (folder / 'number').write_text(str(number + 1))


def test_who_waits_gets_the_lock_alone(tmp_path):
    (tmp_path / 'number').write_text('0')
    spawn = multiprocessing.get_context('spawn')
    processes = [spawn.Process(target=count, args=(tmp_path, 25)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert (tmp_path / 'number').read_text() == '75'


@pytest.mark.parametrize('number', [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_told_and_work_goes_on(tmp_path, monkeypatch, caplog, number):
    def flock(*arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, 'flock', flock)
    with exclusive(tmp_path / 'lock', 'the run', 'is at work'):
        assert list(tmp_path.iterdir()) == []
    assert f'the run: its file system has no locks ({os.strerror(number)})' in caplog.text


def test_a_lock_that_another_machine_did_not_end_is_told(tmp_path, caplog):
    (tmp_path / 'lock').write_text(json.dumps({'host': 'node7', 'boot_id': 'x', 'pid': 12}))
    with exclusive(tmp_path / 'lock', 'the run'):
        pass
    assert 'the run: process 12 on node7 had it and did not end in order' in caplog.text


@pytest.mark.parametrize('content', ['', '{"host"', '[1]', '{"host": "a"}'])
def test_a_lock_file_with_anything_in_it_is_no_hindrance(tmp_path, content):
    (tmp_path / 'lock').write_text(content)
    with exclusive(tmp_path / 'lock', 'it', 'is at work'):
        pass


def test_the_lock_of_a_folder_is_hidden_beside_it(tmp_path):
    assert lock_path(tmp_path / 'run') == tmp_path / '.run.lock'
    with exclusive(lock_path(tmp_path / ('r' * 255)), 'it'):
        pass
