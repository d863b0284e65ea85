"""A GPU that there is not: tensors without content on a device that torch has for tests, and a record of what runs.

Nothing is computed, but every operator finds out the shape, type and device of its result. So a tensor of the CPU
among those of the GPU is an error, and so is a wait for a value (`float(tensor)`, `tensor.nonzero()`). Recorded are
the copies between the two, and the operators: each launches a kernel or more on a real GPU. Numbers, memory, cuDNN,
autocast and compilation are not tried.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from basicsr_clsd import registry
from basicsr_clsd.models import supervised_model, teacher

SET_UP = '_setup_privateuseone_for_python_backend'
KIND = 'pretended'  # the device's name
# They make another view of a tensor, or memory without content: no kernel is launched.
NO_KERNEL = ('aten::detach', 'aten::_unsafe_view', 'aten::_reshape_alias', 'aten::lift_fresh', 'aten::empty')


class Record(TorchDispatchMode):
    """The operators that run on the pretended GPU, by name, and the copies to and from it."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: Counter[str] = Counter()
        self.copies: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator and note it."""
        result = func(*args, **(kwargs or {}))
        given = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        made = [value for value in tree_leaves(result) if isinstance(value, Tensor)]
        kinds = {value.device.type for value in (*given, *made)}
        name = func.name()
        if KIND in kinds and name.startswith('aten::') and not func.is_view and not name.startswith(NO_KERNEL):
            self.operators[name.removeprefix('aten::')] += 1
            if 'cpu' in kinds and name.startswith(('aten::_to_copy', 'aten::copy_')):
                source, target = given[-1], made[0]
                self.copies.append(f'{source.dtype} {tuple(source.shape)} {source.device.type} -> {target.device.type}')
        return result


@contextmanager
def pretended_gpu() -> Iterator[torch.device]:
    """Pretend that there is a GPU, which trainings find by themselves; once in a process.

    Raises:
        RuntimeError: The installed torch has no such device.
    """
    if not hasattr(backend_registration, SET_UP):
        raise RuntimeError(f'torch {torch.__version__} has no {SET_UP}')
    backend = backend_registration._DummyBackendModule()
    setattr(backend, 'get_amp_supported_dtype', lambda: [torch.bfloat16])  # noqa: B010  (autocast asks for it)
    getattr(backend_registration, SET_UP)(rename=KIND, backend_module=backend)
    device = torch.device(KIND)
    with ExitStack() as stack:
        for target, name, replacement in (
            (supervised_model, 'training_device', lambda _: device),
            # Networks are built and loaded for real: some look at their weights.
            (registry, 'build', _for_real(registry.build, 'archs')),
            (teacher, 'load_weights', _for_real(teacher.load_weights)),
            (teacher, '_digest', lambda _: ''),
            # A constant would keep its value, so that a wait for it were not seen.
            (torch, 'tensor', _tensor),
            (nn.Module, '_apply', _apply),
        ):
            stack.enter_context(patch.object(target, name, replacement))
        # Copies of tensors without content, as of the network that becomes the moving average, belong to the same mode.
        stack.enter_context(patch.object(FakeTensorMode, '__deepcopy__', lambda mode, _: mode, create=True))
        stack.enter_context(FakeTensorMode())
        yield device


def _for_real(function: Callable[..., Any], kind: str | None = None) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        if kind is not None and args[0] != kind:
            return function(*args, **kwargs)
        with _disable_current_modes():
            return function(*args, **kwargs)

    return call


def _tensor(data: Any, *, dtype: torch.dtype | None = None, device: Any = None, **_: Any) -> Tensor:
    with _disable_current_modes():
        real = torch.as_tensor(data, dtype=dtype)
    return torch.empty(real.shape, dtype=real.dtype, device=device)


def _without_content(value: Tensor) -> Tensor:
    return value if isinstance(value, FakeTensor) else torch.empty(value.shape, dtype=value.dtype)


def _apply(module: nn.Module, change: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """What `Module.to` and its like do, for parameters that must be replaced as they have no content to be set."""
    replaced: dict[int, tuple[Tensor, Tensor]] = {}  # a shared one stays shared

    def changed(value: Tensor) -> Tensor:
        if id(value) not in replaced:
            with torch.no_grad():
                new = change(_without_content(value))
            new = nn.Parameter(new, value.requires_grad) if isinstance(value, nn.Parameter) else new
            replaced[id(value)] = value, new
        return replaced[id(value)][1]

    for part in module.modules() if recurse else [module]:
        for kind in ('_parameters', '_buffers'):
            values: dict[str, Any] = getattr(part, kind)
            values.update({key: changed(value) for key, value in values.items() if value is not None})
        for key, value in vars(part).items():  # constants, which `to` leaves where they are
            if type(value) is Tensor:
                vars(part)[key] = _without_content(value)
    return module
