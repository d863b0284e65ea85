"""What is to be known of a table's numbers, in words under it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import ValidationError

from basicsr_clsd.config.schema import Options
from basicsr_clsd.evaluation.results import BICUBIC, protocol_text
from basicsr_clsd.reporting.groups import Group
from basicsr_clsd.reporting.model import Table
from basicsr_clsd.reporting.paper import load_paper

# What may differ between the seeds of one method without making it another one.
OF_NO_MATTER = ('name', 'manual_seed', 'num_gpu', 'path', 'logger', 'val', 'dist_params')

UNKNOWN = 'unknown'


def flat(values: Mapping[str, Any], above: str = '') -> dict[str, Any]:
    """Nested values by dotted keys."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f'{above}{key}.') if isinstance(value, Mapping) else {f'{above}{key}': value}
    return found


def notes_of(table: Table, level: float) -> list[str]:
    """The notes of a table that has its cells: protocol, seeds, intervals, and what is not like the paper's."""
    groups = [row.group for row in table.rows]
    networks = [each for each in groups if each.label != BICUBIC]
    first = groups[0].tested[0]
    notes = [protocol_text({table.metric: first.metrics[table.metric]}, first.file.protocol_name)]
    notes += _conditions(networks) + _left_out(table) + _seeds(networks)
    if table.baseline and len(networks) > 1:
        single = any(len(each.tested) == 1 for each in networks)
        of = 'images; one seed says nothing of others' if single else 'images and seeds'
        notes.append(
            f'differences to {table.baseline}, image by image, with a {level:.0%} bootstrap interval over {of}'
        )
        notes += _fewer_seeds(networks, table.baseline)
    elif len(networks) > 1:
        notes.append('no differences: none of the methods was chosen as the baseline')
    left_out = {
        name: cell.difference.left_out
        for row in table.rows
        for name, cell in row.cells.items()
        if cell.difference and cell.difference.left_out
    }
    notes += [
        f'{count} image(s) of {name} with values that are not finite are in no difference'
        for name, count in left_out.items()
    ]
    notes += [note for each in networks for note in _unequal(each)]
    if table.with_paper:
        notes += _other_settings(networks)
    return notes


def _conditions(groups: list[Group]) -> list[str]:
    """Self-ensemble, tiles, and what else tests say of a network."""
    said: dict[str, list[str]] = {}
    for group in groups:
        for condition in dict.fromkeys(condition for tested in group.tested for condition in tested.conditions):
            said.setdefault(condition, []).append(group.label)
    return [f'{", ".join(labels)}: {condition}' for condition, labels in said.items()]


def _left_out(table: Table) -> list[str]:
    """Images that are not in a mean, since their values are not finite."""
    said: dict[str, list[str]] = {}
    for name in table.sets:
        for row in table.rows:
            if name in row.cells:
                values = row.group.values(name, table.metric)
                count = int((~np.isfinite(values)).any(0).sum())
                if 0 < count < values.shape[1]:
                    said.setdefault(f'{count} of {values.shape[1]} images of {name}', []).append(row.group.label)
    return [f'{what} are not in the mean of {", ".join(labels)}: not finite' for what, labels in said.items()]


def _seeds(groups: list[Group]) -> list[str]:
    if all(len(each.tested) == 1 for each in groups):
        return ['one training of each method'] if groups else []
    counts = sorted({len(each.tested) for each in groups})
    shown = ' to '.join(map(str, dict.fromkeys([counts[0], counts[-1]])))
    return [f'mean ± standard deviation over {shown} seeds']


def _fewer_seeds(groups: list[Group], label: str) -> list[str]:
    """Differences that are over some seeds alone, those that both methods have."""
    said: dict[str, list[str]] = {}
    baseline = next(each for each in groups if each.label == label)
    for each in groups:
        shared = each.shared_seeds(baseline)
        if 0 < len(shared) < max(len(each.tested), len(baseline.tested)):
            said.setdefault(', '.join(map(str, shared)), []).append(each.label)
    return [f'differences of {", ".join(labels)} are of seed {seeds} alone' for seeds, labels in said.items()]


def _unequal(group: Group) -> list[str]:
    """Trainings that are called one method and are not."""
    runs = [tested.network.run for tested in group.tested if tested.network.run and tested.options]
    read = _read_by_this_version([run.options or {} for run in runs])
    options = [flat({**each, 'iteration': run.iteration}) for each, run in zip(read, runs, strict=True)]
    keys = sorted({key for one in options for key in one if key.split('.')[0] not in OF_NO_MATTER})
    differing = [key for key in keys if any(one.get(key) != options[0].get(key) for one in options)]
    return [f'the trainings of {group.label} differ in {", ".join(differing)}, too'] if differing else []


def _read_by_this_version(recorded: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Options with today's names and with the defaults of keys that are newer, where all can be read so."""
    try:
        return [Options.recorded(each).as_dict() for each in recorded]
    except ValidationError:  # not of this project, or too old
        return recorded


def _other_settings(groups: list[Group]) -> list[str]:
    """Where the trainings are not the paper's."""
    by_difference: dict[str, list[str]] = {}
    for group in groups:
        options = group.tested[0].options
        values = flat(options or {})
        differing = [
            f'{key.split(".")[-1]} {values.get(key)} instead of {value}'
            for key, value in load_paper().settings.items()
            if values.get(key) != value
        ]
        text = UNKNOWN if options is None else ', '.join(differing)
        if text:
            by_difference.setdefault(text, []).append(group.label)
    return [
        f"how {', '.join(labels)} came about is not known, nor whether by the paper's settings"
        if text == UNKNOWN
        else f"{', '.join(labels)}: not the paper's settings: {text}"
        for text, labels in by_difference.items()
    ]
