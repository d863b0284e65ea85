"""Options of BasicSR, and of projects built on it, that ask for what this project does not do."""

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Fault = tuple[tuple[str, ...], str]  # the keys that ask for it, and what to say

GAN = (
    'GAN training is not supported; use BasicSR for it, or model_type: SRModel, without network_d and its options, to '
    'test the generator or to train it by pixel_opt'
)
VIDEO = 'networks and data sets of video are not supported; use BasicSR for them'
DEGRADATIONS = (
    'images degraded during training (Real-ESRGAN) are not supported; use BasicSR for them, or make pairs of images '
    'beforehand and use model_type: SRModel with type: PairedImageDataset'
)
HAT = 'HAT is not supported; use its own project for it, or network_g of type: SwinIR with model_type: SwinIRModel'
TEACHER = (
    "a teacher under DUKD's keys is not supported; use model_type: KDModel, network_teacher for network_t, "
    'path.pretrain_network_teacher for pretrain_network_t and train.distill_opt for the losses'
)
OTHER = 'is not supported; use BasicSR for it'
# The first that fits an option's value is told, so the kinds that others are parts of come first.
MODELS = {
    r'(EDVR|Video).*': VIDEO,
    r'Real(ESRNet|ESRGAN|HATMSE|HATGAN)Model|LDL.*': DEGRADATIONS,
    r'HATModel': HAT,
    r'.*GAN\w*Model': GAN,
    r'DUKD|BaseKD|FAKD': TEACHER,
}
NETWORKS = {r'HAT': HAT}
SETS = {
    r'(REDS|Video|Vimeo).*': VIDEO,
    r'RealESRGAN.*': DEGRADATIONS,
    r'(FFHQ|ImageNetPaired)Dataset': OTHER,
    r'SingleImageDataset': 'images without HR cannot be measured; infer.py upscales them',
}
KEYS = {
    ('network_t',): TEACHER,
    ('path', 'pretrain_network_t'): TEACHER,
    ('network_d',): GAN,
    ('path', 'pretrain_network_d'): GAN,
    ('train', 'optim_d'): GAN,
    ('train', 'gan_opt'): GAN,
}
# Keys that stand at the top level of files of theirs, where BasicSR reads none of them.
IGNORED = {'save_img': 'val.save_img', 'suffix': 'val.suffix', 'crop_border': 'crop_border of a metric'}
# Keys of BasicSR that are accepted, and why nothing reads them. A section written as * may have any name.
UNUSED = {
    'datasets.*.use_shuffle': 'training always shuffles',
    'datasets.*.persistent_workers': 'workers live as long as the run',
    'datasets.*.prefetch_mode': 'the loader prefetches by itself',
    'datasets.*.num_prefetch_queue': 'the loader prefetches by itself',
    'path.ignore_resume_networks': 'a training state holds everything',
    'val.pbar': 'bars appear on a terminal only',
    'val.grids': 'not used for images',
    'dist_params.backend': 'nccl with GPUs, else gloo',
    'dist_params.port': '`MASTER_PORT` decides',
}


def unsupported(values: Mapping[str, Any]) -> Fault | None:
    """What options that are not checked yet ask for in vain; None if nothing is known.

    Told before any key is: the nearest known key would be bad advice where the whole file is for another program.
    """
    return next(_faults(values), None)


def _faults(values: Mapping[str, Any]) -> Iterator[Fault]:
    yield from _matching(values, ('model_type',), MODELS)
    datasets = values.get('datasets')
    for name in datasets if isinstance(datasets, Mapping) else ():
        yield from _matching(values, ('datasets', str(name), 'type'), SETS)
    yield from _matching(values, ('network_g', 'type'), NETWORKS)
    for keys, text in KEYS.items():
        if _value(values, keys) is not None:
            yield keys, text


def _matching(values: Mapping[str, Any], keys: tuple[str, ...], kinds: Mapping[str, str]) -> Iterator[Fault]:
    value = _value(values, keys)
    for pattern, text in kinds.items():
        if isinstance(value, str) and re.fullmatch(pattern, value):
            yield keys, f'{value}: {text}'


def _value(values: Any, keys: tuple[str, ...]) -> Any:
    for key in keys:
        values = values.get(key) if isinstance(values, Mapping) else None
    return values


def without_ignored(values: Mapping[str, Any], origin: Callable[[tuple[str, ...]], str]) -> dict[str, Any]:
    """The options without the keys that BasicSR ignores; each of them is named in a warning."""
    for key in IGNORED.keys() & values.keys():
        logging.getLogger('basicsr').warning(
            f'{origin((key,))}: {key}: ignored, as BasicSR reads no such key here; {IGNORED[key]} is read'
        )
    return {key: value for key, value in values.items() if key not in IGNORED}


def without_unused(values: Any) -> Any:
    """The options without the keys of :data:`UNUSED`; what is no section is returned as it is."""
    for key in UNUSED:
        values = _without(values, key.split('.'))
    return values


def _without(values: Any, keys: list[str]) -> Any:
    if not isinstance(values, Mapping):
        return values
    first, *rest = keys
    if not rest:
        return {key: value for key, value in values.items() if key != first}
    return {key: _without(value, rest) if first in ('*', key) else value for key, value in values.items()}
