"""Options: typed sections, loading with inheritance and overrides, checks, and the resolved dump."""

from basicsr_clsd.config.check import check
from basicsr_clsd.config.load import load, write_resolved
from basicsr_clsd.config.schema import Options

__all__ = ['Options', 'check', 'load', 'write_resolved']
