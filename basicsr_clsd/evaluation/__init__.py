"""Measuring networks: metrics, tables, pictures."""

from basicsr_clsd.evaluation import perceptual as perceptual  # registers its metric for `val.metrics`
