"""Network architectures, registered in BasicSR's ``ARCH_REGISTRY``."""

from basicsr_clsd.archs.edsr_heads_arch import EDSRHeads
from basicsr_clsd.archs.with_heads_arch import WithHeads

__all__ = ['EDSRHeads', 'WithHeads']
