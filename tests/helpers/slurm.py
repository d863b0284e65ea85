"""A Slurm cluster of this one machine: the daemons of Debian's packages, in a folder of their own."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

PROGRAMS = ('munged', 'slurmctld', 'slurmd', 'sbatch', 'setpriv')
STARTS_S, ENDS_S = 60, 300
CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2,bf_interval=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=64 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
PartitionName=other Nodes=ALL MaxTime=INFINITE State=UP
"""


class Slurm:
    """Commands of a running cluster.

    Args:
        environment: Where the commands find it.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = dict(environment)

    def run(self, *command: object, cwd: Path | None = None) -> str:
        """Run one of Slurm's commands to its end; return what it prints."""
        ended = subprocess.run(
            list(map(str, command)), env=self.environment, cwd=cwd, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout.strip()

    def start(self, *command: object) -> subprocess.Popen[bytes]:
        """Start a daemon in the foreground; it ends with this process, however that ends."""
        guarded = ['setpriv', '--pdeathsig', 'TERM', *map(str, command)]
        return subprocess.Popen(guarded, env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def node_state(self) -> str:
        """The machine's state, as ``idle``; empty as long as the controller does not answer."""
        command = ['sinfo', '--noheader', '--partition=all', '--format=%T']
        ended = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        return ended.stdout.strip()

    def state(self, job: str) -> str:
        """A job's state, as ``RUNNING``; empty once Slurm has forgotten it."""
        shown = self.run('squeue', '--noheader', '--states=all', '--format=%i %T').splitlines()
        return dict(line.split() for line in shown).get(job, '')

    def wait(self, job: str, *states: str) -> None:
        """Wait until a job is in one of these states."""
        end = time.monotonic() + ENDS_S
        while self.state(job) not in states:
            assert time.monotonic() < end, f'job {job} is {self.state(job)}'
            time.sleep(0.5)


@pytest.fixture(scope='session')
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """A cluster with room for 64 tasks and the partitions ``all`` and ``other``; skips where there is no Slurm."""
    environment = {**os.environ, 'PATH': f'{os.environ["PATH"]}:/usr/sbin'}
    lacking = [program for program in PROGRAMS if shutil.which(program, path=environment['PATH']) is None]
    if lacking:
        pytest.skip(
            f'{", ".join(lacking)}: not installed (Debian: apt-get install slurmctld slurmd slurm-client munge)'
        )
    if os.geteuid():
        pytest.skip("only root may start Slurm's daemons")
    folder = tmp_path_factory.mktemp('slurm')
    for path in folder, folder.parent, folder.parent.parent:
        path.chmod(0o755)  # munge refuses a socket that not everybody can reach
    host = socket.gethostname().split('.')[0]
    ports = []
    for _ in range(2):
        with socket.create_server(('127.0.0.1', 0)) as server:
            ports.append(server.getsockname()[1])
    key = folder / 'munge.key'
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    for name in ('state', 'spool'):
        (folder / name).mkdir()
    configuration = folder / 'slurm.conf'
    configuration.write_text(CONFIGURATION.format(folder=folder, host=host, ports=ports), encoding='utf-8')
    files = {'key-file': key, 'socket': 'socket', 'pid-file': 'pid', 'log-file': 'log', 'seed-file': 'seed'}
    options = [
        f'--{name}={folder}/munge.{value}' if isinstance(value, str) else f'--{name}={value}'
        for name, value in files.items()
    ]
    cluster = Slurm({**environment, 'SLURM_CONF': str(configuration)})
    daemons = []
    try:
        end = time.monotonic() + STARTS_S
        daemons.append(cluster.start('munged', '--foreground', '--force', *options))
        while not (folder / 'munge.socket').exists():
            assert time.monotonic() < end, (folder / 'munge.log').read_text()
            time.sleep(0.1)
        daemons.append(cluster.start('slurmctld', '-D', '-f', configuration))
        daemons.append(cluster.start('slurmd', '-D', '-f', configuration))
        while cluster.node_state() != 'idle':
            assert time.monotonic() < end, (folder / 'slurmctld.log').read_text()
            time.sleep(0.2)
        yield cluster
        cluster.run('scancel', '--user=root', '--signal=KILL', '--full')
        cluster.run('scancel', '--user=root')
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait()
