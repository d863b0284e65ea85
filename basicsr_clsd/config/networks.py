"""The networks that options name, and their scale, which is given once for all of them."""

import inspect
from collections.abc import Iterator
from typing import Any

from basicsr_clsd import registry
from basicsr_clsd.config.components import Component
from basicsr_clsd.config.schema import Options

SCALE_KEYS = ('upscale', 'scale')  # what archs call the factor


def networks_in(options: Options) -> Iterator[tuple[str, Component]]:
    """Every network's section, with its key."""
    yield 'network_g', options.network_g
    if options.network_teacher is not None:
        yield 'network_teacher', options.network_teacher
    contrast = options.train.contrast_opt if options.train is not None else None
    if contrast is not None and contrast.network is not None:
        yield 'train.contrast_opt.network', contrast.network
    for name, network in options.networks.items():
        if network.network_g is not None:
            yield f'networks.{name}.network_g', network.network_g


def sections_within(network: Component) -> Iterator[tuple[str, dict[str, Any]]]:
    """The networks within a network's arguments, as the student of one with heads, by key."""
    for key, value in network.arguments().items():
        if isinstance(value, dict) and isinstance(value.get('type'), str):
            yield key, value


def scale_keys(arch: str) -> list[str]:
    """What an arch calls its factor: its arguments of that meaning; none for an arch that is not known."""
    kind = registry.known('archs').get(arch)
    return [key for key in SCALE_KEYS if kind is not None and key in inspect.signature(kind).parameters]


def fill_in_scale(options: Options) -> None:
    """Give every network that leaves out its factor that of the options."""
    for _, network in networks_in(options):
        _fill_in(network, options.scale)


def _fill_in(network: Component, scale: int) -> None:
    for key in scale_keys(network.type):
        if key not in network:
            setattr(network, key, scale)
    for key, section in sections_within(network):
        within = Component.model_validate(section)
        _fill_in(within, scale)
        setattr(network, key, within.as_dict())
