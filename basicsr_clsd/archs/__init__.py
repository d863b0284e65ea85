"""Network architectures, registered in BasicSR's ``ARCH_REGISTRY``."""

from basicsr_clsd.archs.edsr_heads_arch import EDSRHeads

__all__ = ['EDSRHeads']
