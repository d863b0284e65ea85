"""Losses, registered in BasicSR's ``LOSS_REGISTRY``."""

from basicsr_clsd.losses.contrastive_loss import ContrastiveLoss

__all__ = ['ContrastiveLoss']
