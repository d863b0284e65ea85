"""The only file that knows which defects of BasicSR 1.4.2 need a shim."""

import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


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
