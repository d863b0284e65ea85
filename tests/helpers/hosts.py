"""Two hosts of this one machine: network namespaces with names of their own, and a cable between them."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

# The first sorts first: torchrun makes it the first of the group. Another process of the tests may have hosts, too.
NAMES = (f'clsd-a-{os.getpid()}', f'clsd-b-{os.getpid()}')
ADDRESSES = ('10.213.77.1', '10.213.77.2')


class Host:
    """A host with a name, a network and processes of its own; the file system is shared."""

    def __init__(self, name: str, address: str) -> None:
        self.name, self.address = name, address

    def start(self, command: list[str], out: Path, env: dict[str, str]) -> subprocess.Popen[bytes]:
        """Start a command; both streams go to a file."""
        named = ['unshare', '--uts', 'sh', '-c', f'hostname {self.name} && exec "$@"', 'sh']
        with out.open('ab') as file:
            return subprocess.Popen(
                ['ip', 'netns', 'exec', self.name, *named, *command], env=env, stdout=file, stderr=subprocess.STDOUT
            )

    def pull_the_cable(self) -> None:
        """Nothing comes or goes any more; no connection is told."""
        _ip('-n', self.name, 'link', 'set', 'cable', 'down')

    def plug_in(self) -> None:
        """Undo :meth:`pull_the_cable`."""
        _ip('-n', self.name, 'link', 'set', 'cable', 'up')

    def kill(self) -> None:
        """Kill all processes at once."""
        while pids := _ip('netns', 'pids', self.name).split():
            for pid in map(int, pids):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass


def _ip(*arguments: str) -> str:
    return subprocess.run(['ip', *arguments], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """Two hosts that reach each other by name; skips where they cannot be made."""
    if shutil.which('ip') is None:
        pytest.skip('ip is not installed (Debian: apt-get install iproute2)')
    if os.geteuid():
        pytest.skip('only root may make network namespaces')
    hosts = tuple(Host(name, address) for name, address in zip(NAMES, ADDRESSES, strict=True))
    names = ''.join(f'{host.address} {host.name}\n' for host in hosts)
    try:
        _ip('netns', 'add', NAMES[0])
    except subprocess.CalledProcessError as error:
        pytest.skip(f'no network namespaces here: {error.stderr.strip()}')
    try:
        _ip('netns', 'add', NAMES[1])
        _ip('-n', NAMES[0], 'link', 'add', 'cable', 'type', 'veth', 'peer', 'name', 'cable', 'netns', NAMES[1])
        for host in hosts:
            folder = Path('/etc/netns') / host.name  # `ip netns exec` shows these files in /etc
            folder.mkdir(parents=True, exist_ok=True)
            (folder / 'hosts').write_text(f'127.0.0.1 localhost\n{names}', encoding='ascii')
            _ip('-n', host.name, 'address', 'add', f'{host.address}/24', 'dev', 'cable')
            for device in ('lo', 'cable'):
                _ip('-n', host.name, 'link', 'set', device, 'up')
        yield hosts
    finally:
        for host in hosts:
            if host.name in _ip('netns', 'list').split():
                host.kill()
                _ip('netns', 'delete', host.name)
            shutil.rmtree(Path('/etc/netns') / host.name, ignore_errors=True)
