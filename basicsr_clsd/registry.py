"""Classes by the names that options give them, and the one way to build what a section names."""

import importlib
import inspect
from collections.abc import Collection
from typing import Any, Protocol

import torch
from basicsr.utils.registry import ARCH_REGISTRY, DATASET_REGISTRY, LOSS_REGISTRY, METRIC_REGISTRY, MODEL_REGISTRY

from basicsr_clsd.errors import FAULTS, UserError, first_line, suggest

# What is built by name, BasicSR's registry of it, and the modules that register its classes when they are imported.
REGISTRIES = {
    'archs': (ARCH_REGISTRY, 'basicsr.archs', 'basicsr_clsd.archs'),
    'losses': (LOSS_REGISTRY, 'basicsr.losses', 'basicsr_clsd.losses'),
    'metrics': (METRIC_REGISTRY, 'basicsr.metrics', 'basicsr_clsd.evaluation'),
    'data': (DATASET_REGISTRY, 'basicsr_clsd.data'),
    'models': (MODEL_REGISTRY, 'basicsr_clsd.models'),
}
OWN = ('data', 'models')  # this trainer cannot run BasicSR's classes of these kinds
# BasicSR's names of what this project has its own, compatible classes for.
ALIASES = {
    'SRModel': 'SupervisedModel',
    'SwinIRModel': 'SupervisedModel',
    'PairedImageDataset': 'PairedDataset',
}
SCHEDULERS = {
    'MultiStepLR': 'MultiStepRestartLR',
    'MultiStepRestartLR': 'MultiStepRestartLR',
    'CosineAnnealingRestartLR': 'CosineAnnealingRestartLR',
}
# These two need more than gradients: a closure, sparse gradients.
UNUSABLE_OPTIMIZERS = ('LBFGS', 'SparseAdam')


class Section(Protocol):
    """A section of the options that names a class."""

    type: str

    def arguments(self) -> dict[str, Any]:
        """The constructor's arguments."""
        ...

    def keys(self) -> list[str]:
        """All keys, those that are no arguments included."""
        ...


def register_all(*kinds: str) -> None:
    """Import the modules that register classes of these kinds; without a kind, of all."""
    for kind in kinds or REGISTRIES:
        for module in REGISTRIES.get(kind, (None,))[1:]:
            # Asked for an attribute, as a package of BasicSR may have been left empty until then.
            getattr(importlib.import_module(module), '__all__', None)


def known(kind: str) -> dict[str, type]:
    """All classes that options can name.

    Args:
        kind: ``archs``, ``losses``, ``metrics``, ``data``, ``models``, ``optimizers`` or ``schedulers``.
    """
    register_all(kind)
    return _imported(kind)


def _imported(kind: str) -> dict[str, type]:
    """Those whose modules are imported already."""
    if kind == 'optimizers':
        base = torch.optim.Optimizer
        classes = {name: value for name, value in vars(torch.optim).items() if isinstance(value, type)}
        usable = {name: value for name, value in classes.items() if issubclass(value, base) and value is not base}
        return {name: value for name, value in usable.items() if name not in UNUSABLE_OPTIMIZERS}
    if kind == 'schedulers':
        module = importlib.import_module('basicsr.models.lr_scheduler')
        return {name: getattr(module, theirs) for name, theirs in SCHEDULERS.items()}
    # BasicSR finds what it has registered with its own suffix without it too: ``SRVGGNetCompact``.
    found = {short: value for name, value in REGISTRIES[kind][0] for short in (name.removesuffix('_basicsr'), name)}
    if kind in OWN:
        found = {name: value for name, value in found.items() if value.__module__.startswith('basicsr_clsd.')}
    return found | {alias: found[name] for alias, name in ALIASES.items() if name in found}


def find(kind: str, name: str, where: str) -> type:
    """The class of that name.

    Args:
        kind: See :func:`known`. Modules are imported only if the name is not registered yet.
        name: The name.
        where: Key of the name in the options.

    Raises:
        UserError: There is none; lists what exists.
    """
    found = _imported(kind)
    if name not in found:
        found = known(kind)
    if name not in found:
        raise UserError(f'{where}: unknown name {name!r}{suggest(name, found)}; there are {", ".join(sorted(found))}')
    return found[name]


def check(kind: str, section: Section, where: str, given: Collection[str] = ()) -> None:
    """Check that the name exists and that the arguments are those of its constructor, which is not called.

    Args:
        kind: See :func:`known`.
        section: Name and arguments.
        where: Its key in the options.
        given: Arguments that the constructor gets from elsewhere.

    Raises:
        UserError: The name is unknown, or an argument is unknown or missing.
    """
    parameters = inspect.signature(find(kind, section.type, f'{where}.type')).parameters
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    expected = {key: value for key, value in parameters.items() if key not in given and value.kind in named}
    # A metric's **kwargs only swallow what other metrics take; a network's are taken at its word.
    free = not given and any(value.kind is inspect.Parameter.VAR_KEYWORD for value in parameters.values())
    arguments = section.arguments()
    for key in arguments:
        if key not in expected and not free:
            near = suggest(key, [*expected, *(set(section.keys()) - set(arguments))])
            raise UserError(f'{where}.{key}: {section.type} has no such argument{near}')
    for key, value in expected.items():
        if value.default is inspect.Parameter.empty and key not in arguments:
            raise UserError(f'{where}.{key}: missing; {section.type} needs it')


def build(kind: str, section: Section, where: str, *given: Any, **also: Any) -> Any:
    """Build what a section names.

    Args:
        kind: See :func:`known`.
        section: Name and arguments.
        where: Its key in the options.
        given: Arguments that come before those of the section.
        also: Further ones.

    Raises:
        UserError: The name is unknown, or the arguments are none that it can have.
    """
    make = find(kind, section.type, f'{where}.type')
    try:
        return make(*given, **section.arguments(), **also)
    except UserError as error:  # of a class that knows which of its arguments is wrong
        raise UserError(f'{where}.{error}') from error
    except FAULTS as error:
        raise UserError(f'{where}: {section.type} cannot be built: {first_line(error)}') from error
