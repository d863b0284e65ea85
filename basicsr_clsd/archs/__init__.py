"""Network architectures, registered in BasicSR's ``ARCH_REGISTRY``."""

from basicsr_clsd.archs.edsr_heads import EDSRHeads
from basicsr_clsd.archs.heads import WithHeads

__all__ = ['EDSRHeads', 'WithHeads']
