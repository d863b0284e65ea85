"""The documentation says what the code does: generated tables are fresh, commands are valid, the notebook runs."""

import itertools
import re
import shlex
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from basicsr_clsd.config.load import load
from basicsr_clsd.config.reference import markdown

REPO = Path(__file__).resolve().parents[1]
PACKAGE = REPO / 'basicsr_clsd'
PAGES = [REPO / 'README.md', *sorted((REPO / 'docs').glob('*.md')), PACKAGE / 'model_zoo' / 'README.md']
NOTEBOOK = REPO / 'docs' / 'notebooks' / 'quickstart.ipynb'


def test_options_page_is_that_of_the_schema():
    page = (REPO / 'docs' / 'options.md').read_text(encoding='utf-8')
    assert page == markdown(), 'run python -m basicsr_clsd.config.reference > docs/options.md'


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_files_that_commands_name_exist(page):
    text = page.read_text(encoding='utf-8')
    named = set(re.findall(r'(?<![\w/.])(?:basicsr_clsd|scripts|options|\.ci)/[\w./-]*\w', text))
    made_up = {name for name in named if re.search('NAME|METHOD|FILE|my_', name)}
    assert not [name for name in sorted(named - made_up) if not list(REPO.glob(f'{name}*'))]
    modules = set(re.findall(r'`((?!my_)\w+/(?!my_|test_my)\w+\.py)`', text))
    assert not [name for name in sorted(modules) if not any((root / name).exists() for root in (REPO, PACKAGE))]


def commands_with_options():
    """The commands of all pages that name an options file: ``(page, file, overrides)``."""
    for page in PAGES:
        for block in re.findall(r'```bash\n(.*?)```', page.read_text(encoding='utf-8'), re.DOTALL):
            for line in block.replace('\\\n', ' ').splitlines():
                words = shlex.split(line, comments=True)
                if '-opt' in words:
                    rest = words[words.index('--force_yml') + 1 :] if '--force_yml' in words else []
                    overrides = itertools.takewhile(lambda word: not word.startswith('-'), rest)
                    yield pytest.param(words[words.index('-opt') + 1], list(overrides), id=f'{page.name}: {line}')


@pytest.mark.parametrize(('file', 'overrides'), list(commands_with_options()))
def test_options_of_commands_are_valid(file, overrides):
    assert load(file, overrides).name


def test_readme_stays_short():
    text = (REPO / 'README.md').read_text(encoding='utf-8')
    assert len(text.splitlines()) <= 150
    assert len(text.split()) <= 1600


@pytest.mark.slow
def test_notebook_runs_and_is_committed_without_outputs(tmp_path):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get('outputs') for cell in notebook.cells)
    NotebookClient(notebook, timeout=300, resources={'metadata': {'path': str(tmp_path)}}).execute()
    assert (tmp_path / 'results').is_dir()
    assert list(tmp_path.glob('**/upscaled/*.png'))
