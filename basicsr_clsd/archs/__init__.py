"""Network architectures, registered in BasicSR's ``ARCH_REGISTRY``."""

from basicsr_clsd.archs.edsr_heads import EDSRHeads
from basicsr_clsd.archs.heads import NetworkWithHeads, WithHeads, student_of

__all__ = ['EDSRHeads', 'NetworkWithHeads', 'WithHeads', 'student_of']
