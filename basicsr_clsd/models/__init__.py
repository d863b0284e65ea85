"""Models: a network, its losses and its optimizer, registered in BasicSR's ``MODEL_REGISTRY``."""

from basicsr_clsd import archs as archs  # registers them for `network_g`
from basicsr_clsd.models.clsd_model import CLSDModel
from basicsr_clsd.models.csd_model import CSDModel
from basicsr_clsd.models.kd_model import KDModel
from basicsr_clsd.models.privileged_model import PrivilegedModel
from basicsr_clsd.models.supervised_model import SupervisedModel

__all__ = ['CLSDModel', 'CSDModel', 'KDModel', 'PrivilegedModel', 'SupervisedModel']
