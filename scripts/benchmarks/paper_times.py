"""The training times of the paper's Table 6, beside what this machine would need for the same schedule."""

from collections.abc import Callable, Mapping
from typing import Any

ITERATIONS, BATCH = 600_000, 16
REFERENCE = 'CLSD'
# Hours on two Titan RTX; the teacher's are part of what a method with a teacher costs.
HOURS = {'EDSR_L': 20.3, 'FAKD': 40.9, 'LFD': 48.8, 'DS': 25.7, 'CLSD': 30.2}
# Whose training comes before that of a method.
TEACHERS = {
    'FitNet': 'EDSR_L',
    'FAKD': 'EDSR_L',
    'LFD': 'EDSR_L',
    'LSFD': 'EDSR_L',
    'AugKD': 'EDSR_L',
    'FACD': 'EDSR_L',
    'PISR': 'PISR_teacher',
    'PISR_init': 'PISR_teacher',
}


def compare(
    seconds: Mapping[str, float], ratio: Callable[[str, str], float], setting: str, batch: int
) -> list[dict[str, Any]]:
    """Return a row for each method that was measured in a setting.

    Args:
        seconds: Of a step, by method.
        ratio: The measured ratio of two methods' seconds.
        setting: What the rows are of.
        batch: Images of a step; hours are those of the paper's 16, as if images took the same time each.
    """
    rows = []
    for method, step in seconds.items():
        hours = _with_teacher(method, {name: _hours(value, batch) for name, value in seconds.items()})
        paper = _with_teacher(method, HOURS)
        rows.append(
            {
                'method': method,
                'setting': setting,
                'x_reference': ratio(method, REFERENCE) if REFERENCE in seconds else None,
                'x_reference_paper': HOURS[method] / HOURS[REFERENCE] if method in HOURS else None,
                'hours': _hours(step, batch),
                'hours_paper': HOURS.get(method),
                'total_hours': hours,
                'total_hours_paper': paper,
            }
        )
    return rows


def _hours(step: float, batch: int) -> float:
    return step * BATCH / batch * ITERATIONS / 3600


def _with_teacher(method: str, hours: Mapping[str, float]) -> float | None:
    """Hours of a method with those of its teacher; None if one of the two is not known."""
    parts = [hours.get(name) for name in (method, *([TEACHERS[method]] if method in TEACHERS else []))]
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None


def print_table(rows: list[dict[str, Any]], batch: int) -> None:
    """Print the rows as Markdown."""
    print(f'\nAn iteration against {REFERENCE}, and hours for {ITERATIONS:,} iterations of {BATCH} images', end='')
    print(f', reckoned from steps of {batch}:\n' if batch != BATCH else ':\n')
    head = ('method', 'setting', f'x {REFERENCE}', 'paper', 'hours', 'paper', 'with teacher', 'paper')
    print(f'| {" | ".join(head)} |\n| --- | --- |{" ---: |" * (len(head) - 2)}')
    for row in rows:
        cells = [row['method'], row['setting']]
        for key, digits in (('x_reference', 3), ('hours', 1), ('total_hours', 1)):
            cells += ['' if row[name] is None else f'{row[name]:,.{digits}f}' for name in (key, f'{key}_paper')]
        print(f'| {" | ".join(cells)} |')
