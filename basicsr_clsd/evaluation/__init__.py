"""Measuring networks: metrics, tables, pictures."""

from basicsr_clsd.evaluation import metrics as metrics  # registers a metric for `val.metrics`
