"""What an exported file says of itself: its name, and the texts of its header."""

import hashlib
import json
from pathlib import Path

import basicsr_clsd
from basicsr_clsd.inference.checkpoint_origin import experiment_of, training_of
from basicsr_clsd.inference.deployed_network import DeployedNetwork
from basicsr_clsd.inference.loader import NETWORK
from basicsr_clsd.inference.onnx_network import REACH

THOUSAND = 1000


def describe(network: DeployedNetwork, source: Path) -> dict[str, str]:
    """The header of an exported file.

    Args:
        network: What is exported.
        source: The file that it was opened from.

    Returns:
        ``scale``, ``parameters``, ``network_g`` (arch and arguments, JSON), ``source`` and its SHA-256; ``run`` where
        it is known: name, seed and iteration of the training, JSON; and how far the network sees, if that is known.
    """
    run = training_of(source)
    facts = {
        'made_by': f'basicsr-clsd {basicsr_clsd.__version__}',
        'scale': str(network.scale),
        'parameters': str(network.parameters),
        NETWORK: json.dumps(dict(network.arguments)),
        'source': source.name,
        'source_sha256': hashlib.sha256(source.read_bytes()).hexdigest(),
    }
    if run is not None:
        facts['run'] = json.dumps({key: run[key] for key in ('name', 'manual_seed', 'iteration')})
    if network.reach is not None:
        facts[REACH] = str(network.reach)
    return facts


def default_name(network: DeployedNetwork, source: Path) -> str:
    """The name of an exported file, without extension: run or file, scale and parameters, as ``CLSD_x2_1370K``."""
    experiment = experiment_of(source)
    name = source.stem if experiment is None else experiment.name
    scale = f'x{network.scale}'
    if scale not in name.split('_'):
        name = f'{name}_{scale}'
    return f'{name}_{round(network.parameters / THOUSAND)}K'
