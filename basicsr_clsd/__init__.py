"""CLSD: contrastive self-distillation for lightweight super-resolution, on BasicSR.

Importing the package makes BasicSR importable on today's torchvision. Importing ``basicsr_clsd.archs``, ``.losses``,
``.data`` or ``.models`` (which brings the first two) registers what they hold in BasicSR's registries, so that
``build_network({'type': 'EDSRHeads', ...})`` and the like work.
"""

from basicsr_clsd import compat

__version__ = '0.1.0'

compat.install()
