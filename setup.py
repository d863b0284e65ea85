"""Packaging of basicsr-clsd; `scripts/setup.sh` installs it together with the build order BasicSR needs."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent


def read_version() -> str:
    """Return `__version__` from the package's text, since importing it needs torch and BasicSR."""
    text = (ROOT / 'basicsr_clsd' / '__init__.py').read_text(encoding='utf-8')
    match = re.search(r"^__version__ = '([^']+)'", text, re.MULTILINE)
    if match is None:
        raise RuntimeError("basicsr_clsd/__init__.py has no line __version__ = '...'")
    return match.group(1)


setup(
    name='basicsr-clsd',
    version=read_version(),
    description='Contrastive learning self-distillation (CLSD) for super-resolution, on BasicSR',
    packages=find_packages(include=['basicsr_clsd', 'basicsr_clsd.*']),
    package_data={
        'basicsr_clsd.prepare': ['catalogues/*.yml'],
        'basicsr_clsd.reporting': ['paper.yml', 'page/*'],
        'basicsr_clsd.model_zoo': ['*'],
    },
    python_requires='>=3.10',
    install_requires=[
        'basicsr>=1.4.2,<1.5',
        'torch>=2.2',
        'torchvision',
        'opencv-python',
        'lmdb',
        'pyyaml',
        'scikit-image',
        'scipy<2',  # SciPy 2 drops scipy.ndimage.filters, which BasicSR imports
        'numpy',
        'tb-nightly',
        'pydantic>=2',  # typed options: unknown keys and wrong types are told by name
        'rich',  # progress bars and tables in the terminal
        'matplotlib',  # figures
        'jinja2',  # the HTML report
        'pooch',  # downloads of data sets, with checksums
        'requests',  # the downloads that pooch itself does not resume
    ],
    extras_require={
        'wandb': ['wandb'],  # BasicSR's logger.wandb
        'deploy': ['onnx', 'onnxruntime', 'safetensors'],  # exporting, running and testing files of these formats
        'perceptual': ['pyiqa'],  # LPIPS, DISTS and other metrics
        'dev': [
            'pytest',  # runs the tests
            'pytest-xdist',  # on several cores
            'wandb',  # its test runs offline
            'onnx',  # what the tests export and run
            'onnxruntime',
            'safetensors',
            'playwright',  # drives the browser that tests the report, where there is one
            'hypothesis',  # generates the inputs of property tests
            'ruff',  # lints
            'pyright[nodejs]',  # checks types; brings the Node.js it runs on
        ],
    },
)
