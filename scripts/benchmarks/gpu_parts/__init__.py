"""The parts of `gpu_check.py`; each has a function `rows`."""
