"""What may change between a run and its continuation."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from basicsr_clsd.config import Options
from basicsr_clsd.errors import UserError

# Sections and keys that decide which numbers a run computes; all else (paths, logging, workers) may change freely.
MATHEMATICS = ('model_type', 'scale', 'manual_seed', 'network_g', 'train', 'datasets.train')
FREE = (
    'train.total_iter',
    'train.log_grad_norms',
    'datasets.train.name',
    'datasets.train.dataroot_gt',
    'datasets.train.dataroot_lq',
    'datasets.train.lq_cache',
    'datasets.train.io_backend',
    'datasets.train.num_worker_per_gpu',
    'datasets.train.cache_images',
    'datasets.train.pin_memory',
    'datasets.train.persistent_workers',
    'datasets.train.prefetch_mode',
    'datasets.train.num_prefetch_queue',
)


def refuse_changes(before: Mapping[str, Any], options: Options) -> None:
    """Refuse to go on with options that change the mathematics of the run.

    Network, seed, data augmentation, batch, losses, optimizer and schedule must be what they were; ``total_iter`` may
    grow, and data may have moved.

    Raises:
        UserError: Names every such key with both values.
    """
    try:
        # Through the schema, so that keys that did not exist then have their defaults.
        earlier = Options.model_validate({key: value for key, value in before.items() if value is not None})
    except ValidationError as error:
        raise UserError('the run to resume was made by another version, with options that no longer exist') from error
    old, new = _flat(earlier.model_dump(mode='json')), _flat(options.model_dump(mode='json'))
    changed = [
        f'{key} was {old.get(key)!r}, is {new.get(key)!r}'
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and _within(key, MATHEMATICS) and not _within(key, FREE)
    ]
    if changed:
        raise UserError(f'the run to resume had other options: {"; ".join(changed)}; give the new run another name')


def _within(key: str, sections: tuple[str, ...]) -> bool:
    return any(key == section or key.startswith(f'{section}.') for section in sections)


def _flat(values: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
    flat = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f'{prefix}{key}.')
        elif value is not None:
            flat[f'{prefix}{key}'] = value
    return flat
