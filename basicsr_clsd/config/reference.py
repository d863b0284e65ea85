"""The table of all options, from the schema: ``python -m basicsr_clsd.config.reference > docs/options.md``."""

import sys
import types
import typing
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from basicsr_clsd.config import components, schedule, schema, training
from basicsr_clsd.config.foreign import UNUSED
from basicsr_clsd.config.section import Section

SECTIONS = (
    ('Top level', schema.Options),
    ('`datasets.<train | val... | test...>`', schema.Dataset),
    ('`networks.<name>`', schema.TestedNetwork),
    ('`path`', schema.Paths),
    ('`train`', training.Train),
    ('`train.teacher`', training.Teacher),
    ('`val`', schema.Validation),
    ('`val.best`', schema.Best),
    ('`logger`', schema.Logger),
    ('`logger.wandb`', schema.Wandb),
    ('`dist_params`', schema.Distribution),
    ('A loss: `train.*_opt`', components.Loss),
    ('`schedule` of a loss', schedule.Schedule),
    ('`train.self_distill_opt` has also', components.SelfDistillLoss),
    ('`train.hint_opt` has also', components.HintTerm),
    ('`train.contrast_opt` has also', components.FeatureRatioTerm),
    ('Each of `train.distill_opt` has also', components.DistillationTerm),
)
INTRODUCTION = """# Options

```bash
python basicsr_clsd/train.py -opt options/train_CLSD_x2.yml --force_yml train:optim_g:lr=1e-4 name=mine
```

- BasicSR's keys keep their names and meaning. `(new key)` marks what this project adds. An unknown key is an error.
- `base:` names one file or a list to start from, relative to the file; shipped files go by name from anywhere.
  Files are merged key by key. Later ones win, and the file itself wins over its bases.
- A section whose `type` changes starts anew. `null` takes a key back to its default.
- `--force_yml a:b=value` overrides a key from the command line. The value is YAML; `1e-4` is a number.
- `experiments/NAME/NAME.yml` holds what a run used, with every default filled in.
- A section with a `type` (networks, losses, metrics, optimizer, scheduler) takes the arguments of the class it names.
- Relative paths of data start at the current folder. With the variable `CLSD_DATA` set, `datasets/...` is looked for
  there.

## Files

| files in `options/` | what they are |
| --- | --- |
| `train_*` | the paper's settings; [Train](train.md) and [Distillation](distillation.md) list their losses |
| `train_CLSD_ARCH_*` | CLSD on other networks, with their usual settings ([Heads](heads.md)) |
| `teacher/` | the teacher of the methods that need one |
| `test_*` | the benchmark sets |
| `ablation/` | each varies one thing of `train_CLSD_x2.yml`; and the sets of [Ablations](ablations.md) |
| `small/` | for a CPU; take `small/zoo/`, which made the model zoo; `small/study/` is the [study](study.md) |
| `demo.yml` | what `scripts/demo.sh` runs |
| `_base/` | what the others share |

<!-- Written by `python -m basicsr_clsd.config.reference > docs/options.md`. -->
"""


def markdown() -> str:
    """The whole text of ``docs/options.md``."""
    parts = [INTRODUCTION]
    for title, section in SECTIONS:
        inherited = components.Loss.model_fields if section.__base__ is components.Loss else {}
        rows = [_row(name, info) for name, info in section.model_fields.items() if name not in inherited]
        head = ['| key | value | default | meaning |', '| --- | --- | --- | --- |']
        parts.append('\n'.join([f'## {title}', '', *head, *rows, '']))
    unused = [f'| `{key}` | {why} |' for key, why in UNUSED.items()]
    parts.append('\n'.join(['## Accepted and not used', '', '| key | why |', '| --- | --- |', *unused, '']))
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
        (inner,) = get_args(annotation)
        return 'list' if inner is Any else f'list of {_kind(inner)}'
    if origin is dict or (isinstance(annotation, type) and issubclass(annotation, Section)):
        return 'section'
    return {int: 'integer', float: 'number', str: 'text', bool: 'true / false'}[annotation]


if __name__ == '__main__':
    sys.stdout.write(markdown())
