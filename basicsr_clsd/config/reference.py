"""The table of all options, from the schema: ``python -m basicsr_clsd.config.reference > options/README.md``."""

import sys
import types
import typing
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from basicsr_clsd.config import components, schema
from basicsr_clsd.config.section import Section

SECTIONS = (
    ('Top level', schema.Options),
    ('`datasets.<train | val... | test...>`', schema.Dataset),
    ('`networks.<name>`', schema.TestedNetwork),
    ('`path`', schema.Paths),
    ('`train`', schema.Train),
    ('`train.teacher`', schema.Teacher),
    ('`val`', schema.Validation),
    ('`val.best`', schema.Best),
    ('`logger`', schema.Logger),
    ('`logger.wandb`', schema.Wandb),
    ('`dist_params`', schema.Distribution),
    ('A loss: `train.*_opt`', components.Loss),
    ('`train.self_distill_opt` has also', components.SelfDistillLoss),
    ('`train.contrastive_opt` has also', components.ContrastiveTerm),
    ('Each of `train.distill_opt` has also', components.DistillationTerm),
)
INTRODUCTION = """# Options

BasicSR's keys keep their names and meaning; `(new key)` marks what this project adds. Every file may start from others:
`base:` names one or a list (relative to the file), merged key by key, later ones and the file itself winning; a section
whose `type` changes starts anew, and `null` takes a key back to its default. `--force_yml a:b=value` overrides from the
command line. An unknown key is an error. What a run used, with every default filled in, is in
`experiments/NAME/NAME.yml`.

The `train_*` files are the paper's settings: `EDSR` (L_SR), `ASR` (+ L_ASR), `DS` (+ L_ASR + L_SD), `CLSD` (+ L_ASR +
L_CS) and `CLSD_eq6` (all four); with a teacher, `FAKD`, `FitNet`, `LFD` and `LSFD`. `teacher/` trains that teacher,
`ablation/` varies one thing of `train_CLSD_x2.yml` each; `train_CLSD_ARCH_*` are CLSD on other networks, with their
usual settings; `small/` is for a CPU; `demo.yml` is what `scripts/demo.sh` runs; `_base/` holds what the others share.

A section with a `type` (networks, losses, metrics, optimizer, scheduler) takes the arguments of the class it names.
Relative paths of data start at the current folder; with the variable `CLSD_DATA` set, `datasets/...` is looked for
there.

<!-- The tables are written by `python -m basicsr_clsd.config.reference > options/README.md`. -->
"""


def markdown() -> str:
    """The whole text of ``options/README.md``."""
    parts = [INTRODUCTION]
    for title, section in SECTIONS:
        inherited = schema.Loss.model_fields if section.__base__ is schema.Loss else {}
        rows = [_row(name, info) for name, info in section.model_fields.items() if name not in inherited]
        head = ['| key | value | default | meaning |', '| --- | --- | --- | --- |']
        parts.append('\n'.join([f'## {title}', '', *head, *rows, '']))
    return '\n'.join(parts)


def _row(name: str, info: FieldInfo) -> str:
    if info.is_required():
        default = 'required'
    elif info.default is PydanticUndefined:
        default = ''
    else:
        default = '' if info.default is None else f'`{_yaml(info.default)}`'
    return f'| `{name}` | {_kind(info.annotation)} | {default} | {info.description or "a section, see below"} |'


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _kind(annotation: Any) -> str:
    """A type in words."""
    origin = get_origin(annotation)
    if origin is Literal:
        return ' or '.join(f'`{choice}`' for choice in get_args(annotation))
    if origin in (Union, types.UnionType):
        return ' or '.join(_kind(part) for part in get_args(annotation) if part is not type(None))
    if origin is typing.Annotated:
        return _kind(get_args(annotation)[0])
    if origin is list:
        return f'list of {_kind(get_args(annotation)[0])}'
    if origin is dict or (isinstance(annotation, type) and issubclass(annotation, Section)):
        return 'section'
    return {int: 'integer', float: 'number', str: 'text', bool: 'true / false'}[annotation]


if __name__ == '__main__':
    sys.stdout.write(markdown())
