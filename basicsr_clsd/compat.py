"""The only file that knows which defects of BasicSR 1.4.2 need a shim."""

import importlib
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from threading import RLock
from types import ModuleType
from typing import Any


class _GrayscaleShim(MetaPathFinder, Loader):
    """Provides the module that ``basicsr/data/degradations.py`` imports and torchvision removed in 0.17.

    It stands at the end of the import system's finders, so that a torchvision which has the module is left alone, and
    costs nothing until BasicSR is imported.
    """

    module = 'torchvision.transforms.functional_tensor'

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Take charge of that one module."""
        return ModuleSpec(fullname, self) if fullname == self.module else None

    def exec_module(self, module: ModuleType) -> None:
        """Fill it with the public function of the same meaning."""
        from torchvision.transforms.functional import rgb_to_grayscale  # noqa: PLC0415  (only when it is needed)

        module.__dict__['rgb_to_grayscale'] = rgb_to_grayscale


def install() -> None:
    """Make ``import basicsr`` work on torchvision 0.17 and newer; calling it again changes nothing."""
    # SwinIR calls it without the argument that torch asks for; nobody who runs a command could do anything about it.
    warnings.filterwarnings('ignore', 'torch.meshgrid: in an upcoming release', UserWarning)
    if not any(isinstance(finder, _GrayscaleShim) for finder in sys.meta_path):
        sys.meta_path.append(_GrayscaleShim())


# Packages that import all of BasicSR, torchvision and much of SciPy, whichever module of theirs is imported; and the
# names that BasicSR's archs import from them, with the module that each is in.
DEFERRED: Mapping[str, Mapping[str, str]] = {
    'basicsr': {},
    'basicsr.archs': {},
    'basicsr.utils': {'get_root_logger': 'basicsr.utils.logger'},
}
LAZY = ('torchvision',)  # BasicSR's archs import it whole, for one layer that few have


@contextmanager
def deferring() -> Iterator[None]:
    """Import single modules of BasicSR within the context, in half the time: its packages' ``__init__`` waits.

    It runs when something is asked of a package itself, as by ``from basicsr.archs import build_network``; so the
    context changes when BasicSR registers its classes, and nothing else. What is imported already stays as it is.
    """
    finder = _Deferring()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


def finish_deferred() -> None:
    """Import what still waits: torch's tracers look into all modules, in the middle of imports of their own."""
    for name in LAZY:
        if name in sys.modules:
            getattr(sys.modules[name], '__version__', None)


class _Deferring(MetaPathFinder):
    """Finds what is in ``DEFERRED`` and ``LAZY``."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a package as Python does, with a loader that waits; None: for all others."""
        if fullname not in (*DEFERRED, *LAZY):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader) if fullname in LAZY else _PackageLoader(spec.loader)
        return spec


class _PackageLoader(Loader):
    """Makes a package whose ``__init__`` runs when an attribute is missing, not when a module in it is imported."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def exec_module(self, module: ModuleType) -> None:
        """Leave the package empty but for what fills it."""
        elsewhere, lock, started = DEFERRED[module.__name__], RLock(), False

        def fill(name: str) -> Any:
            nonlocal started
            if name in elsewhere:
                return getattr(importlib.import_module(elsewhere[name]), name)
            with lock:
                if not started:
                    started = True
                    self.loader.exec_module(module)
                if name in vars(module):
                    return vars(module)[name]
            raise AttributeError(f'module {module.__name__!r} has no attribute {name!r}')

        vars(module)['__getattr__'] = fill
