"""The house: who may import whom, and how large a folder may be. Nothing is imported here; the files are read."""

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / 'basicsr_clsd'
# A folder is a moment in the life of a run. Each knows only itself and those in the lines above its own.
ORDER = (
    ('errors', 'compat'),
    ('runtime',),
    ('registry',),
    ('config',),
    ('images',),
    ('archs', 'losses'),
    ('data',),
    ('prepare', 'networks'),
    ('conversion',),
    ('models', 'inference'),
    ('deploy', 'evaluation', 'integrations'),  # a training measures, too: its validation
    ('engine',),
    ('reporting',),
    ('ablation',),
    ('cli',),
    ('commands', 'train', 'test', 'infer', 'export'),
)
# Beside the order: data sets know no networks, and what upscales a photo needs nothing of a training.
STRANGERS = {
    'prepare': {'networks', 'archs', 'losses'},
    'data': {'archs', 'losses'},
    'images': {'archs', 'losses'},
    'conversion': {'losses', 'data', 'prepare'},
    'inference': {'models', 'losses', 'data', 'prepare'},
    'deploy': {'models', 'losses', 'data', 'prepare'},
    'evaluation': {'models'},
    'reporting': {'models'},
}
MOST_MODULES = 14
MOST_OF_THE_LINES = 0.16


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


SOURCES = {name_of(path): path.read_text(encoding='utf-8') for path in sorted(PACKAGE.rglob('*.py'))}


def imports(source: str) -> Iterator[str]:
    """What a module imports of this package: on top, in functions, and for type checkers alone."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in SOURCES)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, 'imports are absolute'
            for alias in node.names:
                found = next((n for n in (f'{node.module}.{alias.name}', node.module) if n in SOURCES), None)
                if found is not None:
                    yield found


IMPORTS = {name: set(imports(source)) for name, source in SOURCES.items()}


def folder(name: str) -> str:
    return name.split('.')[1] if '.' in name else ''


def test_nobody_imports_from_a_later_moment():
    level = {name: number for number, names in enumerate(ORDER) for name in names}
    unknown = {folder(name) for name in SOURCES} - level.keys() - {''}
    assert not unknown, 'give each new folder its place in ORDER'
    wrong = [
        f'{name} imports {other}'
        for name, others in IMPORTS.items()
        for other in others
        if folder(name) and folder(other) and folder(name) != folder(other)
        if level[folder(other)] >= level[folder(name)] or folder(other) in STRANGERS.get(folder(name), ())
    ]
    assert not wrong, '\n'.join(wrong)


def test_no_circle_of_imports():
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, 'a circle: ' + ' -> '.join((*way[way.index(name) :], name))
        if name not in done:
            for other in sorted(IMPORTS[name]):
                visit(other, (*way, name))
            done.add(name)

    for name in SOURCES:
        visit(name, ())


def test_a_folder_can_be_overlooked():
    folders = {path.parent for path in PACKAGE.rglob('*.py')}
    modules = {
        str(path.relative_to(PACKAGE)): [file for file in path.glob('*.py') if file.name != '__init__.py']
        for path in folders
    }
    assert {name: len(files) for name, files in modules.items() if len(files) > MOST_MODULES} == {}
    lines = {
        name: sum(len(file.read_text(encoding='utf-8').splitlines()) for file in files)
        for name, files in modules.items()
    }
    total = sum(lines.values())
    assert {name: count for name, count in lines.items() if count > MOST_OF_THE_LINES * total} == {}
