"""Network architectures, registered in BasicSR's ``ARCH_REGISTRY``."""

from basicsr_clsd.archs.edsr_heads import EDSRHeads
from basicsr_clsd.archs.heads import NetworkWithHeads, WithHeads
from basicsr_clsd.archs.privileged_teacher import GT, LQ, PrivilegedTeacher, taken_by
from basicsr_clsd.archs.slices import ChannelSplittingNetwork, student_of

__all__ = [
    'GT',
    'LQ',
    'ChannelSplittingNetwork',
    'EDSRHeads',
    'NetworkWithHeads',
    'PrivilegedTeacher',
    'WithHeads',
    'student_of',
    'taken_by',
]
