"""Network architectures, registered in BasicSR's ``ARCH_REGISTRY``."""

from basicsr_clsd.archs.edsr_heads import EDSRHeads
from basicsr_clsd.archs.heads import NetworkWithHeads, WithHeads
from basicsr_clsd.archs.slices import ChannelSplittingNetwork, student_of

__all__ = ['ChannelSplittingNetwork', 'EDSRHeads', 'NetworkWithHeads', 'WithHeads', 'student_of']
