"""Losses, registered in BasicSR's ``LOSS_REGISTRY``."""

from basicsr_clsd.losses.contrastive_feature_loss import ContrastiveFeatureLoss
from basicsr_clsd.losses.contrastive_loss import ContrastiveLoss
from basicsr_clsd.losses.distillation_loss import DistillationLoss, GroundTruthLoss, OutputDistillationLoss, Outputs
from basicsr_clsd.losses.hint_loss import HintLoss
from basicsr_clsd.losses.laplace_loss import LaplaceKLLoss
from basicsr_clsd.losses.ratio_of_features_loss import RatioOfFeaturesLoss
from basicsr_clsd.losses.regressed_feature_loss import RegressedFeatureLoss, SelectiveFeatureLoss
from basicsr_clsd.losses.spatial_affinity_loss import SpatialAffinityLoss
from basicsr_clsd.losses.variational_feature_loss import VariationalFeatureLoss

__all__ = [
    'ContrastiveFeatureLoss',
    'ContrastiveLoss',
    'DistillationLoss',
    'GroundTruthLoss',
    'HintLoss',
    'LaplaceKLLoss',
    'OutputDistillationLoss',
    'Outputs',
    'RatioOfFeaturesLoss',
    'RegressedFeatureLoss',
    'SelectiveFeatureLoss',
    'SpatialAffinityLoss',
    'VariationalFeatureLoss',
]
