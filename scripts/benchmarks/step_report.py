"""What timed training steps come to: ratios, bars, and tables as Markdown."""

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from paper_times import compare, print_table
from training_steps import BASICSR, CONVOLUTION, METHODS


@dataclass
class Case:
    """What is timed: a method, BasicSR or the plain convolution, in a setting."""

    method: str
    setting: str
    flops: int
    peak_bytes: int | None = None
    seconds: list[float] = field(default_factory=list)
    baseline: list[float] = field(default_factory=list)  # BasicSR's, in the same repeats

    @property
    def x_basicsr(self) -> list[float]:
        """Its seconds as multiples of BasicSR's, by repeat."""
        return [mine / its for mine, its in zip(self.seconds, self.baseline, strict=True)]

    @property
    def precision(self) -> str:
        """The setting without its switches."""
        return self.setting.split('+')[0]


def ratio(case: Case, other: Case) -> float:
    """Return the ratio of two cases' seconds, each beside BasicSR's of the same repeat: the median over the repeats."""
    # BasicSR itself, which is 1 times BasicSR, may have had more turns.
    return statistics.median(mine / its for mine, its in zip(case.x_basicsr, other.x_basicsr, strict=False))


def describe(case: Case, cases: Sequence[Case]) -> dict[str, Any]:
    """Return a case and what its seconds come to."""
    median = statistics.median(case.seconds)
    plain = [other for other in cases if other.method == CONVOLUTION and other.precision == case.precision]
    fastest = min(plain, key=lambda other: statistics.median(other.seconds), default=None)
    return {
        **asdict(case),
        'median': median,
        'min': min(case.seconds),
        'x_basicsr': statistics.median(case.x_basicsr),
        'flop_per_s': case.flops / median,
        'share': None if fastest is None else case.flops / fastest.flops / ratio(case, fastest),
    }


def find_bars(cases: Sequence[Case], data: dict[str, float] | None) -> list[dict[str, Any]]:
    """Hold the ratios against the bars that the project has set itself, as far as their cases were measured."""
    found = {(case.method, case.setting): case for case in cases}
    edsr, ds, clsd = (found.get((method, 'fp32')) for method in ('EDSR', 'DS', 'CLSD'))
    basicsr, fast = found[BASICSR, 'fp32'], found.get(('EDSR', 'bf16+channels_last'))
    bars = []
    if clsd and ds:
        bars.append(('CLSD / DS', ratio(clsd, ds), 'at most', 1.03))
    if ds and edsr:
        bars.append(('DS / EDSR / ratio of their FLOPs', ratio(ds, edsr) * edsr.flops / ds.flops, 'at most', 1.05))
    if fast:
        bars.append(('BasicSR / EDSR in bf16+channels_last', ratio(basicsr, fast), 'at least', 1.8))
    if edsr:
        bars.append(('EDSR / BasicSR', ratio(edsr, basicsr), 'at most', 1.0))
    if data:
        bars.append(('waiting for data / iteration', data['share_waiting'], 'at most', 0.03))
    return [
        {'bar': name, 'measured': value, 'limit': f'{side} {limit}', 'met': (value <= limit) == (side == 'at most')}
        for name, value, side, limit in bars
    ]


def compare_with_paper(cases: Sequence[Case], args: argparse.Namespace) -> list[dict[str, Any]]:
    """Hold the methods' steps against the paper's training times, in each setting."""
    rows = []
    for setting in args.settings:
        found = {case.method: case for case in cases if case.method in METHODS and case.setting == setting}
        seconds = {method: statistics.median(case.seconds) for method, case in found.items()}
        rows += compare(seconds, lambda one, other, found=found: ratio(found[one], found[other]), setting, args.batch)
    return rows


def print_report(report: dict[str, Any]) -> None:
    """Print the machine, the table and the bars as Markdown."""
    where, data = argparse.Namespace(**report['machine']), report['data']
    print(
        f'torch {where.torch}, {where.device_name}, {where.cores} cores ({where.instructions}, load {where.load:.1f}), '
        f'{where.threads} threads, x{where.scale}, batch {where.batch}, {where.repeats} repeats: `{where.command}`\n'
    )
    print('| method | setting | s/step | min | x BasicSR | peak MiB | GFLOP | GFLOP/s | share |')
    print('| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |')
    for row in report['cases']:
        peak = '' if row['peak_bytes'] is None else f'{row["peak_bytes"] / 2**20:,.0f}'
        share = '' if row['share'] is None else f'{row["share"]:.0%}'
        print(
            f'| {row["method"]} | {row["setting"]} | {row["median"]:.4f} | {row["min"]:.4f} | {row["x_basicsr"]:.3f} '
            f'| {peak} | {row["flops"] / 1e9:,.1f} | {row["flop_per_s"] / 1e9:,.1f} | {share} |'
        )
    if data:
        print(f'\nWith the loader {data["seconds"]:.4f} s an iteration, {data["share_waiting"]:.2%} waiting for data.')
    print_table(report['paper'], where.batch)
    print('\n| bar: steps in fp32 on 2 CPU cores | limit | measured | |\n| --- | ---: | ---: | --- |')
    for bar in report['bars']:
        print(f'| {bar["bar"]} | {bar["limit"]} | {bar["measured"]:.3f} | {"met" if bar["met"] else "not met"} |')
