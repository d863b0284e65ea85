"""Whether this project is right and fast on this machine's GPU: one command, no network, some minutes.

    python scripts/benchmarks/gpu_check.py --json gpu.json
    python scripts/benchmarks/gpu_check.py --quick --parts A B C D

Data are random. Each part runs in a process of its own, for a limited time: what fails in one costs no row of another.
A row has a value and, where there is something to judge, a bar. The exit code is 1 if a row has failed, 0 if not.
`--device cpu` tries the check itself: what only a GPU can show is skipped, networks are tiny.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from gpu_parts.rows import FAILED, MET, SKIPPED, Check, Row
from measuring import cpu_name
from rich.console import Console
from rich.markup import escape
from rich.table import Table

# By letter: what it checks, where it is, and its limit in seconds.
PARTS: dict[str, tuple[str, str, int]] = {
    'A': ('placement', 'placement:rows', 300),
    'B': ('numerics', 'numerics:rows', 300),
    'C': ('resuming', 'resume:rows', 300),
    'D': ('compiling', 'compiling:rows', 600),
    'E': ('speed of a step', 'speed:rows', 600),
    'F': ('loader', 'loop:loader_rows', 300),
    'G': ('inference', 'inference:rows', 300),
    'H': ('validation', 'loop:validation_rows', 300),
    'I': ('several GPUs', 'several:rows', 400),
}
COLOURS = {MET: 'green', FAILED: 'bold red', SKIPPED: 'dim'}


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--parts', nargs='+', choices=PARTS, default=list(PARTS), metavar='PART', help='A to I')
    parser.add_argument('--device', choices=['cpu', 'cuda'], default='cuda', help='default: cuda')
    parser.add_argument('--quick', action='store_true', help='fewer cases and repeats')
    parser.add_argument('--gpus', type=int, help='GPUs to train on in part I; default: those that there are')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write rows and machine to this file')
    parser.add_argument('--into', type=Path, help=argparse.SUPPRESS)  # where a part's process writes its rows
    args = parser.parse_args()
    if args.device == 'cuda' and not torch.cuda.is_available():
        parser.error('torch finds no GPU; --device cpu tries the check itself')
    there = torch.cuda.device_count()
    if args.gpus is None:
        args.gpus = there if args.device == 'cuda' else 0
    if args.gpus < 0 or (args.device == 'cuda' and not 1 <= args.gpus <= there):
        parser.error(f'--gpus {args.gpus}: there are {there}')
    if args.json is not None and not args.json.absolute().parent.is_dir():
        parser.error(f'--json {args.json}: there is no such folder')
    return args


def run_part(part: str, args: argparse.Namespace) -> None:
    """Find the rows of a part, and write each when it is found."""
    module, name = PARTS[part][1].split(':')
    rows: Callable[[Check], Iterator[Row]] = getattr(import_module(f'gpu_parts.{module}'), name)
    with args.into.open('a') as file:
        for row in rows(Check(args.device, args.quick, args.gpus, args.into.parent)):
            file.write(json.dumps(asdict(row)) + '\n')
            file.flush()


def started(part: str, args: argparse.Namespace) -> list[Row]:
    """The rows of a part from a process of its own; one more if it does not end well."""
    title, _, limit = PARTS[part]
    with tempfile.TemporaryDirectory(prefix='gpu_check_') as folder:
        into = Path(folder) / 'rows.jsonl'
        command = [sys.executable, __file__, '--parts', part, '--device', args.device, '--gpus', str(args.gpus)]
        command += ['--into', str(into), *['--quick'] * args.quick]
        # A group of its own, so that what the part has started ends with it.
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        try:
            _, err = process.communicate(timeout=limit)
            last = (err.strip().splitlines() or [''])[-1]
            reason = None if process.returncode == 0 else f'ended with {process.returncode}: {last}'
        except subprocess.TimeoutExpired:
            reason = f'took more than {limit} s'
        finally:
            end_group(process)
        rows = [Row(**json.loads(line)) for line in into.read_text().splitlines()] if into.exists() else []
    if reason is None and not rows:
        reason = 'found nothing'
    return rows + ([Row(title, None, None, FAILED, reason)] if reason else [])


def end_group(process: subprocess.Popen[str]) -> None:
    """End a process and all that it has started."""
    try:
        os.killpg(process.pid, 9)
    except ProcessLookupError:
        pass
    process.wait()


def machine(args: argparse.Namespace) -> dict[str, Any]:
    """What is checked, and how."""
    found: dict[str, Any] = {
        'command': ' '.join(['python', *sys.argv]),
        'torch': torch.__version__,
        'cuda': torch.version.cuda,
        'cudnn': torch.backends.cudnn.version(),
        'cpu': cpu_name(),
        'cores': len(os.sched_getaffinity(0)),
        'commit': first_output(['git', '-C', str(Path(__file__).parent), 'rev-parse', 'HEAD']),
    }
    if args.device == 'cuda':
        query = 'name,driver_version,memory.total,clocks.max.sm,clocks.max.memory,power.limit'
        found['gpu'] = torch.cuda.get_device_name()
        found['nvidia_smi'] = first_output(['nvidia-smi', f'--query-gpu={query}', '--format=csv,noheader'])
    return found


def first_output(command: list[str]) -> str | None:
    """The first line that a program prints; None if it is not there or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return (done.stdout.splitlines() or [None])[0]


def show(rows: dict[str, list[Row]], console: Console) -> None:
    """Print the table."""
    table = Table('part', 'row', 'value', 'bar', 'outcome')
    for part, its in rows.items():
        for number, row in enumerate(its):
            value = '' if row.value is None else f'{row.value:.4g}'
            outcome = f'[{COLOURS[row.outcome]}]{row.outcome if row.bar or row.reason else ""}[/]'
            outcome += f': {escape(row.reason)}' if row.reason else ''
            label = f'{part} {PARTS[part][0]}' if number == 0 else ''
            table.add_row(label, escape(row.name), value, row.bar or '', outcome)
        table.add_section()
    console.print(table)


def main() -> None:
    """Run the parts, print the table, write the JSON."""
    args = parse()
    if args.into is not None:
        run_part(args.parts[0], args)
        return
    console = Console(width=None if sys.stdout.isatty() else 150)  # a file has lines of any length
    where, rows = machine(args), {}
    console.print(', '.join(f'{name} {value}' for name, value in where.items() if value is not None), highlight=False)
    for part in args.parts:
        with console.status(f'{part} {PARTS[part][0]}'):
            rows[part] = started(part, args)
    show(rows, console)
    if args.json is not None:
        listed = [{'part': part, **asdict(row)} for part, its in rows.items() for row in its]
        args.json.write_text(json.dumps({'machine': where, 'rows': listed}, indent=2) + '\n')
    sys.exit(any(row.outcome == FAILED for its in rows.values() for row in its))


if __name__ == '__main__':
    main()
