"""Tables of a comparison on the console, in Markdown, LaTeX and CSV."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from basicsr_clsd.evaluation.results import BICUBIC, TABLES
from basicsr_clsd.evaluation.tables import NOTHING, Entry, Grid, csv_text
from basicsr_clsd.reporting.model import Cell, Row, Table
from basicsr_clsd.runtime.files import write_text

LATEX = str.maketrans(
    {
        '\\': r'\textbackslash{}',
        '&': r'\&',
        '%': r'\%',
        '$': r'\$',
        '#': r'\#',
        '_': r'\_',
        '{': r'\{',
        '}': r'\}',
        '~': r'\textasciitilde{}',
        '^': r'\textasciicircum{}',
        '±': r'$\pm$',
        '–': '--',
        '−': '$-$',
    }
)


def grids(table: Table) -> list[Grid]:
    """A table as grids: the means, and the differences to the baseline if there is one."""
    made = [_grid(table, table.title, table.rows, _mean, _paper)]
    others = [row for row in table.rows if row.group.label not in (table.baseline, BICUBIC)]
    if any(cell.difference for row in others for cell in row.cells.values()):
        made.append(_grid(table, f'{table.title}, minus {table.baseline}', others, _difference, _paper_difference))
    return made


def _grid(
    table: Table,
    title: str,
    rows: Sequence[Row],
    shown: Callable[[Cell, int], Entry],
    paper: Callable[[Cell], Entry],
) -> Grid:
    head, entries = [title], []
    for name in table.sets:
        head += [name, 'paper'] if table.with_paper else [name]
    for row in rows:
        entries.append([Entry(row.name)])
        for name in table.sets:
            cell = row.cells.get(name)
            entries[-1].append(shown(cell, table.digits) if cell else Entry(NOTHING))
            if table.with_paper:
                entries[-1].append(paper(cell) if cell else Entry(NOTHING))
    return Grid(head, entries)


def _mean(cell: Cell, digits: int) -> Entry:
    if math.isnan(cell.mean):
        return Entry(NOTHING)
    deviation = '' if cell.deviation is None else f' ± {cell.deviation:.{digits}f}'
    return Entry(f'{cell.mean:.{digits}f}{deviation}', cell.rank)


def _paper(cell: Cell) -> Entry:
    return Entry(NOTHING if cell.paper is None else f'{cell.paper:.3f}')


def _difference(cell: Cell, digits: int) -> Entry:
    found = cell.difference
    if found is None:
        return Entry(NOTHING)
    return Entry(f'{found.mean:+.{digits}f} [{found.low:+.{digits}f}, {found.high:+.{digits}f}]'.replace('-', '−'))


def _paper_difference(cell: Cell) -> Entry:
    return Entry(NOTHING if cell.paper_difference is None else f'{cell.paper_difference:+.3f}'.replace('-', '−'))


def print_tables(tables: Sequence[Table], console: Console) -> None:
    """Print all tables, best in bold, second best underlined, with their notes."""
    for table in tables:
        for grid in grids(table):
            grid.print(console)
        console.print(Text('\n'.join(table.notes)))


def markdown(tables: Sequence[Table]) -> str:
    """All tables in Markdown: best bold, second best italic."""
    parts = []
    for table in tables:
        notes = ''.join(f'- {note}\n' for note in ['best **bold**, second best *italic*', *table.notes])
        parts += [f'## {table.title}\n', *(grid.markdown() for grid in grids(table)), notes]
    return '\n'.join(parts)


def latex(tables: Sequence[Table]) -> str:
    """All tables in LaTeX, for the package ``booktabs``: best bold, second best underlined."""
    marks = ('{}', r'\textbf{{{}}}', r'\underline{{{}}}')
    parts = ['% \\usepackage{booktabs}']
    for table in tables:
        notes = _latex('; '.join(table.notes))
        for grid in grids(table):
            lines = [
                r'\begin{table}',
                r'\centering',
                rf'\caption{{{_latex(grid.head[0])}. Best bold, second best underlined. {notes}}}',
                rf'\begin{{tabular}}{{l{"r" * (len(grid.head) - 1)}}}',
                r'\toprule',
                ' & '.join(['', *map(_latex, grid.head[1:])]) + r' \\',
                r'\midrule',
            ]
            for row in grid.rows:
                lines.append(' & '.join(marks[entry.rank].format(_latex(entry.text)) for entry in row) + r' \\')
            parts.append('\n'.join([*lines, r'\bottomrule', r'\end{tabular}', r'\end{table}']))
    return '\n\n'.join(parts) + '\n'


def as_csv(tables: Sequence[Table]) -> str:
    """All numbers with all digits: one line per table, method and set; what there is none of is empty."""
    head = 'table scale metric set method seeds mean deviation rank baseline difference low high images'.split()
    rows = []
    for table in tables:
        for row in table.rows:
            for name, cell in row.cells.items():
                found = cell.difference
                numbers = [found.mean, found.low, found.high, found.images] if found else [None] * 4
                values = [table.title, table.scale, table.metric, name, row.group.label, len(row.group.tested)]
                values += [cell.mean, cell.deviation, cell.rank or None, table.baseline if found else None]
                rows.append([*values, *numbers, cell.paper, cell.paper_difference])
    return csv_text([*head, 'paper', 'paper_difference'], rows)


def write_tables(tables: Sequence[Table], folder: Path) -> None:
    """Write ``comparison.md``, ``.tex`` and ``.csv`` into a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    for suffix, text in (('md', markdown(tables)), ('tex', latex(tables)), ('csv', as_csv(tables))):
        write_text(text, folder / f'{TABLES}.{suffix}')


def _latex(text: str) -> str:
    return text.translate(LATEX)
