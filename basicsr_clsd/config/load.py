"""From YAML files and command-line overrides to checked, typed options."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from basicsr_clsd.config.foreign import unsupported, without_ignored
from basicsr_clsd.config.networks import fill_in_scale
from basicsr_clsd.config.paths import options_file
from basicsr_clsd.config.schema import Options
from basicsr_clsd.errors import UserError, suggest
from basicsr_clsd.runtime.files import read_text

Keys = tuple[str, ...]
COMMAND_LINE = '--force_yml'
FOLDER_KEY = re.compile(r'dataroot_.*|.*_root|lq_cache')  # whose value may well be the home folder


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2's numbers, that refuses a key given twice and a section that contains itself.

    ``1e-4`` is a number; ``0801`` is a text, as in names of files, not an octal number.
    """

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.deep_construct = True  # without it PyYAML builds a section that contains itself

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        # A tag can ask for a mapping where there is none; SafeLoader tells that.
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        keys = [key.value for key, _ in pairs if isinstance(key, yaml.ScalarNode)]
        for key in keys:
            if keys.count(key) > 1 and key != '<<':
                raise yaml.constructor.ConstructorError(None, None, f"the key '{key}' is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes a text which the loader would read as a number."""


NUMBER_STARTS = list('-+0123456789')
FLOAT, INT = 'tag:yaml.org,2002:float', 'tag:yaml.org,2002:int'
EXPONENT = re.compile(r'^[-+]?(\d[\d_]*)(\.\d*)?[eE][-+]?\d+$')

_Loader.yaml_implicit_resolvers = {
    start: [(tag, pattern) for tag, pattern in resolvers if tag != INT]
    for start, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(INT, re.compile(r'^[-+]?(0|[1-9][\d_]*|0x[\da-fA-F_]+)$'), NUMBER_STARTS)
_Loader.add_implicit_resolver(FLOAT, EXPONENT, NUMBER_STARTS)
_Dumper.add_implicit_resolver(FLOAT, EXPONENT, NUMBER_STARTS)


def parse_yaml(text: str) -> Any:
    """Parse YAML as data (no objects are made); numbers like ``1e-4`` are floats. ``yaml.YAMLError``: it is none."""
    try:
        return _Loader(text).get_single_data()
    except (ValueError, LookupError, AttributeError, RecursionError) as error:
        # PyYAML lets these through, for a day 2024-13-01, a tag on a text that it does not fit, too deep a nesting.
        raise yaml.YAMLError(str(error)) from error


def read_yaml(path: Path) -> dict[str, Any]:
    """Read one options file as a mapping, or raise a :class:`UserError` that names it."""
    try:
        content = parse_yaml(read_text(path))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f', line {mark.line + 1}' if mark else ''
        raise UserError(f'{path}{line}: not valid YAML: {error.problem}') from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
        raise UserError(f'{path}: cannot be read as an options file: {reason}') from error
    if not isinstance(content, dict):
        found = 'empty' if content is None else f'a {type(content).__name__}'
        raise UserError(f'{path}: an options file must be a mapping of keys, this one is {found}')
    return content


class _Merged:
    """Deep-merged mappings that remember which file each key came from."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.origins: dict[Keys, str] = {}

    def add(self, layer: Mapping[str, Any], origin: str) -> None:
        _merge(self.values, layer)
        for keys in _leaves(layer):
            self.origins.update({keys[:depth]: origin for depth in range(1, len(keys) + 1)})

    def add_file(self, path: Path, above: tuple[Path, ...] = ()) -> None:
        path = path.resolve()
        if path in above:
            raise UserError(f"{path}: 'base' leads back to this file")
        layer = read_yaml(path)
        bases = layer.pop('base', None)
        bases = [] if bases is None else bases if isinstance(bases, list) else [bases]
        for base in bases:
            if not isinstance(base, str):
                raise UserError(f"{path}: 'base' is a file name or a list of them, not {base!r}")
            self.add_file(options_file(base, path.parent), (*above, path))
        self.add(layer, _shown(path))

    def origin(self, keys: Keys) -> str:
        known = next((keys[:n] for n in range(len(keys), 0, -1) if keys[:n] in self.origins), None)
        return self.origins[known] if known else ''


def _merge(values: dict[str, Any], layer: Mapping[str, Any]) -> None:
    for key, value in layer.items():
        present = values.get(key)
        if isinstance(value, Mapping) and isinstance(present, dict):
            # Another `type` is another thing: arguments of the old one would be wrong for it.
            if 'type' in value and 'type' in present and value['type'] != present['type']:
                present.clear()
            _merge(present, value)
        elif isinstance(value, Mapping):
            values[key] = {}
            _merge(values[key], value)
        else:
            values[key] = value


def _leaves(layer: Mapping[str, Any]) -> list[Keys]:
    found: list[Keys] = []
    for key, value in layer.items():
        below = _leaves(value) if isinstance(value, Mapping) else []
        found += [(str(key), *keys) for keys in below] or [(str(key),)]
    return found


def _shown(path: Path) -> str:
    """A path as the user is likely to have typed it."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith('..') else relative


def parse_override(text: str) -> dict[str, Any]:
    """Parse ``a:b=value`` (the value is YAML) into ``{'a': {'b': value}}``."""
    keys, equals, value = text.partition('=')
    names = [name.strip() for name in keys.split(':')]
    if not equals or not all(names):
        raise UserError(f'{COMMAND_LINE} {text}: expected key:key=value, as in train:optim_g:lr=1e-4')
    try:
        nested: Any = parse_yaml(value)
    except yaml.YAMLError as error:
        raise UserError(f'{COMMAND_LINE} {text}: the value is not valid YAML') from error
    if nested == os.path.expanduser('~') and not FOLDER_KEY.fullmatch(names[-1]):
        raise UserError(f'{COMMAND_LINE} {text}: the shell has put your home folder in place of ~; write null')
    for name in reversed(names):
        nested = {name: nested}
    return nested


def load(path: str | Path, overrides: Sequence[str] = ()) -> Options:
    """Load an options file with its ``base`` files and the overrides of the command line.

    ``base:`` names one file or a list, relative to the file it stands in, else shipped ones. Later files win, key by
    key, and a section whose ``type`` changes starts anew. ``null`` takes a key back to its default.

    Args:
        path: The YAML file, or the name of a shipped one.
        overrides: Texts ``a:b=value``; the value is parsed as YAML.

    Returns:
        The typed options, with everything that follows from other keys filled in.

    Raises:
        UserError: Names the file and the key that is wrong, and the nearest known key for an unknown one.
    """
    merged = _Merged()
    merged.add_file(options_file(path))
    for text in overrides:
        merged.add(parse_override(text), COMMAND_LINE)
    values = without_ignored(_without_nulls(merged.values), merged.origin)
    fault = unsupported(values)
    if fault is not None:
        keys, text = fault
        raise UserError(f'{merged.origin(keys)}: {".".join(keys)}: {text}')
    try:
        options = Options.model_validate(values)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        # An unknown key is the likely cause of a missing one, so it is told first.
        problems.sort(key=lambda problem: problem['type'] != 'extra_forbidden')
        raise UserError(_one_line(problems, merged, _shown(Path(path)))) from error
    fill_in_scale(options)
    return options


# `null` is itself a choice for these keys.
_NULL_MEANS_NONE = {'param_key_g'}


def _without_nulls(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _without_nulls(value) if isinstance(value, Mapping) else value
        for key, value in values.items()
        if value is not None or key in _NULL_MEANS_NONE
    }


def _one_line(problems: list[ErrorDetails], merged: _Merged, file: str) -> str:
    problem = problems[0]
    keys = tuple(str(key) for key in problem['loc'])
    # pydantic adds the alternatives of a union to the location; they are no keys.
    keys = tuple(key for key in keys if key != 'int' and not key.startswith(('literal[', 'constrained-')))
    where = f'{merged.origin(keys) or file}: {".".join(keys)}'
    if problem['type'] == 'extra_forbidden':
        return f'{where}: unknown key{suggest(keys[-1], _known_keys(keys[:-1]))}'
    if problem['type'] == 'missing':
        without_hr = keys[0] == 'datasets' and keys[-1] == 'dataroot_gt' and keys[1] != 'train'
        return f'{where}: missing' + ('; infer.py upscales images that have no HR' if without_hr else '')
    if problem['type'] in ('model_type', 'model_attributes_type', 'dict_type'):
        return f'{where}: must be a section of keys, not {problem["input"]!r}'
    message = problem['msg'].removeprefix('Value error, ')
    return f'{where}: {message[0].lower()}{message[1:]}, not {problem["input"]!r}'


def _known_keys(keys: Keys) -> list[str]:
    """The keys of the section at ``keys``, found by walking the schema."""
    section: Any = Options
    for key in keys:
        field = section.model_fields.get(key)
        if field is None:  # the free names of a dict: `datasets`, `metrics`
            continue
        section = next((kind for kind in _classes(field.annotation) if hasattr(kind, 'model_fields')), section)
    return list(section.model_fields)


def _classes(annotation: Any) -> list[Any]:
    inner = getattr(annotation, '__args__', None)
    return [kind for part in inner for kind in _classes(part)] if inner else [annotation]


def write_resolved(options: Options, path: Path) -> None:
    """Write the options with every default and override filled in; loading the file gives the same options."""
    values = options.model_dump(exclude_none=True)
    values['path']['param_key_g'] = options.path.param_key_g
    path.write_text(yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True), encoding='utf-8')
