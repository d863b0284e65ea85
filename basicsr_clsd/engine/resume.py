"""What may change between a run and its continuation."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from basicsr_clsd.config import Options
from basicsr_clsd.errors import UserError

# Sections and keys that decide which numbers a run computes; all else (paths, logging, workers) may change freely.
GLOBAL_BATCH = 'global batch (datasets.train.batch_size_per_gpu x processes x train.accumulate)'
MATHEMATICS = (
    'model_type',
    'scale',
    'manual_seed',
    'network_g',
    'network_teacher',
    'train',
    'datasets.train',
    GLOBAL_BATCH,
)
FREE = (
    'train.total_iter',
    'train.skip_limit',
    'train.accumulate',
    'datasets.train.name',
    'datasets.train.dataroot_gt',
    'datasets.train.dataroot_lq',
    'datasets.train.lq_cache',
    'datasets.train.io_backend',
    'datasets.train.batch_size_per_gpu',
    'datasets.train.num_worker_per_gpu',
    'datasets.train.cache_images',
    'datasets.train.pin_memory',
    'datasets.train.persistent_workers',
    'datasets.train.prefetch_mode',
    'datasets.train.num_prefetch_queue',
)


def compare(before: Mapping[str, Any], options: Options, world_before: int, world: int) -> list[str]:
    """What has changed in the options of a run; refuses to go on with a change of its mathematics.

    Network, seed, augmentation, losses, optimizer, schedule, precision and the global batch must be what they were:
    their values are part of the state, or would make it another run. ``total_iter`` may grow, data may have moved, and
    a global batch may be split over processes and micro-batches in another way.

    Args:
        before: The options that the state was saved with.
        options: Those of now.
        world_before: Number of processes then.
        world: Number of processes now.

    Returns:
        One text for each key that has changed and may.

    Raises:
        UserError: Names every key that must not have changed, with both values.
    """
    try:
        # Through the schema, so that keys that did not exist then have their defaults.
        earlier = Options.model_validate({key: value for key, value in before.items() if value is not None})
    except ValidationError as error:
        raise UserError('the run to resume was made by another version, with options that no longer exist') from error
    old, new = _flat(earlier.model_dump(mode='json')), _flat(options.model_dump(mode='json'))
    old[GLOBAL_BATCH], new[GLOBAL_BATCH] = _global_batch(earlier, world_before), _global_batch(options, world)
    changed = {
        key: f'{key} was {old.get(key)!r}, is {new.get(key)!r}'
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    }
    forbidden = [text for key, text in changed.items() if _within(key, MATHEMATICS) and not _within(key, FREE)]
    if forbidden:
        raise UserError(f'the run to resume had other options: {"; ".join(forbidden)}; give the new run another name')
    return list(changed.values())


def _global_batch(options: Options, world: int) -> int:
    assert options.train is not None
    return options.datasets['train'].batch_size_per_gpu * world * options.train.accumulate


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
