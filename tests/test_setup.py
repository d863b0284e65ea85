"""The set-up scripts, run for real in a throw-away checkout and environment with a pip that only takes notes."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

REPO = Path(__file__).resolve().parents[1]
REMEDY = Path('scripts', 'build_remedy')
BASH = shutil.which('bash') or 'bash'

# Installs empty packages and notes how it was called, one JSON object a line.
FAKE_PIP = """
import json, os, re, sys
from pathlib import Path

site = Path(__file__).resolve().parents[1]
args = sys.argv[1:]
if args == ['--version']:
    sys.exit()
call = {'args': args, 'pythonpath': os.environ.get('PYTHONPATH', '')}
call['constraints'] = Path(args[args.index('-c') + 1]).read_text().split()
with open(site / 'calls', 'a') as calls:
    print(json.dumps(call), file=calls)
if 'PIP_FAILS_ON' in os.environ and any(arg.startswith(os.environ['PIP_FAILS_ON']) for arg in args):
    sys.exit('ERROR: no matching distribution')
if '-e' in args:
    (site / 'editable.pth').write_text(args[args.index('-e') + 1].removesuffix('[dev]'))
for name in {re.match('[a-z]*', arg)[0] for arg in args} & {'torch', 'torchvision', 'basicsr'}:
    if not (site / name).exists():
        (site / name).mkdir()
        (site / name / '__init__.py').touch()
        (site / f'{name}-2.9.0.dist-info').mkdir()
        (site / f'{name}-2.9.0.dist-info' / 'METADATA').write_text(f'Name: {name}\\nVersion: 2.9.0\\n')
"""

# Runs the code after -c, and nothing else, as a Python that says it is 3.9.
PRETEND_OLD = """#!/bin/sh
[ "$1" = -c ] || exit 1
exec {python} -c "import sys; sys.version_info = (3, 9, 18, 'final', 0)
$2"
"""


class Checkout:
    """A copy of what the set-up reads, under a path with a space, and an active environment beside it."""

    def __init__(self, folder: Path):
        self.root = folder / 'a checkout'
        shutil.copytree(REPO / 'scripts', self.root / 'scripts', ignore=shutil.ignore_patterns('__pycache__'))
        shutil.copy(REPO / 'pyproject.toml', self.root)
        (self.root / 'basicsr_clsd').mkdir()
        (self.root / 'basicsr_clsd' / '__init__.py').touch()
        self.env = folder / 'an env'
        venv.create(self.env, with_pip=False, symlinks=True)
        self.site = next(self.env.glob('lib/python*/site-packages'))
        (self.site / 'pip').mkdir()
        (self.site / 'pip' / '__main__.py').write_text(FAKE_PIP)

    def run(self, script: str, *args: str, **variables: str) -> subprocess.CompletedProcess:
        inherited = {name: os.environ[name] for name in ('PATH', 'HOME') if name in os.environ}
        # Should a fault ever lead to a real pip, it finds nothing to install.
        offline = {'PIP_NO_INDEX': '1', 'PIP_CONFIG_FILE': os.devnull}
        return subprocess.run(
            [BASH, self.root / 'scripts' / script, *args],
            cwd=self.root.parent,
            env={**inherited, **offline, 'VIRTUAL_ENV': str(self.env), **variables},
            capture_output=True,
            text=True,
            check=False,
        )

    def setup(self, *args: str, **variables: str) -> list[dict]:
        """Run setup.sh, which must succeed, and return the calls of pip that it made."""
        before = len(self.calls())
        result = self.run('setup.sh', *args, **variables)
        assert result.returncode == 0, result.stderr
        assert result.stdout == f'{self.env}/bin/python\n'
        return self.calls()[before:]

    def calls(self) -> list[dict]:
        notes = self.site / 'calls'
        return [json.loads(line) for line in notes.read_text().splitlines()] if notes.exists() else []

    def have(self, name: str, version: str) -> None:
        (self.site / name).mkdir()
        (self.site / name / '__init__.py').touch()
        (self.site / f'{name}-{version}.dist-info').mkdir()
        (self.site / f'{name}-{version}.dist-info' / 'METADATA').write_text(f'Name: {name}\nVersion: {version}\n')


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def write_old_python(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(PRETEND_OLD.format(python=shlex.quote(sys.executable)))
    path.chmod(0o755)


def path_without_python(folder: Path) -> Path:
    folder.mkdir()
    for tool in ('dirname', 'cat', 'cksum', 'mkdir', 'rm'):
        (folder / tool).symlink_to(shutil.which(tool) or tool)
    return folder


def test_torch_comes_before_basicsr_and_the_package_last(checkout):
    torch, basicsr, package = checkout.setup()
    assert {'torch>=2.2', 'torchvision', 'setuptools>=70.1'} <= set(torch['args'])
    assert '--no-build-isolation' not in torch['args'] + package['args']
    assert {'--no-build-isolation', '--no-deps', 'basicsr>=1.4.2,<1.5'} <= set(basicsr['args'])
    assert package['args'][-2:] == ['-e', str(checkout.root)]


def test_only_the_build_of_basicsr_sees_the_remedy(checkout):
    torch, basicsr, package = checkout.setup(PYTHONPATH='/already/there')
    remedy = [str(checkout.root / REMEDY)] if sys.version_info >= (3, 13) else []
    assert basicsr['pythonpath'].split(':') == [*remedy, '/already/there']
    assert torch['pythonpath'] == package['pythonpath'] == '/already/there'


def test_dev_asks_for_the_extra(checkout):
    assert checkout.setup('dev')[-1]['args'][-1] == f'{checkout.root}[dev]'


def test_present_torch_is_pinned_in_every_call(checkout):
    checkout.have('torch', '2.4.1+cpu')
    calls = checkout.setup()
    assert len(calls) == 3
    for call in calls:
        assert 'torch==2.4.1+cpu' in call['constraints']
    assert 'torchvision==2.9.0' in calls[-1]['constraints']


@pytest.mark.parametrize(('version', 'capped'), [('2.2.2', True), ('2.3.0', False), ('2.10.0', False)])
def test_torch_built_for_numpy_1_gets_numpy_1(checkout, version, capped):
    checkout.have('torch', version)
    assert ('numpy<2' in checkout.setup()[-1]['constraints']) == capped


def test_too_old_torch_is_refused_untouched(checkout):
    checkout.have('torch', '2.1.2')
    result = checkout.run('setup.sh')
    assert result.returncode == 2
    assert 'torch 2.2 or newer is needed, and this environment has 2.1.2' in result.stderr
    assert checkout.calls() == []


def test_torchvision_that_does_not_fit_torch_is_told(checkout):
    checkout.have('torchvision', '2.9.0')
    (checkout.site / 'torchvision' / '__init__.py').write_text(
        "raise RuntimeError('torchvision::nms does not exist')\n"
    )
    result = checkout.run('setup.sh')
    assert result.returncode == 2
    assert 'torchvision does not load with the torch of this environment' in result.stderr
    assert 'torchvision::nms does not exist' in (checkout.env / 'basicsr-clsd-setup.log').read_text()


def test_second_call_does_nothing(checkout):
    checkout.setup()
    result = checkout.run('setup.sh')
    assert (result.returncode, result.stderr) == (0, '')
    assert len(checkout.calls()) == 3


def test_dev_serves_a_later_call_without_it_but_not_the_reverse(checkout):
    assert checkout.setup()
    assert checkout.setup('dev')
    assert not checkout.setup()


def uninstall_package(checkout: Checkout) -> None:
    (checkout.site / 'editable.pth').unlink()


def uninstall_torch(checkout: Checkout) -> None:
    shutil.rmtree(checkout.site / 'torch')
    shutil.rmtree(checkout.site / 'torch-2.9.0.dist-info')


def change_requirements(checkout: Checkout) -> None:
    with open(checkout.root / 'pyproject.toml', 'a') as file:
        file.write('# changed\n')


def serve_another_checkout(checkout: Checkout) -> None:
    other = checkout.root.parent / 'other'
    shutil.copytree(checkout.root / 'basicsr_clsd', other / 'basicsr_clsd')
    (checkout.site / 'editable.pth').write_text(str(other))


@pytest.mark.parametrize('change', [uninstall_package, uninstall_torch, change_requirements, serve_another_checkout])
def test_set_up_again_when_it_no_longer_holds(checkout, change):
    checkout.setup()
    change(checkout)
    assert len(checkout.setup()) == 3


@pytest.mark.parametrize('step', ['torch', 'basicsr', '-e'])
def test_failed_step_is_shown_and_taken_up_again(checkout, step):
    result = checkout.run('setup.sh', PIP_FAILS_ON=step)
    assert result.returncode == 1
    assert 'ERROR: no matching distribution' in result.stderr
    assert result.stdout == ''
    assert checkout.setup()


def test_failed_repair_does_not_pass_for_a_set_up(checkout):
    checkout.setup()
    uninstall_torch(checkout)
    assert checkout.run('setup.sh', PIP_FAILS_ON='-e').returncode == 1
    assert checkout.setup()


def test_broken_import_fails_the_set_up(checkout):
    (checkout.root / 'basicsr_clsd' / '__init__.py').write_text("raise ImportError('libGL.so.1 is missing')\n")
    result = checkout.run('setup.sh')
    assert result.returncode == 1
    assert 'libGL.so.1 is missing' in result.stderr


def test_old_python_gets_one_sentence(checkout):
    tools = path_without_python(checkout.root.parent / 'bin')
    write_old_python(tools / 'python3')
    result = checkout.run('setup.sh', VIRTUAL_ENV='', PATH=str(tools))
    assert result.returncode == 2
    assert result.stderr == 'Python 3.10 or newer is needed, and python3 is Python 3.9.18.\n'
    assert not (checkout.root / '.venv').exists()


def test_makes_venv_when_no_environment_is_active(checkout):
    tools = path_without_python(checkout.root.parent / 'bin')
    # `python3 -m venv --clear FOLDER` takes seconds; this one copies the prepared environment.
    copy = f'exec cp -RP {shlex.quote(str(checkout.env))} "$4"'
    (tools / 'python3').write_text(f'#!/bin/sh\n[ "$1" != -m ] && exec {shlex.quote(sys.executable)} "$@"\n{copy}\n')
    (tools / 'python3').chmod(0o755)
    for _ in range(2):
        result = checkout.run('setup.sh', VIRTUAL_ENV='', PATH=f'{tools}:{os.environ["PATH"]}')
        assert result.stdout == f'{checkout.root}/.venv/bin/python\n', result.stderr
    assert result.stderr == ''


def test_newer_python_is_found_behind_an_old_one(checkout):
    tools = path_without_python(checkout.root.parent / 'bin')
    write_old_python(tools / 'python3')
    # It lacks venv, as a Debian's Python can: that must be told in place of the old one's age.
    half_made = 'mkdir "$4"; exit 1'
    (tools / 'python3.12').write_text(
        f'#!/bin/sh\n[ "$1" != -m ] && exec {shlex.quote(sys.executable)} "$@"\n{half_made}\n'
    )
    (tools / 'python3.12').chmod(0o755)
    result = checkout.run('setup.sh', VIRTUAL_ENV='', PATH=str(tools))
    making, reason = result.stderr.splitlines()
    assert making.startswith(f'Making {checkout.root}/.venv with Python {sys.version_info[0]}.')
    assert reason.startswith('python3.12 (3.') and 'cannot make a virtual environment' in reason
    assert result.returncode == 2
    assert not (checkout.root / '.venv').exists()


def test_old_active_environment_gets_one_sentence(checkout):
    env = checkout.root.parent / 'old'
    write_old_python(env / 'bin' / 'python')
    result = checkout.run('setup.sh', VIRTUAL_ENV=str(env))
    assert result.returncode == 2
    assert result.stderr == f'Python 3.10 or newer is needed, and the environment {env} has Python 3.9.18.\n'


def test_no_python_at_all_gets_one_sentence(checkout):
    tools = path_without_python(checkout.root.parent / 'bin')
    result = checkout.run('setup.sh', VIRTUAL_ENV='', PATH=str(tools))
    assert result.returncode == 2
    assert result.stderr.splitlines() == ['Python 3.10 or newer is needed, and there is no python3 on PATH.']


def test_conda_environment_is_used(checkout):
    result = checkout.run('setup.sh', VIRTUAL_ENV='', CONDA_PREFIX=str(checkout.env))
    assert result.returncode == 0, result.stderr
    assert len(checkout.calls()) == 3


def test_demo_gets_its_arguments_and_returns_its_exit_code(checkout):
    (checkout.root / 'scripts' / 'demo.py').write_text('import sys\nprint(sys.argv[1:])\nsys.exit(7)\n')
    result = checkout.run('demo.sh', '--name', 'two words')
    assert result.stdout == "['--name', 'two words']\n"
    assert result.returncode == 7


def test_demo_does_not_run_after_a_failed_set_up(checkout):
    (checkout.root / 'scripts' / 'demo.py').write_text('print("demo")\n')
    result = checkout.run('demo.sh', PIP_FAILS_ON='basicsr')
    assert result.returncode == 1
    assert result.stdout == ''


def pythons() -> list[str]:
    """Return this Python and those on PATH that the remedy is for, as far as they run."""
    others = filter(None, map(shutil.which, ('python3.13', 'python3.14', 'python3.15')))
    runs = [
        path for path in others if subprocess.run([path, '-c', ''], capture_output=True, check=False).returncode == 0
    ]
    return [sys.executable, *runs]


# Calls of exec without namespaces in a function (as BasicSR's setup.py has it), a class and a module, then with them.
EXEC_AS_IN_SETUP_PY = """
def get_version():
    exec(compile("__version__ = '1.4.2'", 'version.py', 'exec'))
    return locals()['__version__']

assert get_version() == '1.4.2'
assert '__version__' not in globals()

class Body:
    exec('inside = 1')
assert Body.inside == 1

exec('at_module_level = 2')
assert at_module_level == 2

def with_namespaces():
    given, other = {}, {}
    exec('x = 3', given)
    exec('y = 4', given, other)
    exec('z = at_module_level', None, other)
    assert given['x'] == 3 and other == {'y': 4, 'z': 2}
    assert not {'x', 'y', 'z'} & set(locals())

with_namespaces()
print('reached the end')
"""


# What Python 3.13 gives for the frame of a function: locals that are no dict but are written through to the frame.
EXEC_WITH_PROXY_LOCALS = """
import collections, sys

class Frame:
    f_globals = {}
    f_locals = collections.UserDict()

sys._getframe = lambda depth: Frame
exec("__version__ = '1.4.2'")
assert Frame.f_locals == {'__version__': '1.4.2'}, Frame.f_locals
assert '__version__' not in globals()
print('reached the end')
"""


@pytest.mark.parametrize('script', [EXEC_AS_IN_SETUP_PY, EXEC_WITH_PROXY_LOCALS], ids=['as in setup.py', 'proxy'])
@pytest.mark.parametrize('python', pythons())
def test_remedy_keeps_what_a_bare_exec_binds(python, script, tmp_path):
    (tmp_path / 'build.py').write_text(script)
    environment = {**os.environ, 'PYTHONPATH': str(REPO / REMEDY)}
    result = subprocess.run(
        [python, tmp_path / 'build.py'], env=environment, capture_output=True, text=True, check=False
    )
    assert result.stdout == 'reached the end\n', result.stderr
