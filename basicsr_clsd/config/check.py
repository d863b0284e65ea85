"""What a schema cannot see: names in registries, arguments of constructors, and keys that must fit each other."""

import importlib.util
import logging
import operator
from collections.abc import Callable
from typing import Any

import torch

from basicsr_clsd import registry
from basicsr_clsd.config.components import Component
from basicsr_clsd.config.networks import networks_in, scale_keys, sections_within
from basicsr_clsd.config.protocols import PROTOCOLS
from basicsr_clsd.config.schedule import check_schedules
from basicsr_clsd.config.schema import Dataset, Options
from basicsr_clsd.config.training import Train
from basicsr_clsd.errors import UserError

GATED = ('train.contrastive_opt', 'train.self_distill_opt')


def check(options: Options, testing: bool = False) -> None:
    """Check everything that can be checked without touching data or building a network.

    Args:
        options: Loaded options.
        testing: They are to test a network, not to train one.

    Raises:
        UserError: One line with the first fault, its key, and what exists instead.
    """
    registry.find('models', options.model_type, 'model_type')
    for key, network in networks_in(options):
        _check_network(network, options.scale, key)
    for key, dataset in options.datasets.items():
        if key.split('_')[0] not in ('train', 'val', 'test'):
            raise UserError(f"datasets.{key}: a set's section is named train, val... or test_...")
        registry.find('data', dataset.type, f'datasets.{key}.type')
        _check_normalisation(dataset, f'datasets.{key}')
    names = [dataset.name for _, dataset in options.sets('val', *(['test'] if testing else []))]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"datasets: two sets have the name '{name}'; their results would be mixed up")
    _check_metrics(options)
    if isinstance(options.num_gpu, int):
        if options.num_gpu > torch.cuda.device_count():
            raise UserError(f'num_gpu: {options.num_gpu} asked for, {torch.cuda.device_count()} there; use auto or 0')
        if options.num_gpu > 1:
            raise UserError('num_gpu: one process drives one GPU; use num_gpu: auto')
    if testing:
        if not any(options.sets('test', 'val')):
            raise UserError('datasets: no set to test on; add a section test_1')
    else:
        _check_training(options)


def _check_metrics(options: Options) -> None:
    for key, metric in options.val.metrics.items():
        # Metrics are called with the two images before these arguments.
        registry.check('metrics', metric, f'val.metrics.{key}', given=('img', 'img2'))
        border = metric.arguments().get('crop_border', 0)
        if isinstance(border, bool) or not isinstance(border, int) or border < 0:
            raise UserError(f'val.metrics.{key}.crop_border: must be a number of pixels, not {border!r}')
        if metric.type == 'calculate_pyiqa' and importlib.util.find_spec('pyiqa') is None:
            raise UserError(
                f"val.metrics.{key}: pyiqa is not installed; pip install 'basicsr-clsd[perceptual]', or leave it out"
            )
    protocol = options.val.protocol
    for key, section in (PROTOCOLS[protocol].metrics(options.scale) if protocol else {}).items():
        metric = options.val.metrics[key]
        if {'type': metric.type, **metric.arguments()} != section:
            raise UserError(f'val.metrics.{key}: is not that of val.protocol: {protocol}; leave one of the two out')


def _check_training(options: Options) -> None:
    train = options.train
    if train is None:
        raise UserError('train: missing; training needs this section')
    if 'train' not in options.datasets:
        raise UserError('datasets.train: missing; training needs this section')
    dataset = options.datasets['train']
    if dataset.gt_size is None:
        raise UserError('datasets.train.gt_size: missing; give the side of the HR training patch in pixels')
    if dataset.gt_size % options.scale:
        raise UserError(f'datasets.train.gt_size: {dataset.gt_size} is not a multiple of scale {options.scale}')
    registry.check('optimizers', train.optim_g, 'train.optim_g', given=('params',))
    registry.check('schedulers', train.scheduler, 'train.scheduler', given=('optimizer',))
    _check_schedule(train)
    kind = registry.find('models', options.model_type, 'model_type')
    _check_needs(options, kind)
    _check_losses(options, train, kind)
    check_schedules({key: loss.schedule for key, loss in train.losses().items()}, GATED, train.total_iter)
    kinds = [registry.find('losses', term.type, '') for term in train.distill_opt or []]
    compares = train.contrastive_opt is not None or any(getattr(kind, 'compares_images', False) for kind in kinds)
    if compares and dataset.batch_size_per_gpu == 1:
        raise UserError('datasets.train.batch_size_per_gpu: 1 is too few: a contrastive term compares images')
    if train.precision == 'fp16' and not hasattr(torch.amp, 'GradScaler'):
        raise UserError('train.precision: fp16 needs torch 2.3 or newer; bf16 does not')
    _check_wandb(options)
    _check_best(options)
    _warn_of_collapse(train)


def _check_needs(options: Options, kind: Any) -> None:
    """Check that there is what a class of models must have, and no teacher for one that has none."""
    if options.network_teacher is not None and 'network_teacher' not in kind.needs:
        raise UserError(
            f'network_teacher: {options.model_type} has no teacher; leave it out, or use model_type: '
            f'{_models(lambda other: "network_teacher" in other.needs)}'
        )
    for key in kind.needs:
        if not operator.attrgetter(key)(options):
            raise UserError(f'{key}: missing; {options.model_type} needs it')
    arch = options.network_g.type
    takes = getattr(registry.find('archs', arch, 'network_g.type'), 'takes', 'lq')
    if takes != kind.takes:
        raise UserError(
            f'network_g.type: {arch} is given {takes} images, {options.model_type} gives {kind.takes}; use model_type: '
            f'{_models(lambda other: other.takes == takes)}'
        )


def _check_losses(options: Options, train: Train, kind: Any) -> None:
    for key in Train.model_fields:
        loss = getattr(train, key)
        if not key.endswith('_opt') or not loss:
            continue
        if key not in kind.sections:
            raise UserError(
                f'train.{key}: {options.model_type} has no such loss; leave it out, or use model_type: '
                f'{_models(lambda other, key=key: key in other.sections)}'
            )
        if isinstance(loss, Component):
            registry.check('losses', loss, f'train.{key}', loss.given)
    for number, term in enumerate(train.distill_opt or []):
        registry.check('losses', term, f'train.distill_opt.{number}', term.given)


def _models(wanted: Callable[[Any], bool]) -> str:
    """The names of the classes of models that are wanted."""
    return ' or '.join(sorted({kind.__name__ for kind in registry.known('models').values() if wanted(kind)}))


def _check_wandb(options: Options) -> None:
    if options.logger.wandb.project is None:
        return
    if not options.logger.use_tb_logger:
        raise UserError('logger.wandb: gets what TensorBoard gets; set logger.use_tb_logger: true')
    if importlib.util.find_spec('wandb') is None:
        raise UserError('logger.wandb: Weights & Biases is not installed; pip install wandb, or leave project out')


def _check_best(options: Options) -> None:
    best = options.val.best
    sets = [dataset.name for _, dataset in options.sets('val')]
    if best.dataset is not None and best.dataset not in sets:
        raise UserError(f'val.best.dataset: no validation set {best.dataset!r}; there are {", ".join(map(str, sets))}')
    if best.metric is not None and best.metric not in options.val.metrics:
        raise UserError(f'val.best.metric: no metric {best.metric!r}; there are {", ".join(options.val.metrics)}')


def _warn_of_collapse(train: Train) -> None:
    contrastive = train.contrastive_opt
    if contrastive is not None and train.pixel_range == 1 and not contrastive.arguments().get('detach_teacher', True):
        logging.getLogger('basicsr').warning(
            'train.pixel_range: 1 with contrastive_opt.detach_teacher: false is known to collapse '
            '(the trunk follows the heads instead of HR); pixel_range: 255 or detach_teacher: true does not'
        )


def _check_schedule(train: Train) -> None:
    """What BasicSR's schedulers would stumble over only when it is its turn, hours into a run."""
    arguments = train.scheduler.arguments()
    for key in ('milestones', 'periods', 'restarts'):
        values = arguments.get(key, [])
        if not isinstance(values, list) or not all(type(value) is int for value in values):
            raise UserError(f'train.scheduler.{key}: must be a list of iterations, not {values!r}')
    for key in ('gamma', 'eta_min'):
        if not isinstance(arguments.get(key, 0), int | float):
            raise UserError(f'train.scheduler.{key}: must be a number, not {arguments[key]!r}')
    covered = sum(arguments.get('periods', []))
    if 'periods' in arguments and covered < train.total_iter:
        raise UserError(
            f'train.scheduler.periods: their sum, {covered}, is less than train.total_iter, {train.total_iter}'
        )


def _check_normalisation(dataset: Dataset, where: str) -> None:
    channels = 1 if dataset.color == 'y' else 3
    for key in ('mean', 'std'):
        values = getattr(dataset, key)
        if values is not None and len(values) not in (1, channels):
            raise UserError(f'{where}.{key}: {len(values)} values for {channels} channel{"s" * (channels > 1)}')
    if dataset.std and not all(dataset.std):
        raise UserError(f'{where}.std: images cannot be divided by 0')


def _check_network(network: Component, scale: int, where: str) -> None:
    registry.check('archs', network, where)
    for key in scale_keys(network.type):
        value = network.get(key, scale)
        if value != scale:
            raise UserError(f'{where}.{key}: {value} does not match scale: {scale}; leave it out')
    for key, section in sections_within(network):
        _check_network(Component.model_validate(section), scale, f'{where}.{key}')
