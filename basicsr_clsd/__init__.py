"""CLSD: contrastive self-distillation for lightweight super-resolution, on BasicSR.

Importing the package makes BasicSR importable on today's torchvision. Importing ``basicsr_clsd.archs``, ``.losses``,
``.data`` or ``.models`` (which brings the first two) registers what they hold in BasicSR's registries, so that
``build_network({'type': 'EDSRHeads', ...})`` and the like work. ``basicsr_clsd.Upscaler`` is imported when it is used.
"""

from typing import TYPE_CHECKING, Any

from basicsr_clsd import compat

if TYPE_CHECKING:
    from basicsr_clsd.inference.upscaler import Upscaler

__all__ = ['Upscaler']
__version__ = '0.2.0'

compat.install()


def __getattr__(name: str) -> Any:
    if name != 'Upscaler':
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    # Not at once, as it takes seconds to import torch; and of BasicSR no more than an EDSR needs.
    with compat.deferring():
        from basicsr_clsd.inference.upscaler import Upscaler  # noqa: PLC0415

    return Upscaler
